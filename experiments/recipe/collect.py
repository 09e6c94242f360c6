#!/usr/bin/env python3
"""collect.py RUNS OUT.csv: the runs of recipe.yaml and their parents rounded after training, on validation and
test tokens, window by window against the control (QAT) or the parent (PTQ). Prints the README's table: means over
the parents with 95 % intervals.
"""
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).parents[1]))
from common import Table, evaluate, mean_ci95, quantize

SEEDS, LEVELS = [1337, 1338, 1339], [3, 7, 9, 15]
ROWS = [("PTQ", method, levels) for method in ("rtn", "hessian", "gptq") for levels in LEVELS]
ROWS += [("QAT", "recipe", levels) for levels in LEVELS] + [("QAT", "plain", levels) for levels in (3, 7, 15)]
ROWS += [("fp32", "parent", ""), ("fp32", "control", "")]


def model(runs, what, method, levels, seed):
    parent, control = f"{runs}/parent,seed={seed}@last", f"{runs}/control,seed={seed}@last"
    if what == "PTQ":
        out = runs / f"{method},levels={levels},seed={seed}.h5"
        return quantize(parent, out, f"quant.levels={levels}", f"ptq.method={method}"), parent
    if what == "QAT":
        return f"{runs}/L{levels}{'' if method == 'recipe' else '-plain'},seed={seed}@last", control
    return (parent, None) if method == "parent" else (control, None)


def main(runs, out):
    runs = pathlib.Path(runs)
    table = Table(out, "what", "method", "levels", "seed", "split", "loss", "loss_se", "gap", "gap_se", "weight_bytes")
    print("| what | method | levels | validation loss | gap | test loss | gap |\n|---|---|---|---|---|---|---|")
    for what, method, levels in ROWS:
        cells = []
        for split in ("val", "test"):
            losses, gaps = [], []
            for seed in SEEDS:
                m, against = model(runs, what, method, levels, seed)
                e = evaluate(m, f"eval.split={split}", against=against)
                losses.append(e["loss"])
                gap = ["", ""]
                if against:
                    gaps.append(e["difference"])
                    gap = [f"{e['difference']:.6f}", f"{e['difference_se']:.6f}"]
                table.row(what, method, levels, seed, split, f"{e['loss']:.6f}", f"{e['loss_se']:.6f}", *gap,
                          e["weight_bytes"])
            cells.append(f"{mean_ci95(losses)[0]:.4f}")
            cells.append("%+.4f ± %.4f" % mean_ci95(gaps) if gaps else "")
        print("|", " | ".join([what, method, str(levels), *cells]), "|", flush=True)


main(*sys.argv[1:])
