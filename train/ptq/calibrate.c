/* Owns the calibration windows and the residual stream; what is made of the Hessians is the caller's. */
#include "train/ptq/calibrate.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "kernels/gemm.h"

enum { TOKENS_A_BATCH = 2048 };

pq_status pq_calibration_check(const pq_model *model, const pq_dataset *dataset,
                               const pq_calibration_options *o, pq_error *err) {
    size_t vocab = pq_tokenizer_vocab(pq_dataset_tokenizer(dataset)),
           tokens = pq_dataset_tokens(dataset, PQ_TRAIN);
    if (o->context > (size_t)model->params.shape.context)
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "ptq.calib_context: %zu tokens are more than the model's context of %lld", o->context,
                       (long long)model->params.shape.context);
    if ((size_t)model->params.shape.vocab != vocab)
        return PQ_FAIL(err, PQ_ERR_USAGE, "the model has %lld tokens, the data's tokenizer %zu",
                       (long long)model->params.shape.vocab, vocab);
    PQ_TRY(pq_dataset_check(dataset, PQ_TRAIN, o->context, err));
    if (o->sequences > (tokens - 1) / o->context)
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "ptq.calib_sequences: the train split of %s has %zu tokens, %zu windows of "
                       "ptq.calib_context %zu; found %zu",
                       pq_dataset_source(dataset), tokens, (tokens - 1) / o->context, o->context,
                       o->sequences);
    return PQ_OK;
}

pq_status pq_calibration_init(const pq_model *model, const pq_dataset *dataset,
                              const pq_calibration_options *o, pq_calibration *c, pq_error *err) {
    size_t C = (size_t)model->params.shape.width, elements = model->params.elements;
    pq_status status;
    *c = (pq_calibration){.model = model, .context = o->context};
    PQ_TRY(pq_calibration_check(model, dataset, o, err));
    c->batch = TOKENS_A_BATCH / o->context;
    if (c->batch == 0) c->batch = 1;
    if (c->batch > o->sequences) c->batch = o->sequences;
    c->tokens = o->sequences * o->context;
    c->padded = pq_round_up(o->sequences, c->batch) * o->context;
    PQ_TRY_TO(status, fail, pq_calloc(c->padded, sizeof *c->text, "calibration text", &c->text, err));
    PQ_TRY_TO(status, fail, pq_calloc(c->padded * C, sizeof *c->stream, "activations", &c->stream, err));
    PQ_TRY_TO(status, fail, pq_calloc(elements, sizeof *c->weights, "weights", &c->weights, err));
    memcpy(c->weights, model->weights, elements * sizeof *c->weights);
    for (size_t i = 0; i < o->sequences; i++) {
        size_t start = pq_dataset_window(dataset, PQ_ORDER_EPOCH, o->seed, 0, o->sequences, i, o->context);
        pq_dataset_read(dataset, PQ_TRAIN, start, o->context, c->text + i * o->context);
    }
    return PQ_OK;
fail:
    pq_calibration_deinit(c);
    return status;
}

void pq_calibration_deinit(pq_calibration *c) {
    free(c->text);
    free(c->stream);
    free(c->weights);
    *c = (pq_calibration){0};
}

/* One part's graph and what it runs in. */
typedef struct runner {
    pq_graph *graph;
    int in, out;
    void *activations, *scratch;
    pq_plan_size plan;
} runner;

static void runner_deinit(runner *r) {
    pq_graph_destroy(r->graph);
    pq_pages_release(r->activations, r->plan.activations);
    pq_pages_release(r->scratch, r->plan.scratch);
}

static pq_status runner_init(const pq_calibration *c, int layer, pq_gpt2_part part, runner *r,
                             pq_error *err) {
    PQ_TRY(pq_gpt2_part_graph(c->model, layer, part, c->batch, c->context, &r->in, &r->out, &r->graph, err));
    PQ_TRY(pq_graph_plan(r->graph, false, false, &r->plan, err));
    PQ_TRY(pq_pages_reserve(r->plan.activations, "activations", &r->activations, err));
    PQ_TRY(pq_pages_reserve(r->plan.scratch, "scratch", &r->scratch, err));
    pq_graph_place(r->graph, r->activations, r->scratch);
    pq_graph_bind(r->graph, c->weights, c->weights, NULL);
    return PQ_OK;
}

/* Run the part over all batches, and give each one's output to `take`: `count` tokens from token `first` on
 * that belong to windows. */
static pq_status run(pq_calibration *c, int layer, pq_gpt2_part part,
                     void (*take)(pq_calibration *c, const float *out, size_t first, size_t count,
                                  size_t columns, float *result),
                     float *result, pq_error *err) {
    runner r = {0};
    size_t C = (size_t)c->model->params.shape.width, each = c->batch * c->context;
    pq_status status = runner_init(c, layer, part, &r, err);
    for (size_t first = 0; status == PQ_OK && first < c->padded; first += each) {
        const pq_batch batch = {.tokens = c->text + first};
        if (r.in >= 0) pq_graph_set_input(r.graph, r.in, c->stream + first * C);
        pq_graph_forward(r.graph, &batch);
        const pq_tensor *out = pq_graph_tensor(r.graph, r.out);
        take(c, out->value, first, c->tokens - first < each ? c->tokens - first : each, out->columns, result);
    }
    runner_deinit(&r);
    return status;
}

static void take_stream(pq_calibration *c, const float *out, size_t first, size_t count, size_t columns,
                        float *result) {
    (void)result;
    memcpy(c->stream + first * columns, out, count * columns * sizeof *out);
}

pq_status pq_calibration_advance(pq_calibration *c, int layer, pq_gpt2_part part, pq_error *err) {
    return run(c, layer, part, take_stream, NULL, err);
}

static void take_hessian(pq_calibration *c, const float *out, size_t first, size_t count, size_t columns,
                         float *result) {
    (void)c, (void)first;
    pq_gemm_gram(count, columns, out, columns, result, columns);
}

pq_status pq_calibration_hessian(pq_calibration *c, int layer, pq_gpt2_part part, size_t n, float *H,
                                 pq_error *err) {
    memset(H, 0, n * n * sizeof *H);
    return run(c, layer, part, take_hessian, H, err);
}
