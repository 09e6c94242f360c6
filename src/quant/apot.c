/* The additive power-of-two quantizer (APoT; Li, Dong and Wang, arXiv 1909.13144): magnitudes are sums p + q,
 * p from {0, 2^a, ...} and q from {0, 2^b, ...}. No exponent is in both sets, so that no two sums are equal.
 * In units of the smallest positive one all are whole numbers, and where magnitudes switch are halves of
 * whole numbers: the nearest value is looked up by the whole part of 2 |w| / s.
 *
 * 15 and 31 levels are the sets of the authors' code for 4 and 5 bits, and so are the 7 of one term; 63 are
 * two terms of the exponents that leave Gaussian weights the least error (theirs have three terms). */
#include <math.h>
#include <pthread.h>
#include <string.h>

#include "kernels/kernels.h"
#include "quant/table.h"

enum { MOST_MAGNITUDES = 32, MOST_HALVES = 2 * 640 + 1 };

/* Exponents as bits: bit a of `first` stands for 2^a. A sum is then any number with at most one bit of each.
 */
static struct set {
    int levels;
    uint32_t first, second;
    int magnitude[MOST_MAGNITUDES], count; /* 0 and upwards */
    float nearest[MOST_HALVES]; /* the value of |w| / s in [i / 2, (i + 1) / 2), and above the last */
} sets[] = {
    {.levels = 5, .first = 0x3},                   /* 1 2 */
    {.levels = 7, .first = 0x7},                   /* 1 2 4 */
    {.levels = 15, .first = 0xD, .second = 0x2},   /* 1 4 8, 2 */
    {.levels = 31, .first = 0x2A, .second = 0x15}, /* 2 8 32, 1 4 16 */
    {.levels = 63, .first = 0x357, .second = 0xA8} /* 1 2 4 16 64 256 512, 8 32 128 */
};
enum { SETS = sizeof sets / sizeof *sets };

static bool one_bit_at_most(uint32_t bits) {
    return (bits & (bits - 1)) == 0;
}

/* The tables are filled once, by whoever makes the first codebook, and never written again. */
static void fill_sets(void) {
    for (struct set *set = sets; set < sets + SETS; set++) {
        for (uint32_t sum = 0; set->count < (set->levels + 1) / 2; sum++)
            if ((sum & ~(set->first | set->second)) == 0 && one_bit_at_most(sum & set->first) &&
                one_bit_at_most(sum & set->second))
                set->magnitude[set->count++] = (int)sum;
        int at = 0, last = set->count - 1;
        for (int half = 0; half <= 2 * set->magnitude[last]; half++) {
            while (at < last && half >= set->magnitude[at] + set->magnitude[at + 1]) at++; /* ties go up */
            set->nearest[half] = (float)set->magnitude[at];
        }
    }
}

static const struct set *set_of(int64_t levels) {
    for (size_t i = 0; i < SETS; i++)
        if (sets[i].levels == levels) return &sets[i];
    return NULL;
}

/* code = sign << (bits - 1) | m, m the rank of the magnitude, 0 for the value 0. "Minus zero" is not a code.
 */
static pq_status resolve(pq_codebook *codebook, int64_t levels, const double *range, pq_error *err) {
    static pthread_once_t filled = PTHREAD_ONCE_INIT;
    PQ_TRY(pq_refuse_range(codebook, range, err));
    PQ_TRY(pq_refuse_log(codebook, err));
    const struct set *set = set_of(levels);
    if (!set)
        return PQ_FAIL(err, PQ_ERR_USAGE, "quantizer apot: levels must be 5, 7, 15, 31 or 63; found %lld",
                       (long long)levels);
    pthread_once(&filled, fill_sets);
    codebook->levels = set->levels;
    codebook->bits = pq_code_bits(set->levels);
    int last = set->count - 1, sign = 1 << (codebook->bits - 1);
    codebook->value[0] = 0;
    for (int m = 1; m <= last; m++) {
        codebook->value[m] = (float)set->magnitude[m];
        codebook->value[sign | m] = -codebook->value[m];
    }
    codebook->range[1] = set->magnitude[last];
    codebook->range[0] = -codebook->range[1];
    codebook->clip[1] = 1.5 * set->magnitude[last] - 0.5 * set->magnitude[last - 1];
    codebook->clip[0] = -codebook->clip[1];
    return PQ_OK;
}

static uint8_t encode(const pq_codebook *codebook, float weight, float scale) {
    const struct set *set = set_of(codebook->levels);
    float largest = (float)codebook->range[1], a = fabsf(weight) / scale;
    if (!(a < largest)) a = largest; /* NaN, too, becomes the largest level */
    int magnitude = (int)set->nearest[(int)(2 * a)], m = 0;
    while (set->magnitude[m] < magnitude) m++;
    return (uint8_t)(m != 0 && weight < 0 ? m | 1 << (codebook->bits - 1) : m);
}

static void fake_quantize(const pq_codebook *codebook, const float *w, float scale, float *out, size_t n) {
    const struct set *set = set_of(codebook->levels);
    pq_kernels_get()->halves_round(w, set->nearest, (float)codebook->range[1], scale, out, n);
}

static void error_sums(const pq_codebook *codebook, const float *w, float scale, double *sums, size_t n) {
    const struct set *set = set_of(codebook->levels);
    pq_kernels_get()->halves_error(w, set->nearest, (float)codebook->range[1], scale, sums, n);
}

static float absmax_scale(const pq_codebook *codebook, float absmax) {
    return (float)(absmax / codebook->range[1]);
}

const pq_quantizer pq_quantizer_apot = {.name = "apot",
                                        .wire_id = 5,
                                        .resolve = resolve,
                                        .encode = encode,
                                        .fake_quantize = fake_quantize,
                                        .error_sums = error_sums,
                                        .absmax_scale = absmax_scale};
