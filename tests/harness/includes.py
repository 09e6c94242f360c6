#!/usr/bin/env python3
"""Who may include whom: reads every #include of the source tree against the table below."""
import pathlib
import re
import sys

# room: the rooms whose headers it may include. Its own, and the public ones in include/, go without saying.
# "model/model.h" stands for that one header and the table behind it, without the rest of the room.
TABLE = {
    "base": "",
    "config": "base",
    "kernels": "base",
    "quant": "base kernels",
    "graph": "base kernels",
    "ops": "base kernels quant graph",
    "optim": "base kernels",
    "model": "base quant graph ops",
    "formats": "base quant model/model.h",
    "store": "base config quant formats model/model.h",
    "infer": "base kernels quant formats model/model.h",
    "data": "base",
    "train": "base config kernels quant graph ops model optim formats store infer data",
    "cli": "base config formats store infer data train model/model.h kernels/gemm.h",
}
# A library has one user, so that it can be replaced and its faults are in one place.
OWNERS = {
    "hdf5.h": ["store"],
    "cblas.h": ["kernels/gemm.c"],
    "oneapi/dnnl/dnnl.h": ["kernels/gemm.c", "kernels/gemm_bf16.c"],
    "pcre2.h": ["data/tokenizer_split.c"],
    "omp.h": ["base", "kernels"],
}
ALIASES = {"model/gpt2_params.def": "model/model.h"}


def main(root):
    bad, seen = [], 0
    folders = [(room, root / ("" if room in ("data", "train") else "src") / room) for room in TABLE]
    for room, folder in folders:
        for path in sorted(p for p in folder.rglob("*") if p.suffix in (".c", ".h", ".def")):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                match = re.match(r'\s*#\s*include\s+([<"])([^>"]+)[>"]', line)
                if not match:
                    continue
                seen += 1
                here, name = f"{path.relative_to(root)}:{number}", match[2]
                bad += check(room, path.relative_to(folder), match[1] == '"', name, here)
    for path in sorted((root / "include").rglob("*.h")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if re.match(r'\s*#\s*include\s+"', line):
                bad.append(f"{path.relative_to(root)}:{number}: a public header includes a private one: {line}")
    print("\n".join(bad) or f"{seen} includes, all as the table allows")
    return bool(bad) or seen == 0


def check(room, path, quoted, name, here):
    if name == "version.h":  # made by the build
        return []
    if not quoted or name.startswith("potqat/"):
        owners = OWNERS.get(name, [room])
        if room in owners or f"{room}/{path}" in owners:
            return []
        return [f"{here}: <{name}> belongs to {' and '.join(owners)} alone"]
    name = ALIASES.get(name, name)
    other = name.split("/")[0]
    if other not in TABLE:
        return [f"{here}: \"{name}\" does not name its room"]
    if other == room or other in TABLE[room].split() or name in TABLE[room].split():
        return []
    return [f"{here}: {room} may not include {name} (it may include: {TABLE[room]})"]


sys.exit(main(pathlib.Path(sys.argv[1])))
