/* Owns the in-memory model: its buffers, which matrices are quantized, and the weights that count. */
#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/memory.h"

pq_status pq_model_create(const pq_gpt2_shape *shape, pq_model **out, pq_error *err) {
    pq_model *model;
    pq_status status;
    *out = NULL;
    PQ_TRY(pq_calloc(1, sizeof *model, "model", &model, err));
    model->val_loss = NAN;
    PQ_TRY_TO(status, fail, pq_params_init(shape, &model->params, err));
    PQ_TRY_TO(status, fail,
              pq_calloc(model->params.elements, sizeof(float), "weights", &model->weights, err));
    PQ_TRY_TO(status, fail,
              pq_calloc(model->params.count, sizeof *model->quant, "quantizers", &model->quant, err));
    *out = model;
    return PQ_OK;
fail:
    pq_model_destroy(model);
    return status;
}

void pq_model_destroy(pq_model *model) {
    if (!model) return;
    for (size_t i = 0; model->quant && i < model->params.count; i++) free(model->quant[i].scales);
    free(model->quant);
    free(model->ranges);
    free(model->weights);
    free(model->tokenizer);
    free(model->config);
    pq_params_deinit(&model->params);
    free(model);
}

void pq_model_copy_values(const pq_model *from, pq_model *to) {
    memcpy(to->weights, from->weights, from->params.elements * sizeof *to->weights);
    for (size_t i = 0; i < from->params.count; i++) {
        if (!from->quant[i].quantized) continue;
        to->quant[i].codebook = from->quant[i].codebook;
        memcpy(to->quant[i].scales, from->quant[i].scales, from->quant[i].scale_count * sizeof(float));
    }
    if (from->ranges && to->ranges)
        memcpy(to->ranges, from->ranges, pq_model_sites(from) * sizeof *to->ranges);
}

pq_status pq_model_copy(const pq_model *model, pq_model **out, pq_error *err) {
    pq_model *copy;
    pq_status status;
    PQ_TRY(pq_model_create(&model->params.shape, out, err));
    copy = *out;
    for (size_t i = 0; i < model->params.count; i++) {
        pq_param_quant *q = &copy->quant[i];
        *q = model->quant[i];
        q->scales = NULL;
        if (q->quantized)
            PQ_TRY_TO(status, fail, pq_calloc(q->scale_count, sizeof *q->scales, "scales", &q->scales, err));
    }
    PQ_TRY_TO(status, fail, pq_model_quantize_activations(copy, model->activations, err));
    pq_model_copy_values(model, copy);
    if (model->tokenizer) PQ_TRY_TO(status, fail, pq_copy_text(model->tokenizer, &copy->tokenizer, err));
    if (model->config) PQ_TRY_TO(status, fail, pq_copy_text(model->config, &copy->config, err));
    copy->iter = model->iter;
    copy->val_loss = model->val_loss;
    return PQ_OK;
fail:
    pq_model_destroy(copy);
    *out = NULL;
    return status;
}

pq_gpt2_shape pq_model_shape(const pq_model *model) {
    return model->params.shape;
}

void pq_granularity_name(const pq_param *param, size_t group, char *name, size_t bytes) {
    if (group == param->columns)
        snprintf(name, bytes, "row");
    else if (group == param->count)
        snprintf(name, bytes, "tensor");
    else if (group > param->columns)
        snprintf(name, bytes, "rows%zu", group / param->columns);
    else
        snprintf(name, bytes, "group%zu", group);
}

/* rowsN: N rows, more than one and fewer than all, share a scale. Only the name that this would be given. */
static pq_status rows_group(const pq_param *p, const char *granularity, size_t *group, pq_error *err) {
    char name[32];
    unsigned long long rows = strtoull(granularity + 4, NULL, 10);
    snprintf(name, sizeof name, "rows%llu", rows);
    if (strcmp(name, granularity) != 0 || rows < 2 || rows >= p->rows || p->rows % rows != 0)
        return PQ_FAIL(err, PQ_ERR_USAGE, "granularity %.31s does not divide %s, which has %zu rows",
                       granularity, p->name, p->rows);
    *group = (size_t)rows * p->columns;
    return PQ_OK;
}

static pq_status group_size(const pq_param *p, const char *granularity, size_t *group, pq_error *err) {
    static const struct {
        const char *name;
        size_t size;
    } groups[] = {{"group32", 32}, {"group64", 64}, {"group128", 128}};
    *group = strcmp(granularity, "row") == 0 ? p->columns : strcmp(granularity, "tensor") == 0 ? p->count : 0;
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
        if (strcmp(granularity, groups[i].name) == 0) *group = groups[i].size;
    if (strncmp(granularity, "rows", 4) == 0) return rows_group(p, granularity, group, err);
    if (*group == 0)
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "quant.granularity: expected tensor, row, group32, group64 or group128, found %s",
                       granularity);
    if (*group != p->count && p->columns % *group != 0)
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "quant.granularity: %s does not divide a row of %s, which has %zu weights",
                       granularity, p->name, p->columns);
    return PQ_OK;
}

pq_status pq_model_quantize_param(pq_model *model, size_t index, const pq_codebook *codebook,
                                  const char *granularity, pq_error *err) {
    const pq_param *p = &model->params.list[index];
    pq_param_quant *q = &model->quant[index];
    size_t group;
    float *scales;
    if (!p->quantizable)
        return PQ_FAIL(err, PQ_ERR_USAGE, "%s is not a matrix: norms and biases are never quantized",
                       p->name);
    PQ_TRY(group_size(p, granularity, &group, err));
    size_t count = pq_scale_count(p->rows, p->columns, group);
    PQ_TRY(pq_calloc(count, sizeof *scales, "scales", &scales, err));
    free(q->scales);
    *q = (pq_param_quant){
        .quantized = true, .codebook = *codebook, .group = group, .scales = scales, .scale_count = count};
    return PQ_OK;
}

void pq_model_effective(const pq_model *model, size_t index, float *out) {
    const pq_param *p = &model->params.list[index];
    const pq_param_quant *q = &model->quant[index];
    const float *w = model->weights + p->offset;
    if (q->quantized)
        pq_matrix_fake_quantize(&q->codebook, w, p->rows, p->columns, q->group, q->scales, out);
    else
        memcpy(out, w, p->count * sizeof *w);
}

void pq_model_effective_weights(const pq_model *model, float *out) {
    for (size_t i = 0; i < model->params.count; i++) {
        const pq_param *p = &model->params.list[i];
        pq_model_effective(model, i, out + p->offset);
        size_t padded = (i + 1 < model->params.count ? p[1].offset : model->params.elements) - p->offset;
        memset(out + p->offset + p->count, 0, (padded - p->count) * sizeof *out);
    }
}

bool pq_scales_fit_bf16(const pq_param_quant *quant) {
    for (size_t i = 0; i < quant->scale_count; i++)
        if (pq_bits_of_float(quant->scales[i]) & 0xFFFFu) return false;
    return true;
}

size_t pq_model_param_bytes(const pq_model *model, size_t index) {
    const pq_param *p = &model->params.list[index];
    const pq_param_quant *q = &model->quant[index];
    if (!q->quantized) return p->count * sizeof(float);
    return p->rows * pq_packed_row_bytes(q->codebook.bits, p->columns) +
           q->scale_count * (pq_scales_fit_bf16(q) ? 2 : 4);
}

size_t pq_model_weight_bytes(const pq_model *model) {
    size_t bytes = 0;
    for (size_t i = 0; i < model->params.count; i++) bytes += pq_model_param_bytes(model, i);
    return bytes;
}
