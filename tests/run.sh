#!/bin/sh
# Set up, build, and run every test. The last line is the count: N passed, N failed, N skipped.
set -eu

usage() {
    cat <<'END'
usage: tests/run.sh [--sanitize | --valgrind | --clang] [--] [words for meson test]

Installs what is missing (setup.sh --tests), builds, runs every test, and ends with
"N passed, N failed, N skipped". Exit status 0 when none failed and some passed.

  --sanitize  with AddressSanitizer and UndefinedBehaviorSanitizer, in build-asan/
  --valgrind  under valgrind, once with the reference kernels and once with AVX2
  --clang     built by clang, in build-clang/
  --help      this text

Examples: tests/run.sh -- --suite quant      tests/run.sh -- config tokenizer
END
}

mode=plain
case ${1-} in
--sanitize | --valgrind | --clang) mode=${1#--} && shift ;;
--help | -h) usage && exit 0 ;;
-- | '') ;;
*) usage >&2 && exit 2 ;;
esac
if [ "${1-}" = -- ]; then shift; fi

cd "$(dirname "$0")/.."
passed=0 failed=0 skipped=0

# suite FOLDER [words for meson test]: run the tests of a build folder and add to the counts.
suite() {
    folder=$1 status=0
    shift
    rm -f "$folder"/meson-logs/testlog*.json
    # Tests are to find hangs, not to judge the machine: be patient.
    meson test -C "$folder" --print-errorlogs --timeout-multiplier 5 "$@" || status=$?
    # A test's line says how it ended; meson itself may fail without having run one.
    counts=$(python3 - "$folder" <<'END'
import glob, json, sys
count = {"passed": 0, "failed": 0, "skipped": 0}
for log in glob.glob(sys.argv[1] + "/meson-logs/testlog*.json"):  # a wrapper's name is part of the name
    for line in open(log):
        result = json.loads(line)["result"]
        count[{"OK": "passed", "EXPECTEDFAIL": "passed", "SKIP": "skipped"}.get(result, "failed")] += 1
print(*count.values())
END
    )
    # shellcheck disable=SC2086 # three numbers
    set -- $counts
    passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
    if [ "$status" != 0 ] && [ "$2" = 0 ]; then failed=$((failed + 1)); fi
}

# build FOLDER [words for meson setup]: a build folder of its own beside build/.
build() {
    folder=$1
    shift
    if [ ! -f "$folder/build.ninja" ]; then meson setup "$folder" "$@"; fi
    ninja -C "$folder"
}

case $mode in
plain)
    ./setup.sh --tests
    suite build "$@"
    ;;
sanitize)
    ./setup.sh --tests --no-build
    build build-asan -Db_sanitize=address,undefined -Db_lundef=false
    # gcc's sanitizers print and go on unless told otherwise.
    export ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1
    export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
    suite build-asan --timeout-multiplier 10 "$@"
    ;;
valgrind)
    ./setup.sh --tests --checks
    for kernels in ref avx2; do
        export POTQAT_CPU=$kernels OPENBLAS_CORETYPE=Haswell DNNL_MAX_CPU_ISA=AVX2 # valgrind knows no AVX-512
        suite build --wrapper 'valgrind --quiet --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite' \
            --no-suite harness --no-suite script --timeout-multiplier 30 "$@"
    done
    ;;
clang)
    ./setup.sh --tests --checks --no-build
    CC=clang build build-clang
    suite build-clang "$@"
    ;;
esac

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$passed" != 0 ]
