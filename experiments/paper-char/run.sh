#!/bin/sh
# The papers' character tables: their rule, schedule and protocol, judged by their protocol and by every token.
# Writes results.csv and table.svg beside this file; runs stay in runs/. See README.md. POTQAT names the program
# (default: build/), PEER the PyTorch script for the comparison (default: none).
set -eu
cd "$(dirname "$0")/../.."
export POTQAT="${POTQAT:-build/src/cli/potqat}"
here=experiments/paper-char
"$POTQAT" sweep $here/sweep.yaml --jobs 2 save.every=500 save.keep=16
python3 $here/collect.py runs/recipe $here/results.csv
gnuplot -c $here/table.gp $here/results.csv $here/table.svg
if [ -n "${PEER-}" ]; then python3 $here/peer.py "$PEER" runs/recipe $here/peer.csv; fi
