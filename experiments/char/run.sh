#!/bin/sh
# The papers' character model at their budget: fp32, PTQ at 15 levels with three scales, QAT, and fp32 trained as long.
# Writes results.csv and the curves beside this file; runs stay in runs/. See README.md. POTQAT names the program (default: build/).
set -eu
cd "$(dirname "$0")/../.."
potqat=${POTQAT:-build/src/cli/potqat}
here=experiments/char runs=experiments/char/runs
mkdir -p "$runs"

train() { # NAME CONFIG [key=value ...]
    name=$1 config=$2
    shift 2
    if [ ! -d "$runs/$name" ]; then
        "$potqat" train "$config" run.dir="$runs/$name" "$@"
    else
        "$potqat" train --resume "$runs/$name"
    fi
}

ptq() { # NAME [key=value ...]
    name=$1
    shift
    "$potqat" quantize "$runs/fp32@last" -o "$runs/$name.h5" --overwrite quant.quantizer=pot quant.levels=15 "$@"
}

train fp32 configs/char-fp32.yaml
ptq ptq-tensor quant.granularity=tensor quant.scale=absmax quant.scale_grid=fp32
ptq ptq-row quant.granularity=row quant.scale=absmax quant.scale_grid=fp32
ptq ptq-row-mse quant.granularity=row quant.scale=mse
train qat configs/char-qat.yaml init.from="$runs/fp32@last"
train control configs/char-qat.yaml init.from="$runs/fp32@last" quant.quantizer=none

commit=$(git describe --always --dirty)
cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
echo "model,split,loss,loss_se,above_fp32,above_fp32_se,weight_bytes,cpu,commit,command" >"$here/results.csv"
for model in fp32@last ptq-tensor.h5 ptq-row.h5 ptq-row-mse.h5 qat@last control@last; do
    for split in val test; do
        "$potqat" eval "$runs/$model" --against "$runs/fp32@last" eval.split=$split --json --quiet |
            python3 -c "
import json, sys
e = json.load(sys.stdin)
print('$model', '$split', *(f'{e[k]:.6f}' for k in ('loss', 'loss_se', 'difference', 'difference_se')),
      e['weight_bytes'], '$cpu', '$commit', 'experiments/char/run.sh', sep=',')" >>"$here/results.csv"
    done
done
"$potqat" report "$runs/fp32" "$runs/qat" "$runs/control" --figures "$here" --overwrite --quiet
cat "$here/results.csv"
