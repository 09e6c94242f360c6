"""llama.py POTQAT docs/formats.md: GGUF files read by the gguf package and run by llama.cpp.

Dequantized, every weight is ours bit for bit; llama.cpp continues a text with the same tokens, gets the same loss and
the same token ids. Skips without the gguf package; the part that runs a model, without llama-cpp-python.
"""
import ctypes
import csv
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile

try:
    import gguf
    import numpy as np
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)
try:
    import llama_cpp as lc
except ImportError as missing:
    lc = None

POTQAT, FORMATS = str(pathlib.Path(sys.argv[1]).resolve()), pathlib.Path(sys.argv[2]).read_text()
exec(next(c for c in re.findall(r"```python\n(.*?)```", FORMATS, re.S) if "def read_packed" in c))
CONTEXT, TOKENS = 224, 200
NAMES = {"wte": "token_embd", "wpe": "position_embd", "ln_1": "attn_norm", "attn.c_attn": "attn_qkv",
         "attn.c_proj": "attn_output", "ln_2": "ffn_norm", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
         "ln_f": "output_norm"}
# how the model is quantized: the type that holds it, or more than one where matrices differ
CASES = [("quant.quantizer=pot quant.levels=15", "Q8_0"),
         ("quant.quantizer=pot quant.levels=15 quant.granularity=group32", "Q8_0"),
         ("quant.quantizer=pot quant.levels=15 quant.granularity=tensor", "Q8_0"),
         ("quant.quantizer=pot quant.levels=9 quant.scale_grid=pot", "MXFP4"),
         ("quant.quantizer=pot quant.levels=3 quant.scale_grid=pot quant.granularity=tensor", "MXFP4"),
         ("quant.quantizer=pot quant.levels=9", "Q8_0"),
         ("quant.quantizer=pot quant.levels=31", "F16"),
         ("quant.quantizer=pot-zero-free quant.levels=16", "F16"),
         ("quant.quantizer=uniform quant.range=[-8,7]", "Q8_0"),
         ("quant.quantizer=pot quant.levels=15 quant.scale_grid=fp32", "F32"),
         ("quant.quantizer=pot quant.levels=15 quant.params=[\"h.*.weight\"]", "Q8_0")]
random.seed(3)
WORDS = ["".join(random.choice("abcdefghijklmnoprstuvw\u00e9\u20ac\U0001f600'") for _ in range(random.randint(2, 7)))
         for _ in range(60)]
TEXT = "".join(random.choice(WORDS) + random.choice([" ", " ", " ", ", ", ".\n"]) for _ in range(9000))


def potqat(*words, status=0, says=""):
    done = subprocess.run([POTQAT, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == status, f"{words}: status {done.returncode}, expected {status}\n{done.stderr}"
    assert says in done.stderr, f"{words}: expected '{says}', found {done.stderr}"
    return done.stdout


def export(model, name, *words, **expect):
    return potqat("export", model, "--format", "gguf", "-o", name, "--overwrite", "--json", *words, **expect)


def theirs(name):
    """llama.cpp's name of a parameter."""
    block, rest = re.fullmatch(r"(?:h\.(\d+)\.)?(.*)", name).groups()
    stem, kind = rest.rsplit(".", 1)
    return (f"blk.{block}." if block else "") + f"{NAMES[stem]}.{kind}"


def ours(model):
    potqat("export", model, "-o", "packed.safetensors", "--overwrite")
    return read_packed("packed.safetensors")[0]


def same_weights(model, path, types):
    """Every tensor by its name, bit for bit; biases that the model has not are zero."""
    weights = {theirs(name): w for name, w in ours(model).items()}
    found = {t.name: t for t in gguf.GGUFReader(path).tensors}
    assert weights.keys() <= found.keys(), weights.keys() - found.keys()
    for name, t in found.items():
        values = gguf.dequantize(t.data, t.tensor_type)
        if name not in weights:
            assert name.endswith(".bias") and t.tensor_type.name == "F32" and not values.any(), name
            continue
        expected = weights[name]
        assert values.shape == expected.shape, f"{path}: {name}: {values.shape}"
        differ = values.astype("f4").view("u4") != expected.astype("f4").view("u4")
        assert not differ.any(), f"{path}: {differ.sum()} weights of {name} as {t.tensor_type.name} differ"
        free = name.endswith(".weight") and "norm" not in name and name != "position_embd.weight"
        expected_type = "F32" if not free else types[name == "token_embd.weight"] if len(types) == 2 else types[0]
        if expected_type == "F16" and (expected != expected.astype("f2")).any():
            expected_type = "F32"  # the least levels are below half precision
        assert t.tensor_type.name == expected_type, f"{path}: {name} as {t.tensor_type.name}"
    print(f"{path}: {len(found)} tensors equal, {types[0]}")


def fields(path):
    return {k: f.contents() if f.data else [] for k, f in gguf.GGUFReader(path).fields.items()}


def metadata(path, vocab):
    f = fields(path)
    assert f["general.architecture"] == "gpt2" and f["gpt2.context_length"] == CONTEXT
    assert f["gpt2.embedding_length"] == 64 and f["gpt2.feed_forward_length"] == 256
    assert f["gpt2.block_count"] == 2 and f["gpt2.attention.head_count"] == 2
    assert abs(f["gpt2.attention.layer_norm_epsilon"] - 1e-5) < 1e-9
    assert f["tokenizer.ggml.model"] == "gpt2" and f["tokenizer.ggml.add_bos_token"] is False
    assert f["tokenizer.ggml.eos_token_id"] == f["tokenizer.ggml.bos_token_id"] == len(vocab) - 1
    # GPT-2's alphabet as its encoder.py makes it
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {b: chr(b) for b in own}
    for b in range(256):
        letters.setdefault(b, chr(256 + len(letters) - len(own)))
    spelled = ["".join(letters[b] for b in c.encode()) for c in vocab]
    assert f["tokenizer.ggml.tokens"] == spelled
    merged = set(spelled)
    for merge in f["tokenizer.ggml.merges"]:
        merged.add(merge.replace(" ", ""))
    for c, s in zip(vocab, spelled):
        for i in range(2, len(s) + 1):
            assert f"{s[:i - 1]} {s[i - 1]}" in f["tokenizer.ggml.merges"], c


def refusals(model):
    export("fp.h5", "no.gguf", "--dtype", "q8_0", status=2, says="cannot hold")
    export("fp.h5", "no.gguf", "--dtype", "mxfp4", status=2, says="cannot hold")
    export("fp.h5", "no.gguf", "--dtype", "q4_0", status=2, says="expected fp32, fp16, q8_0 or mxfp4, found q4_0")
    assert not os.path.exists("no.gguf")
    expected = ours("fp.h5")
    for dtype in "q8_0", "mxfp4", "fp16":
        told = json.loads(export("fp.h5", "lossy.gguf", "--dtype", dtype, "--lossy"))
        assert told["dtype"] == dtype and told["largest_error"] > 0 and not told["equal"], told
        worst = 0
        for t in gguf.GGUFReader("lossy.gguf").tensors:
            name = next((n for n in expected if theirs(n) == t.name), None)
            if name:
                error = np.abs(gguf.dequantize(t.data, t.tensor_type).astype("f8") - expected[name])
                worst = max(worst, error.max())
                if t.tensor_type.name == "Q8_0":  # ggml's own rounding gives the same bytes
                    assert (gguf.quants.quantize(expected[name], t.tensor_type) == t.data).all(), name
        assert abs(worst - told["largest_error"]) <= 1e-8 * worst, (dtype, worst, told)


# ---- llama.cpp ----

class Llama:
    def __init__(self, path):
        model, context = lc.llama_model_default_params(), lc.llama_context_default_params()
        self.model = lc.llama_model_load_from_file(path.encode(), model)
        assert self.model, f"llama.cpp does not load {path}"
        context.n_ctx = context.n_batch = context.n_ubatch = 256
        context.n_threads = context.n_threads_batch = 2
        context.type_k = context.type_v = 0  # F32
        if hasattr(context, "flash_attn_type"):
            context.flash_attn_type = 0
        else:
            context.flash_attn = False
        self.context = lc.llama_init_from_model(self.model, context)
        self.vocab = lc.llama_model_get_vocab(self.model)
        self.size = lc.llama_vocab_n_tokens(self.vocab)

    def logits(self, tokens, fresh=True):
        """[len(tokens)][vocab], of a new sequence or of one that goes on."""
        if fresh:
            lc.llama_memory_clear(lc.llama_get_memory(self.context), True)
            self.position = 0
        batch = lc.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = int(token), self.position + i, 1
            batch.seq_id[i][0], batch.logits[i] = 0, 1
        assert lc.llama_decode(self.context, batch) == 0
        rows = [np.ctypeslib.as_array(lc.llama_get_logits_ith(self.context, i), (self.size,)).copy()
                for i in range(len(tokens))]
        lc.llama_batch_free(batch)
        self.position += len(tokens)
        return np.array(rows)

    def tokenize(self, text):
        raw = text.encode()
        out = (ctypes.c_int32 * len(raw))()
        n = lc.llama_tokenize(self.vocab, raw, len(raw), out, len(raw), False, False)
        return list(out[:n])

    def free(self):
        lc.llama_free(self.context)
        lc.llama_model_free(self.model)


def same_tokens(model, path):
    """Greedy, where our choice is theirs or one of two that are as good as equal."""
    llama = Llama(path)
    prompt = TEXT[:1]
    told = json.loads(potqat("generate", model, "--prompt", prompt, "--tokens", TOKENS, "--greedy", "--threads", 1,
                             "--json"))["tokens"]
    logits, close = llama.logits(llama.tokenize(prompt)), 0
    for i, token in enumerate(told):
        best = int(logits[-1].argmax())
        if best != token:
            gap = float(logits[-1][best] - logits[-1][token])
            assert gap <= 1e-2, f"{path}: token {i} is {token}, llama.cpp's {best}, better by {gap:.3g}"
            close += 1
        logits = llama.logits([token], fresh=False)
    llama.free()
    print(f"{path}: {len(told)} greedy tokens equal, {close} but for a tie")


def same_loss(model, path, bound):
    """Windows of the second half of a text; at least 10,000 tokens."""
    potqat("eval", model, "--data", "short.txt", "data.split=[0.5, 0.5, 0]", f"eval.context={CONTEXT}", "--windows",
           "w.csv", "--overwrite")
    with open("w.csv") as f:
        expected = [float(r["loss"]) for r in csv.DictReader(line for line in f if not line.startswith("#"))]
    llama = Llama(path)
    tokens = llama.tokenize(SHORT[len(SHORT) // 2:])
    losses = []
    for first in range(0, len(tokens) - CONTEXT, CONTEXT):
        window = tokens[first:first + CONTEXT + 1]
        logits = llama.logits(window[:-1]).astype("f8")
        logits -= logits.max(1, keepdims=True)
        losses.append(np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(CONTEXT), window[1:]]))
    llama.free()
    assert len(losses) * CONTEXT >= 10000 and len(expected) >= len(losses)
    difference = np.mean(losses) - np.mean(expected[:len(losses)])
    assert abs(difference) < bound, f"{path}: loss {np.mean(losses):.4f}, ours {np.mean(expected):.4f}"
    print(f"{path}: loss {np.mean(losses):.4f} over {len(losses) * CONTEXT} tokens, {difference:+.5f} from ours")


SHORT = TEXT[:22000]


def main():
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        pathlib.Path("text.txt").write_text(TEXT)
        pathlib.Path("short.txt").write_text(SHORT)
        pathlib.Path("c.yaml").write_text(
            f"run: {{dir: run}}\ndata: {{path: text.txt}}\nmodel: {{layers: 2, heads: 2, width: 64, context: {CONTEXT}, "
            "bias: true, gelu: tanh}\ntrain: {max_iters: 150, batch: 4, context: 64, lr: 3.0e-3, warmup_iters: 20, "
            "dropout: 0}\neval: {every: 150}\n")
        potqat("train", "c.yaml", "--quiet")
        os.rename("run/best.h5", "fp.h5")
        vocab = sorted(set(TEXT))
        for i, (how, types) in enumerate(CASES):
            potqat("quantize", "fp.h5", "-o", f"{i}.h5", *how.split(), "--quiet")
            told = json.loads(export(f"{i}.h5", f"{i}.gguf"))
            assert told["equal"] and (types == "F16" or told["dtype"] == types.lower().replace("f32", "fp32")), told
            same_weights(f"{i}.h5", f"{i}.gguf", ["Q8_0", "F32"] if "params" in how else [types])
            metadata(f"{i}.gguf", vocab)
        export("0.h5", "f32.gguf", "--dtype", "fp32")
        same_weights("0.h5", "f32.gguf", ["F32"])
        export("fp.h5", "fp.gguf")
        same_weights("fp.h5", "fp.gguf", ["F32"])
        refusals("fp.h5")
        assert fields("0.gguf")["general.file_type"] == gguf.LlamaFileType.MOSTLY_Q8_0
        potqat("train", "c.yaml", "run.dir=erf", "model.gelu=erf", "model.bias=false", "train.max_iters=2", "--quiet")
        export("erf", "erf.gguf", says="GELU")
        same_weights("erf", "erf.gguf", ["F32"])
        if lc:
            silent = lc.llama_log_callback(lambda *_: None)
            lc.llama_log_set(silent, ctypes.c_void_p(0))
            lc.llama_backend_init()
            llama = Llama("0.gguf")
            ids = {c: i for i, c in enumerate(vocab)}
            assert llama.tokenize(SHORT) == [ids[c] for c in SHORT], "llama.cpp reads a text as other tokens"
            llama.free()
            same_tokens("0.h5", "f32.gguf")
            same_loss("0.h5", "f32.gguf", 0.002)
            same_loss("0.h5", "0.gguf", 0.01)
            same_loss("3.h5", "3.gguf", 0.01)
        else:
            print("not run by llama.cpp: there is no llama-cpp-python")
        assert not list(pathlib.Path(".").glob("*tmp-*")), "a temporary file was left behind"
        os.chdir("/")


main()
