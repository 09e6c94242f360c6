"""--profile of potqat train and potqat bench train: the rows, what they add up to, and that a run's files stay as they
are. Nothing here depends on how fast the machine is. Usage: profile.py POTQAT."""
import os
import re
import subprocess
import sys
import tempfile

potqat = os.path.abspath(sys.argv[1])
ROW = re.compile(r"^(?P<name>\S.{15}) (?P<pass>.{8}) (?P<calls>[ \d]{9}) +(?P<ms>\d+\.\d+) +(?P<share>-?\d+\.\d+)"
                 r"(?: +(?P<gflops>[\d.e+-]+)(?: +(?P<peak>[\d.]+))?)?$")
LAYERS, WIDTH, VOCAB, TOKENS, CONTEXT = 4, 128, 65, 12 * 64, 64  # the shape char
LINEAR = 2 * TOKENS * LAYERS * 12 * WIDTH * WIDTH  # operations: q|k|v, projection, and the MLP's two of 4 x width
ATTENTION = 2 * LAYERS * 12 * WIDTH * sum(range(1, CONTEXT + 1))  # each query meets the keys up to its own


def run(*arguments, status=0):
    done = subprocess.run([potqat, *arguments], capture_output=True, text=True)
    assert done.returncode == status, (arguments, done)
    return done


def parse(text):
    """{section: [row]}, and the number of iterations."""
    sections, rows = {}, None
    for line in text[text.index("of an iteration"):].splitlines():
        if line.startswith("of "):
            rows = sections.setdefault(line[:16].strip(), [])
        elif match := ROW.match(line):
            rows.append({key: (value or "").strip() for key, value in match.groupdict().items()})
        else:
            last = re.fullmatch(r"(\d+) iterations, [\d.]+ s, \d+ threads", line)
            assert last, line
    for rows in sections.values():  # two digits behind the point are printed
        assert abs(sum(float(row["share"]) for row in rows) - 100) <= 0.006 * len(rows), rows
        assert all(float(row["ms"]) >= 0 for row in rows), rows
    return sections, int(last[1])


def find(rows, name, which=""):
    found = [row for row in rows if (row["name"], row["pass"]) == (name, which)]
    assert len(found) == 1, (name, which, rows)
    return found[0]


def check_operations(rows, name, which, calls, expected):
    """GFLOP/s times seconds are the operations that the shape says."""
    row = find(rows, name, which)
    assert int(row["calls"]) == calls, row
    found = float(row["gflops"]) * 1e9 * float(row["ms"]) * 1e-3
    assert abs(found - expected) <= 0.02 * expected, (row, found, expected)


names = {}
for precision in "fp32", "bf16":
    command = ["bench", "train", "--profile", "--iters", "3", "--threads", "2", "--qat", "--precision", precision]
    done = subprocess.run([potqat, *command], capture_output=True, text=True)
    if precision == "bf16" and done.returncode == 2:
        print("bf16 not tried:", done.stderr.strip())
        continue
    assert done.returncode == 0 and done.stdout.count("\n") == 1, done
    sections, iterations = parse(done.stderr)
    rows = sections["of an iteration"]
    names[precision] = [(row["name"], row["pass"]) for row in rows]
    assert iterations == 3  # those that warm up do not count
    # c_attn, attn.c_proj and c_fc have 8 of a layer's 12 squares of the width, mlp.c_proj has 4
    check_operations(rows, "linear", "forward", 3 * 3 * LAYERS, LINEAR * 2 / 3)
    check_operations(rows, "linear", "backward", 3 * 3 * LAYERS, 2 * LINEAR * 2 / 3)
    check_operations(rows, "gelu, linear", "forward", 3 * LAYERS, LINEAR / 3)
    check_operations(rows, "gelu, linear", "backward", 3 * LAYERS, 2 * LINEAR / 3)
    check_operations(rows, "attention", "forward", 3 * LAYERS, 2 * ATTENTION)
    check_operations(rows, "attention", "backward", 3 * LAYERS, 5 * ATTENTION)
    check_operations(rows, "head", "backward", 3, 3 * 2 * TOKENS * WIDTH * VOCAB)
    assert all(float(row["peak"]) > 0 for row in rows if row["gflops"]), rows
    for name in "loader", "quantize weights", "gradient norm", "AdamW":
        assert int(find(rows, name)["calls"]) == 3
assert "bf16" not in names or names["bf16"] == names["fp32"], names

COMMON = ["train.max_iters=6", "eval.every=3", "eval.windows=4", "save.every=2", "save.keep=9", "log.every=2",
          "model.layers=2", "model.heads=2", "model.width=16", "model.context=12", "train.context=12", "train.batch=3",
          "train.warmup_iters=2", "train.decay_iters=6", "quant.quantizer=pot", "quant.refit=2", "train.recompute=true"]
DIFFER = {"run.json", "timing.jsonl", "report.html", "lock"}  # times, arguments, folders, process


def files_of(folder):
    return {name: open(os.path.join(folder, name), "rb").read() for name in os.listdir(folder) if name not in DIFFER}


with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    with open("text.txt", "w") as file:
        file.write("the cat sat on the mat, and the dog did not. " * 60)
    with open("empty.yaml", "w") as file:
        file.write("data:\n  path: text.txt\n  tokenizer: char\nrun:\n  dir: run\n")
    kept = []
    for more in [], ["--profile"]:
        done = run("train", "empty.yaml", *COMMON, *more)
        assert ("of an iteration" in done.stderr) == bool(more), done.stderr
        kept.append(files_of("run"))
        os.rename("run", f"run{len(kept)}")
    assert kept[0].keys() == kept[1].keys() and len(kept[0]) >= 6, kept[0].keys()
    for name, data in kept[0].items():
        assert data == kept[1][name], f"{name} differs with --profile"
    sections, iterations = parse(done.stderr)
    rows, whole = sections["of an iteration"], sections["of the whole"]
    assert iterations == 6 and int(find(whole, "iterations")["calls"]) == 6
    assert int(find(whole, "evaluation")["calls"]) == 3  # at 0, 3 and 6
    assert int(find(whole, "saving")["calls"]) >= 3 + 1  # checkpoints at 2, 4 and 6, the best
    assert int(find(rows, "linear", "backward")["calls"]) == 6 * 6
    assert int(find(rows, "linear", "forward")["calls"]) > 6 * 6  # recomputed blocks
    together = sum(float(row["ms"]) for row in rows)
    assert abs(together - float(find(whole, "iterations")["ms"])) <= 0.001 * len(rows), together
    done = run("train", "empty.yaml", *COMMON, "run.dir=short", "run.max_minutes=1e-9", "--profile", "--quiet", status=3)
    assert done.stderr.startswith("profile: no iteration was run\n"), done.stderr  # stopped before its first
print("rows, sums and bytes as they should be")
