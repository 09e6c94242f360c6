#!/usr/bin/env python3
"""Installs into a temporary folder, then builds and runs a small program against each installed library by
pkg-config alone, and looks at what the libraries export and link.

usage: install.py BUILD-FOLDER SOURCE-ROOT
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

INFER_HEADERS = ("status.h", "log.h", "model.h", "packed.h", "engine.h", "tokenizer.h", "quantizer.h")
FOREIGN_TO_INFER = ("hdf5", "fyaml", "libpotqat.so")


def run(*words, **options):
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))}\nended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def expect(condition, sentence):
    if not condition:
        sys.exit(sentence)


def declared(headers):
    text = "\n".join(re.sub(r"/\*.*?\*/", "", h.read_text(), flags=re.S) for h in headers)
    return set(re.findall(r"PQ_API[^;{(]*?\b(pq_\w+)\s*\(", text))


def exported(library):
    return {line.split()[-1].split("@")[0] for line in run("nm", "-D", "--defined-only", library).splitlines()}


def main(build, source):
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        run("meson", "install", "-C", build, "--no-rebuild", "--quiet", "--destdir", root)
        pc = next(root.rglob("potqat.pc"))
        library = {name: next(root.rglob(f"lib{name}.so.0")) for name in ("potqat", "potqat-infer")}
        headers = next(root.rglob("potqat/status.h")).parent
        expect(sorted(p.name for p in headers.iterdir()) == sorted(p.name for p in (source / "include/potqat").iterdir()),
               "the installed headers are not those of include/potqat")

        for name, part in ("potqat", headers.glob("*.h")), ("potqat-infer", [headers / h for h in INFER_HEADERS]):
            wanted, found = declared(part), exported(library[name])
            expect(wanted, f"no PQ_API function was found in the headers of lib{name}")
            expect(found == wanted, f"lib{name} exports {sorted(found - wanted)} that no header of it declares, "
                                    f"and lacks {sorted(wanted - found)}")
            dynamic = run("readelf", "-d", library[name])
            expect(f"Library soname: [lib{name}.so.0]" in dynamic, f"lib{name} has no soname with version 0:\n{dynamic}")
        linked = run("ldd", library["potqat-infer"])
        for word in FOREIGN_TO_INFER:
            expect(word not in linked, f"libpotqat-infer links {word}:\n{linked}")
        undefined = run("nm", "-D", "--undefined-only", library["potqat-infer"])
        expect(not re.search(r"\b(H5|fy_)", undefined), f"libpotqat-infer calls HDF5 or libfyaml:\n{undefined}")
        expect("hdf5" in run("ldd", library["potqat"]), "libpotqat links no HDF5, so this test cannot tell the two apart")

        environment = dict(os.environ, PKG_CONFIG_LIBDIR=str(pc.parent), PKG_CONFIG_SYSROOT_DIR=str(root),
                           LD_LIBRARY_PATH=str(library["potqat"].parent))
        for name in library:
            program = root / f"use-{name}"
            flags = run("pkg-config", "--cflags", "--libs", name, env=environment).split()
            run(os.environ.get("CC", "cc"), "-std=c17", "-Wall", "-Wextra", "-Werror",
                source / "tests/harness" / f"use_{name.replace('-', '_')}.c", "-o", program, *flags)
            print(f"{name}: {run(program, env=environment).strip()}")
        print(f"potqat: {run(next(root.rglob('bin/potqat')), '--version', env=environment).strip()}")


main(sys.argv[1], pathlib.Path(sys.argv[2]))
