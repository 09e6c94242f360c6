#!/bin/sh
# Each header compiles alone: the public ones as strict C17 and C++11, the rooms' own as C17.
# usage: headers.sh SOURCE-ROOT
set -eu
cd "$1"
cc=${CC:-cc} cxx=${CXX:-c++}
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
command -v "$cxx" >/dev/null || { echo "skipped: there is no C++ compiler" && exit 77; }
status=0 count=0

try() {
    count=$((count + 1))
    "$@" -fsyntax-only -Iinclude -Wall -Wextra -Werror "$temporary/only.$suffix" 2>"$temporary/err" && return
    echo "does not compile alone: $header"
    head -n 5 "$temporary/err"
    status=1
}

for header in include/potqat/*.h; do
    for suffix in c cpp; do echo "#include <${header#include/}>" >"$temporary/only.$suffix"; done
    suffix=c && try "$cc" -std=c17 -pedantic
    suffix=cpp && try "$cxx" -std=c++11 -pedantic
    grep -q 'extern "C"' "$header" || { echo "no extern \"C\": $header" && status=1; }
done
hdf5=$(pkg-config --cflags hdf5)
suffix=c
find src data train -name '*.h' | sort >"$temporary/list"
while read -r header; do
    echo "#include \"${header#src/}\"" >"$temporary/only.c"
    # shellcheck disable=SC2086 # words for the compiler
    case $header in
    */x86/*) [ "$(uname -m)" = x86_64 ] || continue && try "$cc" -std=c17 -D_GNU_SOURCE -DPQ_ISA=avx2 -mavx2 -mfma -mf16c -Isrc -I. ;;
    *) try "$cc" -std=c17 -D_GNU_SOURCE -Isrc -I. $hdf5 ;;
    esac
done <"$temporary/list"
echo "$count headers compiled"
exit $status
