/* Owns the public, opaque form of a codebook. */
#include <stdlib.h>

#include "base/memory.h"
#include "quant/quantizer.h"

pq_status pq_codebook_create(const char *quantizer, int64_t levels, const double *range, const char *rounding,
                             pq_codebook **out, pq_error *err) {
    pq_rounding mode;
    *out = NULL;
    if (!pq_rounding_parse(rounding, &mode))
        return PQ_FAIL(err, PQ_ERR_USAGE, "rounding: expected nearest or log, found %s", rounding);
    PQ_TRY(pq_calloc(1, sizeof **out, "codebook", out, err));
    pq_status status = pq_codebook_init(*out, quantizer, levels, range, mode, err);
    if (status != PQ_OK) {
        free(*out);
        *out = NULL;
    }
    return status;
}

void pq_codebook_destroy(pq_codebook *codebook) {
    free(codebook);
}

int pq_codebook_bits(const pq_codebook *codebook) {
    return codebook->bits;
}

float pq_codebook_value(const pq_codebook *codebook, uint8_t code) {
    return codebook->value[code];
}

pq_status pq_codebook_fit(const pq_codebook *codebook, const char *method, const char *grid, float least,
                          const float *weights, size_t n, float *scale, pq_error *err) {
    pq_scale_options options = {.least = least};
    if (!pq_scale_method_parse(method, &options.method) || options.method == PQ_SCALE_PERCENTILE)
        return PQ_FAIL(err, PQ_ERR_USAGE, "method: expected absmax, mse, ema-absmax or learned, found %s",
                       method);
    if (!pq_scale_grid_parse(grid, &options.grid))
        return PQ_FAIL(err, PQ_ERR_USAGE, "grid: expected bf16, fp32 or pot, found %s", grid);
    return pq_scale_fit(codebook, &options, weights, n, scale, err);
}
