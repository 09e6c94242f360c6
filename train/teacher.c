/* Owns the teacher's weights, its graph, and what it hands to the student's head. */
#include "train/teacher.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "model/gpt2.h"
#include "ops/ops.h"

static pq_status check_tokenizer(const pq_model *model, const pq_tokenizer *tokenizer, pq_error *err) {
    pq_tokenizer *own;
    if (!model->tokenizer || !tokenizer) return PQ_OK;
    PQ_TRY(pq_tokenizer_from_json(model->tokenizer, strlen(model->tokenizer), &own, err));
    bool same = pq_tokenizer_hash(own) == pq_tokenizer_hash(tokenizer);
    pq_tokenizer_destroy(own);
    return same ? PQ_OK
                : PQ_FAIL(
                      err, PQ_ERR_USAGE,
                      "the teacher's tokenizer is another one than the data's, though both have %zu tokens",
                      pq_tokenizer_vocab(tokenizer));
}

static pq_status check(const pq_model *model, size_t vocab, const pq_tokenizer *tokenizer, size_t context,
                       pq_error *err) {
    const pq_gpt2_shape *shape = &model->params.shape;
    if ((size_t)shape->vocab != vocab)
        return PQ_FAIL(err, PQ_ERR_USAGE, "the teacher has %lld tokens, the student %zu",
                       (long long)shape->vocab, vocab);
    if ((size_t)shape->context < context)
        return PQ_FAIL(err, PQ_ERR_USAGE, "the teacher's context of %lld is shorter than train.context, %zu",
                       (long long)shape->context, context);
    return check_tokenizer(model, tokenizer, err);
}

static uint64_t hash_of(const pq_model *model, const float *weights, size_t bytes) {
    const pq_gpt2_shape *s = &model->params.shape;
    char text[192];
    int length =
        snprintf(text, sizeof text, "%lld %lld %lld %lld %lld %d %d %llx", (long long)s->layers,
                 (long long)s->heads, (long long)s->width, (long long)s->context, (long long)s->vocab,
                 s->bias, s->gelu_tanh, (unsigned long long)pq_hash(weights, bytes));
    if (model->activations != PQ_ACTIVATIONS_NONE) /* others keep the hash that they have had */
        length += snprintf(text + length, sizeof text - (size_t)length, " %d %llx", (int)model->activations,
                           model->ranges ? (unsigned long long)pq_hash(
                                               model->ranges, pq_model_sites(model) * sizeof *model->ranges)
                                         : 0ull);
    return pq_hash(text, (size_t)length);
}

static pq_status build(const pq_model *model, const pq_config *config, size_t batch, size_t context,
                       pq_teacher *t, pq_error *err) {
    PQ_TRY(pq_gpt2_graph(model, PQ_F32, batch, context, 0, &t->graph, err));
    PQ_TRY(pq_graph_plan(t->graph, false, false, &t->plan, err));
    t->weight_bytes = model->params.elements * sizeof(float);
    PQ_TRY(pq_pages_reserve(t->weight_bytes, "the teacher's weights", &t->weights, err));
    pq_model_effective_weights(model, t->weights);
    t->hash = hash_of(model, t->weights, t->weight_bytes);
    pq_graph_bind(t->graph, t->weights, t->weights, NULL);
    if (model->ranges) {
        size_t sites = pq_model_sites(model);
        PQ_TRY(pq_calloc(sites, sizeof *t->ranges, "the teacher's ranges", &t->ranges, err));
        memcpy(t->ranges, model->ranges, sites * sizeof *t->ranges);
        pq_graph_bind_ranges(t->graph, t->ranges);
    }
    t->targets = (pq_soft_targets){.wte = t->weights + pq_params_at(&model->params, PQ_PARAM_WTE, -1)->offset,
                                   .columns = (size_t)model->params.shape.width,
                                   .weight = (float)config->distill.weight,
                                   .temperature = (float)config->distill.temperature};
    t->bytes = t->weight_bytes + t->graph->tokens * t->targets.columns * sizeof(float) +
               pq_op_head_slice_bytes(t->graph);
    return PQ_OK;
}

pq_status pq_teacher_create(const pq_model *model, const pq_config *config, size_t vocab,
                            const pq_tokenizer *tokenizer, size_t batch, size_t context, pq_teacher **out,
                            pq_error *err) {
    pq_teacher *t;
    *out = NULL;
    pq_status status = check(model, vocab, tokenizer, context, err);
    if (status != PQ_OK) return pq_prefix(err, status, "distill.from");
    PQ_TRY(pq_calloc(1, sizeof *t, "teacher", &t, err));
    status = build(model, config, batch, context, t, err);
    if (status != PQ_OK)
        pq_teacher_destroy(t);
    else
        *out = t;
    return status;
}

void pq_teacher_destroy(pq_teacher *t) {
    if (!t) return;
    pq_pages_release(t->weights, t->weight_bytes);
    pq_graph_destroy(t->graph);
    free(t->ranges);
    free(t->x);
    free(t->logits);
    free(t);
}

pq_status pq_teacher_place(pq_teacher *t, void *activations, void *scratch, pq_error *err) {
    PQ_TRY(
        pq_calloc(t->graph->tokens * t->targets.columns, sizeof *t->x, "the teacher's output", &t->x, err));
    PQ_TRY(pq_calloc(1, pq_op_head_slice_bytes(t->graph), "the teacher's logits", &t->logits, err));
    pq_graph_place(t->graph, activations, scratch);
    t->targets.x = t->x;
    t->targets.logits = t->logits;
    return PQ_OK;
}

const pq_soft_targets *pq_teacher_run(pq_teacher *t, const uint16_t *tokens, float *divergences) {
    /* As in training, the head leaves the logits to the backward pass: here, to the student's. There is no
     * dropout in this graph. */
    pq_batch batch = {.tokens = tokens, .training = true};
    pq_graph_forward(t->graph, &batch);
    memcpy(t->x, pq_op_head_input(t->graph)->value, t->graph->tokens * t->targets.columns * sizeof *t->x);
    t->targets.divergences = divergences;
    return &t->targets;
}
