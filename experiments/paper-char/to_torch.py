#!/usr/bin/env python3
"""to_torch.py FOLDER BASE.pt: a model exported by `potqat export --format hf`, as the state dict of a PyTorch script
whose modules are called wte, wpe, h.N.{ln1,qkv,proj,ln2,fc,out}, lnf, all without biases.

Needs torch and safetensors.
"""
import sys

import torch
from safetensors.torch import load_file

NAMES = {"ln_1": "ln1", "attn.c_attn": "qkv", "attn.c_proj": "proj", "ln_2": "ln2", "mlp.c_fc": "fc",
         "mlp.c_proj": "out", "ln_f": "lnf"}


def main(folder, target):
    state = {}
    for name, tensor in load_file(f"{folder}/model.safetensors").items():
        name = name.removeprefix("transformer.")
        for theirs, ours in NAMES.items():
            name = name.replace(theirs + ".", ours + ".")
        if name.endswith(".bias"):
            assert not tensor.any(), f"{name} is not zero"
        else:  # Hugging Face stores linear layers as [in][out]
            state[name] = tensor.T.contiguous() if ".ln" not in name and name.startswith("h.") else tensor
    torch.save(state, target)


main(*sys.argv[1:])
