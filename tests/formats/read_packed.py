"""The reader printed in docs/formats.md gives the weights that the trainer evaluates with, bit for bit.
usage: read_packed.py MAKE_PACKED docs/formats.md"""
import glob, os, re, subprocess, sys, tempfile
import numpy as np

make_packed, docs = sys.argv[1:]
code = next(c for c in re.findall(r"```python\n(.*?)```", open(docs).read(), re.S) if "def read_packed" in c)
exec(code)

with tempfile.TemporaryDirectory() as folder:
    subprocess.run([make_packed, folder], check=True)
    files = sorted(glob.glob(os.path.join(folder, "*.safetensors")))
    assert len(files) == 10, files
    for path in files:
        expected = np.fromfile(path.replace(".safetensors", ".f32"), "<u4")
        weights, metadata = read_packed(path)
        names = [line.split() for line in open(path.replace(".safetensors", ".txt"))]
        assert sorted(weights) == sorted(n for n, _, _ in names), path
        at = 0
        for name, rows, columns in names:
            shape = (int(rows), int(columns)) if int(rows) else (int(columns),)
            found = np.ascontiguousarray(weights[name])
            assert found.dtype == np.float32 and found.shape == shape, (path, name, found.dtype, found.shape)
            count = found.size
            assert (found.view("<u4").ravel() == expected[at : at + count]).all(), (path, name)
            at += count
        assert at == expected.size
        assert metadata["format"] == "potqat packed" and metadata["iter"] == "1234"
        try:
            from safetensors import safe_open
        except ImportError:
            continue
        with safe_open(path, framework="numpy") as f:
            assert f.metadata() == metadata
            codes = [k for k in f.keys() if k.endswith(".codes")]
            assert all(f.get_tensor(k).dtype == np.uint8 for k in codes)
    print(len(files), "files read, all weights equal")
