# Lines of a file as C string literals.
s/[\\"]/\\&/g
s/.*/"&\\n"/
