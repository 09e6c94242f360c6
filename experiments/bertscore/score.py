#!/usr/bin/env python3
"""score.py PAIRS ENCODER [--layers N] [--baseline TSV]: BERTScore of what `potqat generate --pairs` wrote.

PAIRS is that folder, ENCODER a folder that transformers reads (roberta-base for the papers' figures). Prints one JSON
object: precision, recall and F1 of the baseline's and of the quantized model's continuations against the references and of
the quantized ones against the baseline's, their standard errors over prompts, and the settings. Needs PyPI's bert-score.
"""
import argparse
import json
import math
import os
import pathlib
import statistics
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the encoder is on disk
try:
    import bert_score
    from bert_score.utils import model2layers
    from transformers import AutoConfig
except ImportError as missing:
    sys.exit(f"score.py: {missing}; python3 -m pip install bert-score")

COMPARISONS = {"baseline": ("baseline", "references"), "quantized": ("quantized", "references"),
               "quantized_to_baseline": ("quantized", "baseline")}


def read_lines(folder, name):
    return (folder / f"{name}.txt").read_text(encoding="utf-8").split("\n")[:-1]


def over_prompts(values, draws):
    """Mean, and its standard error from the means of the prompts: draws of one prompt are not independent."""
    means = [statistics.fmean(values[i:i + draws]) for i in range(0, len(values), draws)]
    return statistics.fmean(means), statistics.stdev(means) / math.sqrt(len(means)) if len(means) > 1 else None


def compare(candidates, references, encoder, layers, baseline, draws):
    # The package gives an empty text a score of 0 with a warning of its own.
    scores = bert_score.score(candidates, references, model_type=str(encoder), num_layers=layers, lang="en",
                              rescale_with_baseline=baseline is not None, baseline_path=baseline)
    result = {}
    for name, values in zip(("precision", "recall", "f1"), scores):
        result[name], result[name + "_se"] = over_prompts(values.tolist(), draws)
    return result, scores[2].tolist()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pairs", type=pathlib.Path)
    parser.add_argument("encoder", type=pathlib.Path)
    parser.add_argument("--layers", type=int, help="the layer to compare (default: the package's for a model of the "
                        "folder's name, else the last)")
    parser.add_argument("--baseline", help="rescale with this file of the package, such as "
                        "bert_score/rescale_baseline/en/roberta-base.tsv")
    words = parser.parse_args()
    for needed in (words.pairs / "settings.json", words.encoder / "config.json"):
        if not needed.is_file():
            sys.exit(f"score.py: there is no {needed}")
    settings = json.loads((words.pairs / "settings.json").read_text())
    texts = {name: read_lines(words.pairs, name) for name in ("references", "baseline", "quantized")}
    expected = settings["prompts"] * settings["draws"]
    for name, lines in texts.items():
        if len(lines) != expected:
            sys.exit(f"score.py: {name}.txt has {len(lines)} lines, settings.json tells of {expected}")
    layers = words.layers or model2layers.get(words.encoder.resolve().name)
    layers = layers or AutoConfig.from_pretrained(words.encoder).num_hidden_layers
    result, f1 = {}, {}
    for name, (candidates, references) in COMPARISONS.items():
        result[name], f1[name] = compare(texts[candidates], texts[references], words.encoder, layers, words.baseline,
                                         settings["draws"])
    gap = [a - b for a, b in zip(f1["baseline"], f1["quantized"])]
    result["gap"], result["gap_se"] = over_prompts(gap, settings["draws"])
    result |= {"encoder": str(words.encoder), "layers": layers, "rescaled": words.baseline is not None,
               "settings": settings}
    print(json.dumps(result, indent=2))


main()
