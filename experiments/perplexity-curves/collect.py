#!/usr/bin/env python3
"""collect.py RUNS OUT.csv: PTQ at every count of levels (three parents), QAT where a run is there (one), loss and gap on
every token of the validation split beside bits a weight.
"""
import json
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).parents[1]))
from common import Table, evaluate, mean_ci95, number, potqat

SEEDS = [1337, 1338, 1339]
QUANTIZERS = {"pot": [3, 5, 7, 9, 15, 31, 63], "apot": [7, 15, 31, 63], "uniform": [3, 5, 7, 9, 15, 31, 63],
              "zero-free": [4, 8, 16, 32]}
GRANULARITIES = ["tensor", "row", "group32"]


def ptq(runs, parents, name, granularity, levels):
    losses, told = [], None
    for seed in SEEDS:
        out = runs / "curve.h5"
        told = json.loads(potqat("quantize", f"{runs}/parent,seed={seed}@last", "-o", out, "--overwrite", "--quiet",
                                 "--json", f"quant.levels={levels}", f"quant.granularity={granularity}",
                                 f"quant.quantizer={'pot-zero-free' if name == 'zero-free' else name}"))
        losses.append(evaluate(out)["loss"])
    sizes = [m["rows"] * m["columns"] for m in told["matrices"]]
    bits = sum(n * m["bits_per_weight"] for n, m in zip(sizes, told["matrices"])) / sum(sizes)
    return bits, mean_ci95(losses)[0], *mean_ci95([a - b for a, b in zip(losses, parents)])


def qat(runs, name, granularity, levels):
    run = runs / f"{name}-{granularity}-{levels},seed=1337"
    if (name, granularity) == ("pot", "row") and not run.exists():
        run = runs / f"L{levels},seed=1337"
    if not (run / "windows-last.csv").exists() or json.loads((run / "run.json").read_text())["status"] != "done":
        return None
    e = evaluate(f"{run}@last", against=f"{runs}/control,seed=1337@last")
    return e["loss"], e["difference"], e["difference_se"]


def main(runs, out):
    runs = pathlib.Path(runs)
    table = Table(out, "quantizer", "granularity", "levels", "bits", "ptq_loss", "ptq_gap", "ptq_gap_ci95", "qat_loss",
                  "qat_gap", "qat_gap_se")
    parents = [evaluate(f"{runs}/parent,seed={seed}@last")["loss"] for seed in SEEDS]
    for name, all_levels in QUANTIZERS.items():
        for granularity in GRANULARITIES:
            for levels in all_levels:
                bits, *rounded = ptq(runs, parents, name, granularity, levels)
                trained = qat(runs, name, granularity, levels) or (None, None, None)
                table.row(name, granularity, levels, number(bits, 3), *map(number, rounded), *map(number, trained))


main(*sys.argv[1:])
