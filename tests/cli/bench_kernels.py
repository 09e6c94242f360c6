"""potqat bench kernels: its rows as JSON and as a table. No number is expected of any machine but that it is positive,
finite and, as a share, what the rows say. Usage: bench_kernels.py POTQAT."""
import json
import math
import os
import subprocess
import sys

potqat = os.path.abspath(sys.argv[1])
KEYS = ["kernel", "what", "data", "unit", "one_thread", "one_thread_share", "threads", "all_threads", "all_threads_share"]
PEAKS = [("peak_multiply_add", "registers")] + [(f"peak_{traffic}", place) for place in ("L2", "memory")
                                                for traffic in ("read", "copy", "update")]


def run(*arguments, status=0, **environment):
    done = subprocess.run([potqat, "bench", "kernels", *arguments], capture_output=True, text=True,
                          env={**os.environ, **environment})
    assert done.returncode == status, done
    return done


done = run("sum", "--json", "--threads", "2")  # column_sums and sum_squares
rows = [json.loads(line) for line in done.stdout.splitlines()]
assert done.stderr == "" and all(list(row) == KEYS for row in rows), done
peaks = {(row["kernel"], row["data"]): row for row in rows if row["kernel"].startswith("peak_")}
assert [key for key in peaks if key[0] != "peak_multiply_add_bf16"] == PEAKS, list(peaks)
others = rows[len(peaks):]
assert [(row["kernel"], row["data"]) for row in others] == [
    (kernel, place) for kernel in ("column_sums", "sum_squares") for place in ("L2", "memory")], others
for row in rows:
    numbers = [row[key] for key in KEYS[4:]]
    assert all(math.isfinite(number) and number > 0 for number in numbers) and row["threads"] == 2, row
    assert row["unit"] == ("GFLOP/s" if row["data"] == "registers" else "GB/s"), row
    # Each share is of the peak of its kind: these two only read.
    peak = peaks[row["kernel"] if row["kernel"].startswith("peak_") else "peak_read", row["data"]]
    for which in "one_thread", "all_threads":
        share = row[which] / peak[which]
        assert abs(share - row[which + "_share"]) <= 1e-6 * share, (row, peak)

done = run("attention_f", "--threads", "1", POTQAT_CPU="avx2")
lines = done.stdout.splitlines()
assert lines[0].split()[0] == "kernel" and "peak_multiply_add_bf16" not in done.stdout, done  # AVX2 has no bf16
assert [line.split()[:2] for line in lines[1 + len(PEAKS):]] == [
    ["attention_forward", shape] for shape in ("char", "baby", "124M")], done
for line in lines[1:]:
    one, share, all_threads, all_share = line.split()[-4:]
    assert one == all_threads and share == all_share and float(one) > 0, line  # one thread is all of them

done = run("no-such", status=2)
assert done.stdout == "" and done.stderr == "potqat: no kernel has no-such in its name\n", done
print("rows, peaks and shares as they should be")
