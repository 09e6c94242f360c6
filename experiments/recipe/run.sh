#!/bin/sh
# The recipe at 3, 7, 9 and 15 levels over three parents, beside plain straight-through and rounding after training, and what
# each method adds. Writes results.csv, search.csv and table.md beside this file; runs stay in runs/recipe. See README.md. POTQAT
# names the program (default: build/).
set -eu
cd "$(dirname "$0")/../.."
export POTQAT="${POTQAT:-build/src/cli/potqat}"
here=experiments/recipe runs=runs/recipe
"$POTQAT" sweep $here/recipe.yaml --jobs 2
"$POTQAT" sweep $here/search.yaml --jobs 2
cp $runs/results.csv $here/search.csv
python3 $here/collect.py $runs $here/results.csv >$here/table.md
"$POTQAT" report $runs -o $runs/report.html --overwrite --quiet
