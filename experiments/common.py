"""What the experiments' scripts share: losses by `potqat eval`, means with intervals, CSV files."""
import csv
import json
import os
import statistics
import subprocess

POTQAT = os.environ.get("POTQAT", "build/src/cli/potqat")
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}  # two-sided 95 % of Student's t, by degrees of freedom


def potqat(*words):
    done = subprocess.run([POTQAT, *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"potqat {' '.join(map(str, words))}: {done.stderr.strip()}")
    return done.stdout


def evaluate(model, *keys, against=None):
    """The JSON of potqat eval: loss, loss_se, tokens; with against: difference, difference_se."""
    return json.loads(potqat("eval", model, *(["--against", against] if against else []), "--json", "--quiet", *keys))


def quantize(model, out, *keys):
    potqat("quantize", model, "-o", out, "--overwrite", "--quiet", *keys)
    return out


def mean_ci95(values):
    """Mean and half the 95 % interval over seeds; no interval for one value."""
    if len(values) == 1:
        return values[0], None
    return statistics.fmean(values), T95[len(values) - 1] * statistics.stdev(values) / len(values) ** 0.5


def number(x, digits=4):
    return "" if x is None else f"{x:.{digits}f}"


class Table:
    """A CSV file that grows row by row, so that what is there survives a stop."""

    def __init__(self, path, *columns):
        self.file = open(path, "w", newline="")
        self.writer = csv.writer(self.file, lineterminator="\n")
        self.row(*columns)

    def row(self, *values):
        self.writer.writerow(values)
        self.file.flush()
