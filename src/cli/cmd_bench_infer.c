/* potqat bench infer: the speed and memory of a packed model, prompt and decode. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/threads.h"
#include "cli/cli.h"
#include "cli/load.h"
#include "infer/bench.h"
#include "infer/parts.h"
#include "train/bench.h"

/* The largest resident set since it was last forgotten, in MB; 0 where the system does not tell. */
static long peak_rss_mb(void) {
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    long kilobytes = 0;
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "VmHWM: %ld", &kilobytes) == 1) break;
    if (file) fclose(file);
    return kilobytes / 1024;
}

/* Making random weights takes memory that using them does not: Linux forgets the peak on a 5. */
static void forget_peak(void) {
    FILE *file = fopen("/proc/self/clear_refs", "w");
    if (!file) return;
    fputs("5", file);
    fclose(file);
}

/* Random weights, by default at 15 power-of-two levels. */
static pq_status make_random(const pq_cli *cli, const char *name, pq_packed **out, pq_error *err) {
    const char *overrides[64] = {"quant.quantizer=pot", "quant.scale=absmax"};
    size_t count = 2, given;
    const char *const *own = pq_cli_overrides(cli, &given);
    const pq_bench_shape *shape = pq_bench_shape_find(name);
    pq_config *config;
    if (!shape) return PQ_FAIL(err, PQ_ERR_USAGE, "--random: expected char, baby or 124M, found %s", name);
    if (given > sizeof overrides / sizeof *overrides - count)
        return PQ_FAIL(err, PQ_ERR_USAGE, "potqat bench infer takes at most 62 key=value overrides");
    for (size_t i = 0; i < given; i++) overrides[count++] = own[i];
    PQ_TRY(pq_config_load(NULL, overrides, count, &config, err));
    pq_status status = pq_bench_random_packed(shape, config, out, err);
    pq_config_destroy(config);
    forget_peak();
    return status;
}

static pq_status get_packed(const pq_cli *cli, pq_packed **out, pq_error *err) {
    const char *model = pq_cli_text(cli, "model"), *random = pq_cli_text(cli, "random");
    size_t given;
    pq_cli_overrides(cli, &given);
    if (!model == !random) return PQ_FAIL(err, PQ_ERR_USAGE, "expected either --model or --random");
    if (random) return make_random(cli, random, out, err);
    if (given) return PQ_FAIL(err, PQ_ERR_USAGE, "key=value is for --random; a model is measured as it is");
    return pq_load_packed(model, out, err);
}

static void print_result(const pq_packed *packed, const pq_engine_options *o, const pq_infer_bench *b,
                         const pq_infer_speed *speed) {
    const double bytes = (double)pq_packed_weight_bytes(packed);
    json_t *line = json_pack(
        "{s:f, s:f, s:I, s:I, s:f, s:i, s:s, s:s, s:I, s:I}", "prompt_tokens_per_s",
        round(speed->prompt_tokens_per_s * 10) / 10, "decode_tokens_per_s",
        round(speed->decode_tokens_per_s * 10) / 10, "weight_bytes", (json_int_t)bytes, "peak_rss_mb",
        (json_int_t)peak_rss_mb(), "gb_per_s", round(bytes * speed->decode_tokens_per_s / 1e7) / 100,
        "threads", pq_threads_get(), "act", o->int8 ? "int8" : "fp32", "cache",
        o->half_cache ? "fp16" : "fp32", "prompt", (json_int_t)b->prompt, "tokens", (json_int_t)b->tokens);
    json_dumpf(line, stdout, JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(line);
}

static pq_status measure(const pq_cli *cli, const pq_packed *packed, const pq_engine_options *o,
                         pq_error *err) {
    const long long context = packed->params.shape.context;
    long long prompt, tokens, repeats;
    pq_infer_speed speed;
    pq_engine *engine;
    PQ_TRY(pq_cli_int(cli, "prompt", context < 512 ? context : 512, 1, context, &prompt, err));
    PQ_TRY(pq_cli_int(cli, "tokens", context < 128 ? context : 128, 1, context, &tokens, err));
    PQ_TRY(pq_cli_int(cli, "repeats", 3, 1, 64, &repeats, err));
    const pq_infer_bench b = {(size_t)prompt, (size_t)tokens, (size_t)repeats};
    PQ_TRY(pq_engine_create_with(packed, o, &engine, err));
    pq_status status = pq_bench_infer(engine, &b, &speed, err);
    if (status == PQ_OK) print_result(packed, o, &b, &speed);
    pq_engine_destroy(engine);
    return status;
}

static pq_status run(const pq_cli *cli, pq_error *err) {
    pq_engine_options options;
    pq_packed *packed;
    if (!pq_cli_text(cli, "threads")) pq_threads_set(2);
    PQ_TRY(pq_load_engine_options(cli, "int8", &options, err));
    PQ_TRY(get_packed(cli, &packed, err));
    pq_status status = measure(cli, packed, &options, err);
    pq_packed_close(packed);
    return status;
}

static const pq_flag flags[] = {
    {"model", 0, "MODEL", "the model to measure"},
    {"random", 0, "NAME", "random weights of the shape char, baby or 124M instead"},
    {"prompt", 0, "N", "tokens of the prompt; default 512, or the context where that is less"},
    {"tokens", 0, "N", "tokens that are read one by one; default 128, or the context"},
    {"repeats", 0, "N", "medians of so many, after one that does not count; default 3"},
    PQ_ENGINE_FLAGS("int8"),
    {NULL, 0, NULL, NULL},
};

const pq_command pq_cmd_bench_infer = {
    .verb = "bench infer",
    .synopsis = "--model MODEL | --random NAME [--prompt N] [--tokens N] [--act fp32|int8] [key=value ...]",
    .summary = "time a prompt and the tokens after it",
    .details =
        "Times the inference engine: a prompt read at once, and tokens read one by one, each from an empty "
        "cache, two threads unless --threads says otherwise. Prints one JSON line: prompt_tokens_per_s and "
        "decode_tokens_per_s (medians), weight_bytes (all tensors), peak_rss_mb, gb_per_s (weight bytes "
        "times "
        "decode tokens/s), threads, act, cache, prompt, tokens.\n"
        "\n"
        "With --random, key=value sets keys of the config's section quant (default: 15 power-of-two levels, "
        "a "
        "scale a row; quant.quantizer=none measures fp32 weights), and peak_rss_mb leaves out the making of "
        "the "
        "weights.\n"
        "\n"
        "EXAMPLES\n"
        "    potqat bench infer --model char.safetensors --prompt 64 --tokens 64\n"
        "    potqat bench infer --random 124M\n"
        "    potqat bench infer --random 124M --act fp32 quant.quantizer=none\n",
    .flags = flags,
    .overrides = true,
    .run = run,
};
