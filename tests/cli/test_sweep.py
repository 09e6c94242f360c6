"""potqat sweep: order, names, results against the runs' own files, stops and kills, refusals, failures.
Usage: test_sweep.py POTQAT SOURCE_ROOT."""
import csv
import glob
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time

potqat = os.path.abspath(sys.argv[1])
os.environ.update(GOMP_SPINCOUNT="1000")

BASE = """
data: {path: builtin}
quant: {quantizer: pot}
train: {max_iters: 120, batch: 2, lr: 1.0e-3, warmup_iters: 5}
eval: {every: 40, windows: 20}
save: {every: 20}
log: {matrices: false}
"""
PARENT = """
data: {path: builtin, tokenizer: char}
model: {layers: 1, heads: 2, width: 16, context: 16}
train: {max_iters: 40, batch: 2, lr: 1.0e-3, warmup_iters: 5}
eval: {every: 20, windows: 20}
"""
SWEEP = """
base: base.yaml
parent: parent.yaml
control: {quant.quantizer: none}
grid:
  quant.levels: [7, 15, 31]
  quant.granularity: [row, tensor]
seeds: [3, 1]
"""


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def sweep(*words, status=0):
    done = subprocess.run([potqat, "sweep", *words], capture_output=True, text=True)
    assert done.returncode == status, (words, done.returncode, done.stdout, done.stderr)
    return done


def refused(text, *parts, words=()):
    write("bad.yaml", text)
    done = sweep("bad.yaml", *words, status=2)
    assert done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
    for part in parts:
        assert part in done.stderr, (part, done.stderr)
    assert not os.path.exists("runs/bad"), "something was written"


def finished(folder):
    count = 0
    for path in glob.glob(folder + "/*/run.json"):
        with open(path) as file:
            count += json.load(file)["status"] == "done"
    return count


def begin(words, folder, after):
    """A sweep on its way: `after` runs finished and another one saved in the middle."""
    process = subprocess.Popen([potqat, "sweep", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               text=True, start_new_session=True)
    end = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < end:
        if finished(folder) >= after and any(
                b'"running"' in read(os.path.dirname(path) + "/run.json")
                for path in glob.glob(folder + "/*/ckpt-[2468]0.h5")):
            return process
        time.sleep(0.005)
    raise AssertionError("the sweep was over before it could be disturbed: " + process.stderr.read())


def undisturbed():
    write("sweep.yaml", SWEEP)
    listed = sweep("sweep.yaml", "--dry-run").stdout.splitlines()
    names = [f"levels={levels},granularity={granularity},seed={seed}"
             for levels in (7, 15, 31) for granularity in ("row", "tensor") for seed in (3, 1)]
    assert [line.split("\t")[1] for line in listed] == [
        "parent,seed=3", "parent,seed=1", "control,seed=3", "control,seed=1", *names], listed
    assert listed[4].startswith("1\t") and listed[-1].startswith("12\t") and not os.path.exists("runs")
    sweep("sweep.yaml", "--quiet")
    rows = table("runs/sweep/results.csv")
    assert [row["run"] for row in rows] == ["runs/sweep/" + name for name in names], rows
    assert [row["point"] for row in rows] == [str(1 + i) for i in range(12)]
    assert [row["quant.levels"] for row in rows] == ["7"] * 4 + ["15"] * 4 + ["31"] * 4
    assert all(row["status"] == "done" and row["iterations"] == "120" and row["tokens"] == "320" and
               row["protocol"] == "all-tokens" and row["split"] == "val" for row in rows)
    return rows


def windows(run):
    return [float(row["loss"]) for row in table(run + "/windows-last.csv")]


def near(text, value):
    assert abs(float(text) - value) <= 2e-6 * max(1, abs(value)), (text, value)


def check_figures(rows):
    t19, t1 = 2.093, 12.706  # Student's t, 97.5 %
    for row in rows:
        run, seed = row["run"], row["seed"]
        with open(run + "/metrics.jsonl") as file:
            evals = [line for line in map(json.loads, file) if "protocol" in line]
        with open(run + "/run.json") as file:
            info = json.load(file)
        near(row["loss"], evals[-1]["loss"])
        near(row["loss_se"], evals[-1]["loss_se"])
        near(row["best_loss"], min(line["loss"] for line in evals))
        near(row["perplexity"], math.exp(evals[-1]["loss"]))
        assert int(row["weight_bytes"]) == info["weight_bytes"]
        assert info["parent"]["model"] == f"runs/sweep/parent,seed={seed}@last", info["parent"]
        mine = windows(run)
        for other in ("control", "parent"):
            d = [a - b for a, b in zip(mine, windows(f"runs/sweep/{other},seed={seed}"), strict=True)]
            mean = sum(d) / len(d)
            se = math.sqrt(sum((x - mean) ** 2 for x in d) / (len(d) - 1) / len(d))
            near(row[other + "_difference"], mean)
            near(row[other + "_se"], se)
            near(row[other + "_low"], mean - t19 * se)
            near(row[other + "_high"], mean + t19 * se)
    summary = table("runs/sweep/summary.csv")
    assert len(summary) == 6
    for i, row in enumerate(summary):
        pair = rows[2 * i:2 * i + 2]
        assert row["name"] == pair[0]["name"] == pair[1]["name"] and row["done"] == "2"
        for column, low in (("loss", "loss_low"), ("control_difference", "control_low")):
            a, b = (float(one[column]) for one in pair)
            assert abs(float(row[column]) - (a + b) / 2) < 2e-6
            assert abs(float(row[low]) - ((a + b) / 2 - t1 * abs(a - b) / 2)) < 3e-5, (row, a, b)


def disturbed():
    """Stopped by SIGTERM, killed alone, killed with its children: the same bytes in the end."""
    words = ["sweep.yaml", "--jobs", "3"]
    whole = {name: read("runs/sweep/" + name) for name in ("results.csv", "summary.csv")}
    os.rename("runs/sweep", "runs/whole")
    process = begin(words, "runs/sweep", 2)
    process.send_signal(signal.SIGTERM)
    err = process.communicate(timeout=300)[1]
    assert process.returncode == 3 and "goes on" in err, (process.returncode, err)
    process = begin(words, "runs/sweep", 5)
    os.killpg(process.pid, signal.SIGKILL)
    assert "resumed" in process.communicate(timeout=300)[1]
    process = begin(words, "runs/sweep", 9)
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
        children = [int(word) for word in file.read().split()]
    for pid in [process.pid, *children]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.communicate(timeout=300)
    done = sweep(*words)
    for name, data in whole.items():
        assert read("runs/sweep/" + name) == data, name + " differs after stops and kills"
    done = sweep(*words)
    assert "started" not in done.stderr and "resumed" not in done.stderr, done.stderr
    # One point after the other, as a job array does, and their results; two processes at once share the work.
    os.rename("runs/sweep", "runs/again")
    crew = [subprocess.Popen([potqat, "sweep", "sweep.yaml", "--point", str(1 + k), "--quiet"],
                             stdout=subprocess.DEVNULL) for k in (0, 2, 4)]
    assert [process.wait(300) for process in crew] == [0, 0, 0]
    assert not os.path.exists("runs/sweep/results.csv") and finished("runs/sweep") == 4
    sweep("sweep.yaml", "--jobs", "2", "--quiet")
    assert read("runs/sweep/results.csv") == whole["results.csv"], "results.csv differs after --point"


def changed():
    write("sweep.yaml", SWEEP.replace("seeds:", "# quicker\nseeds:"))
    sweep("sweep.yaml", "--dry-run")  # a comment is no change
    done = sweep("sweep.yaml", "train.lr=2e-3", status=2)
    assert "train.lr: the run was trained with 0.001, found 0.002" in done.stderr, done.stderr
    sweep("sweep.yaml", "--point", "13", status=2)


def failures():
    write("fail.yaml", "base: base.yaml\nparent: parent.yaml\nparent_seeds: shared\ncontrol: base-control.yaml\n"
          "list:\n- {name: wild, train.lr: 10, train.weight_decay: 10, train.max_bad_iters: 0, "
          "train.schedule: constant}\n"
          "- {data.path: missing.txt}\n- {}\n")
    write("base-control.yaml", PARENT)
    done = sweep("fail.yaml", "train.max_iters=40", status=1)
    assert "1 of 5 runs in runs/fail failed" in done.stderr, done.stderr
    rows = table("runs/fail/results.csv")
    assert [(row["name"], row["status"]) for row in rows] == [
        ("wild", "diverged"), ("path=missing.txt", "failed"), ("base", "done")], rows
    assert rows[0]["loss"] == "" and 0 < int(rows[0]["iterations"]) <= 40, rows[0]
    assert "missing.txt" in read("runs/fail/path=missing.txt.log").decode()
    with open("missing.txt", "w") as file:  # mended: the failed one alone is tried again
        file.write("".join(f"the cat number {i} sat on the mat.\n" for i in range(900)))
    assert "base: " not in sweep("fail.yaml", "train.max_iters=40", status=1).stderr


def refusals():
    grid = "grid: {quant.levels: [7]}\n"
    refused("base: base.yaml\ngrid:\n  quant.levels:\n    - 7\n    - 8\n", "bad.yaml:5:", "quant.levels", "8")
    refused("base: base.yaml\ngrid:\n  quant.level: [7]\n", "bad.yaml:3:", "did you mean quant.levels?")
    refused("base: base.yaml\ngrid:\n  quant.levels: []\n", "bad.yaml:3:", "quant.levels", "a list of values")
    refused("base: base.yaml\n\ngrid: {}\n", "bad.yaml:3:", "grid")
    refused("base: base.yaml\nlist: []\n", "bad.yaml:2:", "list")
    refused("base: base.yaml\nseeds: []\n" + grid, "bad.yaml:2:", "seeds")
    refused("base: base.yaml\nseeds: [1, -1]\n" + grid, "bad.yaml:2:", "train.seed")
    refused("base: base.yaml\nseeds: [1, 1]\n" + grid, "bad.yaml:3:", "both be named")
    refused("base: base.yaml\ngrid: {quant.levels: [7]}\nlist: [{quant.levels: 7}]\n", "bad.yaml:3:",
            "either grid or list")
    refused("base: base.yaml\ngird: {quant.levels: [7]}\n", "bad.yaml:2:", "gird", "did you mean grid")
    refused("base: none.yaml\n" + grid, "bad.yaml:1:", "none.yaml")
    refused(grid, "bad.yaml:1:", "base")
    refused("base: base.yaml\n", "bad.yaml:1:", "grid, list or seeds")
    refused("- base\n", "bad.yaml:1:", "a list")
    refused("", "bad.yaml:1:", "keys of a sweep")
    refused("base: base.yaml\ngrid: {run.dir: [a]}\n", "bad.yaml:2:", "run.dir")
    refused("base: base.yaml\ngrid: {train.seed: [1]}\n", "bad.yaml:2:", "under seeds")
    refused("base: base.yaml\nparent: parent.yaml\ngrid: {init.from: [a]}\n", "bad.yaml:3:", "init.from")
    refused("base: base.yaml\ngrid: {init.from: [nowhere@last]}\n", "bad.yaml:2:", "init.from", "nowhere")
    refused("base: base.yaml\nparent_seeds: shared\n" + grid, "bad.yaml:2:", "no parent")
    refused("base: base.yaml\nparent: parent.yaml\nparent_seeds: some\n" + grid, "bad.yaml:3:", "each or shared")
    refused("base: base.yaml\ncontrol: {quant.levels: 8}\n" + grid, "bad.yaml:2:", "quant.levels")
    refused("base: base.yaml\nlist: [{name: a/b}, {name: a b/c}, {name: a-b}]\n", "bad.yaml:2:", "named a-b")
    refused("base: base.yaml\nlist: [{quant.levels: 7}, {quant.levels: 07}]\n", "both be named levels=7")
    refused("base: base.yaml\n" + grid, "command line", "quant.levels", "grid", words=["quant.levels=9"])
    refused("base: base.yaml\n" + grid, "command line", "run.dir", words=["run.dir=x"])
    refused("base: base.yaml\ngrid: {train.lr: [" + ",".join("1e-3" for _ in range(101)) + "], train.min_lr: ["
            + ",".join("1e-5" for _ in range(101)) + "]}\n", "at most 10000")


os.chdir(sys.argv[2])
for path in glob.glob("configs/sweep-*.yaml"):
    sweep(path, "--dry-run")
with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    write("base.yaml", BASE)
    write("parent.yaml", PARENT)
    refusals()
    check_figures(undisturbed())
    disturbed()
    changed()
    failures()
print("sweeps: all as they should be")
