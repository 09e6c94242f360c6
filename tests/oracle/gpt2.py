#!/usr/bin/env python3
"""The oracle of the whole model: GPT-2 in float64 PyTorch, written from the papers, sharing no code with potqat.

Writes fixtures/gpt2-bias-tanh.fixture and fixtures/gpt2-erf.fixture, which tests/oracle/test_gpt2.c reads through
fixture.h: run it again (needs torch and numpy) only when the fixtures should change. The names and layouts of
the weights are those of src/model/gpt2_params.def: a matrix is [out][in].

File: lines of text, an empty line, then the arrays one after the other, little-endian, in the order named.
    potqat-fixture 1
    layers 2                          (and heads, width, context, vocab, bias, gelu_tanh, batch, length)
    array NAME TYPE COUNT             (TYPE: i4, f4 or f8)
Arrays:
    tokens, targets                   [batch][length]; target -1 is masked
    weight.P                          initial weights of parameter P
    logits, losses, loss, grad_norm   [batch][length][vocab], [batch][length] (0 where masked), mean over the
                                      targets that count, norm of all gradients before clipping
    grad.P                            d loss / d P
    after.P                           P after ten AdamW steps on the same batch: lr 1e-3, betas 0.9 and 0.99,
                                      eps 1e-8, decay 0.1 on matrices alone, gradients clipped to norm 1
    potN.logits, .losses, .loss, .grad.P   the same with every matrix at N power-of-two levels a row (values 0
                                      and +-s 2^k; s = absmax / 2^(K-1); nearest level, ties away from zero),
                                      straight-through gradients
Everything is computed in float64 from fp32-representable weights; large results are kept in fp32. AdamW divides a
gradient by its own size, so an entry that is zero but for rounding (each of a key's bias, by theory) moves at
random: leave c_attn.bias[width .. 2 width) out of comparisons. The seeds are such that no other entry does.
"""
import math
import pathlib

import numpy as np
import torch
import torch.nn.functional as F

CASES = {
    "gpt2-bias-tanh": dict(layers=2, heads=3, width=18, context=12, vocab=29, bias=1, gelu_tanh=1, batch=3,
                           length=10, levels=15, seed=6),
    "gpt2-erf": dict(layers=2, heads=4, width=16, context=11, vocab=23, bias=0, gelu_tanh=0, batch=2,
                     length=11, levels=7, seed=5),
}


def make_weights(c, gen):
    """Weights large enough that every path carries signal: a model at its usual start is nearly linear."""
    C, out = c["width"], {}

    def add(name, shape, mean, std):
        out[name] = (mean + std * torch.randn(shape, generator=gen, dtype=torch.float64)).float().double()

    def norm(name):
        add(name + ".weight", C, 1.0, 0.2)
        if c["bias"]:
            add(name + ".bias", C, 0.0, 0.1)

    def linear(name, rows, columns):
        add(name + ".weight", (rows, columns), 0.0, 1.0 / math.sqrt(columns))
        if c["bias"]:
            add(name + ".bias", rows, 0.0, 0.1)

    add("wte.weight", (c["vocab"], C), 0.0, 0.4)
    add("wpe.weight", (c["context"], C), 0.0, 0.3)
    for l in range(c["layers"]):
        h = f"h.{l}."
        norm(h + "ln_1")
        linear(h + "attn.c_attn", 3 * C, C)
        linear(h + "attn.c_proj", C, C)
        norm(h + "ln_2")
        linear(h + "mlp.c_fc", 4 * C, C)
        linear(h + "mlp.c_proj", C, 4 * C)
    norm("ln_f")
    return out


class PowerOfTwo(torch.autograd.Function):
    """Nearest of {0, +-s 2^k}, one s a row, by comparing with every midpoint; straight-through gradient."""

    @staticmethod
    def forward(ctx, w, levels):
        exponents = (levels - 1) // 2
        s = w.abs().amax(dim=1, keepdim=True) / 2 ** (exponents - 1)
        a = w.abs()
        q = torch.where(a >= 0.5 * s, s, torch.zeros_like(a))
        for k in range(exponents - 1):
            q = torch.where(a >= 1.5 * 2**k * s, 2 ** (k + 1) * s, q)
        return torch.sign(w) * q

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


def forward(c, weights, tokens, levels=None):
    """logits[batch][length][vocab]"""
    C, H = c["width"], c["heads"]
    B, T = tokens.shape
    p = {n: PowerOfTwo.apply(w, levels) if levels and w.dim() == 2 else w for n, w in weights.items()}

    def norm(x, name):
        return F.layer_norm(x, (C,), p[name + ".weight"], p.get(name + ".bias"), 1e-5)

    def linear(x, name):
        return F.linear(x, p[name + ".weight"], p.get(name + ".bias"))

    mask = torch.ones(T, T).tril().bool()
    x = p["wte.weight"][tokens] + p["wpe.weight"][:T]
    for l in range(c["layers"]):
        h = f"h.{l}."
        q, k, v = (t.view(B, T, H, C // H).transpose(1, 2)
                   for t in linear(norm(x, h + "ln_1"), h + "attn.c_attn").split(C, dim=2))
        scores = (q @ k.transpose(2, 3) / math.sqrt(C // H)).masked_fill(~mask, -math.inf)
        y = (scores.softmax(3) @ v).transpose(1, 2).reshape(B, T, C)
        x = x + linear(y, h + "attn.c_proj")
        m = linear(norm(x, h + "ln_2"), h + "mlp.c_fc")
        x = x + linear(F.gelu(m, approximate="tanh" if c["gelu_tanh"] else "none"), h + "mlp.c_proj")
    return F.linear(norm(x, "ln_f"), p["wte.weight"])


def pass_through(c, weights, tokens, targets, levels=None):
    """(logits, losses, loss) with the gradients left in the weights."""
    for w in weights.values():
        w.grad = None
    logits = forward(c, weights, tokens, levels)
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="none")
    loss = losses.sum() / (targets >= 0).sum()
    loss.backward()
    return logits.detach(), losses.detach(), loss.detach()


def compute(c):
    gen = torch.Generator().manual_seed(c["seed"])
    weights = {n: w.requires_grad_() for n, w in make_weights(c, gen).items()}
    shape = (c["batch"], c["length"])
    tokens = torch.randint(c["vocab"], shape, generator=gen)
    targets = torch.randint(c["vocab"], shape, generator=gen)
    targets[torch.rand(shape, generator=gen) < 0.2] = -1
    arrays = {"tokens": tokens.int(), "targets": targets.int()}

    def small(prefix, of):
        arrays.update({prefix + n: t.detach().float().clone() for n, t in of.items()})

    small("weight.", weights)
    n = c["levels"]
    logits, losses, loss = pass_through(c, weights, tokens, targets, n)
    arrays |= {f"pot{n}.logits": logits.float(), f"pot{n}.losses": losses, f"pot{n}.loss": loss}
    small(f"pot{n}.grad.", {m: w.grad for m, w in weights.items()})

    logits, losses, loss = pass_through(c, weights, tokens, targets)
    grad_norm = torch.stack([w.grad.norm() for w in weights.values()]).norm()
    arrays |= {"logits": logits.float(), "losses": losses, "loss": loss, "grad_norm": grad_norm}
    small("grad.", {m: w.grad for m, w in weights.items()})

    groups = [{"params": [w for w in weights.values() if w.dim() == 2], "weight_decay": 0.1},
              {"params": [w for w in weights.values() if w.dim() == 1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), eps=1e-8)
    for _ in range(10):
        pass_through(c, weights, tokens, targets)
        torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
        optimizer.step()
    small("after.", weights)
    return arrays


def write(path, c, arrays):
    header, body = ["potqat-fixture 1"], []
    header += [f"{k} {v}" for k, v in c.items() if k not in ("levels", "seed")]
    for name, tensor in arrays.items():
        a = tensor.numpy()
        a = a.astype(a.dtype.newbyteorder("<"))
        header.append(f"array {name} {a.dtype.kind}{a.dtype.itemsize} {a.size}")
        body.append(a.tobytes())
    path.write_bytes("\n".join(header).encode() + b"\n\n" + b"".join(body))


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = pathlib.Path(__file__).parent / "fixtures"
    folder.mkdir(exist_ok=True)
    for name, case in CASES.items():
        out = folder / (name + ".fixture")
        arrays = compute(case)
        write(out, case, arrays)
        n = case["levels"]
        print(f"{name}: loss {arrays['loss']:.9f}, gradient norm {arrays['grad_norm']:.4f}, "
              f"loss at {n} levels {arrays[f'pot{n}.loss']:.9f}, {out.stat().st_size} bytes")
