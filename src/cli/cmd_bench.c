/* potqat bench train: the speed and memory of training, on random tokens. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "base/threads.h"
#include "cli/cli.h"
#include "train/bench.h"

/* What the PyTorch peer does, unless the caller's overrides say otherwise. */
static const char *const plain[] = {"train.dropout=0", "train.lr=1e-3", "log.matrices=false"};
static const char *const qat[] = {"quant.quantizer=pot", "quant.scale=absmax", "quant.refit=step",
                                  "quant.gradient=ste"};

static pq_status read_config(const pq_cli *cli, pq_config **out, pq_error *err) {
    static char chosen[64];
    const char *overrides[64], *precision = pq_cli_text(cli, "precision");
    size_t count = 0, given;
    const char *const *own = pq_cli_overrides(cli, &given);
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) overrides[count++] = plain[i];
    for (size_t i = 0; pq_cli_has(cli, "qat") && i < sizeof qat / sizeof *qat; i++)
        overrides[count++] = qat[i];
    if (precision) {
        snprintf(chosen, sizeof chosen, "train.precision=%s", precision);
        overrides[count++] = chosen;
    }
    if (pq_cli_has(cli, "recompute")) overrides[count++] = "train.recompute=true";
    if (given > sizeof overrides / sizeof *overrides - count)
        return PQ_FAIL(err, PQ_ERR_USAGE, "potqat bench train takes at most 50 key=value overrides");
    for (size_t i = 0; i < given; i++) overrides[count++] = own[i];
    return pq_config_load(NULL, overrides, count, out, err);
}

static pq_status read_bench(const pq_cli *cli, pq_bench *b, pq_error *err) {
    const char *name = pq_cli_text(cli, "shape") ? pq_cli_text(cli, "shape") : "char";
    long long batch, context, iters;
    *b = (pq_bench){.shape = pq_bench_shape_find(name)};
    if (!b->shape) return PQ_FAIL(err, PQ_ERR_USAGE, "--shape: expected char, baby or 124M, found %s", name);
    PQ_TRY(pq_cli_int(cli, "batch", b->shape->batch, 1, 65536, &batch, err));
    PQ_TRY(pq_cli_int(cli, "context", b->shape->context, 1, 65536, &context, err));
    PQ_TRY(pq_cli_int(cli, "iters", 10, 1, 1000000, &iters, err));
    b->batch = batch, b->context = context, b->iters = iters;
    if (pq_cli_has(cli, "profile")) b->profile = stderr;
    return PQ_OK;
}

static void print_result(const pq_bench *b, double seconds) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double tokens = (double)(b->batch * b->context * b->config->train.accumulate);
    json_t *line =
        json_pack("{s:s, s:s, s:b, s:I, s:I, s:i, s:f, s:f, s:I}", "shape", b->shape->name, "precision",
                  b->config->train.precision, "qat", strcmp(b->config->quant.quantizer, "none") != 0, "batch",
                  (json_int_t)b->batch, "context", (json_int_t)b->context, "threads", pq_threads_get(),
                  "step_ms", round(seconds * 1e5) / 100, "tokens_per_s", round(tokens / seconds * 10) / 10,
                  "peak_rss_mb", (json_int_t)(usage.ru_maxrss / 1024));
    json_dumpf(line, stdout, JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(line);
}

static pq_status run(const pq_cli *cli, pq_error *err) {
    pq_bench bench;
    pq_config *config;
    double seconds;
    PQ_TRY(read_bench(cli, &bench, err));
    PQ_TRY(read_config(cli, &config, err));
    bench.config = config;
    if (!pq_cli_text(cli, "threads")) pq_threads_set(2);
    pq_status status = pq_bench_train(&bench, &seconds, err);
    if (status == PQ_OK) print_result(&bench, seconds);
    pq_config_destroy(config);
    return status;
}

static const pq_flag flags[] = {
    {"shape", 0, "NAME",
     "char (4 layers, 4 heads, 128 wide), baby (6, 6, 384) or 124M (GPT-2 small); default char"},
    {"precision", 0, "P", "fp32 (the default) or bf16"},
    {"qat", 0, NULL,
     "quantize every matrix: power-of-two levels, absmax scales a row, fitted each iteration"},
    {"batch", 0, "B", "sequences; default 12, 64, 4"},
    {"context", 0, "T", "tokens of a sequence; default 64, 256, 512"},
    {"iters", 0, "N", "iterations to time, after two that are not; default 10"},
    {"recompute", 0, NULL, "recompute blocks in the backward pass: less memory"},
    {"profile", 0, NULL, "end with what took the time, to stderr (see potqat train --help)"},
    {NULL, 0, NULL, NULL},
};

const pq_command pq_cmd_bench_train = {
    .verb = "bench train",
    .synopsis = "[--shape NAME] [--qat] [--batch B] [--context T] [--iters N] [key=value ...]",
    .summary = "time training iterations on random tokens",
    .details =
        "Times whole iterations (forward, backward, clipping, AdamW) of a model of random weights on random "
        "tokens, two threads unless --threads says otherwise, and prints one JSON line: shape, precision, "
        "qat, batch, context, threads, step_ms (median), tokens_per_s, peak_rss_mb. key=value sets keys of "
        "the config's "
        "sections quant, qat and train; distill.from=x adds a teacher of the same shape, with random "
        "weights. log.matrices is off unless set: what it "
        "counts takes 2 bytes a quantized weight.\n"
        "\n"
        "EXAMPLES\n"
        "    potqat bench train --shape char --qat\n"
        "    potqat bench train --shape baby --qat --precision bf16\n"
        "    potqat bench train --shape baby --qat quant.scale=learned quant.refit=never\n"
        "    potqat bench train --shape 124M --iters 3 --profile\n",
    .flags = flags,
    .overrides = true,
    .run = run,
};
