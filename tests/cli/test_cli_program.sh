#!/bin/bash
# The program itself: exit status, which stream says what, broken streams. Usage: test_cli_program.sh POTQAT CONFIGS
potqat=$1 configs=$2 failed=0
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT

# expect STATUS PATTERN-OF-STDOUT PATTERN-OF-STDERR WORDS...: "" means that the stream stays empty
expect() {
    local status=$1 out=$2 err=$3 found=0
    shift 3
    "$potqat" "$@" >"$dir/out" 2>"$dir/err" || found=$?
    check "$status" "$found" "$out" "$err" "potqat $*"
}

check() { # wanted status, found status, pattern of $dir/out, pattern of $dir/err, what was run
    local good=1
    [ "$1" = "$2" ] || good=0
    for stream in out err; do
        pattern=$3
        [ $stream = err ] && pattern=$4
        if [ -z "$pattern" ]; then
            [ ! -s "$dir/$stream" ] || good=0
        else
            grep -qE -- "$pattern" "$dir/$stream" || good=0
        fi
    done
    [ $good = 1 ] && return
    failed=1
    echo "FAILED: $5: status $2, expected $1, stdout like '$3', stderr like '$4'; found:"
    head -5 "$dir/out" "$dir/err"
}

expect 0 '^    config  ' '' --help
expect 0 '^potqat [0-9]+\.[0-9]+' '' --version
expect 2 '' '^potqat: no command given$'
expect 2 '' '^potqat: unknown command confg; did you mean potqat config\?$' confg
expect 2 '' '^potqat: unknown command xyzzyxyzzy; potqat --help lists them$' xyzzyxyzzy
expect 2 '' '^potqat: unknown command --versoin' --versoin
expect 0 '^    bench train ' '' bench --help
expect 2 '' '^potqat: potqat bench needs one of: train, infer, kernels; found trian$' bench trian
expect 0 '^  train\.lr = 1\.0e-3$' '' config --help
expect 0 '^\| `lr` \| `1\.0e-3` \|' '' config --markdown
expect 0 '^  lr: 0\.5$' '' config train.lr=0.5 "$configs/quickstart.yaml"
expect 0 '"lr": 0\.5,' '' config --json train.lr=0.5
expect 0 '^train\.max_iters: 3000 \| 15000$' '' config --diff "$configs/quickstart.yaml" "$configs/char-fp32.yaml"
expect 2 '' '^potqat: .*quickstart\.yaml: train\.min_lr: 1e-04|^potqat: .*min_lr: 0\.0001 is above train\.lr' config "$configs/quickstart.yaml" train.lr=1e-5
expect 2 '' '^potqat: command line: train\.max_iter: unknown key; did you mean train\.max_iters\?$' config train.max_iter=3
expect 2 '' '^potqat: option --threads: expected a whole number' config --threads many
expect 2 '' 'takes one CONFIG' config a b
expect 1 '' '^potqat: .*missing\.yaml' config "$dir/missing.yaml"
mkdir "$dir/run" && cp "$configs/quickstart.yaml" "$dir/run/config.yaml"
expect 0 '^  dir: runs/quickstart$' '' config "$dir/run"

: >"$dir/out"
if [ -w /dev/full ]; then # a full disk
    "$potqat" config >/dev/full 2>"$dir/err"
    check 1 $? '' '^potqat: standard output could not be written: No space left on device$' 'potqat config >/dev/full'
fi
"$potqat" config >&- 2>"$dir/err" # no standard output at all
check 1 $? '' '^potqat: standard output could not be written: ' 'potqat config >&-'
mkfifo "$dir/pipe" && exec 3<>"$dir/pipe" 4>"$dir/pipe" 3<&- # a pipe whose reader has left
"$potqat" config >&4 2>"$dir/err"
check 1 $? '' '^potqat: standard output could not be written: Broken pipe$' 'potqat config to a closed pipe'
exit $failed
