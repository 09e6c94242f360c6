#!/usr/bin/env python3
"""The measurements of peers.sh: which they are, how they are taken, and the CSV that they are kept in."""
import argparse
import csv
import datetime
import hashlib
import json
import os
import pathlib
import shlex
import subprocess
import sys

import machine
import summary

# Sequences and tokens of each, and how many iterations a run times (a few seconds or more).
SHAPES = {"char": (12, 64, 101), "baby": (64, 256, 3), "124M": (4, 512, 3)}
PRECISIONS = ["fp32", "bf16"]
WEIGHTS = {"qat": True, "plain": False}
COLUMNS = ["date", "commit", "cpu", "threads", "shape", "precision", "qat", "contender", "run", "step_ms", "tokens_per_s",
           "peak_rss_mb", "command"]
MEASURED = ["src", "train", "data", "include", "meson.build", "meson_options.txt"]
POTQAT = os.environ.get("POTQAT", "build/src/cli/potqat")
PEER = os.environ.get("PEER", "")
PEER_PYTHON = os.environ.get("PEER_PYTHON", "python3")
THROUGH = shlex.split(os.environ.get("THROUGH", ""))
# What caps potqat's OpenBLAS on some machines is not meant for the peer's.
PEER_ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}


class Unable(Exception):
    """Why a contender cannot be measured."""


def commit():
    """The last commit that changed the program, and a hash of what was changed since: results and documents do not count."""
    def git(*words):
        done = subprocess.run(["git", *words, "--", *MEASURED], capture_output=True)
        if done.returncode:
            raise SystemExit(f"peers.py: git cannot tell the commit of what is measured: {done.stderr.decode().strip()}")
        return done.stdout

    last, changed = git("log", "-1", "--format=%h").decode().strip(), git("diff", "HEAD")
    return last + ("+" + hashlib.sha256(changed).hexdigest()[:7] if changed else "")


def run(command, environment=None):
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        out, err = process.communicate()
    except KeyboardInterrupt:
        process.communicate()  # never killed: THROUGH may have to set right what it changed
        raise
    if process.returncode:
        lines = [line for line in err.splitlines() if line.strip()] or [f"exit status {process.returncode}"]
        raise Unable(([line for line in lines if "Error" in line] or lines)[-1].strip())
    return out


def torch_version():
    """The version of the peer's torch, or why there is none."""
    if not pathlib.Path(PEER).is_file():
        return None, f"PEER={PEER} is no file" if PEER else "PEER names no script"
    try:
        return run([PEER_PYTHON, "-c", "import torch; print(torch.__version__)"], PEER_ENVIRONMENT).strip(), None
    except (Unable, OSError) as why:
        return None, str(why)


class Contender:
    """One side: the start of its command, as run and as written down, the words it adds, and its environment."""

    def __init__(self, label, name, command, written, words=(), environment=None, unable=None):
        self.label, self.name, self.command, self.written = label, name, command, written
        self.words, self.environment, self.unable = list(words), environment, unable

    def arguments(self, case, options, iters):
        shape, precision, qat = case
        batch, context, _ = SHAPES[shape]
        return [*map(str, ["--shape", shape, "--precision", precision, "--batch", batch, "--context", context, "--iters",
                           iters, "--threads", options.threads]), *(["--qat"] if qat else []), *self.words]

    def measure(self, case, options):
        wanted = dict(zip(("shape", "precision", "qat"), case), threads=options.threads,
                      **dict(zip(("batch", "context"), SHAPES[case[0]])))
        out = run([*THROUGH, *self.command, *self.arguments(case, options, iterations(case, options))], self.environment)
        try:
            told = json.loads(out)
            found = {key: told[key] for key in wanted}
            figures = [float(told[key]) for key in ("step_ms", "tokens_per_s", "peak_rss_mb")]
        except (ValueError, KeyError, TypeError) as error:
            raise Unable(f"expected one JSON object, found {out.strip()[:80]!r} ({error!r})") from error
        if found != wanted:
            raise Unable(f"expected a run of {wanted}, found {found}")
        return figures

    def warm_up(self, case, options):
        """Fills the compiler's cache, so that neither its time nor its memory is measured."""
        if "--compile" in self.words:
            run([*self.command, *self.arguments(case, options, 1)], self.environment)


def rows_of(shapes, precisions=PRECISIONS, weights=WEIGHTS):
    """(shape, precision, QAT?) of each row."""
    return [(shape, precision, WEIGHTS[kind]) for kind in weights for shape in shapes for precision in precisions]


def iterations(case, options):
    return options.iters or SHAPES[case[0]][2]


def contenders(version, unable):
    peer, written = [PEER_PYTHON, PEER, "bench"], ["python3", pathlib.Path(PEER).name, "bench"]
    return [Contender("potqat", "potqat", [POTQAT, "bench", "train"], ["potqat", "bench", "train"]),
            Contender("eager", f"torch {version} eager", peer, written, [], PEER_ENVIRONMENT, unable),
            Contender("compiled", f"torch {version} compiled", peer, written, ["--compile"], PEER_ENVIRONMENT, unable)]


class Results:
    """The CSV file: rows are added as they are measured, so that a stop loses one at most."""

    def __init__(self, path):
        self.path, self.rows = path, []
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            self.write(COLUMNS)
        text = path.read_text()
        lines = list(csv.reader(text.splitlines()))
        for number, line in enumerate(lines, 1):
            if len(line) != len(COLUMNS) or (number == 1 and line != COLUMNS):
                raise SystemExit(f"{path}:{number}: expected {','.join(COLUMNS)}, found {','.join(line)}; "
                                 "mend or remove that line")
        if not text.endswith("\n"):
            raise SystemExit(f"{path}:{len(lines)}: expected a whole line, found one that was cut short; remove it")
        self.rows = [dict(zip(COLUMNS, line)) for line in lines[1:]]

    def write(self, values):
        with open(self.path, "a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(values)

    def add(self, row):
        self.write([row[column] for column in COLUMNS])
        self.rows.append({column: str(row[column]) for column in COLUMNS})

    def of(self, key):
        """The rows that have all of key, by number of the run."""
        return {int(row["run"]): row for row in self.rows if all(row[k] == v for k, v in key.items())}


class Bench:
    def __init__(self, options):
        version, unable = torch_version()
        self.options, self.contenders, self.commit = options, contenders(version, unable), commit()
        self.peer = f"torch {version}" if version else "no torch"
        self.cpu = machine.describe()
        self.path = pathlib.Path(options.out) / (machine.file_name(*self.cpu, options.threads) + ".csv")
        self.results = Results(self.path)
        self.unable = {}  # (case, label): why

    def key(self, case, contender):
        words = contender.written + contender.arguments(case, self.options, iterations(case, self.options))
        return dict(zip(("shape", "precision", "qat"), (*case[:2], "yes" if case[2] else "no")), commit=self.commit,
                    contender=contender.name, threads=str(self.options.threads), command=" ".join(words))

    def measure(self, case):
        """What is missing of a row, its contenders in turn."""
        warm = set()
        for number in range(1, self.options.runs + 1):
            for contender in self.contenders:
                key = self.key(case, contender)
                if number in self.results.of(key) or (case, contender.label) in self.unable:
                    continue
                try:
                    if contender.unable:
                        raise Unable(contender.unable)
                    if contender not in warm:
                        contender.warm_up(case, self.options)
                        warm.add(contender)
                    step, tokens, memory = contender.measure(case, self.options)
                except (Unable, OSError) as why:
                    self.unable[case, contender.label] = str(why)
                    print(f"{summary.case_name(case)}, {contender.label}: skipped: {why}", file=sys.stderr)
                    continue
                now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%MZ")
                self.results.add({**key, "date": now, "cpu": " ".join(self.cpu), "run": number, "step_ms": step,
                                  "tokens_per_s": tokens, "peak_rss_mb": round(memory)})
                print(f"{summary.case_name(case)}, {contender.label}, run {number} of {self.options.runs}: "
                      f"{tokens:.0f} tokens/s, {memory:.0f} MB", file=sys.stderr)

    def figures(self):
        """{case: {label: rows}} of this commit, whichever call of the script measured them."""
        found = {case: {c.label: list(self.results.of(self.key(case, c)).values()) for c in self.contenders}
                 for case in rows_of(SHAPES)}
        return {case: rows for case, rows in found.items() if any(rows.values())}


def positive(text):
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, found {text}")
    return int(text)


def read_options():
    parser = argparse.ArgumentParser(prog="bench/peers.sh", description="Measures potqat and PyTorch side by side.")
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help=f"{', '.join(SHAPES)}; default: all")
    parser.add_argument("--precision", choices=PRECISIONS, help="its rows alone")
    parser.add_argument("--weights", choices=WEIGHTS, help="their rows alone")
    parser.add_argument("--quick", action="store_true", help="the first row alone, one short run each, kept in runs/bench")
    parser.add_argument("--threads", type=positive, default=2, metavar="N", help="of every contender; default 2")
    parser.add_argument("--iters", type=positive, metavar="N", help="iterations a run; default: by shape")
    parser.add_argument("--runs", type=positive, metavar="N", help="runs of each contender; default 3")
    parser.add_argument("--out", metavar="FOLDER", help="where CSV and SVG go; default bench/results")
    options = parser.parse_args()
    for shape in options.shapes:
        if shape not in SHAPES:
            parser.error(f"expected the shapes {', '.join(SHAPES)}, found {shape}")
    options.shapes = options.shapes or list(SHAPES)
    options.rows = rows_of(options.shapes, [options.precision] if options.precision else PRECISIONS,
                           [options.weights] if options.weights else WEIGHTS)
    options.out = options.out or ("runs/bench" if options.quick else "bench/results")
    options.runs = options.runs or (1 if options.quick else 3)
    if options.quick:
        options.iters = options.iters or 3
    return options


def main():
    options = read_options()
    bench = Bench(options)
    for case in options.rows[:1 if options.quick else None]:
        bench.measure(case)
    figures = bench.figures()
    if not figures:
        raise SystemExit("peers.py: nothing could be measured (see above)")
    heading = f"{' '.join(bench.cpu)}, {options.threads} threads, commit {bench.commit}, {bench.peer}"
    print(summary.table(heading, figures, bench.unable))
    summary.plot(f"{' '.join(bench.cpu)}, {options.threads} threads", figures, bench.path.with_suffix(".svg"))


try:
    main()
except KeyboardInterrupt:
    sys.exit("\npeers.py: stopped; the same command goes on from here")
