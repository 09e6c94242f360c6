/* Owns the evaluation protocol. The batch is fixed by the context alone, so that the trainer and `potqat
 * eval` give the same bits. */
#include "train/evaluate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"
#include "kernels/gemm.h"

enum { TOKENS_A_BATCH = 2048 };

static const char *const split_names[] = {"train", "val", "test"};
static const char *const protocol_names[] = {"all-tokens", "last-token"};

const char *pq_split_name(pq_split split) {
    return split_names[split];
}
const char *pq_protocol_name(pq_protocol protocol) {
    return protocol_names[protocol];
}

pq_status pq_evaluation_options_make(const pq_config *config, size_t context, pq_evaluation_options *out,
                                     pq_error *err) {
    *out = (pq_evaluation_options){.windows = (size_t)config->eval.windows, .context = context};
    if (config->eval.context != PQ_UNSET) out->context = (size_t)config->eval.context;
    for (int i = 0; i < 3; i++)
        if (strcmp(config->eval.split, split_names[i]) == 0) out->split = (pq_split)i;
    for (int i = 0; i < 2; i++)
        if (strcmp(config->eval.protocol, protocol_names[i]) == 0) {
            out->protocol = (pq_protocol)i;
            return PQ_OK;
        }
    return PQ_FAIL(err, PQ_ERR_USAGE, "eval.protocol: %s is not one of all-tokens, last-token",
                   config->eval.protocol);
}

pq_loss_text pq_format_loss(double loss, double se) {
    pq_loss_text out;
    if (isnan(se))
        snprintf(out.text, sizeof out.text, "%.4f", loss);
    else
        snprintf(out.text, sizeof out.text, "%.4f ± %.4f", loss, se);
    return out;
}

/* What an evaluation allocates while it runs. */
typedef struct memory {
    pq_graph *graph;
    float *weights, *losses;
    void *activations, *scratch;
    uint16_t *tokens, *window;
    int32_t *targets;
    size_t weight_bytes;
    pq_plan_size plan;
} memory;

static void release(memory *m) {
    pq_graph_destroy(m->graph);
    pq_pages_release(m->weights, m->weight_bytes);
    pq_pages_release(m->activations, m->plan.activations);
    pq_pages_release(m->scratch, m->plan.scratch);
    free(m->losses);
    free(m->tokens);
    free(m->window);
    free(m->targets);
}

static pq_status allocate(const pq_model *model, size_t batch, size_t context, memory *m, pq_error *err) {
    PQ_TRY(pq_gpt2_graph(model, batch, context, 0, &m->graph, err));
    PQ_TRY(pq_graph_plan(m->graph, false, false, &m->plan, err));
    m->weight_bytes = model->params.elements * sizeof(float);
    PQ_TRY(pq_pages_reserve(m->weight_bytes, "weights", &m->weights, err));
    PQ_TRY(pq_pages_reserve(m->plan.activations, "activations", &m->activations, err));
    PQ_TRY(pq_pages_reserve(m->plan.scratch, "scratch", &m->scratch, err));
    PQ_TRY(pq_calloc(batch * context, sizeof *m->losses, "losses", &m->losses, err));
    PQ_TRY(pq_calloc(batch * context, sizeof *m->tokens, "tokens", &m->tokens, err));
    PQ_TRY(pq_calloc(context + 1, sizeof *m->window, "tokens", &m->window, err));
    PQ_TRY(pq_calloc(batch * context, sizeof *m->targets, "targets", &m->targets, err));
    pq_graph_place(m->graph, m->activations, m->scratch);
    pq_graph_bind(m->graph, m->weights, m->weights, NULL);
    pq_model_effective_weights(model, m->weights);
    return PQ_OK;
}

/* Windows [first, first + count) into the batch; rows beyond count are masked. */
static void fill_batch(const pq_dataset *dataset, const pq_evaluation_options *o, size_t first, size_t count,
                       memory *m) {
    size_t T = o->context;
    for (size_t b = 0; b < m->graph->batch; b++) {
        if (b < count) pq_dataset_read(dataset, o->split, (first + b) * T, T + 1, m->window);
        for (size_t t = 0; t < T; t++) {
            bool counts = b < count && (o->protocol == PQ_ALL_TOKENS || t + 1 == T);
            m->tokens[b * T + t] = b < count ? m->window[t] : 0;
            m->targets[b * T + t] = counts ? m->window[t + 1] : -1;
        }
    }
}

static void measure(const pq_dataset *dataset, const pq_evaluation_options *o, memory *m, pq_evaluation *e) {
    size_t T = o->context, batch = m->graph->batch, each = o->protocol == PQ_ALL_TOKENS ? T : 1;
    double sum = 0, squares = 0;
    for (size_t first = 0; first < e->windows; first += batch) {
        size_t count = e->windows - first < batch ? e->windows - first : batch;
        pq_batch run = {.tokens = m->tokens, .targets = m->targets, .losses = m->losses};
        fill_batch(dataset, o, first, count, m);
        pq_graph_forward(m->graph, &run);
        for (size_t b = 0; b < count; b++) {
            double window = 0;
            for (size_t t = 0; t < T; t++) window += m->losses[b * T + t];
            e->window_loss[first + b] = window / (double)each;
            sum += e->window_loss[first + b];
        }
    }
    double n = (double)e->windows;
    e->loss = sum / n;
    for (size_t w = 0; w < e->windows; w++)
        squares += (e->window_loss[w] - e->loss) * (e->window_loss[w] - e->loss);
    e->loss_se = e->windows > 1 ? sqrt(squares / (n - 1) / n) : NAN;
    e->tokens = e->windows * each;
}

pq_status pq_evaluate(const pq_model *model, const pq_dataset *dataset, const pq_evaluation_options *options,
                      pq_evaluation *out, pq_error *err) {
    memory m = {0};
    double start = pq_seconds();
    *out = (pq_evaluation){0};
    if (options->context > (size_t)model->params.shape.context)
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "eval.context: %zu tokens are more than the model's context of %lld", options->context,
                       (long long)model->params.shape.context);
    if ((size_t)model->params.shape.vocab != pq_tokenizer_vocab(pq_dataset_tokenizer(dataset)))
        return PQ_FAIL(err, PQ_ERR_USAGE, "the model has %lld tokens, the data's tokenizer %zu",
                       (long long)model->params.shape.vocab,
                       pq_tokenizer_vocab(pq_dataset_tokenizer(dataset)));
    PQ_TRY(pq_dataset_check(dataset, options->split, options->context, err));
    out->windows = (pq_dataset_tokens(dataset, options->split) - 1) / options->context;
    if (options->windows && options->windows < out->windows) out->windows = options->windows;
    PQ_TRY(pq_calloc(out->windows, sizeof *out->window_loss, "losses", &out->window_loss, err));
    size_t batch = TOKENS_A_BATCH / options->context;
    pq_gemm_threads host_threads = pq_gemm_threads_take();
    pq_status status = pq_gemm_check(err);
    if (status == PQ_OK) status = allocate(model, batch ? batch : 1, options->context, &m, err);
    if (status == PQ_OK)
        measure(dataset, options, &m, out);
    else
        pq_evaluation_deinit(out);
    release(&m);
    pq_gemm_threads_restore(host_threads);
    out->seconds = pq_seconds() - start;
    return status;
}

void pq_evaluation_deinit(pq_evaluation *evaluation) {
    free(evaluation->window_loss);
    *evaluation = (pq_evaluation){0};
}

pq_status pq_evaluation_compare(const pq_evaluation *a, const pq_evaluation *b, pq_difference *out,
                                pq_error *err) {
    double n = (double)a->windows, squares = 0;
    if (a->windows != b->windows || a->tokens != b->tokens)
        return PQ_FAIL(
            err, PQ_ERR_USAGE,
            "two evaluations can be compared over the same windows only: %zu windows with %zu tokens "
            "against %zu windows with %zu tokens",
            a->windows, a->tokens, b->windows, b->tokens);
    out->mean = a->loss - b->loss;
    for (size_t w = 0; w < a->windows; w++) {
        double d = a->window_loss[w] - b->window_loss[w] - out->mean;
        squares += d * d;
    }
    out->se = a->windows > 1 ? sqrt(squares / (n - 1) / n) : NAN;
    return PQ_OK;
}

pq_status pq_evaluation_write_windows(const pq_evaluation *evaluation, const pq_evaluation_options *options,
                                      const char *path, bool overwrite, pq_error *err) {
    pq_file_writer file;
    PQ_TRY(pq_file_create(path, overwrite, &file, err));
    fprintf(file.stream, "window,offset,loss\n");
    for (size_t w = 0; w < evaluation->windows; w++)
        fprintf(file.stream, "%zu,%zu,%.9g\n", w, w * options->context, evaluation->window_loss[w]);
    return pq_file_commit(&file, err); /* checks the stream's error flag */
}
