"""parquet.py POTQAT docs/data.md: the script there turns parquet files into JSONL that prepare reads as they were.
Skips without pyarrow."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

try:
    import pyarrow
    import pyarrow.parquet
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

potqat = os.path.abspath(sys.argv[1])
script = re.search(r"```python\n(.*?)```", pathlib.Path(sys.argv[2]).read_text("utf-8"), re.S)[1]
texts = ["one\n", "zwei é \u2028", 'three "x"', "\0\t"] * 700
with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    os.mkdir("jsonl")
    for name in "ba":  # two files, read in the order of their names
        table = pyarrow.table({"id": list(range(len(texts))), "text": [name + text for text in texts]})
        pyarrow.parquet.write_table(table, name + ".parquet")
    subprocess.run([sys.executable, "-c", script, ".", "jsonl"], check=True)
    subprocess.run([potqat, "data", "prepare", "jsonl", "-o", "shards", "data.tokenizer=byte", "data.split=[1,0,0]"],
                   check=True)
    expected = [name + text for name in "ab" for text in texts]
    expected = "".join(text if text.endswith("\n") else text + "\n" for text in expected).encode()
    found = pathlib.Path("shards/train-00000.shard").read_bytes()[64:]
    assert found[::2] == expected and not any(found[1::2])
