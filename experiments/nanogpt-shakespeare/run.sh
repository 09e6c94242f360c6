#!/bin/sh
# nanoGPT's Shakespeare model in bf16, then quantization-aware from its best iterate. Hours; the same call goes on where it was
# stopped. Runs stay in runs/nanogpt-shakespeare. See README.md. POTQAT names the program (default: build/).
set -eu
cd "$(dirname "$0")/../.."
POTQAT="${POTQAT:-build/src/cli/potqat}"
here=experiments/nanogpt-shakespeare baby=runs/nanogpt-shakespeare/baby
if [ -d $baby ]; then
    "$POTQAT" train --resume $baby
else
    "$POTQAT" train configs/baby.yaml train.precision=bf16 run.dir=$baby
fi
"$POTQAT" sweep $here/sweep.yaml
cp runs/nanogpt-shakespeare/results.csv $here/results.csv
"$POTQAT" sweep $here/precision.yaml --jobs 2
cp runs/precision/results.csv $here/precision.csv
