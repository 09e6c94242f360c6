"""c_export.py POTQAT ENGINE_TOKENS: models exported as C do what the engine does with int8 activations, bit for bit.

Each is compiled as strict C99 with the undefined behaviour and address sanitizers and run: the same greedy tokens, also
beyond the context, and the same bits in every logit of a text. What export says about flash and RAM is what the compiler
makes; with arm-none-eabi-gcc there is a device's compiler, too.
"""
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

POTQAT, ENGINE = (str(pathlib.Path(word).resolve()) for word in sys.argv[1:])
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
    found = run(f"./{name}", TOKENS, *prompt).split()
    told = run(ENGINE, f"{name}.safetensors", "logits", TOKENS, *prompt).split()
    assert found == told, f"{name}: the program says {found}, the engine {told}"
    return len(set(told))


def same_logits(name, prompt, vocab):
    """What ENGINE_TOKENS left in `logits` behind each token of the prompt, which fills the context."""
    expected = pathlib.Path("logits").read_bytes()
    assert len(expected) == 4 * vocab * CONTEXT
    run("cc", *STRICT, "-O2", "-fPIC", "-shared", f"{name}.c", "-lm", "-o", f"{name}.so")
    library = ctypes.CDLL(os.path.abspath(f"{name}.so"))
    step, logits, reset = (getattr(library, f"{name}_{what}") for what in ("next_token", "logits", "reset"))
    step.restype, step.argtypes, logits.restype = ctypes.c_long, [ctypes.c_long], ctypes.c_void_p
    for again in range(2):
        for t, token in enumerate(prompt[-CONTEXT:]):
            assert step(token) >= 0
            found = ctypes.string_at(logits(), 4 * vocab)
            assert found == expected[4 * vocab * t:4 * vocab * (t + 1)], f"{name}: other logits at position {t}"
        assert step(0) == -1, "a full context is refused"
        reset()
    assert step(-1) == -1 and step(vocab) == -1 and step(vocab - 1) >= 0


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
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        pathlib.Path("text.txt").write_text(TEXT)
        pathlib.Path("c.yaml").write_text(
            f"run: {{dir: run, threads: 1}}\ndata: {{path: text.txt}}\nmodel: {{layers: 2, heads: 4, width: 64, "
            f"context: {CONTEXT}}}\ntrain: {{max_iters: 40, batch: 4, context: {CONTEXT}, lr: 5.0e-3, warmup_iters: 10, "
            "dropout: 0}\neval: {every: 40, windows: 4}\n")
        ids = {c: i for i, c in enumerate(sorted(set(TEXT)))}
        tokens = [ids[c] for c in TEXT[:CONTEXT + 30]]
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
            potqat("export", f"{name}.h5", "-o", f"{name}.safetensors")
            prompts = tokens[:1], tokens[:CONTEXT - 1], tokens[:CONTEXT + 30]
            different = [same_tokens(name, prompt) for prompt in prompts]
            same_logits(name, prompts[-1], len(ids))
            flash, ram = sizes(name, told, "cc", "size", "-O2")
            print(f"{name}: {len(different) * TOKENS} tokens equal ({different} different), {CONTEXT} positions' logits; "
                  f"{flash} bytes of flash, {ram} of RAM")
            if shutil.which("arm-none-eabi-gcc"):
                sizes(name, told, "arm-none-eabi-gcc", "arm-none-eabi-size", "-Os", "-mcpu=cortex-m4", "-mthumb")
        refusals()
        assert not list(pathlib.Path(".").glob("*tmp-*")), "a temporary file was left behind"
        os.chdir("/")


main()
