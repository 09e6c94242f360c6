/* Owns the table of quantizers, the making of codebooks, and the loops over weights that share one scale.
 * What a quantizer means stands in its own file. */
#include "quant/quantizer.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "kernels/kernels.h"
#include "quant/table.h"

static const pq_quantizer *const table[] = {&pq_quantizer_pot, &pq_quantizer_pot_zero_free,
                                            &pq_quantizer_uniform, &pq_quantizer_pot_released,
                                            &pq_quantizer_apot};
enum { TABLE_SIZE = sizeof table / sizeof *table };

const pq_quantizer *pq_quantizer_at(size_t index) {
    return index < TABLE_SIZE ? table[index] : NULL;
}

const pq_quantizer *pq_quantizer_find(const char *name) {
    for (size_t i = 0; i < TABLE_SIZE; i++)
        if (strcmp(table[i]->name, name) == 0) return table[i];
    return NULL;
}

const pq_quantizer *pq_quantizer_find_id(uint32_t wire_id) {
    for (size_t i = 0; i < TABLE_SIZE; i++)
        if (table[i]->wire_id == wire_id) return table[i];
    return NULL;
}

pq_status pq_refuse_range(const pq_codebook *codebook, const double *range, pq_error *err) {
    if (!range) return PQ_OK;
    return PQ_FAIL(err, PQ_ERR_USAGE, "quantizer %s takes levels, not a range; found [%g, %g]",
                   codebook->type->name, range[0], range[1]);
}

pq_status pq_refuse_log(const pq_codebook *codebook, pq_error *err) {
    if (codebook->rounding == PQ_ROUND_NEAREST) return PQ_OK;
    return PQ_FAIL(err, PQ_ERR_USAGE,
                   "quantizer %s has its own rounding: expected rounding nearest, found %s",
                   codebook->type->name, pq_rounding_name(codebook->rounding));
}

int pq_code_bits(int levels) {
    int bits = 1;
    while (1 << bits < levels) bits++;
    return bits;
}

pq_status pq_codebook_init(pq_codebook *codebook, const char *quantizer, int64_t levels, const double *range,
                           pq_rounding rounding, pq_error *err) {
    const pq_quantizer *type = pq_quantizer_find(quantizer);
    if (!type)
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "quantizer: expected pot, pot-zero-free, uniform, pot-released or apot, found %s",
                       quantizer);
    *codebook = (pq_codebook){.type = type, .rounding = rounding};
    for (size_t i = 0; i < sizeof codebook->value / sizeof *codebook->value; i++) codebook->value[i] = NAN;
    return type->resolve(codebook, levels, range, err);
}

/* The words of the config, in the order of their enums. */
static const char *const rounding_names[] = {"nearest", "log", NULL};
static const char *const scale_method_names[] = {"absmax",     "mse",     "ema-absmax",
                                                 "percentile", "learned", NULL};
static const char *const scale_grid_names[] = {"bf16", "fp32", "pot", NULL};
static const char *const gradient_names[] = {"ste", "clip", NULL};

static bool parse(const char *const *names, const char *name, int *out) {
    for (int i = 0; names[i]; i++) {
        if (strcmp(names[i], name) != 0) continue;
        *out = i;
        return true;
    }
    return false;
}

bool pq_rounding_parse(const char *name, pq_rounding *out) {
    int i;
    if (!parse(rounding_names, name, &i)) return false;
    *out = (pq_rounding)i;
    return true;
}

bool pq_scale_method_parse(const char *name, pq_scale_method *out) {
    int i;
    if (!parse(scale_method_names, name, &i)) return false;
    *out = (pq_scale_method)i;
    return true;
}

bool pq_scale_grid_parse(const char *name, pq_scale_grid *out) {
    int i;
    if (!parse(scale_grid_names, name, &i)) return false;
    *out = (pq_scale_grid)i;
    return true;
}

bool pq_gradient_parse(const char *name, pq_gradient *out) {
    int i;
    if (!parse(gradient_names, name, &i)) return false;
    *out = (pq_gradient)i;
    return true;
}

const char *pq_rounding_name(pq_rounding rounding) {
    return rounding_names[rounding];
}

void pq_encode(const pq_codebook *codebook, const float *w, float scale, uint8_t *codes, size_t n) {
    for (size_t i = 0; i < n; i++) codes[i] = codebook->type->encode(codebook, w[i], scale);
}

void pq_decode(const pq_codebook *codebook, const uint8_t *codes, float scale, float *out, size_t n) {
    for (size_t i = 0; i < n; i++) out[i] = codebook->value[codes[i]] * scale;
}

void pq_fake_quantize(const pq_codebook *codebook, const float *w, float scale, float *out, size_t n) {
    codebook->type->fake_quantize(codebook, w, scale, out, n);
}

float pq_clip_end(const pq_codebook *codebook, double level, float scale) {
    double end = codebook->clip[level > 0], product = end * (double)scale;
    return (float)(fabs(product) > (double)FLT_MAX ? copysign((double)INFINITY, end) : product);
}

void pq_surrogate(const pq_codebook *codebook, pq_gradient kind, const float *w, float scale, float *gradient,
                  size_t n) {
    if (kind == PQ_GRADIENT_STE) return;
    pq_kernels_get()->mask_range(w, pq_clip_end(codebook, codebook->range[0], scale),
                                 pq_clip_end(codebook, codebook->range[1], scale), gradient, n);
}
