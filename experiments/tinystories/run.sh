#!/bin/sh
# TEXT (default: tinystories.txt in POTQAT_DATA) to a tokenizer, to shards, to an fp32 parent, to PTQ and QAT at 7, 9 and 15
# levels. Writes results.csv beside this file; runs stay in runs/. See README.md. POTQAT names the program (default: build/).
set -eu
text=$(realpath "${1:-${POTQAT_DATA:?names the folder with tinystories.txt}/tinystories.txt}")
cd "$(dirname "$0")/../.."
export POTQAT="${POTQAT:-build/src/cli/potqat}"
here=experiments/tinystories runs=experiments/tinystories/runs
mkdir -p $runs
[ -f $runs/tokenizer.json ] || "$POTQAT" data train-tokenizer "$text" -o $runs/tokenizer.json --vocab 4096
[ -d $runs/shards ] ||
    "$POTQAT" data prepare "$text" -o $runs/shards data.tokenizer=$runs/tokenizer.json data.split_by=document
"$POTQAT" sweep $here/sweep.yaml --jobs 2
python3 $here/collect.py $runs $here/results.csv 7 9 15
