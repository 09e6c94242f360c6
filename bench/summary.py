"""What the rows of a results file come to: the table that peers.sh prints, and the bars."""
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

PEERS = ["eager", "compiled"]
HEAD = ["shape", "precision", "weights", "potqat, tokens/s", "eager", "compiled", "potqat / better", "spread", "memory, MB",
        "of the better's", "QAT / plain, ms", "the better's"]


def case_name(case):
    return f"{case[0]} {case[1]}{' QAT' if case[2] else ''}"


def median(rows, column):
    return statistics.median(float(row[column]) for row in rows) if rows else None


def better(rows):
    """The faster of PyTorch's variants; None where neither ran."""
    ran = [label for label in PEERS if rows[label]]
    return max(ran, key=lambda label: median(rows[label], "tokens_per_s"), default=None)


def ratio(a, b, form="{:.2f}", scale=1):
    return "" if a is None or b is None else form.format(a / b * scale)


def spread(rows):
    """The widest of the contenders: largest less smallest, in parts of the median."""
    widths = []
    for of in rows.values():
        values = [float(row["tokens_per_s"]) for row in of]
        widths += [(max(values) - min(values)) / statistics.median(values)] if len(values) > 1 else []
    return f"{max(widths) * 100:.1f} %" if widths else ""


def quantizing(figures, case, label):
    """How many times a plain iteration one with quantized weights takes, in the same variant."""
    plain = figures.get((*case[:2], False))
    if not case[2] or not plain or label is None:
        return ""
    return ratio(median(figures[case][label], "step_ms"), median(plain[label], "step_ms"))


def line(figures, case):
    rows = figures[case]
    speed = {label: median(rows[label], "tokens_per_s") for label in rows}
    memory = {label: median(rows[label], "peak_rss_mb") for label in rows}
    best = better(rows)
    return [*case[:2], "QAT" if case[2] else "plain", *("" if v is None else f"{v:,.0f}" for v in speed.values()),
            ratio(speed["potqat"], speed.get(best)), spread(rows),
            "" if memory["potqat"] is None else f"{memory['potqat']:,.0f}",
            ratio(memory["potqat"], memory.get(best), "{:.0f} %", 100), quantizing(figures, case, "potqat"),
            quantizing(figures, case, best)]


def table(heading, figures, unable):
    runs = sorted({len(rows) for case in figures.values() for rows in case.values() if rows})
    lines = [f"{heading}; medians of {' to '.join(map(str, sorted({runs[0], runs[-1]})))}.", "",
             "| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    lines += ["| " + " | ".join(line(figures, case)) + " |" for case in figures]
    notes = {}
    for (case, label), why in unable.items():
        notes.setdefault((label, why), []).append(case_name(case))
    return "\n".join([*lines, *([""] if notes else []),
                      *(f"Not measured: {label} ({', '.join(cases)}): {why}" for (label, why), cases in notes.items())])


def plot(title, figures, out):
    """Bars of tokens/s, PyTorch's better variant = 1; nothing without a peer or gnuplot."""
    lines = []
    for case, rows in figures.items():
        best = better(rows)
        if best:
            unit = median(rows[best], "tokens_per_s")
            bars = [ratio(median(of, "tokens_per_s"), unit, "{:.4f}") or "?" for of in rows.values()]
            lines.append(f'"{case_name(case)}" {" ".join(bars)}\n')
    if not lines or not shutil.which("gnuplot"):
        print(f"{out}: not drawn: {'gnuplot is not installed' if lines else 'no peer was measured'}", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as folder:
        data, drawn = pathlib.Path(folder, "bars"), out.with_suffix(".svg.part")
        data.write_text("".join(lines))
        script = pathlib.Path(__file__).with_name("peers.gp")
        try:
            subprocess.run(["gnuplot", "-c", script, data, drawn, title], check=True)
            os.replace(drawn, out)
        except subprocess.CalledProcessError as error:
            drawn.unlink(missing_ok=True)
            raise SystemExit(f"{out}: not drawn: gnuplot ended with status {error.returncode}") from error
