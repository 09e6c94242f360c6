#!/usr/bin/env python3
"""Make fixtures/released.csv: what the rule of the code released with arXiv 2601.02298 makes of weights.

    python3 tests/oracle/released.py        (numpy; no code of ours)

The rule, per tensor: s = max(absmax / ((qmax - qmin) / 2), eps); i = round(|w| / s), half to even; 0 stays 0; else
p = 2^round(log2 i), clamped with w's sign to [qmin, qmax]; the value is that times s. Arithmetic is fp32, as in
PyTorch, but for log2, which is decided exactly (is i^2 > 2^(2k+1)?) in Python's integers.

Each line: range, eps, then scale, weights and values as the hexadecimal bits of floats.
"""
import os
import numpy as np

F = np.float32


def bits(x):
    return "%08x" % int(np.asarray(x, F).view(np.uint32))


def exponent(i):
    """round(log2(i)) of an integer i > 0; a tie is impossible, for 2^(k + 1/2) is irrational."""
    k = i.bit_length() - 1
    return k + (i * i > 1 << (2 * k + 1))


def released(w, qmin, qmax, eps):
    s = F(max(float(np.abs(w).max()) / ((qmax - qmin) / 2), eps))
    out = []
    for x in w:
        i = int(np.rint(np.abs(x) / s))
        q = F(2.0 ** exponent(i)) * np.sign(x) if i else F(0)
        out.append(F(np.clip(q, qmin, qmax) * s) + F(0))
    return s, np.array(out, F)


def cases():
    rng = np.random.default_rng(1337)
    for qmin, qmax in [(-8, 4), (-8, 8), (-16, 16), (-128, 128), (-1, 1), (-1, 64), (-32768, 32768)]:
        for eps in [2.0**-12, 2.0**-5]:
            for std in [0.02, 0.5]:
                yield qmin, qmax, eps, rng.normal(0, std, 48).astype(F)
        # with s = 1 exactly: every switch point, its neighbours, and both signs
        half = (qmax - qmin) / 2
        edges = [0.0, -0.0, 1e-45, 0.5, 1.5, 2.5, 5.5, 11.5, 22.5, 45.5, 90.5, 181.5, 23170.5, half]
        near = [np.nextafter(F(e), F(d)) for e in edges for d in (-np.inf, np.inf)]
        w = np.array([x for x in [*edges, *near] if abs(x) <= half], F)
        w = np.concatenate([w, -w, np.array([half], F)])
        yield qmin, qmax, 2.0**-12, w
    yield -8, 4, 2.0**-5, np.zeros(5, F)
    yield -128, 128, 2.0**-5, np.array([4, -4, 3.9, 0.0156, 0.01563, -0.0157, 0.0469, -0.047], F)


folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures")
with open(os.path.join(folder, "released.csv"), "w") as f:
    for qmin, qmax, eps, w in cases():
        s, values = released(w, qmin, qmax, eps)
        f.write("%d,%d,%.17g,%s,%s,%s\n" % (qmin, qmax, eps, bits(s), " ".join(map(bits, w)), " ".join(map(bits, values))))
