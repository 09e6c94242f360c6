"""What the tests beside transformers share: its packages, offline and silent, or a skip; its folders compared."""
import os
import sys

os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
try:
    import torch
    from safetensors.torch import load_file
    from transformers.utils.logging import disable_progress_bar
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

disable_progress_bar()
TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")  # [in][out] there


def same_tensors(a, b, what):
    """Every tensor of two folders, byte for byte; how many there are."""
    a, b = load_file(f"{a}/model.safetensors"), load_file(f"{b}/model.safetensors")
    assert a.keys() == b.keys(), f"{what}: {a.keys() ^ b.keys()}"
    for name in a:
        assert a[name].dtype == b[name].dtype and a[name].shape == b[name].shape, f"{what}: {name}"
        assert a[name].numpy().tobytes() == b[name].numpy().tobytes(), f"{what}: {name} differs"
    return len(a)
