#!/usr/bin/env python3
"""The oracle of distillation: the GPT-2 of gpt2.py as student and, wider, deeper and quantized, as teacher, in
float64 PyTorch. Writes fixtures/distill.fixture, which tests/oracle/test_distill.c reads; run it again (needs torch
and numpy) only when the fixture should change.

The header and tokens, targets, weight.P are the student's, as gpt2.py describes them. Besides:
    teacher.shape                     layers, heads, width, context, vocab, bias, gelu_tanh
    teacher.P                         the teacher's weights before they are put on 7 power-of-two levels a row
    mixes                             weight, temperature of each case k = 0, 1, ...
    losses                            cross-entropy, 0 where masked
    k.kl                              KL(softmax(teacher / T) || softmax(student / T)), 0 where masked
    k.grad.P                          gradient of the mean over targets of (1 - weight) losses + weight T^2 kl
"""
import pathlib

import torch
import torch.nn.functional as F

import gpt2

STUDENT = dict(layers=1, heads=2, width=12, context=9, vocab=21, bias=1, gelu_tanh=1, batch=3, length=8)
TEACHER = dict(layers=2, heads=3, width=18, context=10, vocab=21, bias=0, gelu_tanh=0)
LEVELS = 7
MIXES = [(0.0, 2.0), (0.5, 1.0), (0.7, 2.0), (1.0, 1.0), (1.0, 0.5), (0.9, 4.0)]


def compute():
    gen = torch.Generator().manual_seed(11)
    student = {n: w.requires_grad_() for n, w in gpt2.make_weights(STUDENT, gen).items()}
    teacher = gpt2.make_weights(TEACHER, gen)
    shape = (STUDENT["batch"], STUDENT["length"])
    tokens = torch.randint(STUDENT["vocab"], shape, generator=gen)
    targets = torch.randint(STUDENT["vocab"], shape, generator=gen)
    targets[torch.rand(shape, generator=gen) < 0.2] = -1
    arrays = {"tokens": tokens.int(), "targets": targets.int(),
              "teacher.shape": torch.tensor(list(TEACHER.values())).int(), "mixes": torch.tensor(MIXES, dtype=torch.float64)}
    arrays |= {"weight." + n: w.detach().float() for n, w in student.items()}
    arrays |= {"teacher." + n: w.float() for n, w in teacher.items()}
    counts = targets.flatten() >= 0
    with torch.no_grad():
        wanted = gpt2.forward(TEACHER, teacher, tokens, LEVELS).flatten(0, 1)
    for k, (weight, temperature) in enumerate(MIXES):
        for w in student.values():
            w.grad = None
        logits = gpt2.forward(STUDENT, student, tokens).flatten(0, 1)
        losses = F.cross_entropy(logits, targets.flatten(), ignore_index=-1, reduction="none")
        kl = F.kl_div((logits / temperature).log_softmax(1), (wanted / temperature).log_softmax(1), reduction="none",
                      log_target=True).sum(1) * counts
        (((1 - weight) * losses + weight * temperature**2 * kl).sum() / counts.sum()).backward()
        arrays |= {"losses": losses.detach(), f"{k}.kl": kl.detach()}
        arrays |= {f"{k}.grad.{n}": w.grad.float().clone() for n, w in student.items()}
    return arrays


if __name__ == "__main__":
    torch.set_num_threads(1)
    out = pathlib.Path(__file__).parent / "fixtures" / "distill.fixture"
    gpt2.write(out, STUDENT, compute())
    print(out.stat().st_size, "bytes")
