/* Owns the table of methods and the walk over its active rows. What a method does stands in train/methods. */
#include "train/method.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/threads.h"
#include "train/methods/rows.h"

/* In the order of their hooks: codebooks and scales, what is shown, gradients from the outside in, and last
 * what only looks on. */
static const pq_method *const table[] = {&pq_method_progressive, &pq_method_refit,  &pq_method_hard,
                                         &pq_method_stochastic,  &pq_method_soft,   &pq_method_learned,
                                         &pq_method_clip,        &pq_method_dampen, &pq_method_freeze,
                                         &pq_method_ema,         &pq_method_watch};
enum { TABLE_SIZE = sizeof table / sizeof *table };
_Static_assert(TABLE_SIZE <= (int)PQ_MOST_METHODS, "more rows than pq_qat holds");

pq_status pq_qat_create(pq_model *model, const pq_config *config, const pq_scale_options *scale, int64_t iter,
                        pq_qat **out, pq_error *err) {
    pq_qat *qat;
    pq_status status = PQ_OK;
    *out = NULL;
    PQ_TRY(pq_calloc(1, sizeof *qat, "methods", &qat, err));
    qat->model = model;
    qat->config = config;
    qat->scale = *scale;
    qat->iter = iter;
    qat->hardness = 1;
    for (size_t i = 0; i < TABLE_SIZE && status == PQ_OK; i++) {
        if (!table[i]->wanted(config)) continue;
        size_t k = qat->active_count++;
        qat->active[k] = table[i];
        qat->reads_shown = qat->reads_shown || table[i]->reads_shown;
        if (table[i]->create) status = table[i]->create(qat, &qat->own[k], err);
    }
    if (status != PQ_OK)
        pq_qat_destroy(qat);
    else
        *out = qat;
    return status;
}

void pq_qat_destroy(pq_qat *qat) {
    if (!qat) return;
    for (size_t k = 0; k < qat->active_count; k++)
        if (qat->active[k]->destroy) qat->active[k]->destroy(qat->own[k]);
    pq_training_state arrays = {.arrays = qat->arrays, .array_count = qat->array_count};
    pq_training_state_deinit(&arrays);
    pq_model_destroy(qat->average);
    free(qat);
}

typedef struct showing {
    pq_qat *qat;
    size_t index, tile;
} showing;

/* In the cache from the latent weights to what the graph sees. */
static void show_tile(void *context, size_t tile) {
    const showing *s = context;
    pq_qat *qat = s->qat;
    const pq_param *p = &qat->model->params.list[s->index];
    size_t first = tile * s->tile, left = p->count - first, n = left < s->tile ? left : s->tile;
    float stage[PQ_SHOWN_TILE], *values = stage;
    if (!qat->model->quant[s->index].quantized)
        values = qat->model->weights + p->offset + first;
    else if (qat->shown.type == PQ_F32)
        values = (float *)qat->shown.places[s->index] + first;
    for (size_t k = 0; qat->model->quant[s->index].quantized && k < qat->active_count; k++)
        if (qat->active[k]->forward) qat->active[k]->forward(qat, qat->own[k], s->index, first, n, values);
    if (qat->shown.type == PQ_BF16)
        pq_kernels_get()->narrow(values, (pq_bf16 *)qat->shown.places[s->index] + first, n);
}

static void show_matrix(pq_qat *qat, size_t index) {
    const pq_param *p = &qat->model->params.list[index];
    if (!p->rows || (!qat->model->quant[index].quantized && qat->shown.type == PQ_F32)) return;
    const pq_param_quant *q = &qat->model->quant[index];
    showing s = {.qat = qat, .index = index, .tile = PQ_SHOWN_TILE};
    if (q->quantized && q->group <= s.tile) s.tile -= s.tile % q->group;
    pq_parallel_for((p->count + s.tile - 1) / s.tile, show_tile, &s);
}

void pq_qat_show(pq_qat *qat, int64_t iter, double lr, const pq_shown *shown) {
    qat->iter = iter;
    qat->lr = lr;
    qat->shown = *shown;
    for (size_t k = 0; k < qat->active_count; k++)
        if (qat->active[k]->begin) qat->active[k]->begin(qat, qat->own[k]);
    for (size_t i = 0; i < qat->model->params.count; i++) show_matrix(qat, i);
}

const float *pq_qat_shown(const pq_qat *qat, size_t index, size_t first, size_t n, float *wide) {
    if (qat->shown.type == PQ_F32) return (const float *)qat->shown.places[index] + first;
    pq_kernels_get()->widen((const pq_bf16 *)qat->shown.places[index] + first, wide, n);
    return wide;
}

void pq_qat_gradient(pq_qat *qat, float *gradients) {
    for (size_t i = 0; i < qat->model->params.count; i++)
        for (size_t k = 0; qat->model->quant[i].quantized && k < qat->active_count; k++)
            if (qat->active[k]->backward)
                qat->active[k]->backward(qat, qat->own[k], i, gradients + qat->model->params.list[i].offset);
}

void pq_qat_updated(pq_qat *qat) {
    for (size_t k = 0; k < qat->active_count; k++)
        if (qat->active[k]->updated) qat->active[k]->updated(qat, qat->own[k]);
    qat->restarted = false;
}

/* ---- state ---- */

pq_status pq_qat_array(pq_qat *qat, const char *name, pq_array_type type, size_t count, void *borrowed,
                       void **out, pq_error *err) {
    pq_state_array array = {.type = type, .count = count, .data = borrowed, .borrowed = borrowed != NULL};
    snprintf(array.name, sizeof array.name, "%s", name);
    pq_state_array *arrays = realloc(qat->arrays, (qat->array_count + 1) * sizeof *arrays);
    if (!arrays) return PQ_FAIL(err, PQ_ERR_MEMORY, "no memory for the state of the training methods");
    qat->arrays = arrays;
    if (!borrowed) PQ_TRY(pq_calloc(count, type == PQ_ARRAY_F32 ? sizeof(float) : 1, name, &array.data, err));
    arrays[qat->array_count++] = array;
    if (out) *out = array.data;
    return PQ_OK;
}

/* Row "watch" only looks on, and may start anew: log.matrices can change on --resume. */
static bool may_be_missing(const pq_state_array *array) {
    return strncmp(array->name, "watch.", strlen("watch.")) == 0;
}

static size_t count_needed(const pq_state_array *arrays, size_t count) {
    size_t needed = 0;
    for (size_t i = 0; i < count; i++) needed += !may_be_missing(&arrays[i]);
    return needed;
}

pq_status pq_qat_restore(pq_qat *qat, const pq_training_state *state, pq_error *err) {
    const size_t holds = count_needed(state->arrays, state->array_count);
    const size_t needs = count_needed(qat->arrays, qat->array_count);
    if (holds != needs)
        return PQ_FAIL(err, PQ_ERR_FORMAT,
                       "the checkpoint holds %zu arrays of training state, its config needs %zu", holds,
                       needs);
    /* What is evaluated was saved as the model; the latent weights come back through borrowed arrays. */
    if (qat->average) pq_model_copy_values(qat->model, qat->average);
    for (size_t i = 0; i < qat->array_count; i++) {
        pq_state_array *own = &qat->arrays[i];
        const pq_state_array *found = NULL;
        for (size_t k = 0; k < state->array_count && !found; k++)
            if (strcmp(state->arrays[k].name, own->name) == 0) found = &state->arrays[k];
        if (!found && may_be_missing(own)) continue;
        if (!found || found->type != own->type || found->count != own->count)
            return PQ_FAIL(err, PQ_ERR_FORMAT,
                           "the checkpoint's training state has no array %s with %zu items", own->name,
                           own->count);
        memcpy(own->data, found->data, own->count * (own->type == PQ_ARRAY_F32 ? sizeof(float) : 1));
    }
    return PQ_OK;
}

pq_status pq_qat_fit_scales(pq_model *model, const pq_scale_options *options, pq_error *err) {
    for (size_t i = 0; i < model->params.count; i++) {
        const pq_param *p = &model->params.list[i];
        pq_param_quant *q = &model->quant[i];
        if (!q->quantized) continue;
        pq_status status = pq_matrix_fit(&q->codebook, options, model->weights + p->offset, p->rows,
                                         p->columns, q->group, q->scales, err);
        if (status != PQ_OK) return pq_prefix(err, status, "%s", p->name);
    }
    return PQ_OK;
}
