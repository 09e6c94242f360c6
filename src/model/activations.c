/* Owns how the inputs of quantized matrix products are quantized: the kinds, the sites, the ranges of the
 * static kind. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/model.h"

static const char *const names[] = {[PQ_ACTIVATIONS_NONE] = "none",
                                    [PQ_ACTIVATIONS_TOKEN] = "int8-token",
                                    [PQ_ACTIVATIONS_AFFINE] = "int8-affine"};
enum { KINDS = sizeof names / sizeof *names };

const char *pq_activations_name(pq_activations kind) {
    return names[kind];
}

bool pq_activations_parse(const char *name, pq_activations *out) {
    for (int i = 0; i < KINDS; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (pq_activations)i;
            return true;
        }
    return false;
}

size_t pq_model_sites(const pq_model *model) {
    return 4 * (size_t)model->params.shape.layers + 1;
}

const pq_param *pq_model_site_param(const pq_model *model, size_t site) {
    static const pq_param_id products[] = {PQ_PARAM_C_ATTN_WEIGHT, PQ_PARAM_ATTN_C_PROJ_WEIGHT,
                                           PQ_PARAM_C_FC_WEIGHT, PQ_PARAM_MLP_C_PROJ_WEIGHT};
    bool head = site + 1 == pq_model_sites(model);
    return pq_params_at(&model->params, head ? PQ_PARAM_WTE : products[site % 4],
                        head ? -1 : (int)(site / 4));
}

pq_status pq_model_quantize_activations(pq_model *model, pq_activations kind, pq_error *err) {
    float(*ranges)[2] = NULL;
    size_t sites = pq_model_sites(model);
    if (kind == PQ_ACTIVATIONS_AFFINE)
        PQ_TRY(pq_calloc(sites, sizeof *ranges, "ranges of activations", &ranges, err));
    for (size_t i = 0; ranges && i < sites; i++) ranges[i][0] = FLT_MAX, ranges[i][1] = -FLT_MAX;
    free(model->ranges);
    model->activations = kind;
    model->ranges = ranges;
    return PQ_OK;
}

bool pq_range_valid(float low, float high) {
    bool none = low == FLT_MAX && high == -FLT_MAX;
    return none || (low <= high && isfinite(high - low));
}

pq_status pq_model_set_range(pq_model *model, size_t site, float low, float high, pq_error *err) {
    if (!model->ranges || site >= pq_model_sites(model))
        return PQ_FAIL(err, PQ_ERR_USAGE, "the model has no range of activations number %zu", site);
    if (!pq_range_valid(low, high))
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "the range of activations before %s is %g to %g, expected two numbers in order",
                       pq_model_site_param(model, site)->name, (double)low, (double)high);
    model->ranges[site][0] = low;
    model->ranges[site][1] = high;
    return PQ_OK;
}

pq_status pq_model_check_ranges(const pq_model *model, pq_error *err) {
    for (size_t i = 0; model->ranges && i < pq_model_sites(model); i++) {
        const pq_param *p = pq_model_site_param(model, i);
        if (model->quant[p - model->params.list].quantized && model->ranges[i][0] > model->ranges[i][1])
            return PQ_FAIL(
                err, PQ_ERR_USAGE,
                "quant.activations: int8-affine needs the ranges of a training, and that before %s is not "
                "known; int8-token needs none",
                p->name);
    }
    return PQ_OK;
}
