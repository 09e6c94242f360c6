"""c_export.py POTQAT: models exported as C do what the engine does with int8 activations, bit for bit.

Each is compiled as strict C99 with the undefined behaviour and address sanitizers and run: the same greedy tokens, also
beyond the context, and the same losses of a text's windows. What export says about flash and RAM is what the compiler
makes; with arm-none-eabi-gcc there is a device's compiler, too. Skips where the engine has no --act, and leaves out the
losses where there is no numpy.
"""
import csv
import ctypes
import json
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import tempfile

try:
    import numpy as np
except ImportError:
    np = None

POTQAT = str(pathlib.Path(sys.argv[1]).resolve())
STRICT = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror"]
CONTEXT, TOKENS = 24, 60
BASES = {"plain": "", "tanh": "model.gelu=tanh model.bias=true", "narrow": "model.width=32",
         "wide": "model.width=160 model.layers=1"}
# name, base, quantizer
CASES = [("plain", "plain", ""),
         ("tokens", "plain", "quant.activations=int8-token"),
         ("grouped", "tanh", "quant.levels=9 quant.granularity=group32"),
         ("narrow", "narrow", "quant.levels=7 quant.granularity=tensor"),
         ("wide", "wide", "quant.levels=31"),
         ("finest", "narrow", "quant.levels=63 quant.scale_grid=fp32"),
         ("zero_free", "plain", "quant.quantizer=pot-zero-free quant.levels=16"),
         ("released", "narrow", "quant.quantizer=pot-released quant.range=[-8,4] quant.scale_grid=fp32"),
         ("no_wpe", "narrow", "quant.levels=3 quant.params=[\"wte.weight\",\"h.*.weight\"]"),
         ("outliers", "outliers", ""),
         ("outliers_tokens", "outliers", "quant.activations=int8-token")]
random.seed(11)
WORDS = ["".join(random.choice("abcdefghijklmn") for _ in range(random.randint(1, 6))) for _ in range(40)]
TEXT = "".join(random.choice(WORDS) + random.choice("  .\n") for _ in range(3000))


def run(*words, status=0, says=""):
    done = subprocess.run([*map(str, words)], capture_output=True, text=True)
    assert done.returncode == status, f"{words}: status {done.returncode}, expected {status}\n{done.stderr}"
    assert says in done.stderr, f"{words}: expected '{says}', found {done.stderr}"
    return done.stdout


def potqat(*words, **expect):
    return run(POTQAT, *words, **expect)


def exaggerate(model, out):
    """Four channels of each layer norm's gain times 30, as real models have them."""
    potqat("export", model, "--format", "hf", "-o", "hf")
    data = bytearray(pathlib.Path("hf/model.safetensors").read_bytes())
    size = struct.unpack_from("<Q", data)[0]
    for name, tensor in json.loads(data[8:8 + size]).items():
        if name.endswith(("ln_1.weight", "ln_2.weight", "ln_f.weight")):
            at = 8 + size + tensor["data_offsets"][0]
            for channel in 1, 9, 17, 30:
                gain = struct.unpack_from("<f", data, at + 4 * channel)[0]
                struct.pack_into("<f", data, at + 4 * channel, 30 * gain)
    pathlib.Path("hf/model.safetensors").write_bytes(data)
    potqat("import", "hf", "-o", out)


def same_tokens(name, prompt):
    ids = {c: i for i, c in enumerate(sorted(set(TEXT)))}
    found = run(f"./{name}", TOKENS, *(ids[c] for c in prompt)).split()
    told = json.loads(potqat("generate", f"{name}.h5", "--act", "int8", "--prompt", prompt, "--tokens", TOKENS,
                                     "--greedy", "--threads", 1, "--json"))["tokens"]
    assert [*map(int, found)] == told, f"{name}: the program says {found}, the engine {told}"
    return len(set(told))


def same_losses(name, tokens):
    """Float64 losses of the program's logits against the engine's, which are told with 9 digits."""
    if not np:
        return 0, 0
    potqat("eval", f"{name}.h5", "--act", "int8", "--threads", 1, "--data", "short.txt", "data.split=[0.5, 0.5, 0]",
           f"eval.context={CONTEXT}", "--windows", "w.csv", "--overwrite")
    with open("w.csv") as f:
        expected = [float(r["loss"]) for r in csv.DictReader(line for line in f if not line.startswith("#"))]
    run("cc", *STRICT, "-O2", "-fPIC", "-shared", f"{name}.c", "-lm", "-o", f"{name}.so")
    library = ctypes.CDLL(os.path.abspath(f"{name}.so"))
    step, logits = getattr(library, f"{name}_next_token"), getattr(library, f"{name}_logits")
    step.restype, step.argtypes, logits.restype = ctypes.c_long, [ctypes.c_long], ctypes.POINTER(ctypes.c_float)
    vocab, worst = len(set(TEXT)), 0
    for w, loss in enumerate(expected):
        window = tokens[w * CONTEXT:(w + 1) * CONTEXT + 1]
        getattr(library, f"{name}_reset")()
        total = 0
        for token, target in zip(window[:-1], window[1:]):
            best = step(token)
            row = np.ctypeslib.as_array(logits(), (vocab,)).astype("f8")
            assert best == row.argmax()
            total += np.log(np.exp(row - row.max()).sum()) + row.max() - row[target]
        worst = max(worst, abs(total / CONTEXT - loss))
    assert step(0) == -1 and step(-1) == -1, "a full context is refused"
    getattr(library, f"{name}_reset")()
    assert step(vocab) == -1 and step(0) >= 0
    assert worst < 2e-6, f"{name}: losses of windows differ by {worst:.3g}"
    return len(expected), worst


def sizes(name, told, compiler, size, *flags):
    run(compiler, *STRICT, *flags, "-c", f"{name}.c", "-o", f"{name}.o")
    text, data, bss = map(int, run(size, f"{name}.o").splitlines()[1].split()[:3])
    assert 0 <= bss - told["ram_bytes"] < 256, f"{name}: bss {bss}, told {told}"
    assert 0 <= text + data - told["flash_bytes"] < 12000, f"{name}: {text + data} bytes of flash, told {told}"
    return text + data, bss


def refusals():
    for how, says in (("quant.quantizer=uniform quant.range=[-8,7]", "no powers of two (uniform)"),
                      ("quant.params=[\"h.0.*.weight\"]", "wte.weight is not quantized")):
        potqat("quantize", "plain_base.h5", "-o", "no.h5", "--overwrite", *how.split())
        potqat("export", "no.h5", "--format", "c", "-o", "no.c", status=2, says=says)
    for out, says in (("no.txt", "ends in .c"), ("no-name.c", "letters, digits and _"), ("7.c", "letters, digits and _"),
                      ("plain.c", "plain.c exists already; --overwrite replaces it")):
        potqat("export", "plain.h5", "--format", "c", "-o", out, status=2, says=says)
    os.remove("plain.c")
    potqat("export", "plain.h5", "--format", "c", "-o", "plain.c", status=2, says="plain.h exists already")
    potqat("export", "plain.h5", "--format", "c", "-o", "plain.c", "--dtype", "fp16", status=2, says="--dtype")
    assert not os.path.exists("plain.c") and not any(n.startswith(("no.c", "no.h.", "no-", "7")) for n in os.listdir("."))
    potqat("train", "c.yaml", "run.dir=large", "train.max_iters=1", "model.width=768", "model.layers=3", "train.batch=1",
           "--quiet")
    potqat("quantize", "large", "-o", "large.h5", "--quiet")
    potqat("export", "large.h5", "--format", "c", "-o", "large.c", status=2, says="a C export may take 8388608")


def main():
    if "--act" not in potqat("generate", "--help"):
        print("skipped: potqat generate has no --act int8 to compare with")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        pathlib.Path("text.txt").write_text(TEXT)
        pathlib.Path("short.txt").write_text(TEXT[:480])
        pathlib.Path("c.yaml").write_text(
            f"run: {{dir: run, threads: 1}}\ndata: {{path: text.txt}}\nmodel: {{layers: 2, heads: 4, width: 64, "
            f"context: {CONTEXT}}}\ntrain: {{max_iters: 40, batch: 4, context: {CONTEXT}, lr: 5.0e-3, warmup_iters: 10, "
            "dropout: 0}\neval: {every: 40, windows: 4}\n")
        ids = {c: i for i, c in enumerate(sorted(set(TEXT)))}
        tokens = [ids[c] for c in TEXT[240:480]]
        for base, shape in BASES.items():
            potqat("train", "c.yaml", f"run.dir={base}", *shape.split(), "--quiet")
            os.rename(f"{base}/best.h5", f"{base}_base.h5")
            shutil.rmtree(base)
        exaggerate("tanh_base.h5", "outliers_base.h5")
        for name, base, how in CASES:
            potqat("quantize", f"{base}_base.h5", "-o", f"{name}.h5", "ptq.calib_sequences=4", *how.split(), "--quiet")
            told = json.loads(potqat("export", f"{name}.h5", "--format", "c", "-o", f"{name}.c", "--json"))
            run("cc", *STRICT, "-O1", "-fsanitize=undefined,address", "-fno-sanitize-recover=all", "-DTEST_PROGRAM",
                f"{name}.c", "-lm", "-o", name)
            different = [same_tokens(name, prompt) for prompt in (TEXT[:1], TEXT[:CONTEXT - 1], TEXT[:CONTEXT + 30])]
            windows, worst = same_losses(name, tokens)
            flash, ram = sizes(name, told, "cc", "size", "-O2")
            print(f"{name}: {len(different) * TOKENS} tokens equal ({different} of them different), {windows} windows "
                  f"within {worst:.1g}; {flash} bytes of flash, {ram} of RAM")
            if shutil.which("arm-none-eabi-gcc"):
                sizes(name, told, "arm-none-eabi-gcc", "arm-none-eabi-size", "-Os", "-mcpu=cortex-m4", "-mthumb")
        refusals()
        assert not list(pathlib.Path(".").glob("*tmp-*")), "a temporary file was left behind"
        os.chdir("/")


main()
