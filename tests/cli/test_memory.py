"""The memory plan of a dry run against the anonymous memory that the run takes at its peak: training, evaluating,
counting what happens in each matrix, saving. Within 5 % or 48 MB; one more copy of the weights here is 85 MB.
"""
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time

MIB = 1 << 20
SHAPE = ["model.layers=3", "model.heads=12", "model.width=768", "model.context=128", "train.batch=4", "train.max_iters=3",
         "eval.every=1", "eval.windows=8", "save.every=2", "data.tokenizer=byte", "train.warmup_iters=1"]
LEARNED = ["quant.quantizer=pot", "quant.scale=learned", "qat.ema=0.9"]
CASES = {"fp32": [], "fp32, learned scales, average": LEARNED, "bf16": ["train.precision=bf16"],
         "fp32, evaluated in bf16": ["eval.precision=bf16"],
         "bf16, evaluated in bf16": ["train.precision=bf16", "eval.precision=bf16"],
         "bf16, absmax": ["train.precision=bf16", "quant.quantizer=pot", "quant.scale=absmax"],
         "bf16, micro-batches, learned scales": ["train.precision=bf16", "train.accumulate=2", *LEARNED]}


def peak(command):
    """The greatest RssAnon of the command in bytes; it is read every 2 ms, and phases here take longer."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    most = 0
    while process.poll() is None:
        try:
            found = re.search(r"RssAnon:\s+(\d+) kB", pathlib.Path(f"/proc/{process.pid}/status").read_text())
        except ProcessLookupError:
            found = None
        most = max(most, int(found[1]) * 1024 if found else 0)
        time.sleep(0.002)
    error = process.stderr.read()
    assert process.returncode == 0, error
    return most


def main(program):
    failed = 0
    with tempfile.TemporaryDirectory(prefix="potqat-memory-") as folder:
        folder = pathlib.Path(folder)
        (folder / "text").write_bytes(bytes(range(32, 127)) * 200)
        for number, (name, keys) in enumerate(CASES.items()):
            command = [program, "train", folder / "empty.yaml", *SHAPE, *keys, f"data.path={folder}/text",
                       f"run.dir={folder}/run{number}"]
            (folder / "empty.yaml").write_text("{}\n")
            dry = subprocess.run([*command, "--dry-run"], capture_output=True, text=True)
            if "AVX512_BF16" in dry.stderr or "oneDNN" in dry.stderr:
                print(f"{name}: skipped, {dry.stderr.strip()}")
                continue
            planned = float(re.search(r"memory plan.*together ([\d.]+)", dry.stdout)[1]) * MIB
            taken = peak([*command, "--quiet"])
            good = abs(taken - planned) <= max(0.05 * planned, 48e6)
            failed += not good
            print(json.dumps({"case": name, "planned_mib": round(planned / MIB), "taken_mib": round(taken / MIB), "good": good}))
    return failed > 0


sys.exit(main(sys.argv[1]))
