#!/bin/sh
# Install what is missing of the Debian packages that potqat needs, then configure and build build/.
# Everything potqat needs from the system is named here and nowhere else.
set -eu

build_packages='gcc libc6-dev meson ninja-build pkg-config libopenblas-dev libdnnl-dev libhdf5-dev libfyaml-dev libjansson-dev
    libpcre2-dev libxxhash-dev libzstd-dev gnuplot-nox curl ca-certificates'
test_packages='check g++ git python3 python3-numpy python3-h5py strace'
checks_packages='clang libomp-dev valgrind shellcheck binutils'

usage() {
    cat <<'END'
usage: ./setup.sh [--tests] [--checks] [--list | --check | --no-build]

Installs the Debian packages that are missing (with sudo when you are not root),
then configures and builds potqat in build/. When nothing is missing, the network
is not touched. CC chooses the compiler: CC=clang ./setup.sh

  --tests     also what the tests need; build/ then has the tests
  --checks    also what the further checks need: clang, valgrind, shellcheck
  --list      only tell all packages, one a line; install and build nothing
  --check     only tell what is missing; exit status 1 when something is
  --no-build  install, but leave build/ alone
  --help      this text
END
}

die() {
    echo "setup.sh: $*" >&2
    exit 1
}

installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

install() {
    if [ "$(id -u)" = 0 ]; then as_root=; elif command -v sudo >/dev/null; then as_root=sudo; else
        die "these packages are missing, and installing them needs root or sudo: $*"
    fi
    command -v apt-get >/dev/null || die "these packages are missing, and there is no apt-get to install them: $*"
    echo "setup.sh: installing $*"
    # An old list of packages names files that the mirrors no longer have.
    $as_root apt-get -q update || die "apt-get update failed (see above), so nothing was installed."
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "$@" ||
        die "apt-get could not install all of: $*"
}

# Meson keeps the compiler that it found first, so another CC means configuring anew.
configure() {
    tests=$1
    compiler=${CC:-cc}
    if [ -f build/build.ninja ] && [ "$(cat build/.cc 2>/dev/null)" = "$compiler" ]; then
        if $tests; then meson configure build -Dtests=true; fi
        return
    fi
    wipe=
    if [ -d build/meson-private ]; then wipe=--wipe; fi
    # shellcheck disable=SC2086 # no word where there is nothing to wipe
    meson setup $wipe build -Dtests="$tests" || die "configuring build/ failed (see above and build/meson-logs)."
    echo "$compiler" >build/.cc
}

mode=build tests=false wanted=$build_packages
for word; do
    case $word in
    --tests) tests=true wanted="$wanted $test_packages" ;;
    --checks) wanted="$wanted $checks_packages" ;;
    --list | --check | --no-build) mode=${word#--} ;;
    --help | -h) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
done

cd "$(dirname "$0")"
if [ "$mode" = list ]; then
    # shellcheck disable=SC2086 # a list of words
    printf '%s\n' $build_packages $test_packages $checks_packages
    exit 0
fi
command -v dpkg-query >/dev/null ||
    die "this system does not use Debian's packages: install what --list names in your system's way, then run" \
        "'meson setup build && ninja -C build'."

missing=
for package in $wanted; do
    installed "$package" || missing="$missing $package"
done
if [ "$mode" = check ]; then
    if [ -z "$missing" ]; then echo "setup.sh: nothing is missing." && exit 0; fi
    echo "setup.sh: missing:$missing"
    exit 1
fi
# shellcheck disable=SC2086 # a list of words
if [ -n "$missing" ]; then install $missing; fi
if [ "$mode" = no-build ]; then exit 0; fi

configure "$tests"
ninja -C build || die "building in build/ failed (see above)."
