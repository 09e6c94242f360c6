#!/bin/sh
# The whole way in one command: set up, train in fp32, quantize after training (PTQ), train quantization-aware
# (QAT), export, generate, compare. See README.md beside this file.
set -eu

usage() {
    cat <<'END'
usage: experiments/quickstart/run.sh [TEXT] [--full | --short] [--name NAME] [--overwrite]

Installs what is missing, builds, then trains the character model on TEXT (a UTF-8
file; without it tiny Shakespeare, else the built-in corpus) and prints one table:
fp32, PTQ and QAT with 15 power-of-two levels. Everything it makes goes to
experiments/quickstart/runs/NAME.

  --full       the papers' schedule: 15,000 iterations, then 7,500
  --short      a few iterations of each, only to see that everything works
  --name NAME  where to put the runs (default: quickstart, full or short)
  --overwrite  replace the runs that are there
  --help       this text
END
}

die() {
    echo "run.sh: $*" >&2
    exit 2
}

name='' text='' overwrite='' schedule=quickstart
while [ $# -gt 0 ]; do
    case $1 in
    --full | --short) schedule=${1#--} ;;
    --name) [ $# -gt 1 ] || die "--name needs a name" && name=$2 && shift ;;
    --overwrite) overwrite=--overwrite ;;
    --help | -h) usage && exit 0 ;;
    -*) usage >&2 && exit 2 ;;
    *) [ -z "$text" ] || die "one text at a time: '$text' and '$1' were given" && text=$1 ;;
    esac
    shift
done
if [ -n "$text" ]; then
    if [ ! -f "$text" ] || [ ! -r "$text" ]; then die "cannot read the text '$text'"; fi
    text=$(cd "$(dirname "$text")" && pwd)/$(basename "$text")
fi

cd "$(dirname "$0")/../.."
runs=experiments/quickstart/runs/${name:-$schedule}
if [ -e "$runs" ] && [ -z "$overwrite" ]; then
    die "$runs is there from an earlier run: keep it and choose --name NAME, or replace it with --overwrite"
fi

case $schedule in
full) fp32=configs/char-fp32.yaml qat=configs/char-qat.yaml ;;
*) fp32=configs/quickstart.yaml qat=configs/quickstart-qat.yaml ;;
esac

./setup.sh >&2
potqat=build/src/cli/potqat
mkdir -p "$runs"
if [ -z "$text" ] && ! $potqat data fetch tinyshakespeare >&2; then
    echo "run.sh: tiny Shakespeare cannot be had (see above); the built-in corpus takes its place" >&2
    text=builtin
fi

# train CONFIG RUN [key=value ...]
train() {
    config=$1 run=$2 status=0
    shift 2
    if [ -n "$text" ]; then set -- "data.path=$text" "$@"; fi
    if [ "$schedule" = short ]; then set -- train.max_iters=60 train.warmup_iters=10 eval.windows=200 "$@"; fi
    # shellcheck disable=SC2086 # no word where there is nothing to overwrite
    $potqat train "$config" run.dir="$run" $overwrite "$@" >&2 || status=$?
    if [ $status = 3 ]; then echo "run.sh: stopped; '$potqat train --resume $run' goes on from there" >&2; fi
    [ $status = 0 ] || exit $status
}

# evaluate NAME MODEL: every token of the validation split.
evaluate() {
    if [ -n "$text" ]; then set -- "$1" "$2" --data "$text"; fi
    evaluation=$runs/eval-$1.json
    shift
    if [ "$schedule" = short ]; then set -- "$@" eval.windows=200; fi
    $potqat eval "$@" --json --quiet >"$evaluation"
}

echo "== 1 of 6: fp32 training" >&2
train "$fp32" "$runs/fp32"
echo "== 2 of 6: quantization after training (PTQ)" >&2
# shellcheck disable=SC2086
$potqat quantize "$runs/fp32" -o "$runs/ptq.h5" $overwrite quant.quantizer=pot quant.levels=15 quant.granularity=row quant.scale=mse >&2
echo "== 3 of 6: quantization-aware training (QAT)" >&2
train "$qat" "$runs/qat" init.from="$runs/fp32"
echo "== 4 of 6: export" >&2
# shellcheck disable=SC2086
$potqat export "$runs/qat" --format packed -o "$runs/qat.safetensors" $overwrite >&2
echo "== 5 of 6: evaluation, and the report" >&2
evaluate fp32 "$runs/fp32"
evaluate ptq "$runs/ptq.h5"
evaluate qat "$runs/qat.safetensors"
# shellcheck disable=SC2086
$potqat report "$runs/fp32" "$runs/qat" -o "$runs/report.html" $overwrite >&2
echo "== 6 of 6: a passage from the packed model" >&2
$potqat generate "$runs/qat.safetensors" --prompt "
" --tokens 300 --temperature 0.8 --seed 1
echo

python3 - "$runs" <<'END'
import json, sys
print(f"{'model':<6}{'validation loss':>20}{'perplexity':>12}{'weight bytes':>14}{'tokens/s':>10}")
for name in "fp32", "ptq", "qat":
    e = json.load(open(f"{sys.argv[1]}/eval-{name}.json"))
    loss = f"{e['loss']:.4f} ± {e['loss_se']:.4f}"
    tokens = e["tokens"]
    print(f"{name.upper() if name != 'fp32' else name:<6}{loss:>20}{e['perplexity']:>12.3f}{e['weight_bytes']:>14,}{e['tokens_per_s']:>10,.0f}")
print(f"Loss in nats a token over {tokens:,} tokens of the validation split; PTQ and QAT: 15 power-of-two levels,\n"
      "one scale a row. tokens/s: evaluation.")
END
echo "curves: $runs/report.html"
