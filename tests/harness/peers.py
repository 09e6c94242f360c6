#!/usr/bin/env python3
"""bench/peers.sh against stand-ins for potqat, the PyTorch script and torch: what is measured, kept, gone on with, told.

usage: peers.py SOURCE-ROOT
"""
import csv
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(sys.argv[1]).resolve()
sys.path.append(str(ROOT / "bench"))
sys.dont_write_bytecode = True
import machine

# Both count their calls; figures come from a table by what was asked and how often, so medians can be told.
STAND_IN = """import json, os, sys, time
words = dict(zip(sys.argv[1:], sys.argv[2:]))
flags = [w for w in ("--qat", "--compile") if w in sys.argv]
me = os.environ["ME"] if "OPENBLAS_CORETYPE" in os.environ else "peer"
with open(os.environ["CALLS"], "a") as calls: print(me, *sys.argv[1:], file=calls)
if me == "peer" and words["--precision"] == os.environ.get("PEER_LACKS"):
    sys.exit("Traceback\\nRuntimeError: no such products here\\nhint: none")
if words["--iters"] == os.environ.get("STOP_AT"):
    os.kill(os.getppid(), 2)
    time.sleep(0.5)
    with open(os.environ["CALLS"], "a") as calls: print("ended", file=calls)
base = {"potqat": 3000, "peer": 1000}[me] * (2 if "--compile" in flags else 1) // (2 if "--qat" in flags else 1)
n = open(os.environ["CALLS"]).read().count(" ".join([me, *sys.argv[1:]]) + "\\n")
speed = base * {1: 0.9, 2: 1.1, 3: 1.0}.get(n, 1.0)
print(json.dumps({"shape": words["--shape"], "precision": words["--precision"], "qat": "--qat" in flags,
    "batch": int(words["--batch"]) + int(os.environ.get("WRONG", 0)), "context": int(words["--context"]),
    "threads": int(words["--threads"]), "step_ms": 1e6 / speed, "tokens_per_s": speed,
    "peak_rss_mb": 40 if me == "potqat" else 160 if "--compile" in flags else 200}))
"""
CPUINFO = "vendor_id\t: {}\ncpu family\t: {}\nmodel\t\t: {}\nmodel name\t: {}\nflags\t\t: {}\n\nvendor_id\t: other\n"
MACHINES = [(("AuthenticAMD", 26, 2, "AMD EPYC", "avx2 avx512f avx512_bf16"), "amd-epyc-zen5-avx512bf16-2threads"),
            (("AuthenticAMD", 25, 1, "AMD EPYC 7763 64-Core Processor", "avx2"), "amd-epyc-7763-zen3-avx2-2threads"),
            (("AuthenticAMD", 25, 17, "AMD EPYC 9R14", "avx512_vnni avx512f"), "amd-epyc-9r14-zen4-avx512vnni-2threads"),
            (("GenuineIntel", 6, 143, "Intel(R) Xeon(R) Platinum 8488C CPU @ 2.40GHz", "amx_bf16 avx512_bf16"),
             "intel-xeon-platinum-8488c-sapphirerapids-amx-2threads"),
            (("Elsewhere", 9, 7, "Some/../CPU", "sse"), "some-family9-model7-2threads")]


class Place:
    def __init__(self, folder):
        self.folder, self.calls, self.out = folder, folder / "calls", folder / "results"
        (folder / "peer.py").write_text(STAND_IN)
        (folder / "potqat").write_text(f"#!/bin/sh\nshift 2\nOPENBLAS_CORETYPE=x ME=potqat exec {sys.executable} "
                                       f"{folder}/peer.py bench \"$@\"\n")
        (folder / "potqat").chmod(0o755)
        (folder / "torch.py").write_text("__version__ = '9.8'")

    def run(self, *words, status=0, says="", **environment):
        self.calls.write_text("")
        done = subprocess.run([ROOT / "bench/peers.sh", *words, "--out", self.out], capture_output=True, text=True, env={
            **os.environ, "POTQAT": f"{self.folder}/potqat", "PEER": f"{self.folder}/peer.py", "PEER_PYTHON": sys.executable,
            "PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_CORETYPE": "Haswell", "THROUGH": "",
            "CALLS": str(self.calls), **environment})
        assert done.returncode == status, f"{words}: status {done.returncode}, expected {status}\n{done.stderr}"
        assert says in done.stdout + done.stderr, f"{words}: expected {says!r} in\n{done.stdout}{done.stderr}"
        return done.stdout, [line.split() for line in self.calls.read_text().splitlines()]

    def csv(self):
        [path] = self.out.glob("*.csv")
        return path

    def rows(self):
        return list(csv.DictReader(self.csv().open()))


def table(out):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line.startswith("| char")]


def check_machines():
    for values, name in MACHINES:
        told = machine.file_name(*machine.describe(CPUINFO.format(*values)), 2)
        assert told == name, f"{values}: {told}, expected {name}"


def check_measuring(place):
    out, calls = place.run("char")
    assert [c[0] + ("+" if "--compile" in c else "") for c in calls[:7]] == [
        "potqat", "peer", "peer+", "peer+", "potqat", "peer", "peer+"], f"not in turn, warmed up once: {calls[:7]}"
    assert len(calls) == 4 * (3 * 3 + 1) and len(place.rows()) == 4 * 3 * 3
    assert all(c[c.index("--threads") + 1] == "2" and c[c.index("--batch") + 1] == "12" for c in calls)
    # Medians 3000, 1000 and 2000 tokens/s, halved by QAT; 40 MB of 160.
    plain = ["3,000", "1,000", "2,000", "1.50", "20.0 %", "40", "25 %", "", ""]
    qat = ["1,500", "500", "1,000", "1.50", "20.0 %", "40", "25 %", "2.00", "2.00"]
    assert table(out) == [["char", p, w, *cells] for w, cells in (("QAT", qat), ("plain", plain))
                          for p in ("fp32", "bf16")], table(out)
    row = place.rows()[2]
    assert (row["contender"], row["run"], row["qat"]) == ("torch 9.8 compiled", "1", "yes") and "/" not in row["command"]
    if shutil.which("gnuplot"):
        svg = place.csv().with_suffix(".svg").read_text()
        assert "char bf16 QAT" in svg and "1.50" in svg


def check_going_on(place):
    assert place.run("char")[1] == [], "measured again"
    lines = place.csv().read_text().splitlines(keepends=True)
    place.csv().write_text("".join(lines[:-2]))
    calls = place.run("char")[1]
    assert [c[0] for c in calls] == ["peer"] * 3, f"expected eager, the warming up and compiled: {calls}"
    assert place.rows()[-1]["run"] == "3" and len(place.rows()) == 36
    assert len(place.run("char", "--threads", "1", "--runs", "1")[1]) == 4 * 4, "other threads are other measurements"
    some = place.run("char", "--precision", "bf16", "--weights", "qat", "--threads", "3", "--runs", "1")[1]
    assert len(some) == 4 and all("--qat" in c and c[c.index("--precision") + 1] == "bf16" for c in some), some
    place.csv = lambda: next(place.out.glob("*2threads.csv"))
    assert len(place.run("char", "--iters", "7", "--runs", "1")[1]) == 4 * 4, "other commands are other measurements"
    before = place.csv().read_text()
    calls = place.run("char", "--iters", "8", STOP_AT="8", status=1, says="goes on from here")[1]
    assert len(calls) == 2 and calls[1] == ["ended"], f"what runs when it is stopped is to end by itself: {calls}"
    assert place.csv().read_text() == before
    place.csv().write_text(before[:-20])
    place.run("char", status=1, says="cut short")
    assert place.csv().read_text() == before[:-20], "a damaged file was changed"
    place.csv().write_text(before)


def check_unable(place):
    out, _ = place.run("char", "--iters", "9", PEER_LACKS="bf16", says="RuntimeError: no such products here")
    assert [row[5] for row in table(out)] == ["1,000", "", "2,000", ""], table(out)
    assert "Not measured: eager (char bf16 QAT, char bf16): RuntimeError" in out
    (place.folder / "torch.py").write_text("raise ImportError('no torch on this machine')")
    assert all(c[0] == "potqat" for c in place.run("char", "--iters", "10", says="no torch on this machine")[1])
    place.run("char", "--iters", "11", PEER="", says="PEER names no script")
    place.run("char", "--iters", "12", POTQAT="/dev/null/none", status=1, says="nothing could be measured")
    place.run("char", "--iters", "13", WRONG="1", status=1, says="'batch': 13")
    place.run("tiny", status=2, says="expected the shapes char, baby, 124M, found tiny")
    place.run("--precision", "fp8", status=2, says="choose from")
    place.run("--iters", "0", status=2, says="expected a whole number above 0, found 0")


def main():
    if not shutil.which("git") or subprocess.run(["git", "-C", ROOT, "rev-parse"], capture_output=True).returncode:
        print("skipped: this is no git checkout, so there is no commit to measure")
        return 77
    check_machines()
    with tempfile.TemporaryDirectory() as folder:
        place = Place(pathlib.Path(folder))
        check_measuring(place)
        check_going_on(place)
        check_unable(place)
    print("bench/peers.sh measures in turn, keeps what it measured, and tells what it could not")
    return 0


sys.exit(main())
