"""The lines of docs/formats.md that read a checkpoint with h5py, run on a checkpoint and compared with what was saved.

Usage: read_checkpoint.py MAKE_CHECKPOINT FORMATS_MD. Skips (77) where h5py is missing."""
import pathlib
import re
import subprocess
import sys
import tempfile

try:
    import h5py  # noqa: F401
    import numpy
except ImportError as error:
    print(f"skipped: {error} (Debian: python3-h5py)")
    sys.exit(77)

maker, document = sys.argv[1:]
section = pathlib.Path(document).read_text(encoding="utf-8").split("\n## Checkpoint")[1].split("\n## ")[0]
code = re.search(r"```python\n(.*?)```", section, re.S).group(1)

with tempfile.TemporaryDirectory() as folder:
    subprocess.run([maker, folder], check=True)
    path = pathlib.Path(folder)
    code, replaced = re.subn(r'h5py\.File\("[^"]*"', f'h5py.File("{path / "model.h5"}"', code)
    assert replaced == 1, "the documented lines open one file"
    names = {}
    exec(code, names)

    def expect(name, arrays):
        found = numpy.concatenate([arrays[key].ravel() for key in sorted(arrays)])
        wanted = numpy.fromfile(path / name, "<f4")
        assert found.dtype == numpy.float32 and found.tobytes() == wanted.tobytes(), name

    expect("weights.f32", names["weights"])
    expect("m.f32", names["m"])
    expect("scales.f32", {key: matrix["scales"] for key, matrix in names["quant"].items()})
    arrays = names["arrays"]
    assert arrays["x.running"].dtype == numpy.float32 and arrays["x.running"].tolist() == [0.5, -2, 3]
    assert arrays["x.fixed"].dtype == numpy.uint8 and arrays["x.fixed"].tolist() == [0, 255, 7] and len(arrays) == 2
    shape = names["shape"]
    assert (shape["layers"], shape["heads"], shape["width"], shape["context"], shape["vocab"]) == (2, 2, 64, 8, 11)
    assert shape["bias"] == 1 and shape["gelu"] == b"erf" and shape["iter"] == 1500 and shape["val_loss"] == 1.25
    assert names["weights"]["wte.weight"].shape == (11, 64) and names["weights"]["ln_f.weight"].shape == (64,)
    assert names["config"] == "train:\n  seed: 1337\n" and names["tokenizer"]["kind"] == "char"
    wte = names["quant"]["wte.weight"]
    assert wte["quantizer"] == b"pot" and wte["levels"] == 15 and "wpe.weight" not in names["quant"]
    # The documented rule against the plainest one: no level is nearer, and the result is a level.
    levels = numpy.array([0] + [sign * 2.0**k for k in range(7) for sign in (1, -1)])
    for key, matrix in names["quant"].items():
        w = names["weights"][key].astype("f8").reshape(-1, matrix["group"])
        hard = names["hard"][key].astype("f8").reshape(w.shape)
        scales = matrix["scales"].astype("f8")[:, None]
        least = numpy.abs(levels * scales[:, :, None] - w[:, :, None]).min(axis=2)
        assert numpy.isin(hard / scales, levels).all() and (numpy.abs(hard - w) <= least * (1 + 1e-6)).all(), key
    print(len(names["weights"]), "tensors agree with what was saved")
