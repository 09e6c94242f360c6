#!/usr/bin/env python3
"""peer.py PEER.py RUNS OUT.csv: the same parent rounded, and trained quantization-aware, by us and by PyTorch.

PEER.py is a PyTorch script with the command `paper` (see README.md). Its seed is fixed inside; here each seed runs
it once with that seed in place of its own. Needs torch and safetensors, and the text in POTQAT_DATA.
"""
import json
import os
import pathlib
import subprocess
import sys

sys.path.append(str(pathlib.Path(__file__).parents[1]))
from common import Table, evaluate, potqat, quantize

ABSMAX = ["quant.scale=absmax", "quant.scale_grid=fp32", "quant.scale_eps=0.000244140625"]
RULES = {name: [f"quant.quantizer={q}", f"quant.{size}", f"quant.granularity={g}", *ABSMAX] for name, q, size, g in [
    ("uniform[-8,7]", "uniform", "range=[-8, 7]", "tensor"),
    ("released[-8,4]", "pot-released", "range=[-8, 4]", "tensor"),
    ("released[-8,8]", "pot-released", "range=[-8, 8]", "tensor"),
    ("released[-16,16]", "pot-released", "range=[-16, 16]", "tensor"),
    ("pot7 tensor", "pot", "levels=7", "tensor"), ("pot9 tensor", "pot", "levels=9", "tensor"),
    ("pot15 tensor", "pot", "levels=15", "tensor"), ("pot7 row", "pot", "levels=7", "row"),
    ("pot15 row", "pot", "levels=15", "row")]}
TRAINED, ITERS, SEEDS = "pot15 row", 2500, [1337, 1338, 1339]
TRAINING = ["quant.refit=step", "quant.gradient=ste", f"train.max_iters={ITERS}", "train.batch=12", "train.dropout=0.2",
            "train.lr=1e-4", "train.min_lr=1e-5", "train.warmup_iters=100", "train.beta2=0.99",
            "train.weight_decay=0.1", f"eval.every={ITERS}", "save.every=0", "run.threads=1"]
SEEDED = """import runpy, sys, torch
manual, seed = torch.manual_seed, int(sys.argv[1])
torch.manual_seed = lambda fixed: manual(seed)
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0])
"""


def python(*words):
    subprocess.run([sys.executable, *map(str, words)], check=True)


def main(peer, runs, out):
    here, runs = pathlib.Path(__file__).parent, pathlib.Path(runs)
    parent, folder, base = f"{runs}/parent,seed=1337@last", runs / "hf", runs / "base.pt"
    text = pathlib.Path(os.environ["POTQAT_DATA"]) / "tinyshakespeare.txt"
    if not base.exists():
        potqat("export", parent, "--format", "hf", "-o", folder, "--overwrite")
        python(here / "to_torch.py", folder, base)
    (runs / "seeded.py").write_text(SEEDED)
    table = Table(out, "what", "seed", "pytorch", "potqat", "difference")

    def row(what, seed, theirs, model):
        ours = evaluate(model)["loss"]
        table.row(what, seed, f"{theirs:.6f}", f"{ours:.6f}", f"{ours - theirs:+.6f}")

    for seed in SEEDS:
        theirs, ours = runs / f"peer-{seed}.json", runs / f"peer-ours,seed={seed}"
        if not theirs.exists():
            python(runs / "seeded.py", seed, peer, "paper", "--text", text, "--base", base, "--threads", 1,
                   "--qat-cases", TRAINED, "--qat-iters", ITERS, "--out", theirs)
        result = json.loads(theirs.read_text())
        if seed == SEEDS[0]:
            row("fp32", "", result["fp32"]["val"], parent)
            for name, rule in RULES.items():
                row(f"PTQ {name}", "", result[name]["ptq"], quantize(parent, runs / "peer-ptq.h5", *rule))
        if not ours.exists():
            potqat("train", "configs/char-qat.yaml", f"init.from={parent}", f"run.dir={ours}", f"train.seed={seed}",
                   *RULES[TRAINED], *TRAINING)
        row(f"QAT {TRAINED}", seed, result[TRAINED]["qat"], f"{ours}@last")


main(*sys.argv[1:])
