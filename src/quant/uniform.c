/* The uniform quantizer: integers q in [qmin, qmax] times the scale, rounded half to even. code = q - qmin.
 */
#include <math.h>

#include "kernels/kernels.h"
#include "quant/table.h"

enum { MOST_LEVELS = 128 }; /* codes pack into at most 7 bits */

static pq_status resolve(pq_codebook *codebook, int64_t levels, const double *range, pq_error *err) {
    PQ_TRY(pq_refuse_log(codebook, err));
    double low = range ? range[0] : -(double)(levels - 1) / 2, high = range ? range[1] : -low;
    if (!range && (levels < 3 || levels >= MOST_LEVELS || levels % 2 == 0))
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "quantizer uniform: levels must be odd, 3 to %d (or give a range); found %lld",
                       MOST_LEVELS - 1, (long long)levels);
    if (!(low < 0 && high > 0 && high - low < MOST_LEVELS) || low != floor(low) || high != floor(high))
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "quantizer uniform: the range must be two integers around 0, at most %d levels; found "
                       "[%g, %g]",
                       MOST_LEVELS, low, high);
    codebook->range[0] = low;
    codebook->range[1] = high;
    codebook->clip[0] = low - 0.5;
    codebook->clip[1] = high + 0.5;
    codebook->levels = (int)(high - low) + 1;
    codebook->bits = pq_code_bits(codebook->levels);
    for (int code = 0; code < codebook->levels; code++) codebook->value[code] = (float)(low + code);
    return PQ_OK;
}

static uint8_t encode(const pq_codebook *codebook, float weight, float scale) {
    float low = (float)codebook->range[0], high = (float)codebook->range[1];
    float q = rintf(weight / scale);
    q = q < high ? q : high; /* NaN becomes the largest level */
    q = q > low ? q : low;
    return (uint8_t)(q - low);
}

static void fake_quantize(const pq_codebook *codebook, const float *w, float scale, float *out, size_t n) {
    pq_kernels_get()->integer_round(w, (float)codebook->range[0], (float)codebook->range[1], scale, out, n);
}

static void error_sums(const pq_codebook *codebook, const float *w, float scale, double *sums, size_t n) {
    pq_kernels_get()->integer_error(w, (float)codebook->range[0], (float)codebook->range[1], scale, sums, n);
}

static float absmax_scale(const pq_codebook *codebook, float absmax) {
    return (float)(absmax / ((codebook->range[1] - codebook->range[0]) / 2));
}

const pq_quantizer pq_quantizer_uniform = {.name = "uniform",
                                           .wire_id = 3,
                                           .resolve = resolve,
                                           .encode = encode,
                                           .fake_quantize = fake_quantize,
                                           .error_sums = error_sums,
                                           .absmax_scale = absmax_scale};
