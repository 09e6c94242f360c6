#!/usr/bin/env python3
"""The oracle of 8-bit activations: PyTorch's fake quantization and its moving-average observer, and the recipe for
tokens in numpy. Writes fixtures/int8.fixture, which tests/oracle/test_int8.c reads; run it again (needs torch and
numpy) only when the fixture should change.

The header says vocab, width, batch and length of a small graph: rows of `wte` picked by the tokens go through the
quantizer, then through the tied head; in the second form (`again`) the head reads x + y A^T instead, y what the
quantizer makes of x.
    tokens                [STEPS][batch][length]; targets alike, all counting
    wte, A                fp32; the rows of step k are multiplied by growth[k], so that ranges move
    growth                a power of two
    token.plain.values    [STEPS] what the head's product reads, in fp32: numpy, and equal to PyTorch's on 0 ... 255
    affine.plain.values   the same with the observer's range after step k
    affine.F.ranges       [STEPS][2] of the observer
    KIND.F.losses         of the last step, in float64
    KIND.F.grad           of the mean loss of the last step, with respect to wte
F is `plain` or `again`.
"""
import pathlib
import warnings

import numpy as np
import torch
import torch.nn.functional as F
from torch.ao.quantization.observer import MovingAverageMinMaxObserver

import gpt2

CASE = dict(vocab=37, width=19, batch=3, length=11)
STEPS = 5


def token_rows(x):
    """numpy, fp32 throughout: the recipe of docs/quantizers.md."""
    x = x.astype(np.float32)
    low, high = np.minimum(x.min(1, keepdims=True), np.float32(0)), np.maximum(x.max(1, keepdims=True), np.float32(0))
    scale = np.maximum((high - low) / np.float32(255), np.float32(2.0**-126))
    inverse, zero = np.float32(1) / scale, np.rint(-low / scale)
    q = np.clip(np.rint(x * inverse) + zero, 0, 255).astype(np.float32)
    value = (q - zero) * scale
    for r in range(len(x)):
        same = torch.fake_quantize_per_tensor_affine(torch.from_numpy(x[r]), float(scale[r, 0]), int(zero[r, 0]), 0, 255)
        assert np.array_equal(same.numpy(), value[r]), "PyTorch differs from numpy"
    return value


def affine(x, observer):
    """Values and gradient mask of PyTorch's fake quantization, after the observer has seen x."""
    observer(x)
    scale, zero = observer.calculate_qparams()
    leaf = x.clone().requires_grad_()
    y = torch.fake_quantize_per_tensor_affine(leaf, float(scale), int(zero), -128, 127)
    y.backward(torch.ones_like(y))
    return y.detach(), leaf.grad


def compute():
    gen = torch.Generator().manual_seed(4)
    V, C = CASE["vocab"], CASE["width"]
    shape = (STEPS, CASE["batch"] * CASE["length"])
    wte = torch.randn((V, C), generator=gen) * torch.rand((V, 1), generator=gen) * 2
    A = torch.randn((C, C), generator=gen) / C**0.5
    tokens, targets = torch.randint(V, shape, generator=gen), torch.randint(V, shape, generator=gen)
    growth = torch.tensor([1.0, 4.0, 0.5, 2.0, 2.0])
    arrays = {"tokens": tokens.int(), "targets": targets.int(), "wte": wte, "A": A, "growth": growth}
    for kind in "token", "affine":
        for form in "plain", "again":
            values, ranges, observer = [], [], MovingAverageMinMaxObserver(0.01, dtype=torch.qint8)
            for k in range(STEPS):
                W = (wte * growth[k]).double().requires_grad_()
                x = W[tokens[k]]
                x32, mask = x.detach().float(), 1.0
                if kind == "token":
                    y32 = torch.from_numpy(token_rows(x32.numpy()))
                else:
                    y32, mask = affine(x32, observer)
                    ranges.append(torch.stack([observer.min_val, observer.max_val]))
                    if k == STEPS - 1:
                        assert 0 < (mask == 0).sum() < mask.numel() / 2
                y = mask * x + (y32.double() - mask * x).detach()
                values.append(y32)
                out = y if form == "plain" else x + y @ A.double().T
                losses = F.cross_entropy(out @ W.T, targets[k], reduction="none")
                losses.mean().backward()
            name = f"{kind}.{form}."
            arrays |= {name + "losses": losses.detach(), name + "grad": W.grad}
            if form == "plain":
                arrays[name + "values"] = torch.stack(values)
            if ranges:
                arrays[name + "ranges"] = torch.stack(ranges)
    return arrays


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    out = pathlib.Path(__file__).parent / "fixtures" / "int8.fixture"
    gpt2.write(out, CASE, compute())
    print(out.stat().st_size, "bytes")
