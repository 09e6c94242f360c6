"""test_tensorboard.py POTQAT: the event file of a run, read back by TensorBoard itself and record by record.

Trains a tiny run with log.tensorboard, stops it and resumes it; every number of metrics.jsonl must be there once.
"""
import json
import math
import pathlib
import struct
import subprocess
import sys
import tempfile

NAME = "events.out.tfevents.potqat"
SIZES = ["model.layers=1", "model.heads=2", "model.width=16", "model.context=8", "train.batch=2", "quant.quantizer=pot",
         "train.warmup_iters=0", "log.every=2", "eval.every=4", "eval.windows=8", "save.every=6", "data.path=builtin"]


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(data):
    assert crc32c(b"123456789") == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) & 0xFFFFFFFF
    count = 0
    while data:
        length, check = struct.unpack("<QI", data[:12])
        assert check == crc32c(data[:8]), "the checksum of a length is wrong"
        body, (check,) = data[12:12 + length], struct.unpack("<I", data[12 + length:16 + length])
        assert check == crc32c(body), "the checksum of a record is wrong"
        data, count = data[16 + length:], count + 1
    return count


def expected(path):
    scalars = {}
    for line in map(json.loads, path.read_text().splitlines()):
        about = line.get("matrix") or line["split"]
        if "protocol" in line:
            about += f" {line['protocol']} {line['context']}"
        for key, value in line.items():
            if isinstance(value, (int, float)) and key not in ("iter", "tokens", "context", "stride"):
                scalars.setdefault(f"{key}/{about}", []).append((line["iter"], value))
    return scalars


def main(potqat):
    with tempfile.TemporaryDirectory() as folder:
        run, config = pathlib.Path(folder) / "run", pathlib.Path(folder) / "tiny.yaml"
        config.write_text("# tiny\nlog:\n  tensorboard: true\n")
        train = [potqat, "train", "--quiet"]
        subprocess.run([*train, config, *SIZES, f"run.dir={run}", "train.max_iters=10"], check=True)
        # What a killed run leaves: events beyond the checkpoint, the last one torn.
        whole = (run / NAME).read_bytes()
        (run / NAME).write_bytes(whole + whole[-40:-7])
        subprocess.run([*train, "--resume", run, "train.max_iters=20"], check=True)
        lines = len((run / "metrics.jsonl").read_text().splitlines())
        assert records((run / NAME).read_bytes()) == 1 + lines, "expected one record a line and one for the version"
        subprocess.run([*train, config, *SIZES, f"run.dir={run}", "train.max_iters=4", "--overwrite",
                        "log.tensorboard=false"], check=True)
        assert not (run / NAME).exists(), "--overwrite leaves an old run's events"
        subprocess.run([*train, "--resume", run, "train.max_iters=8", "log.tensorboard=true"], check=True)
        try:
            from tensorboard.backend.event_processing import event_accumulator
        except ImportError:
            print("SKIP: the Python package tensorboard is not installed; the records themselves are right")
            sys.exit(77)
        reader = event_accumulator.EventAccumulator(str(run), size_guidance={"scalars": 0, "histograms": 0})
        reader.Reload()
        want = expected(run / "metrics.jsonl")
        assert set(reader.Tags()["scalars"]) == set(want) and "loss/train" in want, reader.Tags()
        for tag, points in want.items():
            got = [(event.step, event.value) for event in reader.Scalars(tag)]
            assert [step for step, _ in got] == [step for step, _ in points], (tag, got, points)
            assert all(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-30) for (_, a), (_, b) in zip(got, points)), tag
        histograms(reader, run / "metrics.jsonl")
        print(f"{sum(map(len, want.values()))} scalars in {len(want)} tags agree")


def histograms(reader, path):
    for line in map(json.loads, path.read_text().splitlines()):
        shares = line.get("histogram")
        if not shares:
            continue
        events = [e for e in reader.Histograms("histogram/" + line["matrix"]) if e.step == line["iter"]]
        assert len(events) == 1, (line["matrix"], line["iter"])
        value, half = events[0].histogram_value, len(shares) / 2
        assert len(value.bucket) == len(shares) and all(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-12) for a, b in zip(value.bucket, shares)), (value.bucket, shares)
        assert list(value.bucket_limit) == [i + 1 - half for i in range(len(shares))]


main(sys.argv[1])
