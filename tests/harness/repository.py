#!/usr/bin/env python3
"""What the repository's files may not hold: paths of one machine, hosts of package registries, promises left in
code, machine-made or oversized files.

usage: repository.py SOURCE-ROOT
"""
import pathlib
import re
import shutil
import subprocess
import sys

FORBIDDEN = {
    r"(?<![\w.])/(work|root|home/\w+|Users)/": "a path of one machine",
    r"\b(deb\.debian\.org|pypi\.org|pythonhosted\.org|crates\.io|registry\.npmjs)\b": "a package registry's host",
    r"\b(TO" "DO|FIX" "ME|X" "XX)\\b": "a promise instead of the thing",
    r"\b(clau" "de|chat" "gpt|lan" "guage-model assistant)\\b": "a word of tools, not of this project",
}
LARGEST = 400_000  # bytes: data are fetched, not kept here


def main(root):
    listed = shutil.which("git") and subprocess.run(["git", "-C", root, "ls-files", "-z"], capture_output=True)
    if not listed or listed.returncode:
        print("skipped: this is no git checkout, so the files of the repository are not known")
        return 77
    bad, count = [], 0
    for name in listed.stdout.decode().split("\0"):
        path = root / name
        if not name or not path.is_file():
            continue
        count += 1
        data = path.read_bytes()
        if len(data) > LARGEST:
            bad.append(f"{name}: {len(data)} bytes; at most {LARGEST} are kept in the repository")
        if b"\0" in data:
            continue
        for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
            bad += [f"{name}:{number}: {why}: {line.strip()}" for pattern, why in FORBIDDEN.items()
                    if re.search(pattern, line, re.I) and path.name != pathlib.Path(__file__).name]
    print("\n".join(bad) or f"{count} files, none with what it may not hold")
    return bool(bad) or count == 0


sys.exit(main(pathlib.Path(sys.argv[1])))
