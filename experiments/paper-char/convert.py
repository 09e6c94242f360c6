#!/usr/bin/env python3
"""convert.py BASE.pt OUT.safetensors [HEADS]: the PyTorch script's state dict under nanoGPT's names.

Then: potqat import OUT.safetensors --heads 4 --tokenizer tinyshakespeare -o base.h5
Needs torch alone; the container is written by hand.
"""
import json
import struct
import sys

import torch

PARTS = {"ln1": "ln_1", "qkv": "attn.c_attn", "proj": "attn.c_proj", "ln2": "ln_2", "fc": "mlp.c_fc",
         "out": "mlp.c_proj", "lnf": "ln_f"}


def main(source, target, heads="4"):
    header, data = {"__metadata__": {"heads": heads, "gelu": "erf"}}, b""
    for name, tensor in torch.load(source, map_location="cpu", weights_only=True).items():
        name = "transformer." + ".".join(PARTS.get(part, part) for part in name.split("."))
        values = tensor.detach().float().contiguous().numpy().tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape),
                        "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    with open(target, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


main(*sys.argv[1:])
