#!/bin/bash
# potqat export and generate: results, exit status, sentences. Usage: test_export_generate.sh POTQAT MAKE_MODEL
potqat=$(realpath "$1") make_model=$(realpath "$2") failed=0
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1

fail() {
    failed=1
    echo "FAILED: $*; found:"
    head -5 out err
}

like() { # file, pattern
    case $2 in
    -) ;;
    '') [ ! -s "$1" ] ;;
    *) grep -qE -- "$2" "$1" ;;
    esac
}

# expect STATUS PATTERN-OF-STDOUT PATTERN-OF-STDERR WORDS...: "" means that the stream stays empty, - anything
expect() {
    local status=$1 out=$2 err=$3 found=0
    shift 3
    "$potqat" "$@" >out 2>err </dev/null || found=$?
    if [ "$found" != "$status" ]; then fail "potqat $*: status $found, expected $status"; return; fi
    like out "$out" || fail "potqat $*: stdout unlike '$out'"
    like err "$err" || fail "potqat $*: stderr unlike '$err'"
}

"$make_model" m.h5 char && "$make_model" bytes.h5 byte && "$make_model" none.h5 none || exit 1

expect 0 'read back: every weight equal' '' export m.h5 --format packed -o m.safetensors
expect 0 '6 matrices of pot with 9 levels, 4 bits a code' '' export m.h5 -o again.safetensors
cmp -s m.safetensors again.safetensors || fail "two exports of one model differ"
expect 0 '"equal":true' '' export m.h5 -o again.safetensors --overwrite --json
python3 -c 'import json, sys; d = json.load(open("out")); sys.exit(d["weight_bytes"] >= d["fp32_bytes"])' ||
    fail "the JSON of export"
expect 0 'read back' '' export m.safetensors -o again.safetensors --overwrite
cmp -s m.safetensors again.safetensors || fail "an export of an export differs"
expect 0 'read back' '' export again.safetensors -o again.safetensors --overwrite
cmp -s m.safetensors again.safetensors || fail "an export over itself differs"
expect 2 '' '^potqat: m\.safetensors exists already; --overwrite replaces it$' export m.h5 -o m.safetensors
expect 2 '' 'its moments would be lost' export m.h5 -o m.h5 --overwrite
expect 2 '' 'needs -o PATH' export m.h5
expect 2 '' 'expected packed, hf, gguf or c, found onnx' export m.h5 --format onnx -o x
expect 1 '' 'could not be created' export m.h5 -o nowhere/x.safetensors
# every writer: an existing target, the model itself, a full disk
for format in packed hf gguf c; do
    expect 0 'read back: every weight equal' - export m.h5 --format $format -o target.$format
    expect 2 '' "^potqat: target\\.$format exists already; --overwrite replaces it\$" export m.h5 --format $format -o target.$format
    expect 2 '' 'm\.h5' export m.h5 --format $format -o m.h5
    expect 1 '' 'nowhere.* could not be (created|made)|No such' export m.h5 --format $format -o /dev/null/nowhere.$format
    expect 2 '' 'its moments would be lost|left alone|ends in .c' export m.h5 --format $format -o m.h5 --overwrite
    (
        ulimit -f 16
        trap '' XFSZ
        expect 1 '' "^potqat: .*full.*$format.*could not be written: File too large$" export m.h5 --format $format -o full.$format
        exit $failed
    ) || failed=1
    [ ! -e full.$format ] || fail "a full disk left full.$format"
done
expect 0 'read back: every weight equal' 'GELU is the exact one' export m.h5 --format gguf -o target.gguf --overwrite
expect 0 '"dtype":"q8_0"' 'carries no tokenizer' export none.h5 --format gguf -o none.gguf --json
expect 0 'largest error of a weight' - export m.h5 --format gguf --dtype mxfp4 --lossy -o none.gguf --overwrite
expect 0 - '' inspect m.h5
expect 1 '' 'm\.none' export m.none -o x.safetensors
if [ -e x ] || [ -e x.safetensors ]; then fail "a refused export left a file"; fi
if compgen -G "*tmp-*" >found; then fail "a temporary file was left behind"; fi
if "$make_model" nan.h5 nan 2>err; then
    expect 1 '' 'not finite' export nan.h5 -o x.safetensors
fi

expect 0 '^abc' 'tokens/s' generate m.h5 --prompt abc --tokens 40
[ -z "$(tail -c 1 out)" ] || fail "no newline at the end"
cp out first
expect 0 '^abc' - generate m.safetensors --prompt abc --tokens 40
cmp -s out first || fail "the checkpoint and its export continue differently"
expect 0 '^abc' '' generate m.safetensors --prompt abc --tokens 40 --threads 1 --quiet
cmp -s out first || fail "threads change the text"
[ ! -s err ] || fail "--quiet is not quiet"
expect 0 '^abc' - generate m.safetensors --prompt abc --tokens 40 --seed 8
cmp -s out first && fail "another seed gives the same text"
expect 0 . - generate m.safetensors --prompt abc --tokens 40 --greedy
cp out first
expect 0 . - generate m.safetensors --prompt abc --tokens 40 --temperature 0
cmp -s out first || fail "--greedy is not --temperature 0"
expect 0 . - generate m.safetensors --prompt abc --tokens 40 --top-k 1 --seed 5
cmp -s out first || fail "--top-k 1 is not greedy"
printf abc | "$potqat" generate m.safetensors --prompt - --tokens 40 --greedy >out 2>err || fail "a prompt from stdin"
cmp -s out first || fail "a prompt from stdin continues differently"
printf 'abc\nabcdefghijklmnopqrstuvwxyz' | "$potqat" generate m.safetensors --prompt - --tokens 3 >out 2>err ||
    fail "a long prompt"
grep -q 'prompt has 30 tokens, the context 16' err || fail "no word about a long prompt"
expect 0 '"tokens":\[([0-9]+,){11}[0-9]+\]' - generate m.safetensors --tokens 12 --json
python3 - <<'END' || fail "the JSON of generate"
import json
d = json.load(open("out"))
assert d["prompt"] == "\n" and len(d["text"]) == 12 and d["model"] == "m.safetensors"
END
expect 0 '"tokens"' - generate bytes.h5 --tokens 30 --json --temperature 5 --top-k 0
python3 -c 'import json; assert len(json.load(open("out"))["tokens"]) == 30' || fail "bytes as JSON"
expect 0 - '' generate bytes.h5 --tokens 30 --temperature 5 --top-k 0 --quiet
[ "$(wc -c <out)" = 31 ] || fail "30 bytes and a newline expected"

# Whole numbers: the same text on every CPU and with any number of threads.
expect 0 '^abc' '' generate m.safetensors --prompt abc --tokens 40 --act int8 --quiet
mv out int8
for cpu in ref avx2 avx-vnni avx512; do
    POTQAT_CPU=$cpu "$potqat" generate m.safetensors --prompt abc --tokens 40 --act int8 --threads 3 --quiet >out 2>err ||
        fail "int8 with the kernels of $cpu"
    cmp -s out int8 || fail "int8 gives another text with the kernels of $cpu"
done
expect 0 '^abc' '' generate m.h5 --prompt abc --tokens 5 --act int8 --cache fp32 --quiet
expect 2 '' '^potqat: --act: expected fp32 or int8, found int4$' generate m.safetensors --act int4
expect 2 '' '^potqat: --cache: expected fp32 or fp16, found fp8$' generate m.safetensors --act int8 --cache fp8
expect 0 '"prompt_tokens_per_s":.*"decode_tokens_per_s":.*"weight_bytes":.*"peak_rss_mb":.*"gb_per_s":.*"threads": ?1,' '' \
    bench infer --model m.safetensors --prompt 3 --tokens 3 --repeats 1 --threads 1
expect 2 '' '^potqat: expected either --model or --random$' bench infer
expect 2 '' '^potqat: --random: expected char, baby or 124M, found big$' bench infer --random big
expect 2 '' '^potqat: --prompt: the prompt is empty$' generate m.h5 --prompt ''
expect 2 '' '^potqat: --prompt: .*Z' generate m.h5 --prompt 'abZ'
expect 2 '' 'tokenizer' generate none.h5
expect 2 '' 'option --tokens' generate m.h5 --tokens 0
expect 2 '' 'option --top-p' generate m.h5 --top-p 1.5
expect 2 '' 'option --temperature' generate m.h5 --temperature nan
printf 'the quick brown fox\r\njumps over\tthe lazy dog\n%.0s' {1..40} >text.txt
expect 0 '6 pairs of continuations' - generate bytes.h5 --pairs bytes.h5 --data text.txt --prompts 3 --draws 2 \
    --prompt-tokens 10 --tokens 12 --temperature 1 -o pairs
python3 - "$potqat" <<'END' || fail "the files of --pairs"
import json, os, subprocess, sys
assert sorted(os.listdir("pairs")) == ["baseline.txt", "pairs.jsonl", "prompts.txt", "quantized.txt", "references.txt", "settings.json"]
text = open("text.txt", newline="").read()
with open("pairs/pairs.jsonl", encoding="utf-8") as f:
    objects = [json.loads(line) for line in f]
lines = {name: open(f"pairs/{name}.txt", encoding="utf-8", newline="").read().splitlines()
         for name in ("prompts", "references", "baseline", "quantized")}
assert len(objects) == 6 and all(len(of) == 6 for of in lines.values()), (len(objects), lines)
settings = json.load(open("pairs/settings.json"))
assert settings["top_k"] == 200 and settings["temperature"] == 1 and settings["prompt_tokens"] == 10, settings
for i, o in enumerate(objects):
    assert (o["index"], o["draw"], o["seed"]) == (i // 2, i % 2, 1337 + i), o
    assert o["prompt"] + o["reference"] in text and len(o["prompt"]) == 10 and len(o["reference"]) == 12, o
    assert o["baseline"] == o["quantized"], o
    assert lines["prompts"][i] == o["prompt"].replace("\r", " ").replace("\n", " "), o
    done = subprocess.run([sys.argv[1], "generate", "bytes.h5", "--prompt", o["prompt"], "--seed", str(o["seed"]),
                           "--temperature", "1", "--tokens", "12"], capture_output=True)
    raw = done.stdout[10:-1]
    assert len(raw) == 12 and o["baseline"].replace("\ufffd", "") == "".join(
        c for c in raw.decode("utf-8", "replace").replace("\0", "") if c != "\ufffd"), (o, raw)
END
cp -r pairs before
expect 2 '' '^potqat: pairs exists already' generate bytes.h5 --pairs bytes.h5 --data text.txt -o pairs
expect 2 '' 'few for 100 prompts of 64 tokens with 64 more' generate bytes.h5 --pairs bytes.h5 --data text.txt -o other
expect 2 '' 'different tokenizers' generate bytes.h5 --pairs m.h5 --data text.txt -o other
expect 2 '' 'needs -o FOLDER' generate bytes.h5 --pairs bytes.h5
expect 2 '' 'not from --prompt' generate bytes.h5 --pairs bytes.h5 --prompt x -o other
expect 2 '' '--draws is of use with --pairs alone' generate bytes.h5 --draws 3
expect 2 '' '--data is of use with --pairs alone' generate bytes.h5 --data text.txt
if [ -e other ]; then fail "refused pairs left a folder"; fi
diff -r pairs before || fail "refused pairs changed the folder"

head -c 3000 m.safetensors >cut.safetensors
expect 1 '' 'cut\.safetensors' generate cut.safetensors
if [ -w /dev/full ]; then
    "$potqat" generate m.h5 --tokens 5 >/dev/full 2>err
    [ $? = 1 ] || fail "a full disk"
fi
exit $failed
