/* Owns the moving average of weights and scales (qat.ema), which is what gets evaluated, saved and exported,
 * quantized hard; training goes on with the latent weights, which a checkpoint holds as arrays. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/threads.h"
#include "train/methods/rows.h"

enum { TILE = 16384 };

static bool ema_wanted(const pq_config *config) {
    return config->qat.ema > 0;
}

typedef struct ema {
    float *updates; /* [1] */
    float *scales;  /* [scales of all matrices] their averages before these are put on the grid */
} ema;

static void take_scales(const pq_model *model, float *scales) {
    for (size_t i = 0; i < model->params.count; i++)
        for (size_t k = 0; model->quant[i].quantized && k < model->quant[i].scale_count; k++)
            *scales++ = model->quant[i].scales[k];
}

static pq_status ema_create(pq_qat *qat, void **self, pq_error *err) {
    char name[96];
    pq_model *model = qat->model;
    void *updates, *scales = NULL;
    size_t count = 0;
    ema *e;
    PQ_TRY(pq_calloc(1, sizeof *e, "averages", &e, err));
    *self = e;
    PQ_TRY(pq_model_copy(model, &qat->average, err));
    PQ_TRY(pq_qat_array(qat, "ema.updates", PQ_ARRAY_F32, 1, NULL, &updates, err));
    PQ_TRY(pq_qat_array(qat, "ema.latent", PQ_ARRAY_F32, model->params.elements, model->weights, NULL, err));
    for (size_t i = 0; i < model->params.count; i++) {
        pq_param_quant *q = &model->quant[i];
        if (!q->quantized) continue;
        snprintf(name, sizeof name, "ema.latent.%s", model->params.list[i].name);
        PQ_TRY(pq_qat_array(qat, name, PQ_ARRAY_F32, q->scale_count, q->scales, NULL, err));
        count += q->scale_count;
    }
    if (count) PQ_TRY(pq_qat_array(qat, "ema.scales", PQ_ARRAY_F32, count, NULL, &scales, err));
    e->updates = updates, e->scales = scales;
    if (count) take_scales(model, e->scales);
    return PQ_OK;
}

typedef struct average {
    const float *from;
    float *to;
    size_t count;
    float share; /* of the new value */
} average;

static void average_tile(void *context, size_t tile) {
    const average *a = context;
    size_t end = (tile + 1) * TILE < a->count ? (tile + 1) * TILE : a->count;
    for (size_t i = tile * TILE; i < end; i++) a->to[i] += a->share * (a->from[i] - a->to[i]);
}

/* The first updates count more than qat.ema says: the average starts at weights that training leaves behind.
 */
static void ema_updated(pq_qat *qat, void *self) {
    const ema *e = self;
    double n = (double)++*e->updates, decay = (1 + n) / (10 + n);
    float share = (float)(1 - (decay < qat->config->qat.ema ? decay : qat->config->qat.ema));
    const pq_model *model = qat->model;
    average a = {
        .from = model->weights, .to = qat->average->weights, .count = model->params.elements, .share = share};
    pq_parallel_for((a.count + TILE - 1) / TILE, average_tile, &a);
    if (model->ranges)
        memcpy(qat->average->ranges, model->ranges, pq_model_sites(model) * sizeof *model->ranges);
    if (qat->restarted && e->scales) take_scales(model, e->scales);
    float *scale = e->scales;
    for (size_t i = 0; i < model->params.count; i++) {
        const pq_param_quant *from = &model->quant[i];
        pq_param_quant *to = &qat->average->quant[i];
        to->codebook = from->codebook;
        for (size_t k = 0; from->quantized && k < from->scale_count; k++, scale++) {
            *scale += share * (from->scales[k] - *scale);
            to->scales[k] = pq_scale_to_grid(*scale, qat->scale.grid);
        }
    }
}

const pq_method pq_method_ema = {
    .name = "ema", .wanted = ema_wanted, .create = ema_create, .updated = ema_updated, .destroy = free};
