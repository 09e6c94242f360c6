#!/bin/sh
# Loss against levels and bits a weight, after training and trained. Writes results.csv, ptq.svg and qat.svg beside this file;
# runs stay in runs/recipe, where experiments/recipe/run.sh has put the parents and most of the trained models. See README.md.
# POTQAT names the program (default: build/).
set -eu
cd "$(dirname "$0")/../.."
export POTQAT="${POTQAT:-build/src/cli/potqat}"
here=experiments/perplexity-curves
"$POTQAT" sweep $here/sweep.yaml --jobs 2
python3 $here/collect.py runs/recipe $here/results.csv
gnuplot -c $here/plot.gp $here/results.csv $here
