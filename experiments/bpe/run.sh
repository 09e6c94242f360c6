#!/bin/sh
# The recipe and plain straight-through training after the parent of experiments/tinystories, whose run.sh makes it. Writes
# results.csv beside this file. See README.md. POTQAT names the program (default: build/).
set -eu
cd "$(dirname "$0")/../.."
export POTQAT="${POTQAT:-build/src/cli/potqat}"
runs=experiments/tinystories/runs
"$POTQAT" sweep experiments/bpe/sweep.yaml --jobs 2
python3 experiments/tinystories/collect.py $runs experiments/bpe/results.csv 3 7 9 15
