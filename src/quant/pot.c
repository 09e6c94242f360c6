/* The power-of-two quantizers: pot, pot-zero-free and pot-released. Exponents come from the bits of the
 * magnitude a = |w| / s (one correctly rounded division), so that each CPU agrees: adding `up` to the bits
 * carries into the exponent exactly from the switch point on. */
#include <math.h>

#include "base/bits.h"
#include "kernels/kernels.h"
#include "quant/table.h"

enum {
    EXPONENT_BITS = 0x7F800000,
    UP_AT_3_2 = 0x400000,              /* carries from 1.5 x 2^k on */
    UP_AT_SQRT2 = 0x800000 - 0x3504F4, /* from the first float above sqrt(2) x 2^k on; no float equals it */
    HALF = 0x3F000000,                 /* 0.5 */
    SQRT_HALF = 0x3F3504F4,            /* the first float above 2^-0.5 */
    MOST_EXPONENTS = 32
};

/* The codebook as the kernels see it: magnitudes that are rounded to powers of two. */
static pq_pow2_grid grid_of(const pq_codebook *codebook) {
    const pq_quantizer *type = codebook->type;
    bool released = type == &pq_quantizer_pot_released, by_log = codebook->rounding == PQ_ROUND_LOG;
    return (pq_pow2_grid){.up = released || by_log ? UP_AT_SQRT2 : UP_AT_3_2,
                          .zero_below = type == &pq_quantizer_pot_zero_free ? 0
                                        : by_log                            ? SQRT_HALF
                                                                            : HALF,
                          .top = {(float)codebook->range[1], (float)-codebook->range[0]},
                          .whole = released};
}

/* k of the level 2^k that a positive or negative weight of magnitude a = |w| / s gets; -1 for the level 0. */
static int exponent_of(const pq_pow2_grid *grid, float a, bool negative) {
    if (grid->whole) a = rintf(a);
    uint32_t bits = pq_bits_of_float(a) & 0x7FFFFFFF, top = pq_bits_of_float(grid->top[negative]);
    if (bits > top) bits = top; /* NaN, too, becomes the largest level */
    if (bits < grid->zero_below) return -1;
    int exponent = (int)((bits + grid->up) >> 23) - 127;
    return exponent > 0 ? exponent : 0;
}

static void fake_quantize(const pq_codebook *codebook, const float *w, float scale, float *out, size_t n) {
    pq_pow2_grid grid = grid_of(codebook);
    pq_kernels_get()->pow2_round(w, &grid, scale, out, n);
}

static void error_sums(const pq_codebook *codebook, const float *w, float scale, double *sums, size_t n) {
    pq_pow2_grid grid = grid_of(codebook);
    pq_kernels_get()->pow2_error(w, &grid, scale, sums, n);
}

static float absmax_scale(const pq_codebook *codebook, float absmax) {
    return (float)(absmax / codebook->range[1]);
}

/* pot: 0 and +-2^k, k = 0 .. K-1. code = sign << (bits-1) | m, m = 0 for the value 0, else k + 1. "Minus
 * zero" is not a code. */
static pq_status pot_resolve(pq_codebook *codebook, int64_t levels, const double *range, pq_error *err) {
    PQ_TRY(pq_refuse_range(codebook, range, err));
    if (levels < 3 || levels > 63 || levels % 2 == 0)
        return PQ_FAIL(err, PQ_ERR_USAGE, "quantizer pot: levels must be odd, 3 to 63; found %lld",
                       (long long)levels);
    codebook->levels = (int)levels;
    codebook->bits = pq_code_bits(codebook->levels);
    codebook->exponents = (codebook->levels - 1) / 2;
    codebook->range[1] = ldexp(1, codebook->exponents - 1);
    codebook->range[0] = -codebook->range[1];
    codebook->jumps = codebook->rounding == PQ_ROUND_LOG;
    for (int side = 0; side < 2; side++) codebook->clip[side] = 1.5 * codebook->range[side];
    int sign = 1 << (codebook->bits - 1);
    codebook->value[0] = 0;
    for (int m = 1; m <= codebook->exponents; m++) {
        codebook->value[m] = ldexpf(1, m - 1);
        codebook->value[sign | m] = -codebook->value[m];
    }
    return PQ_OK;
}

static uint8_t pot_encode(const pq_codebook *codebook, float weight, float scale) {
    pq_pow2_grid grid = grid_of(codebook);
    bool negative = weight < 0;
    int m = exponent_of(&grid, fabsf(weight) / scale, negative) + 1;
    return (uint8_t)(m == 0 ? 0 : m | (negative ? 1 << (codebook->bits - 1) : 0));
}

const pq_quantizer pq_quantizer_pot = {.name = "pot",
                                       .wire_id = 1,
                                       .resolve = pot_resolve,
                                       .encode = pot_encode,
                                       .fake_quantize = fake_quantize,
                                       .error_sums = error_sums,
                                       .absmax_scale = absmax_scale};

/* pot-zero-free: +-2^k, k = 0 .. K-1; every code is canonical: sign << (bits-1) | k. Zero, of either sign, is
 * +1. */
static pq_status zero_free_resolve(pq_codebook *codebook, int64_t levels, const double *range,
                                   pq_error *err) {
    PQ_TRY(pq_refuse_range(codebook, range, err));
    if (levels < 4 || levels > 64 || (levels & (levels - 1)) != 0)
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "quantizer pot-zero-free: levels must be 4, 8, 16, 32 or 64; found %lld",
                       (long long)levels);
    codebook->levels = (int)levels;
    codebook->bits = pq_code_bits(codebook->levels);
    codebook->exponents = codebook->levels / 2;
    codebook->range[1] = ldexp(1, codebook->exponents - 1);
    codebook->range[0] = -codebook->range[1];
    codebook->jumps = codebook->rounding == PQ_ROUND_LOG;
    for (int side = 0; side < 2; side++) codebook->clip[side] = 1.5 * codebook->range[side];
    for (int k = 0; k < codebook->exponents; k++) {
        codebook->value[k] = ldexpf(1, k);
        codebook->value[codebook->exponents | k] = -codebook->value[k];
    }
    return PQ_OK;
}

static uint8_t zero_free_encode(const pq_codebook *codebook, float weight, float scale) {
    pq_pow2_grid grid = grid_of(codebook);
    bool negative = weight < 0;
    int k = exponent_of(&grid, fabsf(weight) / scale, negative);
    return (uint8_t)(k | (negative ? codebook->exponents : 0));
}

const pq_quantizer pq_quantizer_pot_zero_free = {.name = "pot-zero-free",
                                                 .wire_id = 2,
                                                 .resolve = zero_free_resolve,
                                                 .encode = zero_free_encode,
                                                 .fake_quantize = fake_quantize,
                                                 .error_sums = error_sums,
                                                 .absmax_scale = absmax_scale};

/* pot-released: the rule of the code released with arXiv 2601.02298: first to an integer (half to even), then
 * to a power of two in the log domain, then into [qmin, qmax], whose ends are signed powers of two. Code 0 is
 * 0, then the positive levels upwards, then the negative ones downwards. */
static pq_status released_resolve(pq_codebook *codebook, int64_t levels, const double *range, pq_error *err) {
    (void)levels;
    PQ_TRY(pq_refuse_log(codebook, err));
    if (!range)
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "quantizer pot-released takes a range, [-8, 4] for example, not levels");
    int exponents[2] = {0};
    for (int side = 0; side < 2; side++) {
        double end = side == 0 ? -range[0] : range[1];
        if (!(end >= 1 && end <= 0x1p31) || frexp(end, &exponents[side]) != 0.5)
            return PQ_FAIL(
                err, PQ_ERR_USAGE,
                "quantizer pot-released: the range must be a negative and a positive power of two, "
                "-2^31 to -1 and 1 to 2^31; found [%g, %g]",
                range[0], range[1]);
        codebook->range[side] = range[side];
        codebook->clip[side] = copysign((double)INFINITY, range[side]); /* the released code has no mask */
    }
    int negative = exponents[0], positive = exponents[1];
    codebook->jumps = true;
    codebook->levels = negative + positive + 1;
    codebook->bits = pq_code_bits(codebook->levels);
    codebook->exponents = negative > positive ? negative : positive;
    codebook->value[0] = 0;
    for (int k = 0; k < positive; k++) codebook->value[1 + k] = ldexpf(1, k);
    for (int k = 0; k < negative; k++) codebook->value[1 + positive + k] = -ldexpf(1, k);
    return PQ_OK;
}

static uint8_t released_encode(const pq_codebook *codebook, float weight, float scale) {
    pq_pow2_grid grid = grid_of(codebook);
    bool negative = weight < 0;
    int code = exponent_of(&grid, fabsf(weight) / scale, negative) + 1, positive;
    frexp(codebook->range[1], &positive);
    return (uint8_t)(code == 0 ? 0 : code + (negative ? positive : 0));
}

static float released_absmax_scale(const pq_codebook *codebook, float absmax) {
    return (float)(absmax / ((codebook->range[1] - codebook->range[0]) / 2));
}

const pq_quantizer pq_quantizer_pot_released = {.name = "pot-released",
                                                .wire_id = 4,
                                                .resolve = released_resolve,
                                                .encode = released_encode,
                                                .fake_quantize = fake_quantize,
                                                .error_sums = error_sums,
                                                .absmax_scale = released_absmax_scale};
