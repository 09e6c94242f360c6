/* Owns the evaluation protocol: which tokens windows hold and which predictions count, what is told of their
 * losses. evaluate_run.c runs the models, evaluate_engine.c packed
 * ones. */
#include "train/evaluate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "train/evaluate_run.h"

static const char *const split_names[] = {"train", "val", "test"};
static const char *const protocol_names[][2] = {
    {"all-tokens", "all-tokens bf16"}, {"last-token", "last-token bf16"}, {"sliding", "sliding bf16"}};

const char *pq_split_name(pq_split split) {
    return split_names[split];
}
const char *pq_protocol_name(const pq_evaluation_options *options) {
    return protocol_names[options->protocol][options->bf16];
}

pq_status pq_evaluation_options_make(const pq_config *config, size_t context, pq_evaluation_options *out,
                                     pq_error *err) {
    *out = (pq_evaluation_options){.windows = (size_t)config->eval.windows, .context = context};
    out->bf16 = strcmp(config->eval.precision, "bf16") == 0;
    if (config->eval.context != PQ_UNSET) out->context = (size_t)config->eval.context;
    for (int i = 0; i < 3; i++)
        if (strcmp(config->eval.split, split_names[i]) == 0) out->split = (pq_split)i;
    for (int i = 0; i < 3; i++)
        if (strcmp(config->eval.protocol, protocol_names[i][0]) == 0) out->protocol = (pq_protocol)i;
    if (out->protocol != PQ_SLIDING) return PQ_OK;
    out->stride = config->eval.stride != PQ_UNSET ? (size_t)config->eval.stride : (out->context + 1) / 2;
    if (out->stride > out->context) /* of a parent; other configs are checked when they are read */
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "eval.stride: windows of %zu tokens that begin %zu apart would leave tokens out",
                       out->context, out->stride);
    return PQ_OK;
}

pq_loss_text pq_format_loss(double loss, double se) {
    pq_loss_text out;
    if (isnan(se))
        snprintf(out.text, sizeof out.text, "%.4f", loss);
    else
        snprintf(out.text, sizeof out.text, "%.4f ± %.4f", loss, se);
    return out;
}

/* ---- windows ---- */

static size_t step(const pq_evaluation_options *o) {
    return o->protocol == PQ_SLIDING ? o->stride : o->context;
}

pq_scored pq_evaluation_scored(const pq_dataset *dataset, const pq_evaluation_options *o, size_t window) {
    size_t start = window * step(o), left = pq_dataset_tokens(dataset, o->split) - 1 - start;
    pq_scored out = {.start = start, .to = left < o->context ? left : o->context};
    if (o->protocol == PQ_LAST_TOKEN) out.from = o->context - 1;
    if (o->protocol == PQ_SLIDING && window > 0) out.from = o->context - o->stride;
    return out;
}

pq_status pq_evaluation_check(const pq_gpt2_shape *shape, const pq_dataset *dataset,
                              const pq_evaluation_options *o, pq_error *err) {
    size_t vocab = pq_tokenizer_vocab(pq_dataset_tokenizer(dataset));
    if (o->context > (size_t)shape->context)
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "eval.context: %zu tokens are more than the model's context of %lld", o->context,
                       (long long)shape->context);
    if ((size_t)shape->vocab != vocab)
        return PQ_FAIL(err, PQ_ERR_USAGE, "the model has %lld tokens, the data's tokenizer %zu",
                       (long long)shape->vocab, vocab);
    return pq_dataset_check(dataset, o->split, o->context, err);
}

size_t pq_evaluation_window_count(const pq_dataset *dataset, const pq_evaluation_options *o) {
    size_t predictions = pq_dataset_tokens(dataset, o->split) - 1, count = predictions / o->context;
    if (o->protocol == PQ_SLIDING) count = 1 + (predictions - o->context + o->stride - 1) / o->stride;
    return o->windows && o->windows < count ? o->windows : count;
}

/* ---- means ---- */

/* What a window weighs in a mean over tokens: 1 where all have as many. */
static double share(const pq_evaluation *e, size_t window) {
    size_t count = e->each;
    if (e->first == 0) return 1;
    if (window == 0)
        count = e->first;
    else if (window + 1 == e->windows)
        count = e->tokens - e->first - (e->windows - 2) * e->each;
    return (double)(count * e->windows) / (double)e->tokens;
}

pq_difference pq_evaluation_mean(const pq_evaluation *e, const double *of_windows) {
    pq_difference out = {0, NAN};
    double n = (double)e->windows, squares = 0;
    for (size_t w = 0; w < e->windows; w++) out.mean += share(e, w) * of_windows[w];
    out.mean /= n;
    for (size_t w = 0; w < e->windows; w++) {
        double d = share(e, w) * (of_windows[w] - out.mean);
        squares += d * d;
    }
    if (e->windows > 1) out.se = sqrt(squares / (n - 1) / n);
    return out;
}

void pq_evaluation_finish(pq_evaluation *e, const pq_evaluation_options *o, size_t tokens) {
    e->tokens = tokens;
    if (o->protocol == PQ_SLIDING) e->first = o->context, e->each = o->stride;
    pq_difference loss = pq_evaluation_mean(e, e->window_loss);
    e->loss = loss.mean, e->loss_se = loss.se;
}

void pq_evaluation_deinit(pq_evaluation *evaluation) {
    free(evaluation->window_loss);
    *evaluation = (pq_evaluation){0};
}

pq_status pq_evaluation_compare(const pq_evaluation *a, const pq_evaluation *b, pq_difference *out,
                                pq_error *err) {
    double *d;
    if (a->windows != b->windows || a->tokens != b->tokens || a->first != b->first || a->each != b->each)
        return PQ_FAIL(
            err, PQ_ERR_USAGE,
            "two evaluations can be compared over the same windows only: %zu windows with %zu tokens "
            "against %zu windows with %zu tokens",
            a->windows, a->tokens, b->windows, b->tokens);
    PQ_TRY(pq_calloc(a->windows, sizeof *d, "differences", &d, err));
    for (size_t w = 0; w < a->windows; w++) d[w] = a->window_loss[w] - b->window_loss[w];
    *out = pq_evaluation_mean(a, d);
    free(d);
    return PQ_OK;
}

/* ---- text ---- */

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static pq_status count_text(const pq_evaluation *e, const pq_dataset *dataset, const pq_evaluation_options *o,
                            uint16_t *tokens, pq_text_size *out, pq_error *err) {
    bool inside = false;
    for (size_t w = 0; w < e->windows; w++) {
        pq_scored scored = pq_evaluation_scored(dataset, o, w);
        char *text;
        size_t bytes;
        pq_dataset_read(dataset, o->split, scored.start + scored.from + 1, scored.to - scored.from, tokens);
        PQ_TRY(pq_tokenizer_decode(pq_dataset_tokenizer(dataset), tokens, scored.to - scored.from, &text,
                                   &bytes, err));
        for (size_t i = 0; i < bytes; i++) {
            out->words += !inside && !is_space(text[i]);
            inside = !is_space(text[i]);
        }
        out->bytes += bytes;
        free(text);
    }
    if (o->protocol == PQ_LAST_TOKEN) out->words = 0;
    return PQ_OK;
}

pq_status pq_evaluation_count_text(const pq_evaluation *e, const pq_dataset *dataset,
                                   const pq_evaluation_options *o, pq_text_size *out, pq_error *err) {
    uint16_t *tokens;
    *out = (pq_text_size){0};
    PQ_TRY(pq_calloc(o->context, sizeof *tokens, "tokens", &tokens, err));
    pq_status status = count_text(e, dataset, o, tokens, out, err);
    free(tokens);
    return status;
}

pq_status pq_evaluation_write_windows(const pq_evaluation *evaluation, const pq_evaluation_options *options,
                                      const char *path, bool overwrite, pq_error *err) {
    pq_file_writer file;
    PQ_TRY(pq_file_create(path, overwrite, &file, err));
    fprintf(file.stream, "window,offset,loss\n");
    for (size_t w = 0; w < evaluation->windows; w++)
        fprintf(file.stream, "%zu,%zu,%.9g\n", w, w * step(options), evaluation->window_loss[w]);
    return pq_file_commit(&file, err); /* checks the stream's error flag */
}
