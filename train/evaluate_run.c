/* Owns the way of windows through one model, or through two side by side. The batch is fixed by the context
 * alone, so that the trainer and `potqat eval` give the same bits. */
#include "train/evaluate_run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/threads.h"
#include "kernels/gemm.h"
#include "kernels/gemm_bf16.h"
#include "ops/ops.h"

enum { TOKENS_A_BATCH = 2048 };

/* One of the models, ready to run. */
typedef struct runner {
    pq_graph *graph;
    float *weights, *losses; /* losses: [batch x context] */
    void *activations, *scratch;
    size_t weight_bytes;
    pq_plan_size plan;
    pq_lent lent; /* of these, what is used */
    pq_evaluation *result;
} runner;

/* What an evaluation allocates while it runs. */
typedef struct memory {
    runner runners[2]; /* the second one's graph is NULL where one model runs alone */
    uint16_t *tokens, *window;
    int32_t *targets;
    float *kl;                            /* [batch x context], as losses; and so what follows */
    bool *agrees;                         /* both models' most likely token is the same */
    double *window_kl, *window_agreement; /* [windows] means */
} memory;

static void release(memory *m) {
    for (int i = 0; i < 2; i++) {
        runner *r = &m->runners[i];
        pq_graph_destroy(r->graph);
        if (!r->lent.weights) pq_pages_release(r->weights, r->weight_bytes);
        if (!r->lent.activations) pq_pages_release(r->activations, r->plan.activations);
        if (!r->lent.scratch) pq_pages_release(r->scratch, r->plan.scratch);
        free(r->losses);
    }
    free(m->tokens);
    free(m->window);
    free(m->targets);
    free(m->kl);
    free(m->agrees);
    free(m->window_kl);
    free(m->window_agreement);
}

/* What was lent, or memory of its own, into *out_pointer, a pointer of any type. */
static pq_status take(void *lent, size_t bytes, const char *what, void *out_pointer, pq_error *err) {
    if (!lent) return pq_pages_reserve(bytes, what, out_pointer, err);
    memcpy(out_pointer, &lent, sizeof lent);
    return PQ_OK;
}

static size_t batch_of(const pq_evaluation_options *o) {
    return TOKENS_A_BATCH / o->context ? TOKENS_A_BATCH / o->context : 1;
}

/* The matrices in bf16, laid out as the weights, stand before the activations. */
static size_t narrow_bytes(const pq_model *model, const pq_evaluation_options *o) {
    return o->bf16 ? pq_round_up(model->params.elements * sizeof(pq_bf16), PQ_ALIGNMENT) : 0;
}

static pq_status make_graph(const pq_model *model, const pq_evaluation_options *o, pq_graph **graph,
                            pq_plan_size *size, pq_error *err) {
    PQ_TRY(pq_gpt2_graph(model, o->bf16 ? PQ_BF16 : PQ_F32, batch_of(o), o->context, 0, graph, err));
    PQ_TRY(pq_graph_plan(*graph, false, false, size, err));
    size->activations += narrow_bytes(model, o);
    return PQ_OK;
}

pq_status pq_evaluation_plan(const pq_model *model, const pq_dataset *dataset, const pq_evaluation_options *o,
                             pq_plan_size *out, pq_error *err) {
    pq_graph *graph = NULL;
    PQ_TRY(pq_evaluation_check(&model->params.shape, dataset, o, err));
    pq_status status = make_graph(model, o, &graph, out, err);
    pq_graph_destroy(graph);
    return status;
}

static void bind_narrow(const pq_params *params, runner *r) {
    pq_bf16 *narrow = r->activations;
    for (size_t i = 0; i < params->count; i++) {
        const pq_param *p = &params->list[i];
        if (!p->rows) continue;
        r->graph->kernels->narrow(r->weights + p->offset, narrow + p->offset, p->count);
        pq_graph_bind_matrix(r->graph, p->offset, narrow + p->offset);
    }
}

static pq_status prepare(const pq_model *model, const pq_evaluation_options *o, runner *r, pq_error *err) {
    PQ_TRY(make_graph(model, o, &r->graph, &r->plan, err));
    r->weight_bytes = model->params.elements * sizeof(float);
    if (r->lent.activation_bytes < r->plan.activations) r->lent.activations = NULL;
    if (r->lent.scratch_bytes < r->plan.scratch) r->lent.scratch = NULL;
    PQ_TRY(take(r->lent.weights, r->weight_bytes, "weights", &r->weights, err));
    PQ_TRY(take(r->lent.activations, r->plan.activations, "activations", &r->activations, err));
    PQ_TRY(take(r->lent.scratch, r->plan.scratch, "scratch", &r->scratch, err));
    PQ_TRY(pq_calloc(r->graph->tokens, sizeof *r->losses, "losses", &r->losses, err));
    pq_graph_place(r->graph, (char *)r->activations + narrow_bytes(model, o), r->scratch);
    pq_graph_bind(r->graph, r->weights, r->weights, NULL);
    pq_model_effective_weights(model, r->weights);
    if (o->bf16) bind_narrow(&model->params, r);
    return PQ_OK;
}

static pq_status allocate(const pq_model *const models[2], size_t windows, const pq_evaluation_options *o,
                          memory *m, pq_error *err) {
    size_t context = o->context, batch = batch_of(o);
    PQ_TRY(pq_calloc(batch * context, sizeof *m->tokens, "tokens", &m->tokens, err));
    PQ_TRY(pq_calloc(context + 1, sizeof *m->window, "tokens", &m->window, err));
    PQ_TRY(pq_calloc(batch * context, sizeof *m->targets, "targets", &m->targets, err));
    if (o->lent) m->runners[0].lent = *o->lent;
    PQ_TRY(prepare(models[0], o, &m->runners[0], err));
    if (!models[1]) return PQ_OK;
    PQ_TRY(prepare(models[1], o, &m->runners[1], err));
    PQ_TRY(pq_calloc(batch * context, sizeof *m->kl, "divergences", &m->kl, err));
    PQ_TRY(pq_calloc(batch * context, sizeof *m->agrees, "agreements", &m->agrees, err));
    PQ_TRY(pq_calloc(windows, sizeof *m->window_kl, "divergences", &m->window_kl, err));
    return pq_calloc(windows, sizeof *m->window_agreement, "agreements", &m->window_agreement, err);
}

/* Windows [first, first + count) into the batch; rows beyond count, and what a short window lacks, are
 * masked. */
static void fill_batch(const pq_dataset *dataset, const pq_evaluation_options *o, size_t first, size_t count,
                       memory *m) {
    size_t T = o->context, batch = m->runners[0].graph->batch;
    for (size_t b = 0; b < batch; b++) {
        pq_scored scored = {0};
        if (b < count) {
            scored = pq_evaluation_scored(dataset, o, first + b);
            pq_dataset_read(dataset, o->split, scored.start, scored.to + 1, m->window);
        }
        for (size_t t = 0; t < T; t++) {
            m->tokens[b * T + t] = t < scored.to ? m->window[t] : 0;
            m->targets[b * T + t] = t >= scored.from && t < scored.to ? m->window[t + 1] : -1;
        }
    }
}

/* ---- two models side by side ---- */

/* A few rows of both models' logits, in the graphs' scratch. */
typedef struct slice {
    memory *m;
    size_t first, rows; /* of the batch's tokens */
} slice;

static size_t most_likely(const float *logits, size_t vocab) {
    size_t best = 0;
    for (size_t i = 1; i < vocab; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

static void compare_row(void *context, size_t i) {
    const slice *s = context;
    memory *m = s->m;
    const pq_graph *graph = m->runners[0].graph;
    size_t V = graph->vocab, row = s->first + i;
    float *logits = graph->scratch + i * V, *other = m->runners[1].graph->scratch + i * V;
    const pq_distill_mix mix = {.weight = 1, .temperature = 1};
    if (m->targets[row] < 0) return;
    m->agrees[row] = most_likely(logits, V) == most_likely(other, V);
    graph->kernels->cross_entropy(other, V, &m->targets[row], &m->runners[1].losses[row], false, 0, 1, V);
    graph->kernels->distill_cross_entropy(logits, other, V, &m->targets[row], &m->runners[0].losses[row],
                                          &m->kl[row], &mix, 1, V);
}

/* As in training, the heads leave the logits to what follows; there is no dropout in these graphs. */
static void run_both(memory *m) {
    pq_batch run = {.tokens = m->tokens, .training = true};
    size_t tokens = m->runners[0].graph->tokens, V = m->runners[0].graph->vocab;
    size_t rows = pq_op_head_slice_bytes(m->runners[0].graph) / sizeof(float) / V;
    for (int i = 0; i < 2; i++) pq_graph_forward(m->runners[i].graph, &run);
    for (size_t first = 0; first < tokens; first += rows) {
        slice s = {m, first, tokens - first < rows ? tokens - first : rows};
        for (int i = 0; i < 2; i++)
            pq_op_head_logits(m->runners[i].graph, first, s.rows, m->runners[i].graph->scratch);
        pq_parallel_for(s.rows, compare_row, &s);
    }
}

static void run_one(memory *m) {
    pq_batch run = {.tokens = m->tokens, .targets = m->targets, .losses = m->runners[0].losses};
    pq_graph_forward(m->runners[0].graph, &run);
}

/* ---- all windows ---- */

static void take_window(const pq_scored *scored, const memory *m, size_t b, size_t w) {
    size_t row = b * m->runners[0].graph->context;
    double sums[2] = {0}, kl = 0, agreement = 0, n = (double)(scored->to - scored->from);
    for (size_t t = row + scored->from; t < row + scored->to; t++) {
        for (int i = 0; i < 2 && m->runners[i].graph; i++) sums[i] += m->runners[i].losses[t];
        if (m->kl) kl += m->kl[t], agreement += m->agrees[t];
    }
    for (int i = 0; i < 2 && m->runners[i].graph; i++) m->runners[i].result->window_loss[w] = sums[i] / n;
    if (m->kl) m->window_kl[w] = kl / n, m->window_agreement[w] = agreement / n;
}

static void measure(const pq_dataset *dataset, const pq_evaluation_options *o, memory *m) {
    size_t batch = m->runners[0].graph->batch, windows = m->runners[0].result->windows, tokens = 0;
    for (size_t first = 0; first < windows; first += batch) {
        size_t count = windows - first < batch ? windows - first : batch;
        fill_batch(dataset, o, first, count, m);
        if (m->kl)
            run_both(m);
        else
            run_one(m);
        for (size_t b = 0; b < count; b++) {
            pq_scored scored = pq_evaluation_scored(dataset, o, first + b);
            take_window(&scored, m, b, first + b);
            tokens += scored.to - scored.from;
        }
    }
    for (int i = 0; i < 2 && m->runners[i].graph; i++) pq_evaluation_finish(m->runners[i].result, o, tokens);
}

static pq_status evaluate(const pq_model *const models[2], const pq_dataset *dataset,
                          const pq_evaluation_options *o, pq_evaluation *const results[2],
                          pq_nearness *nearness, pq_error *err) {
    memory m = {.runners = {{.result = results[0]}, {.result = results[1]}}};
    double start = pq_seconds();
    for (int i = 0; i < 2 && models[i]; i++) *results[i] = (pq_evaluation){0};
    for (int i = 0; i < 2 && models[i]; i++)
        PQ_TRY(pq_evaluation_check(&models[i]->params.shape, dataset, o, err));
    size_t windows = pq_evaluation_window_count(dataset, o);
    pq_gemm_threads host_threads = pq_gemm_threads_take();
    pq_status status = o->bf16 ? pq_gemm_bf16_check(err) : pq_gemm_check(err);
    if (status != PQ_OK && o->bf16) pq_prefix(err, status, "eval.precision");
    for (int i = 0; i < 2 && models[i] && status == PQ_OK; i++) {
        results[i]->windows = windows;
        status = pq_calloc(windows, sizeof(double), "losses", &results[i]->window_loss, err);
    }
    if (status == PQ_OK) status = allocate(models, windows, o, &m, err);
    if (status == PQ_OK) {
        measure(dataset, o, &m);
        for (int i = 0; i < 2 && models[i]; i++) results[i]->seconds = pq_seconds() - start;
        if (nearness) {
            pq_difference kl = pq_evaluation_mean(results[0], m.window_kl);
            pq_difference agreement = pq_evaluation_mean(results[0], m.window_agreement);
            *nearness = (pq_nearness){kl.mean, kl.se, agreement.mean, agreement.se};
        }
    } else {
        for (int i = 0; i < 2 && models[i]; i++) pq_evaluation_deinit(results[i]);
    }
    release(&m);
    pq_gemm_threads_restore(host_threads);
    return status;
}

pq_status pq_evaluate(const pq_model *model, const pq_dataset *dataset, const pq_evaluation_options *options,
                      pq_evaluation *out, pq_error *err) {
    const pq_model *const models[2] = {model, NULL};
    pq_evaluation *const results[2] = {out, NULL};
    return evaluate(models, dataset, options, results, NULL, err);
}

pq_status pq_evaluate_both(const pq_model *model, const pq_model *other, const pq_dataset *dataset,
                           const pq_evaluation_options *options, pq_evaluation *out, pq_evaluation *other_out,
                           pq_nearness *nearness, pq_error *err) {
    const pq_model *const models[2] = {model, other};
    pq_evaluation *const results[2] = {out, other_out};
    *out = *other_out = (pq_evaluation){0};
    if (model->tokenizer && other->tokenizer && strcmp(model->tokenizer, other->tokenizer) != 0)
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "the two models' tokenizers differ, so that their losses cannot be compared");
    return evaluate(models, dataset, options, results, nearness, err);
}
