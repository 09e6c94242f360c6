"""foreign.py POTQAT: models of transformers, nanoGPT and llm.c through import and export.

The losses of a random text by PyTorch and by `potqat eval` agree, exported folders give transformers the same logits,
and tensors come back byte for byte. Skips without torch, transformers and safetensors.
"""
import csv
import json
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import tempfile

from huggingface import TRANSPOSED, same_tensors  # first: skips where packages are missing
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

POTQAT = str(pathlib.Path(sys.argv[1]).resolve())
LETTERS = "abcdefghijklmnopqrstuvwxyz ABCDEFG"  # as many as the vocabulary
CONTEXT, WIDTH, LAYERS, HEADS = 12, 24, 2, 3
random.seed(5)
TEXT = LETTERS + "".join(random.choice(LETTERS) for _ in range(3000))


def potqat(*words, status=0, says=""):
    done = subprocess.run([POTQAT, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == status, f"{words}: status {done.returncode}, expected {status}\n{done.stderr}"
    assert says in done.stderr, f"{words}: expected '{says}', found {done.stderr}"
    return done.stdout


def make(activation="gelu_new"):
    torch.manual_seed(7)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(LETTERS), n_positions=CONTEXT, n_embd=WIDTH, n_layer=LAYERS,
                                       n_head=HEADS, activation_function=activation, bos_token_id=None,
                                       eos_token_id=None))
    with torch.no_grad():  # at its usual start a model is nearly linear
        for name, p in model.named_parameters():
            p.copy_(1 + 0.2 * torch.randn_like(p) if "ln_" in name and p.dim() == 1 and name.endswith("weight")
                    else torch.randn_like(p) * (0.3 if p.dim() > 1 else 0.1))
    return model.eval()


@torch.no_grad()
def window_losses(model):
    ids = {c: i for i, c in enumerate(sorted(LETTERS))}
    tokens = torch.tensor([ids[c] for c in TEXT[len(TEXT) // 2:]])
    n = (len(tokens) - 1) // CONTEXT
    x, y = tokens[:n * CONTEXT].view(n, CONTEXT), tokens[1:n * CONTEXT + 1].view(n, CONTEXT)
    logits = model(x).logits
    return F.cross_entropy(logits.transpose(1, 2), y, reduction="none").mean(1), logits


def same_losses(spec, model, what):
    """Each window's loss, norm-wise; the tokenizer is the spec's own."""
    potqat("eval", spec, "--data", "text.txt", "data.split=[0.5, 0.5, 0]", "--windows", "w.csv", "--overwrite")
    with open("w.csv") as f:
        rows = [row for row in csv.DictReader(line for line in f if not line.startswith("#"))]
    found = torch.tensor([float(row["loss"]) for row in rows], dtype=torch.float64)
    expected = window_losses(model)[0].double()
    assert len(found) == len(expected), f"{what}: {len(found)} windows, expected {len(expected)}"
    error = ((found - expected).norm() / expected.norm()).item()
    assert error < 1e-5, f"{what}: losses differ by {error:.3g}"
    print(f"{what}: {len(found)} windows, error {error:.2g}")


def import_as(source, target, *words, **expect):
    return potqat("import", source, "-o", target, "--overwrite", "--tokenizer", "text.txt", *words, **expect)


def hugging_face():
    for activation in "gelu_new", "gelu":
        model = make(activation)
        model.save_pretrained("hf")
        import_as("hf", "hf.h5")
        same_losses("hf.h5", model, f"transformers with {activation}")
        potqat("export", "hf.h5", "--format", "hf", "-o", "back", "--overwrite")
        same_tensors("hf", "back", "export")
        again = GPT2LMHeadModel.from_pretrained("back")
        assert again.dtype == torch.float32 and again.config.activation_function == activation
        assert torch.equal(window_losses(again)[1], window_losses(model)[1]), "the exported logits differ"
    same_losses("back", model, "an exported folder as MODEL")  # it carries its tokenizer
    return model


def half(model):
    """F16 and BF16 in; fp16 and bf16 out, rounded as PyTorch rounds."""
    for dtype, name in (torch.float16, "fp16"), (torch.bfloat16, "bf16"):
        rounded = make("gelu").to(dtype)
        rounded.save_pretrained("half")
        import_as("half", "half.h5")
        same_losses("half.h5", rounded.float(), str(dtype))
        shutil.rmtree("lossy", ignore_errors=True)
        potqat("export", "hf.h5", "--format", "hf", "--dtype", name, "-o", "lossy", status=2, says="cannot hold")
        assert not pathlib.Path("lossy").exists()
        out = potqat("export", "hf.h5", "--format", "hf", "--dtype", name, "-o", "lossy", "--lossy", "--json")
        weights, lossy = load_file("hf/model.safetensors"), load_file("lossy/model.safetensors")
        for key in weights:
            assert torch.equal(lossy[key], weights[key].to(dtype)), f"{name}: {key}"
        worst = max((weights[key].double() - weights[key].to(dtype).double()).abs().max().item() for key in weights)
        assert abs(json.loads(out)["largest_error"] - worst) <= 1e-8 * worst, f"{name}: {out} {worst}"
        assert GPT2LMHeadModel.from_pretrained("lossy", dtype="auto").dtype == dtype


def quantized():
    """What a quantized model stands for is exact in bf16 and in fp16, and transformers computes the same loss."""
    potqat("quantize", "hf.h5", "-o", "q.h5", "--overwrite", "quant.levels=7")
    for name, dtype in ("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32):
        out = json.loads(potqat("export", "q.h5", "--format", "hf", "--dtype", name, "-o", "q-" + name, "--json"))
        assert out["equal"] and out["largest_error"] == 0, out
        tensors = load_file(f"q-{name}/model.safetensors")
        assert tensors["transformer.wte.weight"].dtype == dtype
        assert tensors["transformer.ln_f.weight"].dtype == torch.float32
        assert len(tensors["transformer.wte.weight"][0].abs().unique()) <= 4, "7 levels a row"
        model = GPT2LMHeadModel.from_pretrained(f"q-{name}").eval()
        same_losses("q.h5", model.float(), f"7 levels in {name}")


def hub(model):
    """The hub's GPT-2: no prefix, mask buffers, a head that is stored too; and two shards."""
    tensors = {k.removeprefix("transformer."): v.clone() for k, v in load_file("hf/model.safetensors").items()}
    for layer in range(LAYERS):
        tensors[f"h.{layer}.attn.bias"] = torch.tril(torch.ones(CONTEXT, CONTEXT)).view(1, 1, CONTEXT, CONTEXT)
        tensors[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    tensors["lm_head.weight"] = tensors["wte.weight"].clone()
    os.makedirs("hub", exist_ok=True)
    shutil.copy("hf/config.json", "hub")
    save_file(tensors, "hub/model.safetensors")
    import_as("hub", "hub.h5")
    same_losses("hub.h5", model, "with masks and head")
    tensors["lm_head.weight"][3, 4] += 1
    save_file(tensors, "hub/model.safetensors")
    import_as("hub", "x.h5", status=2, says="lm_head.weight differs from wte.weight")
    shutil.rmtree("shards", ignore_errors=True)
    model.save_pretrained("shards", max_shard_size="30KB")
    assert len(list(pathlib.Path("shards").glob("*.safetensors"))) >= 2
    import_as("shards", "shards.h5")
    same_losses("shards.h5", model, "shards")


def nanogpt(bias):
    """nanoGPT's names and rows, with a compiled model's prefix; without biases too."""
    model = make("gelu")
    if not bias:
        with torch.no_grad():
            for name, p in model.named_parameters():
                if name.endswith("bias"):
                    p.zero_()
    state = {}
    for name, tensor in model.state_dict().items():
        if bias or not name.endswith("bias"):
            state["_orig_mod." + name] = (tensor.T if name.endswith(TRANSPOSED) else tensor).clone().contiguous()
    assert "_orig_mod.lm_head.weight" in state
    save_file(state, "nano.safetensors")
    import_as("nano.safetensors", "nano.h5", status=2, says="--heads")
    import_as("nano.safetensors", "nano.h5", "--heads", HEADS)
    same_losses("nano.h5", model, f"nanoGPT, bias={bias}")
    assert json.loads(potqat("inspect", "nano.h5", "--json"))["model"]["bias"] == bias
    save_file(state, "nano.safetensors", metadata={"heads": str(HEADS), "gelu": "erf"})
    import_as("nano.safetensors", "nano.h5")
    import_as("nano.safetensors", "nano.h5", "--heads", HEADS + 1, status=2, says="says 3 heads")
    shutil.rmtree("nano-hf", ignore_errors=True)
    potqat("export", "nano.h5", "--format", "hf", "-o", "nano-hf")
    logits = window_losses(GPT2LMHeadModel.from_pretrained("nano-hf").eval())[1]
    assert torch.equal(logits, window_losses(model)[1]), "zero biases are written"


def llmc():
    """llm.c's writer, by its order: each kind of parameter of all layers, wte padded."""
    model = make()
    state = {k.removeprefix("transformer."): v for k, v in model.state_dict().items()}
    padded = (len(LETTERS) + 127) // 128 * 128
    kinds = ["ln_1.weight", "ln_1.bias", "attn.c_attn.weight", "attn.c_attn.bias", "attn.c_proj.weight",
             "attn.c_proj.bias", "ln_2.weight", "ln_2.bias", "mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight",
             "mlp.c_proj.bias"]
    for version, dtype in (3, torch.float32), (5, torch.bfloat16):
        header = [20240326, version, CONTEXT, len(LETTERS), LAYERS, HEADS, WIDTH, padded]
        parts = [F.pad(state["wte.weight"], (0, 0, 0, padded - len(LETTERS))), state["wpe.weight"]]
        for kind in kinds:
            for layer in range(LAYERS):
                tensor = state[f"h.{layer}.{kind}"]
                parts.append(tensor.T if kind in TRANSPOSED else tensor)
        parts += [state["ln_f.weight"], state["ln_f.bias"]]
        body = b"".join(p.contiguous().to(dtype).view(torch.int16).numpy().tobytes() for p in parts)
        data = struct.pack("<256i", *header, *[0] * (256 - len(header))) + body
        pathlib.Path("llmc.bin").write_bytes(data)
        import_as("llmc.bin", "llmc.h5")
        same_losses("llmc.h5", model if version == 3 else make().to(dtype).float(), f"llm.c version {version}")
        pathlib.Path("cut.bin").write_bytes(data[:-2])
        import_as("cut.bin", "x.h5", status=1, says="expected %d bytes" % len(data))


def main():
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        pathlib.Path("text.txt").write_text(TEXT)
        model = hugging_face()
        half(model)
        quantized()
        hub(model)
        nanogpt(True)
        nanogpt(False)
        llmc()
        assert not list(pathlib.Path(".").glob("*tmp-*")), "a temporary file was left behind"
        os.chdir("/")


main()
