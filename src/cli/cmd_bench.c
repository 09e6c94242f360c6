/* potqat bench train: the speed and memory of training, on random tokens. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/memory.h"
#include "base/random.h"
#include "base/threads.h"
#include "cli/cli.h"
#include "kernels/gemm.h"
#include "train/session.h"

typedef struct shape_row {
    const char *name;
    pq_gpt2_shape shape;
    int64_t batch, context, tokens; /* defaults; ids below `tokens` are drawn */
} shape_row;

static const shape_row shapes[] = {
    {"char", {.layers = 4, .heads = 4, .width = 128, .context = 64, .vocab = 65}, 12, 64, 65},
    {"baby", {.layers = 6, .heads = 6, .width = 384, .context = 256, .vocab = 65}, 64, 256, 65},
    {"124M",
     {.layers = 12,
      .heads = 12,
      .width = 768,
      .context = 1024,
      .vocab = 50304,
      .bias = true,
      .gelu_tanh = true},
     4,
     512,
     50257},
};

typedef struct settings {
    const shape_row *row;
    long long batch, context, iters, levels;
    bool qat, recompute;
} settings;

static pq_status read_settings(const pq_cli *cli, settings *s, pq_error *err) {
    const char *name = pq_cli_text(cli, "shape") ? pq_cli_text(cli, "shape") : "char";
    const char *precision = pq_cli_text(cli, "precision");
    *s = (settings){.qat = pq_cli_has(cli, "qat"), .recompute = pq_cli_has(cli, "recompute")};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (strcmp(shapes[i].name, name) == 0) s->row = &shapes[i];
    if (!s->row) return PQ_FAIL(err, PQ_ERR_USAGE, "--shape: expected char, baby or 124M, found %s", name);
    if (precision && strcmp(precision, "fp32") != 0)
        return PQ_FAIL(err, PQ_ERR_USAGE, "--precision: %s is not in this build; fp32 is", precision);
    PQ_TRY(pq_cli_int(cli, "batch", s->row->batch, 1, 65536, &s->batch, err));
    PQ_TRY(pq_cli_int(cli, "context", s->row->context, 1, 65536, &s->context, err));
    PQ_TRY(pq_cli_int(cli, "iters", 10, 1, 1000000, &s->iters, err));
    return pq_cli_int(cli, "levels", 15, 3, 63, &s->levels, err);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Every matrix at `levels` power-of-two levels, absmax scales a row, as the PyTorch peer has them. */
static pq_status quantize_all(pq_model *model, long long levels, const pq_scale_options *scale,
                              pq_error *err) {
    pq_codebook codebook;
    PQ_TRY(pq_codebook_init(&codebook, "pot", levels, NULL, PQ_ROUND_NEAREST, err));
    for (size_t i = 0; i < model->params.count; i++)
        if (model->params.list[i].quantizable)
            PQ_TRY(pq_model_quantize_param(model, i, &codebook, "row", err));
    return pq_session_fit_scales(model, scale, err);
}

static void draw_tokens(pq_session *session, int64_t iter, int64_t below) {
    for (size_t i = 0; i < session->graph->tokens; i++) {
        uint32_t r[4];
        pq_random4(0, PQ_STREAM_BATCH, (uint64_t)iter, i, r);
        session->tokens[i] = (uint16_t)pq_random_below(r[0], r[1], (uint64_t)below);
        session->targets[i] = (int32_t)pq_random_below(r[2], r[3], (uint64_t)below);
    }
}

static pq_status time_iterations(pq_session *session, const settings *s, double *median, pq_error *err) {
    enum { WARM_UP = 2 };
    double *seconds;
    PQ_TRY(pq_calloc((size_t)s->iters, sizeof *seconds, "timings", &seconds, err));
    for (int64_t i = 0; i < s->iters + WARM_UP; i++) {
        draw_tokens(session, i, s->row->tokens);
        double start = now();
        pq_session_iterate(session, i, 1e-3);
        if (i >= WARM_UP) seconds[i - WARM_UP] = now() - start;
    }
    qsort(seconds, (size_t)s->iters, sizeof *seconds, ascending);
    *median = (seconds[(s->iters - 1) / 2] + seconds[s->iters / 2]) / 2;
    free(seconds);
    return PQ_OK;
}

static void print_profile(const pq_session *session) {
    const pq_node_time *times = pq_graph_times(session->graph);
    fprintf(stderr, "%-12s %10s %10s\n", "op", "forward ms", "backward ms");
    for (size_t n = 0; n < session->graph->node_count; n++) {
        const char *name = session->graph->nodes[n].op->name;
        uint64_t forward = 0, backward = 0;
        bool seen = false;
        for (size_t i = 0; i < session->graph->node_count; i++) {
            if (strcmp(session->graph->nodes[i].op->name, name) != 0) continue;
            if (i < n) seen = true;
            forward += times[i].forward;
            backward += times[i].backward;
        }
        if (!seen)
            fprintf(stderr, "%-12s %10.1f %10.1f\n", name, (double)forward / 1e6, (double)backward / 1e6);
    }
}

static pq_status print_result(const pq_cli *cli, const settings *s, double seconds) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double tokens = (double)(s->batch * s->context);
    json_t *line =
        json_pack("{s:s, s:s, s:b, s:I, s:I, s:i, s:f, s:f, s:I}", "shape", s->row->name, "precision", "fp32",
                  "qat", s->qat, "batch", (json_int_t)s->batch, "context", (json_int_t)s->context, "threads",
                  pq_threads_get(), "step_ms", round(seconds * 1e5) / 100, "tokens_per_s",
                  round(tokens / seconds * 10) / 10, "peak_rss_mb", (json_int_t)(usage.ru_maxrss / 1024));
    (void)cli;
    json_dumpf(line, stdout, JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(line);
    return PQ_OK;
}

static pq_status run_session(const pq_cli *cli, const settings *s, pq_model *model, pq_error *err) {
    pq_session_options options = {.batch = (size_t)s->batch,
                                  .accumulate = 1,
                                  .context = (size_t)s->context,
                                  .recompute = s->recompute,
                                  .method = pq_method_find("ste"),
                                  .grad_clip = 1,
                                  .refit = s->qat,
                                  .scale = {.method = PQ_SCALE_ABSMAX, .grid = PQ_GRID_BF16}};
    pq_adamw adamw = {.beta1 = 0.9, .beta2 = 0.99, .epsilon = 1e-8, .weight_decay = 0.1};
    pq_session *session;
    double seconds = 0;
    pq_gpt2_initialise(model, 0);
    if (s->qat) PQ_TRY(quantize_all(model, s->levels, &options.scale, err));
    PQ_TRY(pq_session_create(model, &options, &adamw, true, &session, err));
    pq_status status = time_iterations(session, s, &seconds, err);
    if (status == PQ_OK && pq_cli_has(cli, "profile")) print_profile(session);
    pq_session_destroy(session);
    return status == PQ_OK ? print_result(cli, s, seconds) : status;
}

static pq_status run(const pq_cli *cli, pq_error *err) {
    settings s;
    pq_model *model;
    PQ_TRY(read_settings(cli, &s, err));
    pq_gpt2_shape shape = s.row->shape;
    shape.context = s.context;
    int blas_threads = pq_gemm_threads_take();
    PQ_TRY(pq_gemm_check(err));
    if (!pq_cli_text(cli, "threads")) pq_threads_set(2);
    PQ_TRY(pq_model_create(&shape, &model, err));
    pq_status status = run_session(cli, &s, model, err);
    pq_model_destroy(model);
    pq_gemm_threads_restore(blas_threads);
    return status;
}

static const pq_flag flags[] = {
    {"shape", 0, "NAME",
     "char (4 layers, 4 heads, 128 wide), baby (6, 6, 384) or 124M (GPT-2 small); default char"},
    {"precision", 0, "P", "fp32 (the default)"},
    {"qat", 0, NULL,
     "quantize every matrix: power-of-two levels, absmax scales a row, fitted each iteration"},
    {"levels", 0, "N", "levels with --qat; default 15"},
    {"batch", 0, "B", "sequences; default 12, 64, 4"},
    {"context", 0, "T", "tokens of a sequence; default 64, 256, 512"},
    {"iters", 0, "N", "iterations to time, after two that are not; default 10"},
    {"recompute", 0, NULL, "recompute blocks in the backward pass: less memory"},
    {"profile", 0, NULL, "print the time of each op to stderr"},
    {NULL, 0, NULL, NULL},
};

const pq_command pq_cmd_bench_train = {
    .verb = "bench train",
    .synopsis = "[--shape NAME] [--qat] [--batch B] [--context T] [--iters N]",
    .summary = "time training iterations on random tokens",
    .details =
        "Times whole iterations (forward, backward, clipping, AdamW) of a model of random weights on random "
        "tokens, two threads unless --threads says otherwise, and prints one JSON line: shape, precision, "
        "qat, batch, context, threads, step_ms (median), tokens_per_s, peak_rss_mb.\n"
        "\n"
        "EXAMPLES\n"
        "    potqat bench train --shape char --qat\n"
        "    potqat bench train --shape 124M --iters 3 --profile\n",
    .flags = flags,
    .run = run,
};
