/* Owns what keys say together: presets of the model's shape, and rules over more than one key. */
#include <math.h>
#include <string.h>

#include "config/key.h"

static const struct preset {
    const char *name;
    int64_t layers, heads, width, context, bias;
    const char *gelu;
} presets[] = {
    {"char", 4, 4, 128, 64, false, "erf"},           {"baby", 6, 6, 384, 256, false, "erf"},
    {"gpt2-124m", 12, 12, 768, 1024, true, "tanh"},  {"gpt2-355m", 24, 16, 1024, 1024, true, "tanh"},
    {"gpt2-774m", 36, 20, 1280, 1024, true, "tanh"}, {"gpt2-1558m", 48, 25, 1600, 1024, true, "tanh"},
};

/* Decay would pull weights away from scales that follow them, and frozen ones nowhere. */
static void resolve_decay(pq_config *config) {
    bool still = strcmp(config->quant.scale, "learned") == 0 || config->qat.freeze.count > 0;
    if (isnan(config->train.weight_decay))
        config->train.weight_decay = still && strcmp(config->quant.quantizer, "none") != 0 ? 0 : 0.1;
}

void pq_config_resolve(pq_config *config) {
    struct pq_config_model *model = &config->model;
    const char *name = model->preset;
    resolve_decay(config);
    if (!name && config->init.from) return; /* the parent's shape, which only the trainer sees */
    if (!name) name = "char";
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++) {
        const struct preset *preset = &presets[i];
        if (strcmp(preset->name, name) != 0) continue;
        if (model->layers == PQ_UNSET) model->layers = preset->layers;
        if (model->heads == PQ_UNSET) model->heads = preset->heads;
        if (model->width == PQ_UNSET) model->width = preset->width;
        if (model->context == PQ_UNSET) model->context = preset->context;
        if (model->bias == PQ_UNSET) model->bias = preset->bias;
        if (!model->gelu) model->gelu = preset->gelu;
    }
}

#define BLAME(section, name, ...)                                                                            \
    (*key = pq_key_find(#section, #name), PQ_FAIL(err, PQ_ERR_USAGE, #section "." #name ": " __VA_ARGS__))

/* Where the window is known; with a parent's context it is checked again when the evaluation begins. */
static pq_status check_stride(const pq_config *config, const pq_key **key, pq_error *err) {
    int64_t window = config->eval.context;
    if (window == PQ_UNSET) window = config->train.context;
    if (window == PQ_UNSET) window = config->model.context;
    if (strcmp(config->eval.protocol, "sliding") == 0 && window != PQ_UNSET && config->eval.stride > window)
        return BLAME(eval, stride, "windows of %lld tokens that begin %lld apart would leave tokens out",
                     (long long)window, (long long)config->eval.stride);
    return PQ_OK;
}

static pq_status check_shape(const pq_config *config, const pq_key **key, pq_error *err) {
    int64_t width = config->model.width, heads = config->model.heads, context = config->model.context;
    if (width != PQ_UNSET && heads != PQ_UNSET && width % heads != 0)
        return BLAME(model, width, "%lld is not divisible by model.heads, %lld", (long long)width,
                     (long long)heads);
    PQ_TRY(check_stride(config, key, err));
    if (context == PQ_UNSET) return PQ_OK;
    if (config->train.context != PQ_UNSET && config->train.context > context)
        return BLAME(train, context, "%lld is longer than model.context, %lld",
                     (long long)config->train.context, (long long)context);
    if (config->eval.context != PQ_UNSET && config->eval.context > context)
        return BLAME(eval, context, "%lld is longer than model.context, %lld",
                     (long long)config->eval.context, (long long)context);
    return PQ_OK;
}

static pq_status check_split(const pq_config *config, const pq_key **key, pq_error *err) {
    const double *split = config->data.split.items;
    double sum = split[0] + split[1] + split[2];
    if (split[0] == 0) return BLAME(data, split, "the share of train is 0, expected more");
    if (sum > 1 + 1e-9)
        return BLAME(data, split, "%g + %g + %g is more than 1", split[0], split[1], split[2]);
    return PQ_OK;
}

static pq_status check_range(const pq_config *config, const pq_key **key, pq_error *err) {
    const char *quantizer = config->quant.quantizer;
    const double *range = config->quant.range.items;
    bool released = strcmp(quantizer, "pot-released") == 0;
    if (config->quant.range.count == 0) {
        if (!released) return PQ_OK;
        return BLAME(quant, range, "pot-released needs a range, such as [-8, 4]");
    }
    if (!released && strcmp(quantizer, "uniform") != 0)
        return BLAME(quant, range,
                     "%s takes quant.levels, no range; null, uniform and pot-released go with it", quantizer);
    if (range[0] >= range[1] || range[0] != floor(range[0]) || range[1] != floor(range[1]))
        return BLAME(quant, range, "expected two whole numbers, the lesser first, found [%g, %g]", range[0],
                     range[1]);
    return PQ_OK;
}

static pq_status check_levels(const pq_config *config, int64_t levels, const pq_key **key, pq_error *err) {
    const char *quantizer = config->quant.quantizer;
    if (config->quant.range.count) return PQ_OK;
    if (strcmp(quantizer, "pot") == 0 && (levels % 2 == 0 || levels < 3 || levels > 63))
        return BLAME(quant, levels, "pot has an odd number of levels from 3 to 63, found %lld",
                     (long long)levels);
    if (strcmp(quantizer, "pot-zero-free") == 0 &&
        (levels < 4 || levels > 64 || (levels & (levels - 1)) != 0))
        return BLAME(quant, levels, "pot-zero-free has 4, 8, 16, 32 or 64 levels, found %lld",
                     (long long)levels);
    if (strcmp(quantizer, "uniform") == 0 && (levels % 2 == 0 || levels < 3 || levels > 127))
        return BLAME(quant, levels, "uniform has an odd number of levels from 3 to 127, found %lld",
                     (long long)levels);
    if (strcmp(quantizer, "apot") == 0 && levels != 5 && levels != 7 && levels != 15 && levels != 31 &&
        levels != 63)
        return BLAME(quant, levels, "apot has 5, 7, 15, 31 or 63 levels, found %lld", (long long)levels);
    return PQ_OK;
}

static pq_status check_overrides(const pq_config *config, const pq_key **key, pq_error *err) {
    const pq_overrides *list = &config->quant.overrides;
    if (list->count && config->quant.range.count)
        return BLAME(quant, overrides, "the codebook is given by quant.range, which has no levels to change");
    for (size_t i = 0; i < list->count; i++) {
        pq_status status = check_levels(config, list->items[i].levels, key, err);
        if (status == PQ_OK) continue;
        *key = pq_key_find("quant", "overrides");
        return pq_prefix(err, status, "quant.overrides, \"%s\"", list->items[i].match);
    }
    return PQ_OK;
}

static pq_status check_training(const pq_config *config, const pq_key **key, pq_error *err) {
    if (config->train.min_lr > config->train.lr)
        return BLAME(train, min_lr, "%g is above train.lr, %g", config->train.min_lr, config->train.lr);
    return PQ_OK;
}

/* Progressive levels are levels that the quantizer can have, the last one quant.levels. */
static pq_status check_stages(const pq_config *config, const pq_key **key, pq_error *err) {
    const pq_pairs *progressive = &config->qat.progressive, *freeze = &config->qat.freeze;
    for (size_t i = 1; i < freeze->count; i++)
        if (freeze->items[i].value <= freeze->items[i - 1].value)
            return BLAME(qat, freeze, "stage %zu fixes a share of %g, not more than the one before it", i + 1,
                         freeze->items[i].value);
    if (progressive->count && config->quant.range.count)
        return BLAME(qat, progressive, "the codebook is given by quant.range, which has no levels to change");
    if (progressive->count && config->quant.overrides.count)
        return BLAME(qat, progressive, "quant.overrides gives matrices levels of their own; one of the two");
    for (size_t i = 0; i < progressive->count; i++) {
        double levels = progressive->items[i].value;
        if (levels != floor(levels))
            return BLAME(qat, progressive, "expected a number of levels, found %g", levels);
        PQ_TRY(check_levels(config, (int64_t)levels, key, err));
    }
    if (progressive->count &&
        progressive->items[progressive->count - 1].value != (double)config->quant.levels)
        return BLAME(qat, progressive, "the last stage has %g levels, quant.levels says %lld",
                     progressive->items[progressive->count - 1].value, (long long)config->quant.levels);
    return PQ_OK;
}

static pq_status check_methods(const pq_config *config, const pq_key **key, pq_error *err) {
    bool learned = strcmp(config->quant.scale, "learned") == 0, freeze = config->qat.freeze.count > 0;
    PQ_TRY(check_stages(config, key, err));
    if (learned && config->quant.refit != 0)
        return BLAME(quant, refit, "learned scales are not fitted again: expected never");
    if (freeze && (learned || config->quant.refit != 0))
        return BLAME(qat, freeze,
                     "frozen weights need scales that stand still: quant.refit never, quant.scale not "
                     "learned");
    if (freeze && strcmp(config->quant.rounding, "stochastic") == 0)
        return BLAME(qat, freeze, "weights are frozen at their nearest level: no quant.rounding stochastic");
    if (freeze && config->qat.progressive.count)
        return BLAME(qat, freeze, "frozen weights need a codebook that stands still: no qat.progressive");
    return PQ_OK;
}

pq_status pq_config_check(const pq_config *config, const pq_key **key, pq_error *err) {
    PQ_TRY(check_shape(config, key, err));
    PQ_TRY(check_split(config, key, err));
    PQ_TRY(check_training(config, key, err));
    if (strcmp(config->quant.quantizer, "none") == 0) {
        if (strcmp(config->quant.activations, "none") == 0) return PQ_OK;
        return BLAME(quant, activations,
                     "%s is for the inputs of quantized matrices; quant.quantizer none has none",
                     config->quant.activations);
    }
    if (strcmp(config->train.precision, "bf16") == 0 && strcmp(config->quant.activations, "none") != 0)
        return BLAME(quant, activations, "%s needs train.precision: fp32", config->quant.activations);
    if (strcmp(config->eval.precision, "bf16") == 0 && strcmp(config->quant.activations, "none") != 0)
        return BLAME(quant, activations, "%s needs eval.precision: fp32", config->quant.activations);
    PQ_TRY(check_range(config, key, err));
    PQ_TRY(check_levels(config, config->quant.levels, key, err));
    PQ_TRY(check_overrides(config, key, err));
    return check_methods(config, key, err);
}
