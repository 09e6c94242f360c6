"""transformers_gradients.py POTQAT GRADIENTS [--full]: logits, losses and gradients of GPT-2 by transformers, in float64.

Random models go through `potqat import`; GRADIENTS (gradients.c) runs each forward and backward in fp32. Logits,
losses and the gradient of each parameter agree within 1e-5 norm-wise, and `potqat export` gives the same bytes back.
--full takes the shape of the 124M model besides (7 GiB of memory). Skips without torch, transformers and
safetensors.
"""
import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from huggingface import TRANSPOSED, same_tensors  # first: skips where packages are missing
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

BOUND = 1e-5
KEY_BIAS = 1e-6  # of a gradient that is zero in exact arithmetic: the largest entry that is left
# name: layers, heads, width, context, vocabulary, activation, spread or the library's own start; batch, length;
# words for `potqat quantize`
TINY = {
    "tiny": ((2, 4, 64, 32, 257, "gelu_new", True), (3, 32), None),
    "odd sizes": ((3, 5, 65, 37, 311, "gelu", True), (2, 29), None),
    "one token": ((1, 1, 8, 4, 5, "gelu_new", True), (1, 1), None),
    "tiny, 7 levels": ((2, 4, 64, 32, 257, "gelu_new", True), (3, 31), ["quant.levels=7"]),
}
SHAPE_124M = (12, 12, 768, 1024, 50257, "gelu_new")
FULL = {
    "124M": ((*SHAPE_124M, True), (1, 64), None),
    "124M as transformers starts it, whole context": ((*SHAPE_124M, False), (1, 1024), None),
}


def run(*words):
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    assert done.returncode == 0, f"{words}: status {done.returncode}\n{done.stderr}"


def make(layers, heads, width, context, vocab, activation, spread):
    torch.manual_seed(11)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=vocab, n_positions=context, n_embd=width, n_layer=layers, n_head=heads,
                                       activation_function=activation, bos_token_id=None, eos_token_id=None))
    if not spread:
        return model.eval()
    with torch.no_grad():  # at its usual start a model is nearly linear
        for name, p in model.named_parameters():
            if name.endswith("bias"):
                p.normal_(0, 0.1)
            elif p.dim() == 1:
                p.normal_(1, 0.2)
            else:  # in a block, [in][out]
                p.normal_(0, p.shape[0] ** -0.5 if ".h." in name else 1.5 * width ** -0.5)
    return model.eval()


def expect(model, tokens):
    """Logits, losses and gradients by the names and layouts of src/model/gpt2_params.def: a matrix is [out][in]."""
    x, y = tokens[:, :-1], tokens[:, 1:]
    logits = model(x).logits
    losses = F.cross_entropy(logits.transpose(1, 2), y, reduction="none")
    losses.mean().backward()
    if tokens.shape[1] <= model.config.n_positions:  # the library's own, in fp32 whatever the model's type
        with torch.no_grad():
            own = model(tokens, labels=tokens).loss.item()
        assert abs(own - losses.mean().item()) <= 1e-5 * own, f"{own}, {losses.mean().item()}"
    out = {"logits": logits, "losses": losses, "training.losses": losses}
    for name, p in model.named_parameters():
        name = name.removeprefix("transformer.")
        out["grad." + name] = p.grad.T if name.endswith(TRANSPOSED) else p.grad
    return {name: tensor.detach() for name, tensor in out.items()}


def distance(a, b):
    return ((a - b).norm() / b.norm()).item()


def compare(found, expected):
    """The distance of each tensor, norm-wise, and the largest entry of a gradient that is to be zero."""
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    distances, keys = {}, []
    for name, b in expected.items():
        a = found[name].double()
        assert a.shape == b.shape, f"{name}: {tuple(a.shape)}, expected {tuple(b.shape)}"
        if name.endswith("c_attn.bias"):
            # A key's bias adds the same to all scores of a query, which softmax does not see: its gradient is zero
            # in exact arithmetic, and rounding alone in any other. Its third has no norm to be compared by.
            (q, k, v), (eq, ek, ev) = a.chunk(3), b.chunk(3)
            keys += [k, ek]
            a, b = torch.cat([q, v]), torch.cat([eq, ev])
        distances[name] = distance(a, b)
    for name in "losses", "training.losses":
        distances["mean " + name] = distance(found[name].double().mean(), expected[name].mean())
    return distances, torch.cat(keys).abs().max().item()


def check(what, shape, size, quantize, potqat, gradients):
    for folder in "hf", "back":
        shutil.rmtree(folder, ignore_errors=True)
    model = make(*shape)
    model.save_pretrained("hf")
    run(potqat, "import", "hf", "-o", "m.h5", "--overwrite")
    if quantize:
        run(potqat, "quantize", "m.h5", "-o", "q.h5", "--overwrite", *quantize)
        os.replace("q.h5", "m.h5")
    run(potqat, "export", "m.h5", "--format", "hf", "-o", "back")
    if quantize:  # what the quantized weights stand for, in transformers
        model = GPT2LMHeadModel.from_pretrained("back").eval()
        assert len(model.transformer.h[0].mlp.c_fc.weight[:, 0].abs().unique()) <= 4, "7 levels a row"
        tensors = "its levels in transformers"
    else:
        tensors = f"{same_tensors('hf', 'back', what)} tensors back byte for byte"
    batch, length = size
    tokens = torch.randint(shape[4], (batch, length + 1), generator=torch.Generator().manual_seed(3))
    tokens.numpy().astype("<u2").tofile("tokens")
    run(gradients, "m.h5", batch, length, "tokens", "found.safetensors")
    distances, zero = compare(load_file("found.safetensors"), expect(model.double(), tokens))
    worst = max((n for n in distances if n.startswith("grad.")), key=lambda n: distances[n])
    print(f"{what}: logits {distances['logits']:.2g}, loss {distances['mean training.losses']:.2g} (each token's "
          f"{distances['training.losses']:.2g}), worst gradient {distances[worst]:.2g} ({worst.removeprefix('grad.')}), "
          f"key biases {zero:.2g}; {tensors}", flush=True)
    bad = {n: d for n, d in distances.items() if not d <= BOUND}  # a NaN is bad
    assert not bad, f"{what}: beyond {BOUND}: {bad}"
    assert zero <= KEY_BIAS, f"{what}: the gradient of a key's bias is {zero}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("potqat", type=lambda p: pathlib.Path(p).resolve())
    parser.add_argument("gradients", type=lambda p: pathlib.Path(p).resolve())
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for what, (shape, size, quantize) in (TINY | FULL if options.full else TINY).items():
            check(what, shape, size, quantize, options.potqat, options.gradients)
        os.chdir("/")


main()
