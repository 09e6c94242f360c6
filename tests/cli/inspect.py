"""potqat inspect on a checkpoint, a run folder and what is none. Usage: inspect.py POTQAT MAKE_CHECKPOINT."""
import json
import os
import shutil
import subprocess
import sys
import tempfile

potqat, maker = (os.path.abspath(path) for path in sys.argv[1:])


def inspect(*arguments):
    done = subprocess.run([potqat, "inspect", *arguments], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def refused(status, part, *arguments):
    code, out, err = inspect(*arguments)
    assert code == status and out == "" and part in err and err.count("\n") == 1, (code, out, err)


with tempfile.TemporaryDirectory() as folder:
    subprocess.run([maker, folder], check=True)
    model = os.path.join(folder, "model.h5")
    code, out, err = inspect(model, "--verify")
    assert code == 0 and err == "", err
    for part in ("2 layers, 2 heads, width 64, context 8, vocabulary 11, biases, GELU erf", "iter        1500",
                 "1.250000 nats", "char, 11 ids", "AdamW moments", "seed: 1337", "verified"):
        assert part in out, (part, out)
    code, out, _ = inspect(model, "--json")
    found = json.loads(out)
    assert code == 0 and found["kind"] == "checkpoint" and found["file_bytes"] == os.path.getsize(model)
    # Bits a weight, counted here from the shapes: rows padded to 128 codes of 4 bits, 4 bytes a scale in groups of 32.
    tensors = {tensor["name"]: tensor for tensor in found["tensors"]}
    wte, fc = tensors["wte.weight"], tensors["h.0.mlp.c_proj.weight"]
    assert (wte["rows"], wte["columns"], wte["levels"], wte["granularity"]) == (11, 64, 15, "group32"), wte
    assert wte["bytes"] == 11 * (64 + 2 * 4) and fc["bytes"] == 64 * (128 + 8 * 4), (wte, fc)
    assert "quantizer" not in tensors["wpe.weight"] and tensors["wpe.weight"]["bytes"] == 4 * 8 * 64
    assert found["weight_bytes"] == sum(tensor["bytes"] for tensor in found["tensors"])
    run = os.path.join(folder, "run")
    os.mkdir(run)
    open(os.path.join(run, "config.yaml"), "w").close()
    refused(1, "it has no checkpoint at all", run)
    shutil.copy(model, os.path.join(run, "ckpt-20.h5"))
    refused(1, "no checkpoint best; it has 20", run)
    code, out, _ = inspect(run + "@last", "--json")
    assert code == 0 and json.loads(out)["path"].endswith("run/ckpt-20.h5")
    refused(1, "no file or run folder", os.path.join(folder, "missing"))
    refused(2, "is no MODEL", os.path.join(run, "config.yaml"))
    refused(2, "is not a run", folder)
    with open(model, "r+b") as file:
        file.seek(5000)
        file.write(b"damage")
    refused(1, "is damaged", model)
