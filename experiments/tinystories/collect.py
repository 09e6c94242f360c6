#!/usr/bin/env python3
"""collect.py RUNS OUT.csv LEVELS...: PTQ and QAT on every token of the validation split, window by window against the
parent and against fp32 trained equally long; plain straight-through training too, where a run is there.
"""
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).parents[1]))
from common import Table, evaluate, number, quantize

def main(runs, out, *all_levels):
    runs = pathlib.Path(runs)
    parent, control = f"{runs}/parent,seed=1337@last", f"{runs}/control,seed=1337@last"
    table = Table(out, "what", "method", "levels", "loss", "loss_se", "perplexity", "against", "gap", "gap_se", "tokens",
                  "weight_bytes")

    def row(what, method, levels, model, name, against):
        e = evaluate(model, against=against)
        table.row(what, method, levels, number(e["loss"], 6), number(e["loss_se"], 6), number(e["perplexity"], 4), name,
                  number(e.get("difference"), 6), number(e.get("difference_se"), 6), e["tokens"], e["weight_bytes"])

    row("fp32", "parent", "", parent, "", None)
    row("fp32", "control", "", control, "parent", parent)
    for method in ("rtn", "gptq"):
        for levels in all_levels:
            out = quantize(parent, runs / f"{method}{levels}.h5", f"quant.levels={levels}", f"ptq.method={method}",
                           "ptq.calib_context=128")
            row("PTQ", method, levels, out, "parent", parent)
    for method, suffix in (("recipe", ""), ("plain", "-plain")):
        for levels in all_levels:
            run = f"{runs}/L{levels}{suffix},seed=1337"
            if pathlib.Path(run).exists():
                row("QAT", method, levels, f"{run}@last", "control", control)


main(*sys.argv[1:])
