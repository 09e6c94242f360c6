#!/usr/bin/env python3
"""Every relative link of a document leads somewhere, and every file it names in backticks is there.

usage: links.py SOURCE-ROOT
"""
import pathlib
import re
import sys

FOLDERS = "src/ data/ train/ tests/ include/ configs/ docs/ experiments/ bench/".split()


def main(root):
    bad, count = [], 0
    documents = [*root.glob("*.md"), *root.glob("docs/*.md"), *root.glob("bench/*.md"), *root.glob("experiments/*/*.md")]
    for document in sorted(documents):
        text = document.read_text()
        names = [(document.parent / target.split("#")[0], target) for target in re.findall(r"\]\(([^)]+)\)", text)
                 if not re.match(r"\w+:|#", target)]
        for span in re.findall(r"`([^`\n]+)`", text):
            # A name in capitals, a star or a bracket stands for something; a run is made by the reader.
            if span.startswith(tuple(FOLDERS)) and not re.search(r"[A-Z<*{ ]", span):
                names.append((root / span, span))
        count += len(names)
        bad += [f"{document.relative_to(root)}: there is no {name}" for path, name in names if not path.exists()]
    print("\n".join(bad) or f"{count} names in {len(documents)} documents, all there")
    return bool(bad) or count == 0


sys.exit(main(pathlib.Path(sys.argv[1])))
