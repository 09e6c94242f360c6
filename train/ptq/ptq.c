/* Owns the way from the section quant to quantized matrices. */
#include "train/ptq/ptq.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool matches(const pq_config *config, const pq_param *p) {
    for (size_t i = 0; p->quantizable && i < config->quant.params.count; i++)
        if (pq_pattern_match(config->quant.params.items[i], p->name)) return true;
    return false;
}

pq_status pq_ptq_scale_options(const pq_config *config, pq_scale_options *out, pq_error *err) {
    *out =
        (pq_scale_options){.least = isnan(config->quant.scale_eps) ? 0.0f : (float)config->quant.scale_eps};
    out->percentile = config->quant.percentile;
    if (!pq_scale_method_parse(config->quant.scale, &out->method) ||
        !pq_scale_grid_parse(config->quant.scale_grid, &out->grid))
        return PQ_FAIL(err, PQ_ERR_USAGE, "quant.scale: %s on the grid %s is not known", config->quant.scale,
                       config->quant.scale_grid);
    return PQ_OK;
}

/* quant.levels, or what the last override that matches says. */
static int64_t levels_of(const pq_config *config, const pq_param *p) {
    const pq_overrides *list = &config->quant.overrides;
    for (size_t i = list->count; i-- > 0;)
        if (pq_pattern_match(list->items[i].match, p->name)) return list->items[i].levels;
    return config->quant.levels;
}

static pq_status make_codebook(const pq_config *config, int64_t levels, pq_codebook *out, pq_error *err) {
    pq_rounding rounding;
    /* Chance is a matter of training (train/methods): what counts is the nearest level. */
    bool chance = strcmp(config->quant.rounding, "stochastic") == 0;
    if (!pq_rounding_parse(chance ? "nearest" : config->quant.rounding, &rounding))
        return PQ_FAIL(err, PQ_ERR_USAGE, "quant.rounding: %s is not known", config->quant.rounding);
    return pq_codebook_init(out, config->quant.quantizer, levels,
                            config->quant.range.count ? config->quant.range.items : NULL, rounding, err);
}

/* Each override is to match a matrix that is quantized. */
static pq_status check_overrides(const pq_config *config, const pq_params *params, pq_error *err) {
    for (size_t i = 0; i < config->quant.overrides.count; i++) {
        const char *match = config->quant.overrides.items[i].match;
        bool any = false;
        for (size_t k = 0; k < params->count && !any; k++)
            any = matches(config, &params->list[k]) && pq_pattern_match(match, params->list[k].name);
        if (!any)
            return PQ_FAIL(err, PQ_ERR_USAGE,
                           "quant.overrides: \"%s\" matches no matrix that quant.params has quantized",
                           match);
    }
    return PQ_OK;
}

pq_status pq_ptq_mark(const pq_config *config, int64_t levels, pq_model *model, size_t i, pq_error *err) {
    const pq_param *p = &model->params.list[i];
    const char *granularity = config->quant.granularity;
    pq_codebook codebook;
    char third[32];
    PQ_TRY(make_codebook(config, levels, &codebook, err));
    if (config->quant.split_qkv && p->id == PQ_PARAM_C_ATTN_WEIGHT && strcmp(granularity, "tensor") == 0) {
        pq_granularity_name(p, p->count / 3, third, sizeof third);
        granularity = third;
    }
    return pq_model_quantize_param(model, i, &codebook, granularity, err);
}

static bool same_quantizer(const pq_param_quant *a, const pq_param_quant *b) {
    return a->quantized && b->quantized && a->group == b->group && a->scale_count == b->scale_count &&
           a->codebook.type == b->codebook.type && a->codebook.levels == b->codebook.levels &&
           a->codebook.rounding == b->codebook.rounding && a->codebook.range[0] == b->codebook.range[0] &&
           a->codebook.range[1] == b->codebook.range[1];
}

pq_status pq_ptq_select(const pq_config *config, pq_model *model, pq_error *err) {
    bool none = strcmp(config->quant.quantizer, "none") == 0, any = none;
    if (!none) PQ_TRY(check_overrides(config, &model->params, err));
    for (size_t i = 0; i < model->params.count; i++) {
        if (!none && matches(config, &model->params.list[i])) {
            any = true;
            PQ_TRY(pq_ptq_mark(config, levels_of(config, &model->params.list[i]), model, i, err));
        } else {
            free(model->quant[i].scales);
            model->quant[i] = (pq_param_quant){.quantized = false};
        }
    }
    if (any) return PQ_OK;
    return PQ_FAIL(err, PQ_ERR_USAGE,
                   "quant.params: no matrix matches (the first pattern is \"%s\"; \"*.weight\" takes all)",
                   config->quant.params.count ? config->quant.params.items[0] : "");
}

pq_status pq_ptq_fit(const pq_scale_options *scale, pq_model *model, size_t i, pq_error *err) {
    const pq_param *p = &model->params.list[i];
    pq_param_quant *q = &model->quant[i];
    pq_status status = pq_matrix_fit(&q->codebook, scale, model->weights + p->offset, p->rows, p->columns,
                                     q->group, q->scales, err);
    return status == PQ_OK ? PQ_OK : pq_prefix(err, status, "%s", p->name);
}

pq_status pq_ptq_activations(const pq_config *config, const pq_model *parent, pq_model *model,
                             pq_error *err) {
    pq_activations kind;
    if (!pq_activations_parse(config->quant.activations, &kind))
        return PQ_FAIL(err, PQ_ERR_USAGE, "quant.activations: %s is not known", config->quant.activations);
    if (model->activations == kind) return PQ_OK;
    PQ_TRY(pq_model_quantize_activations(model, kind, err));
    if (model->ranges && parent && parent->ranges)
        memcpy(model->ranges, parent->ranges, pq_model_sites(model) * sizeof *model->ranges);
    return PQ_OK;
}

pq_status pq_ptq_rtn(const pq_config *config, const pq_model *parent, pq_model *model, pq_error *err) {
    pq_scale_options scale;
    PQ_TRY(pq_ptq_scale_options(config, &scale, err));
    PQ_TRY(pq_ptq_select(config, model, err));
    for (size_t i = 0; i < model->params.count; i++) {
        pq_param_quant *q = &model->quant[i];
        if (parent && same_quantizer(&parent->quant[i], q))
            memcpy(q->scales, parent->quant[i].scales, q->scale_count * sizeof *q->scales);
        else if (q->quantized)
            PQ_TRY(pq_ptq_fit(&scale, model, i, err));
    }
    return pq_ptq_activations(config, parent, model, err);
}

pq_matrix_error pq_ptq_measure(const pq_model *model, size_t index, const float *hard) {
    const pq_param *p = &model->params.list[index];
    const float *w = model->weights + p->offset;
    pq_matrix_error e = {0};
    for (size_t i = 0; i < p->count; i++) {
        double d = (double)w[i] - (double)hard[i];
        e.signal += (double)w[i] * (double)w[i];
        e.noise += d * d;
        e.zeros += hard[i] == 0;
    }
    return e;
}
