#!/bin/bash
# potqat quantize: results, exit status, sentences. Usage: test_quantize.sh POTQAT MAKE_MODEL
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

"$make_model" m.h5 char || exit 1

# Without keys: the quantizer of the model's config, or pot with 15 levels. 4 bits and 2 bytes a row; a row of 64 fills
# half a block of 128.
expect 0 '^wte.weight .* 15 +4 +29 +8\.250 ' '' quantize m.h5 -o q.h5
grep -qE '^h\.0\.mlp\.c_proj\.weight +64 x 256 +15 +4 +64 +4\.062 ' out || fail "the row of c_proj"
grep -qE '^  6 matrices: .* SQNR 1[0-9]\.[0-9]+ dB; ' out || fail "the totals"
expect 0 '"levels":7,' '' quantize m.h5 -o q7.h5 quant.levels=7 quant.granularity=group32 'quant.params=["h.*"]' --json
[ "$(grep -o '"matrix":' out | wc -l)" = 4 ] || fail "h.* is four matrices"
expect 0 'wte\.weight .* fp32 ' '' inspect q7.h5
grep -qE 'c_fc\.weight .* pot +7 +nearest +group32 ' out || fail "inspect of q7.h5"
# The keys are in the checkpoint's config, so the next command goes on from them.
expect 0 '^  4 matrices' '' quantize q7.h5 -o again.h5
# The fp32 weights stay inside: quantized twice is quantized once.
expect 0 ' 15 +4 ' '' quantize q7.h5 -o q15.h5 quant.levels=15 quant.granularity=row 'quant.params=["*.weight"]'
expect 0 'equal' '' export q.h5 -o a.safetensors
expect 0 'equal' '' export q15.h5 -o b.safetensors
python3 - <<'END' || fail "quantized twice differs from quantized once"
import json
def tensors(path):
    data = open(path, "rb").read()
    n = int.from_bytes(data[:8], "little")
    head = json.loads(data[8:8 + n]); head.pop("__metadata__")
    return {k: data[8 + n + v["data_offsets"][0]:8 + n + v["data_offsets"][1]] for k, v in head.items()}
raise SystemExit(tensors("a.safetensors") != tensors("b.safetensors"))
END
# A packed model has its rounded weights alone: the same codebook finds them again without error.
expect 0 'SQNR (inf|[0-9.]+) dB' '' quantize a.safetensors -o c.h5
expect 0 '^h\.0\.attn\.c_attn\.weight .* 16 +4 +1 ' '' quantize m.h5 -o u.h5 quant.quantizer=uniform 'quant.range=[-8, 7]' quant.granularity=tensor
expect 0 '^wpe\.weight .* 11 +4 +1 ' '' quantize m.h5 -o r.h5 quant.quantizer=pot-released 'quant.range=[-16, 16]' \
    quant.scale=absmax quant.scale_grid=fp32 quant.scale_eps=0.03125 quant.granularity=tensor

expect 2 '' 'q\.h5 exists already; --overwrite replaces it' quantize m.h5 -o q.h5
expect 0 'SQNR' '' quantize m.h5 -o q.h5 --overwrite
expect 2 '' 'm\.h5 is the model to be quantized' quantize m.h5 -o m.h5 --overwrite
expect 2 '' 'needs -o' quantize m.h5
expect 2 '' 'odd number of levels from 3 to 63, found 8' quantize m.h5 -o x.h5 quant.levels=8
expect 2 '' 'from 3 to 127, found 129' quantize m.h5 -o x.h5 quant.quantizer=uniform quant.levels=129
expect 2 '' 'group128 does not divide a row of wte' quantize m.h5 -o x.h5 quant.granularity=group128
expect 2 '' 'found train\.lr=3' quantize m.h5 -o x.h5 train.lr=3
expect 2 '' 'found none' quantize m.h5 -o x.h5 quant.quantizer=none
expect 2 '' 'no matrix matches' quantize m.h5 -o x.h5 'quant.params=[wtf]'
expect 2 '' 'pot-released needs a range' quantize m.h5 -o x.h5 quant.quantizer=pot-released
expect 2 '' 'pot-released.*power of two|quant.range' quantize m.h5 -o x.h5 quant.quantizer=pot-released 'quant.range=[-7, 8]'

# By the inputs that a text gives.
LC_ALL=C awk 'BEGIN { srand(1); for (i = 0; i < 20000; i++) printf "%c", rand() < 0.15 ? 32 : 97 + int(26 * rand() * rand()); print "" }' >text.txt
calibrate="--data text.txt ptq.calib_sequences=64 ptq.calib_context=16"
# shellcheck disable=SC2086
expect 0 'x3\.h5: pot by gptq' 'block 1 of 1 quantized' quantize m.h5 -o x3.h5 ptq.method=gptq quant.levels=3 $calibrate
# shellcheck disable=SC2086
expect 0 'x4\.h5: pot by hessian' 'block 1 of 1 quantized' quantize m.h5 -o x4.h5 ptq.method=hessian quant.levels=3 $calibrate
"$potqat" quantize m.h5 -o x5.h5 quant.levels=3 >out
for x in x3 x5; do "$potqat" eval $x.h5 --against m.h5 --data text.txt --json >out; grep -o '"difference": [^,]*' out | cut -d' ' -f2 >$x.rise; done
awk 'NR == FNR { gptq = $1 * $1; next } { exit !(gptq > 0 && gptq < $1 * $1) }' x3.rise x5.rise || fail "gptq is no nearer than rtn"
# What it rounds to is what it is: encoding, packing and reading back change nothing.
expect 0 'equal' '' export x3.h5 -o x3.safetensors
# shellcheck disable=SC2086
expect 2 '' 'ptq.calib_context: 17 tokens are more than the model.s context of 16' quantize m.h5 -o x.h5 ptq.method=gptq $calibrate ptq.calib_context=17
# shellcheck disable=SC2086
expect 2 '' 'ptq.calib_sequences: .* windows of ptq.calib_context 16; found 9999' quantize m.h5 -o x.h5 ptq.method=gptq $calibrate ptq.calib_sequences=9999

# Matrix by matrix, and within a budget.
expect 0 '^wte\.weight +3 +2 ' 'sensitivity: 42 evaluations' quantize m.h5 --sensitivity t.csv --data text.txt eval.windows=20
[ "$(wc -l <t.csv)" = 43 ] || fail "t.csv has 6 x 7 rows and a header"
head -1 t.csv | grep -qx 'matrix,levels,bits,bytes,sqnr_db,loss_rise,loss_rise_se' || fail "the header of t.csv"
expect 2 '' 't\.csv exists already' quantize m.h5 --sensitivity t.csv
least=$("$potqat" quantize m.h5 -o x6.h5 quant.levels=3 --json | grep -o '"weight_bytes":[0-9]*' | cut -d: -f2)
expect 2 '' "takes at least $least bytes \\(3 levels .*found $((least - 1))" quantize m.h5 -o x.h5 --sensitivity t.csv --budget $((least - 1))
expect 0 "within $((least + 8000)) bytes" '' quantize m.h5 -o x7.h5 --sensitivity t.csv --budget $((least + 8000))
expect 0 "\"budget\":$((least + 8000)),.*\"allocation\":\[" '' quantize m.h5 -o x7.h5 --sensitivity t.csv --budget $((least + 8000)) --json --overwrite
bytes=$(grep -o '"weight_bytes":[0-9]*' out | cut -d: -f2)
[ "$bytes" -le $((least + 8000)) ] || fail "$bytes bytes are more than the budget"
[ "$bytes" -gt "$least" ] || fail "nothing was made of the budget"
# The choice is in the checkpoint: quantized again it is the same. eval.* is not.
expect 0 "\"weight_bytes\":$bytes," '' quantize x7.h5 -o x8.h5 --json
expect 0 'fp32_loss.*"sensitivity":\[' '' quantize m.h5 --sensitivity t2.csv --data text.txt eval.windows=20 'quant.params=[wpe.weight]' --json --quiet
grep -q '^wpe.weight,15,4,' t2.csv || fail "t2.csv has wpe.weight alone"
expect 2 '' 't2\.csv: no row for wte' quantize m.h5 -o x.h5 --sensitivity t2.csv --budget 99999999
expect 2 '' 'needs -o' quantize m.h5 --sensitivity t3.csv --budget 99999999
expect 2 '' 'm\.h5 is the model' quantize m.h5 --sensitivity m.h5 --overwrite
expect 2 '' 'eval\.windows=1' quantize m.h5 -o x.h5 eval.windows=1
expect 1 '' 'm\.none' quantize m.none -o x.h5
expect 1 '' 'nowhere' quantize m.h5 -o nowhere/x.h5
[ ! -e x.h5 ] || fail "a refused quantization left a file"
if compgen -G "*tmp-*" >found; then fail "a temporary file was left behind"; fi
exit $failed
