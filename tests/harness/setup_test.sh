#!/bin/sh
# setup.sh against stand-ins for dpkg-query, apt-get, id and sudo: what it would do on other machines.
# usage: setup_test.sh SOURCE-ROOT
set -eu
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
mkdir "$temporary/bin" "$temporary/repo"
cp "$1/setup.sh" "$temporary/repo"
for tool in sh cat dirname env; do ln -s "$(command -v $tool)" "$temporary/bin"; done

stand_in() { # NAME COMMANDS...
    name=$1
    shift
    printf '#!/bin/sh\n%s\n' "$*" >"$temporary/bin/$name"
    chmod +x "$temporary/bin/$name"
}

fail() {
    echo "setup_test: $*; setup.sh printed:"
    cat "$temporary/out"
    exit 1
}

# expect STATUS PATTERN WORDS...: run setup.sh from another folder; its output must match.
expect() {
    wanted=$1 pattern=$2 status=0
    shift 2
    rm -f "$temporary/calls"
    (cd / && PATH="$temporary/bin" calls="$temporary/calls" "$temporary/repo/setup.sh" "$@") >"$temporary/out" 2>&1 || status=$?
    [ "$status" = "$wanted" ] || fail "'$*' ended with $status instead of $wanted"
    [ -z "$pattern" ] || grep -q -e "$pattern" "$temporary/out" || fail "'$*' did not print '$pattern'"
}
called() { grep -q -e "$1" "$temporary/calls" 2>/dev/null || fail "'$1' was not called"; }
not_called() { [ ! -e "$temporary/calls" ] || fail "called: $(cat "$temporary/calls")"; }

all="printf installed"
# shellcheck disable=SC2016 # for the stand-in's shell
without_gcc='for package; do :; done; [ "$package" = gcc ] || printf installed'
# shellcheck disable=SC2016
record='echo "${0##*/} $*" >>"$calls"'
stand_in meson "$record; [ \"\$1\" != setup ] || /bin/mkdir -p build"
stand_in ninja "$record"
stand_in apt-get "$record"

stand_in id 'echo 0'
stand_in dpkg-query "$all"
expect 0 'nothing is missing' --check && not_called
expect 0 '^libhdf5-dev$' --list && not_called
expect 0 'usage' --help && not_called
expect 2 'usage' --nonsense && not_called
expect 0 '' --no-build && not_called
expect 0 '' && called 'meson setup build -Dtests=false' && called 'ninja -C build'
if grep -q apt "$temporary/calls"; then fail "apt-get was called though nothing was missing"; fi

stand_in dpkg-query "$without_gcc"
expect 1 'missing: gcc$' --check && not_called
expect 0 'installing gcc$' --no-build
called 'apt-get .*update' && called 'apt-get .*install .* gcc$'
stand_in apt-get "$record; case \$* in *install*) exit 100;; esac"
expect 1 'apt-get could not install all of: gcc' --no-build
stand_in apt-get "$record; exit 100"
expect 1 'apt-get update failed' --no-build

stand_in id 'echo 1000'
expect 1 'needs root or sudo: gcc' --no-build && not_called
stand_in sudo "$record"
expect 0 'installing gcc' --no-build && called 'sudo apt-get .*update' && called 'sudo env .*install .* gcc$'

/bin/rm "$temporary/bin/dpkg-query"
expect 1 'does not use Debian' --check
echo "setup.sh does as it says"
