#!/usr/bin/env bash
# Runs that are killed, stopped by a signal or hit a full disk: the last good checkpoint loads, and the run continues to
# the same bytes as an undisturbed one. Usage: test_interrupted.sh POTQAT
set -u
potqat=$(realpath "$1")
export GOMP_SPINCOUNT=1000 OMP_NUM_THREADS=2
dir=$(mktemp -d) || exit 1
mounted=
cleanup() {
    [ -z "$mounted" ] || umount "$mounted"
    rm -rf "$dir"
}
trap cleanup EXIT
cd "$dir" || exit 1
fail() {
    echo "failed: $1"
    exit 1
}
same() { # RUN RUN FILE...
    local a=$1 b=$2
    shift 2
    for file in "$@"; do cmp "$a/$file" "$b/$file" || fail "$file of $a and $b differ"; done
}

for i in $(seq 300); do echo "the cat sat on mat number $i."; done >text.txt
cat >run.yaml <<EOF
data: {path: text.txt, tokenizer: char}
model: {layers: 1, heads: 2, width: 16, context: 16}
quant: {quantizer: pot, levels: 15}
train: {max_iters: 60, batch: 2, schedule: constant, lr: 1.0e-3, warmup_iters: 5}
eval: {every: 7, windows: 20}
save: {every: 1, keep: 2}
log: {every: 3}
EOF

"$potqat" train run.yaml run.dir=whole --quiet >/dev/null || fail "the undisturbed run"
"$potqat" inspect whole@last | grep -qE 'watch\.last: [0-9]+ uint8$' || fail "the arrays of its last checkpoint"

# kill -9, 100 times at random moments
kills=0
while [ $kills -lt 100 ]; do
    if ls killed/ckpt-*.h5 >/dev/null 2>&1; then
        "$potqat" train --resume killed --quiet >/dev/null 2>err.txt &
    else
        "$potqat" train run.yaml run.dir=killed --overwrite --quiet >/dev/null 2>err.txt &
    fi
    pid=$!
    sleep "0.0$((RANDOM % 10))$((RANDOM % 10))"
    kill -9 $pid 2>/dev/null
    wait $pid 2>/dev/null
    status=$?
    [ $status -eq 137 ] || [ $status -eq 0 ] || fail "exit status $status: $(cat err.txt)"
    kills=$((kills + 1))
    if [ $status -eq 0 ] && [ $kills -lt 100 ]; then
        same whole killed ckpt-60.h5 best.h5 metrics.jsonl
        rm -rf killed # it got to its end: start over
    fi
done
if ls killed/ckpt-*.h5 >/dev/null 2>&1; then
    "$potqat" inspect killed@last --verify >/dev/null || fail "the last checkpoint after a kill"
    "$potqat" train --resume killed --quiet >/dev/null || fail "resuming after kills"
else
    "$potqat" train run.yaml run.dir=killed --overwrite --quiet >/dev/null || fail "starting after kills"
fi
same whole killed ckpt-60.h5 best.h5 metrics.jsonl
[ -z "$(find killed -name '*.tmp*')" ] || fail "temporary files are left: $(ls killed)"

# SIGTERM: finish, save, exit 3
"$potqat" train run.yaml run.dir=stopped train.max_iters=1000000 --quiet >out.txt 2>err.txt &
pid=$!
for _ in $(seq 600); do
    [ -s stopped/metrics.jsonl ] && break
    sleep 0.1
done
kill -TERM $pid
wait $pid
status=$?
[ $status -eq 3 ] || fail "exit status $status after SIGTERM, expected 3: $(cat err.txt)"
grep -q -- '--resume stopped' err.txt || fail "how to go on is not said: $(cat err.txt)"
iter=$(find stopped -name 'ckpt-*.h5' | sed 's/.*ckpt-//; s/.h5//' | sort -n | tail -n 1)
"$potqat" train --resume stopped "train.max_iters=$((iter + 9))" eval.every=1000000 --quiet >/dev/null || fail "resuming after SIGTERM"
[ -f "stopped/ckpt-$((iter + 9)).h5" ] || fail "the resumed run did not reach its end"

# a run that is going on is left alone
"$potqat" train --resume stopped train.max_iters=1000000 --quiet >/dev/null 2>&1 &
pid=$!
for _ in $(seq 600); do
    kill -0 $pid 2>/dev/null || break
    flock -n stopped/lock true || break
    sleep 0.1
done
"$potqat" train --resume stopped --quiet >/dev/null 2>err.txt
status=$?
kill -TERM $pid
wait $pid
[ $status -ne 0 ] || fail "two processes trained in one folder"

# full disk
mkdir full
if mount -t tmpfs -o size=400k tmpfs full 2>/dev/null; then
    mounted=$dir/full
    "$potqat" train run.yaml run.dir=whole-kept save.keep=100 --quiet >/dev/null || fail "an undisturbed run"
    "$potqat" train run.yaml run.dir=full/run save.keep=100 --quiet >/dev/null 2>err.txt
    status=$?
    [ $status -eq 1 ] || fail "exit status $status on a full disk, expected 1: $(cat err.txt)"
    grep -qi 'no space left' err.txt || fail "the full disk is not named: $(cat err.txt)"
    "$potqat" inspect full/run@last --verify >/dev/null || fail "the last checkpoint on a full disk"
    mount -o remount,size=20m "$mounted"
    "$potqat" train --resume full/run --quiet >/dev/null || fail "resuming after a full disk"
    same whole-kept full/run ckpt-60.h5 best.h5 metrics.jsonl
else
    echo "skipped: the full disk (a small file system could not be mounted here)"
fi
echo "interrupted runs: all as they should be"
