"""potqat data as a program: results, exit statuses, sentences; and the reader printed in docs/formats.md.
usage: data_program.py POTQAT docs/formats.md"""

import json
import filecmp
import os
import random
import pathlib
import re
import subprocess
import sys
import tempfile
import time

potqat, formats = map(os.path.abspath, sys.argv[1:])
os.environ.pop("POTQAT_DATA", None)
reader = next(code for code in re.findall(r"```python\n(.*?)```", pathlib.Path(formats).read_text("utf-8"), re.S)
              if "read_split" in code)
exec(reader)


def run(*words, status=0, says=""):
    done = subprocess.run([potqat, "data", *words], capture_output=True, text=True)
    assert done.returncode == status, (words, done)
    assert says in (done.stderr if status else done.stdout), (words, says, done)
    assert status == 0 or done.stdout == "", (words, done)
    assert status == 0 or done.stderr.count("\n") == 1, (words, done)
    return done.stdout


def assert_same(a, b):
    names = sorted(os.listdir(a))
    assert names == sorted(os.listdir(b)), (names, os.listdir(b))
    assert filecmp.cmpfiles(a, b, names, shallow=False) == (names, [], [])


def kill_and_resume(source, words):
    """Kill the program after longer and longer times until it is done before."""
    run("prepare", source, "-o", "undisturbed", *words)
    for attempt in range(200):
        begun = subprocess.Popen([potqat, "data", "prepare", source, "-o", "killed", "--resume", *words],
                                 stdout=subprocess.DEVNULL)
        time.sleep(.01 * attempt)
        begun.kill()
        if begun.wait() == 0:
            break
    assert begun.returncode == 0
    assert_same("undisturbed", "killed")
    assert not os.path.exists("killed.part")


with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    os.environ["POTQAT_CACHE"] = folder
    text = "".join(chr(97 + (i * i + i // 7) % 26) + "é€😀\n"[i % 4] for i in range(3000))
    pathlib.Path("text.txt").write_text(text, "utf-8", newline="")
    n = len(text)

    run("prepare", "text.txt", "-o", "shards", says=f"{int(n * .8)} train, {int(n * .9) - int(n * .8)} val")
    assert read_text("shards", "train") == text[:int(n * .8)]
    assert read_text("shards", "val") == text[int(n * .8):int(n * .9)]
    assert read_text("shards", "test") == text[int(n * .9):]

    run("prepare", "text.txt", "-o", "shards", status=2, says="shards exists already; --overwrite")
    out = json.loads(run("prepare", "text.txt", "-o", "shards", "--overwrite", "--json", "data.tokenizer=byte",
                         "data.split=[0.5,0.5,0]", "--shard-tokens", "1000"))
    raw = text.encode()
    assert (out["train"], out["val"], out["test"], out["vocab"]) == (len(raw) // 2, len(raw) - len(raw) // 2, 0, 256)
    assert bytes(list(read_split("shards", "train"))) == raw[:len(raw) // 2]
    assert bytes(list(read_split("shards", "val"))) == raw[len(raw) // 2:]
    again = json.loads(run("prepare", "shards", "-o", "again", "--json"))
    assert again["hash"] == out["hash"]

    run("prepare", "text.txt", status=2, says="-o DIR")
    run("prepare", "none.txt", "-o", "x", status=1, says="none.txt")
    run("prepare", "text.txt", "-o", "x", "train.lr=1", status=2, says="train.lr=1")
    run("prepare", "text.txt", "-o", "x", "data.path=y", status=2, says="data.path=y")
    run("prepare", "text.txt", "-o", "x", "data.tokenizer=word", status=2, says="data.tokenizer")
    run("prepare", "text.txt", "-o", "text.txt/x", status=1, says="text.txt")
    assert not pathlib.Path("x").exists() and len(os.listdir()) == 3, os.listdir()

    rng = random.Random(4)
    documents = ["".join(rng.choices("abc é\n\"\\", k=rng.randrange(1, 4000))) for _ in range(400)]
    with open("lines.jsonl", "w", encoding="utf-8") as out:
        for number, document in enumerate(documents):
            print(json.dumps({"number": number, "body": document}, ensure_ascii=number % 2), file=out)
    closed = [d if d.endswith("\n") else d + "\n" for d in documents]
    run("prepare", "lines.jsonl", "-o", "lines", "data.field=body", "data.split=[1,0,0]", says="lines.jsonl")
    assert read_text("lines", "train") == "".join(closed)
    run("prepare", "lines.jsonl", "-o", "by", "data.field=body", "data.split_by=document", says="lines.jsonl")
    split = [0 if x < .8 else 1 if x < .9 else 2 for x in ((i + 1) * (5 ** .5 - 1) / 2 % 1 for i in range(400))]
    for i, name in enumerate(["train", "val", "test"]):
        assert read_text("by", name) == "".join(d for d, s in zip(closed, split) if s == i), name
    run("prepare", "lines.jsonl", "-o", "x", status=1, says='lines.jsonl, line 1: the object has no field "text"')
    kill_and_resume("lines.jsonl", ["data.field=body", "--shard-tokens", "20000"])

    run("fetch", "builtin", status=2, says="-o FILE")
    run("fetch", "builtin", "-o", "builtin.txt", says="builtin.txt\n")
    assert pathlib.Path("builtin.txt").stat().st_size == 1000000
    run("fetch", "builtin", "-o", "builtin.txt", status=2, says="exists already")
    run("fetch", "shakespeare", status=2, says="there are tinyshakespeare and builtin")
    pathlib.Path("tinyshakespeare.txt").write_text("not it")
    run("fetch", "tinyshakespeare", status=1, says="SHA-256")
