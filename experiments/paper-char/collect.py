#!/usr/bin/env python3
"""collect.py RUNS OUT.csv: every published figure of the character model beside ours.

Ours are means over the seeds, each model judged twice: on the last token of each window, as the papers do, and on
every token. Intervals are 95 %, by Student's t over the seeds.
"""
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).parents[1]))
from common import Table, evaluate, mean_ci95, number, quantize

SEEDS = [1337, 1338, 1339]
WINDOWS = {"train": 1742, "val": 0}  # of the training split the first ones, as many as the validation split has in all
RULE = ["quant.granularity=tensor", "quant.scale=absmax", "quant.scale_grid=fp32", "quant.scale_eps=0.000244140625"]
QUANTIZERS = {"pot[-8,4]": ["quant.quantizer=pot-released", "quant.range=[-8, 4]"],
              "pot[-8,8]": ["quant.quantizer=pot-released", "quant.range=[-8, 8]"],
              "pot[-16,16]": ["quant.quantizer=pot-released", "quant.range=[-16, 16]"],
              "uniform[-8,7]": ["quant.quantizer=uniform", "quant.range=[-8, 7]"]}
# As printed: arXiv 2601.02298, Table 2 (iteration: training, validation), and arXiv 2506.00315.
TABLE2 = {"uniform[-8,7]": {15500: (1.61635, 1.84743), 19500: (1.56602, 1.68807), 22500: (1.61594, 1.59317)},
          "pot[-8,4]": {15500: (1.65916, 1.82383), 19500: (1.63777, 1.75756), 22500: (1.66232, 1.68218)}}
PTQ = {"pot[-16,16]": 1.89}


def models(runs, quantizer, iteration):
    """One model a seed; the parents where there is no quantizer, PTQ where there is no iteration."""
    for seed in SEEDS:
        parent = f"{runs}/parent,seed={seed}@last"
        if quantizer is None:
            yield parent
        elif iteration is None:
            yield quantize(parent, runs / f"ptq,{quantizer},seed={seed}.h5", *RULE, *QUANTIZERS[quantizer])
        else:
            name = quantizer.replace("[", "").replace("]", "") # as the sweep names folders
            yield f"{runs}/{name},seed={seed}@{iteration}"


def main(runs, out):
    runs = pathlib.Path(runs)
    table = Table(out, "what", "quantizer", "iteration", "split", "published", "last_token", "last_token_ci95",
                  "all_tokens", "all_tokens_ci95")

    def row(what, quantizer, iteration, split, published):
        ours = []
        for protocol in ("last-token", "all-tokens"):
            keys = f"eval.split={split}", f"eval.protocol={protocol}", f"eval.windows={WINDOWS[split]}"
            ours += mean_ci95([evaluate(m, *keys)["loss"] for m in models(runs, quantizer, iteration)])
        table.row(what, (quantizer or "").replace(",", ":"), iteration or 15000, split, published, *map(number, ours))

    for split in ("train", "val"):
        row("fp32", None, None, split, "")
    for quantizer in QUANTIZERS:
        row("PTQ", quantizer, None, "val", PTQ.get(quantizer, ""))
    for quantizer in TABLE2:
        for iteration in (15500, 19500, 22500):
            for i, split in enumerate(("train", "val")):
                row("QAT", quantizer, iteration, split, TABLE2[quantizer][iteration][i])


main(*sys.argv[1:])
