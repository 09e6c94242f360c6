#!/bin/bash
# potqat import, export --format hf, and a Hugging Face folder as MODEL. Usage: test_import.sh POTQAT MAKE_MODEL
potqat=$(realpath "$1") make_model=$(realpath "$2") failed=0
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1

fail() {
    failed=1
    echo "FAILED: $*; found:"
    head -20 out err
}

# expect STATUS PATTERN-OF-STDOUT PATTERN-OF-STDERR WORDS...: "" means that the stream stays empty
expect() {
    local status=$1 out=$2 err=$3 found=0
    shift 3
    "$potqat" "$@" >out 2>err </dev/null || found=$?
    [ "$found" = "$status" ] || fail "potqat $*: status $found, expected $status"
    if [ -n "$out" ]; then grep -qE -- "$out" out || fail "potqat $*: stdout unlike '$out'"; else [ ! -s out ] || fail "potqat $*: output"; fi
    if [ -n "$err" ]; then grep -qE -- "$err" err || fail "potqat $*: stderr unlike '$err'"; else [ ! -s err ] || fail "potqat $*: messages"; fi
}

loss() {
    "$potqat" eval "$1" --data text.txt 'data.split=[0.5, 0.5, 0]' --json 2>>err | grep -o '"loss": [^,]*'
}

"$make_model" m.h5 char || exit 1
for i in $(seq 60); do printf 'the quick brown fox %d\n' "$i" | tr -d 0-9; done >text.txt

# There and back: the same loss from the checkpoint, the folder, and the checkpoint made of it.
expect 0 'matrices in bf16' '' export m.h5 --format hf --dtype bf16 -o hf
grep -q 'every weight equal' out || fail "a quantized model is exact in bf16"
expect 0 'with tokenizer' '' import hf -o back.h5
expect 0 '"tokenizer":true' '' import hf -o back.h5 --overwrite --json
expected=$(loss m.h5)
[ -n "$expected" ] || fail "no loss"
[ "$(loss hf)" = "$expected" ] || fail "the folder's loss is $(loss hf), expected $expected"
[ "$(loss back.h5)" = "$expected" ] || fail "the imported loss is $(loss back.h5), expected $expected"
expect 0 'Hugging Face folder' '' inspect hf
expect 0 '.' '' generate hf --prompt a --tokens 5 --quiet
expect 0 ' pot|6 matrices' '' quantize hf -o q.h5
expect 0 'model:' '' inspect q.h5
grep -qE '^ +width: 64' out || fail "the config of an imported model has its shape"

# Tokenizers: of a MODEL, of characters; a checkpoint without one says what is missing.
python3 - <<'END' || fail "the metadata could not be taken away"
import json
data = open("hf/model.safetensors", "rb").read()
n = int.from_bytes(data[:8], "little")
head = json.loads(data[8:8 + n]); del head["__metadata__"]["potqat_tokenizer"]
text = json.dumps(head).encode()
open("hf/model.safetensors", "wb").write(len(text).to_bytes(8, "little") + text + data[8 + n:])
END
expect 0 'no tokenizer' 'carries no tokenizer: eval and generate need one' import hf -o bare.h5
expect 2 '' 'no tokenizer to read a text with; potqat import --tokenizer' eval bare.h5 --data text.txt
expect 2 '' 'no tokenizer; potqat import --tokenizer' generate bare.h5
expect 0 'with tokenizer' '' import hf -o t.h5 --tokenizer m.h5
[ "$(loss t.h5)" = "$expected" ] || fail "with the tokenizer of another MODEL"
expect 2 '' 'byte has 256 ids, the model a vocabulary of' import hf -o x.h5 --tokenizer byte
expect 2 '' 'text\.txt has [0-9]+ ids' import hf -o x.h5 --tokenizer text.txt
expect 1 '' 'nothing\.json' import hf -o x.h5 --tokenizer nothing.json
expect 2 '' 'bare\.h5 carries no tokenizer' import hf -o x.h5 --tokenizer bare.h5

expect 2 '' 'needs -o' import hf
expect 2 '' 't\.h5 exists already; --overwrite' import hf -o t.h5
expect 1 '' 'no file or folder nowhere' import nowhere -o x.h5
expect 2 '' 'says 2 heads, --heads 3' import hf -o x.h5 --heads 3
expect 2 '' 'whole number from 1' import hf -o x.h5 --heads 0
expect 2 '' 'm\.h5: expected a Hugging Face folder' import m.h5 -o x.h5
[ ! -e x.h5 ] || fail "a refused import left a file"

expect 2 '' 'hf exists already; --overwrite' export m.h5 --format hf -o hf
expect 0 'largest error' '' export m.h5 --format hf --dtype fp16 --lossy -o hf --overwrite
expect 2 '' 'expected fp32, fp16 or bf16, found int4' export m.h5 --format hf --dtype int4 -o y
expect 2 '' '--dtype and --lossy go with --format hf' export m.h5 --dtype bf16 -o y
mkdir other && touch other/mine
expect 2 '' 'other exists and is no folder of a Hugging Face model' export m.h5 --format hf -o other --overwrite
[ ! -e y ] || fail "a refused export left a folder"
if compgen -G "*tmp-*" >found; then fail "a temporary file was left behind"; fi
exit $failed
