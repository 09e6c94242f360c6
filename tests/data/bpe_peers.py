"""bpe_peers.py ENCODE_RECORDS POTQAT: ids of GPT-2's tokenizer and of learned ones, against tokenizers and tiktoken.

GPT-2's own files (encoder.json, vocab.bpe) come from the folder POTQAT_DATA. Skips without these or the packages.
"""
import json
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
try:
    import tiktoken
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel
    from transformers.utils.logging import disable_progress_bar
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

disable_progress_bar()
DATA = pathlib.Path(os.environ.get("POTQAT_DATA", "/nowhere"))
if not (DATA / "vocab.bpe").exists():
    print("skipped: POTQAT_DATA names no folder with encoder.json and vocab.bpe")
    sys.exit(77)
RECORDS, POTQAT = (str(pathlib.Path(word).resolve()) for word in sys.argv[1:3])
SCRATCH = pathlib.Path(tempfile.mkdtemp(prefix="potqat-bpe-"))
END = "<|endoftext|>"


def ours(tokenizer, texts, mode="plain", threads="2"):
    packed = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    done = subprocess.run([RECORDS, str(tokenizer), mode], input=packed, capture_output=True,
                          env={**os.environ, "THREADS": threads})
    assert done.returncode == 0, done.stderr.decode()
    ids, at = [], 0
    while at < len(done.stdout):
        n, = struct.unpack_from("<I", done.stdout, at)
        ids.append(list(struct.unpack_from(f"<{n}H", done.stdout, at + 4)))
        at += 4 + 2 * n
    assert len(ids) == len(texts)
    return ids


def hugging_face(vocab, merges, end):
    """The tokenizer as Hugging Face builds GPT-2's."""
    made = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    if end:
        made.add_special_tokens([AddedToken(END, normalized=False)])
    return made


def unicode_blocks():
    """For each 128 code points: those between letters, digits, signs and spaces, and all in a row."""
    uniform = (0x3500, 0x4D00), (0x4F00, 0x9F00), (0xAD00, 0xD700), (0xE100, 0xF800), (0x13500, 0x14300), (0x17100, 0x18700), \
        (0x20100, 0x2A600), (0x2A800, 0x2EB00), (0x2EC00, 0x32300), (0x32400, 0xE0000), (0xE0200, 0x10FF00)
    texts = []
    for start in range(0, 0x110000, 128):
        letters = [chr(c) for c in range(start, start + 128) if not 0xD800 <= c < 0xE000]
        if not letters or any(low < start < high for low, high in uniform):  # the inside of blocks of one kind
            continue
        texts.append("".join(f"a{c}1{c}! {c} {c}{c}\n" for c in letters) + "".join(letters))
    return texts


def random_texts(n):
    pieces = [" ", "  ", "\n", "\t", "\u3000", "\x85", "\u180e", "\x1c", "\0", "'s", "'S", "'ll", "'", "a", "Be", "the", "7", "42", "!",
              "...", "é", "Ω", "中文", "😀", "\u0301", "½", "\u200d", "ǅ", "٣", END, "<|endof", "|>"]
    return ["".join(random.choice(pieces) for _ in range(random.randrange(1, 40))) for _ in range(n)]


def assert_same(name, texts, found, expected):
    for text, a, b in zip(texts, found, expected):
        assert a == b, f"{name}: {text[:80]!r}: {a[:40]} instead of {b[:40]}"
    print(f"{name}: {sum(map(len, found))} ids of {len(texts)} texts")


def gpt2():
    ranks = data_gym_to_mergeable_bpe_ranks(str(DATA / "vocab.bpe"), str(DATA / "encoder.json"))
    tik = tiktoken.Encoding("gpt2", pat_str=r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
                            mergeable_ranks=ranks, special_tokens={END: 50256})
    vocab = json.loads((DATA / "encoder.json").read_text("utf-8"))
    merges = [tuple(line.split()) for line in (DATA / "vocab.bpe").read_text("utf-8").splitlines()[1:] if line]
    hub = hugging_face(vocab, merges, True)
    plain = hugging_face(vocab, merges, False)
    files = [path.read_bytes().decode() for path in sorted(DATA.glob("*.txt"))]
    some = unicode_blocks() + random_texts(2000)
    texts = files + some
    raw = [text.encode() for text in texts]
    assert_same("tiktoken", texts, ours(DATA, raw), [tik.encode_ordinary(text) for text in texts])
    documents = ours(DATA, raw, "documents")
    assert_same("tiktoken, documents", texts, documents, [tik.encode(text, allowed_special={END}) for text in texts])
    assert_same("tokenizers", texts, documents, [e.ids for e in hub.encode_batch(texts)])
    assert_same("tokenizers, plain", some, ours(DATA, raw[len(files):]), [e.ids for e in plain.encode_batch(some)])
    for threads in "1", "3", "7":
        assert ours(DATA, raw[:len(files)], "documents", threads) == documents[:len(files)], f"{threads} threads"
    runs = [c * 20_000 for c in (b"a", b" ", b"=", b"\n", b"ab", "é".encode())]
    assert_same("runs", runs, ours(DATA, runs), [tik.encode_ordinary(text.decode()) for text in runs])
    # any bytes come back (encode_records compares)
    ours(DATA, [random.randbytes(random.randrange(200)) for _ in range(5000)])
    ours(DATA, [bytes(random.choice(b"a \xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xff\xed\xa0") for _ in range(random.randrange(60)))
                for _ in range(5000)])
    # the hub's forms of the same tokenizer
    folder = SCRATCH / "pair"
    folder.mkdir()
    shutil.copy(DATA / "encoder.json", folder / "vocab.json")
    shutil.copy(DATA / "vocab.bpe", folder / "merges.txt")
    hub.save(str(SCRATCH / "hub.json"))
    for form in folder, SCRATCH / "hub.json":
        assert ours(form, raw[-500:], "documents") == documents[-500:], form
    return some


def potqat(*words, status=0, says=""):
    done = subprocess.run([POTQAT, *map(str, words)], capture_output=True)
    assert done.returncode == status, f"{words}: status {done.returncode}, expected {status}: {done.stderr.decode()}"
    assert says in done.stderr.decode(), f"{words}: expected '{says}', found {done.stderr.decode()}"
    return done.stdout


def travels(texts):
    """A model in a Hugging Face folder with the tokenizer's files, through import, packing and export."""
    folder, checkpoint, packed, out = (SCRATCH / name for name in ("model", "model.h5", "model.safetensors", "out"))
    GPT2LMHeadModel(GPT2Config(vocab_size=2000, n_positions=32, n_embd=16, n_layer=1, n_head=2, bos_token_id=1999,
                               eos_token_id=1999)).save_pretrained(folder)
    potqat("import", folder, "-o", SCRATCH / "none.h5", says="no tokenizer")
    shutil.copy(SCRATCH / "learned.json", folder / "tokenizer.json")
    potqat("import", folder, "-o", checkpoint)
    potqat("quantize", checkpoint, "-o", SCRATCH / "quantized.h5")
    potqat("export", SCRATCH / "quantized.h5", "-o", packed)
    said = potqat("generate", packed, "--prompt", "Once upon", "--tokens", "5", "--greedy", "--json")
    ids = json.loads(said)["tokens"]
    again = potqat("generate", SCRATCH / "quantized.h5", "--prompt", "Once upon", "--tokens", "5", "--greedy", "--json")
    assert json.loads(again)["tokens"] == ids and len(ids) == 5
    potqat("export", packed, "--format", "hf", "-o", out)
    raw = [text.encode() for text in texts]
    for loaded in AutoTokenizer.from_pretrained(out), AutoTokenizer.from_pretrained(folder):
        found = [loaded(text, add_special_tokens=False)["input_ids"] for text in texts]
        assert_same("AutoTokenizer", texts, ours(out, raw, "documents"), found)
        assert loaded.eos_token in (None, END)
    assert AutoTokenizer.from_pretrained(out).eos_token_id == 1999
    AutoTokenizer.from_pretrained(out).save_pretrained(SCRATCH / "saved")
    assert ours(SCRATCH / "saved", raw) == ours(out, raw)
    for name in "tokenizer.json", "tokenizer_config.json":
        (out / name).unlink()
    assert ours(out, raw) == ours(SCRATCH / "learned.json", raw)  # from vocab.json and merges.txt
    (out / "merges.txt").write_text((out / "merges.txt").read_text("utf-8").replace("t h\n", "t \u4e2d\n", 1), "utf-8")
    potqat("import", out, "-o", SCRATCH / "bad.h5", status=1, says="merges.txt: merge")
    potqat("import", out, "-o", SCRATCH / "good.h5", "--tokenizer", SCRATCH / "learned.json")
    assert not (SCRATCH / "bad.h5").exists()


def learned(texts):
    source = SCRATCH / "text.txt"
    text = (DATA / "tinystories.txt").read_bytes().decode()[:600_000] if (DATA / "tinystories.txt").exists() else texts[0] * 9
    text += "aaaaaaa bbbbbbbb abababab " * 50
    source.write_text(text, "utf-8", newline="")
    done = subprocess.run([POTQAT, "data", "train-tokenizer", str(source), "-o", str(SCRATCH / "learned.json"),
                           "--vocab", "2000"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    mine = Tokenizer.from_file(str(SCRATCH / "learned.json"))
    assert mine.get_vocab_size() == 2000 and mine.token_to_id(END) == 1999
    raw = [text.encode() for text in texts]
    assert_same("learned", texts, ours(SCRATCH / "learned.json", raw, "documents"),
                [e.ids for e in mine.encode_batch(texts)])
    theirs = Tokenizer(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = decoders.ByteLevel()
    theirs.train_from_iterator(text.split(END), trainers.BpeTrainer(
        vocab_size=2000, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    theirs.save(str(SCRATCH / "theirs.json"))
    merges = [json.loads((SCRATCH / name).read_text("utf-8"))["model"]["merges"] for name in ("learned.json", "theirs.json")]
    merges = [[m if isinstance(m, str) else " ".join(m) for m in list] for list in merges]
    different = [i for i, (a, b) in enumerate(zip(*merges)) if a != b]
    assert len(merges[0]) == len(merges[1]) and not different, f"merge {different[:1]}"
    print(f"the trainer of tokenizers learns the same {len(merges[0])} merges")
    assert_same("theirs", texts, ours(SCRATCH / "theirs.json", raw, "documents"), [e.ids for e in theirs.encode_batch(texts)])


random.seed(11)
try:
    learned(some := gpt2())
    travels(some[-500:])
finally:
    shutil.rmtree(SCRATCH)
