"""bertscore.py POTQAT SCORE MAKE_MODEL: `generate --pairs` and its scores by PyPI's bert-score with a random encoder.

Skips without bert-score, torch and transformers.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
try:
    import bert_score
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

POTQAT, SCORE, MAKE_MODEL = (str(pathlib.Path(word).resolve()) for word in sys.argv[1:4])
LAYERS = 2


def run(*words, status=0, says=""):
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    assert done.returncode == status, f"{words}: status {done.returncode}\n{done.stdout}{done.stderr}"
    assert says in done.stderr, f"{words}: expected '{says}', found {done.stderr}"
    return done.stdout


def make_encoder(folder):
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(chr(c) for c in range(33, 127)),
              *("##" + chr(c) for c in range(33, 127))]
    os.makedirs(folder)
    pathlib.Path(folder, "vocab.txt").write_text("\n".join(pieces) + "\n")
    BertTokenizer.from_pretrained(folder, model_max_length=64).save_pretrained(folder)
    torch.manual_seed(1)
    BertModel(BertConfig(vocab_size=len(pieces), hidden_size=32, num_hidden_layers=LAYERS, num_attention_heads=2,
                         intermediate_size=64)).save_pretrained(folder)


def lines(name):
    return pathlib.Path("pairs", name + ".txt").read_text(encoding="utf-8").split("\n")[:-1]


def main():
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        run(MAKE_MODEL, "m.h5", "byte")
        pathlib.Path("text.txt").write_text("the quick brown fox jumps over the lazy dog " * 60)
        run(POTQAT, "export", "m.h5", "-o", "m.safetensors")
        run(POTQAT, "quantize", "m.h5", "-o", "q.h5", "quant.quantizer=pot", "quant.levels=3", "quant.scale=absmax")
        run(POTQAT, "generate", "q.h5", "--pairs", "m.safetensors", "--data", "text.txt", "--prompts", 3, "--draws", 2,
            "--prompt-tokens", 8, "--tokens", 12, "-o", "pairs")
        make_encoder("encoder")
        found = json.loads(run(sys.executable, SCORE, "pairs", "encoder"))
        assert found["layers"] == LAYERS and found["settings"]["draws"] == 2, found
        for name, (a, b) in {"baseline": ("baseline", "references"), "quantized": ("quantized", "references")}.items():
            f1 = bert_score.score(lines(a), lines(b), model_type="encoder", num_layers=LAYERS)[2]
            assert abs(found[name]["f1"] - f1.mean().item()) < 1e-6, (name, found[name], f1)
        assert abs(found["gap"] - (found["baseline"]["f1"] - found["quantized"]["f1"])) < 1e-6
        pathlib.Path("baseline.tsv").write_text("LAYER,P,R,F\n" + "".join(f"{i},.5,.5,.5\n" for i in range(LAYERS + 1)))
        scaled = json.loads(run(sys.executable, SCORE, "pairs", "encoder", "--baseline", "baseline.tsv"))
        assert abs(scaled["baseline"]["f1"] - (found["baseline"]["f1"] - .5) / .5) < 1e-5, scaled
        with open("pairs/quantized.txt", "a") as extra:
            extra.write("one more\n")
        run(sys.executable, SCORE, "pairs", "encoder", status=1, says="7 lines, settings.json tells of 6")
        os.chdir("/")
    print("bert-score agrees")


main()
