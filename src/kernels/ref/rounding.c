/* Rounding to powers of two and to integers, in units of a scale; what a search for a scale sums up. */
#include <math.h>

#include "base/bits.h"
#include "kernels/kernels.h"

/* The power of two (or 0) that magnitude a gets. */
static float power_of(const pq_pow2_grid *grid, float a, bool negative) {
    if (grid->whole) a = rintf(a);
    uint32_t bits = pq_bits_of_float(a) & 0x7FFFFFFF, top = pq_bits_of_float(grid->top[negative]),
             one = pq_bits_of_float(1.0f);
    if (bits > top) bits = top;
    if (bits < grid->zero_below) return 0;
    bits = (bits + grid->up) & 0x7F800000;
    if (bits < one) bits = one;
    return pq_float_of_bits(bits);
}

void pq_pow2_round_ref(const float *x, const pq_pow2_grid *grid, float scale, float *out, size_t n) {
    for (size_t i = 0; i < n; i++) {
        bool negative = x[i] < 0;
        float value = power_of(grid, fabsf(x[i]) / scale, negative) * scale;
        out[i] = negative && value != 0 ? -value : value;
    }
}

void pq_pow2_error_ref(const float *x, const pq_pow2_grid *grid, float scale, double *sums, size_t n) {
    double dd = 0, dp = 0, pp = 0;
    float inverse = 1 / scale;
    for (size_t i = 0; i < n; i++) {
        float a = fabsf(x[i]) * inverse, p = power_of(grid, a, x[i] < 0);
        double d = (double)a - (double)p;
        dd += d * d;
        dp += d * (double)p;
        pp += (double)p * (double)p;
    }
    sums[0] = dd, sums[1] = dp, sums[2] = pp;
}

static float integer_of(float a, float low, float high) {
    float q = rintf(a);
    q = q < high ? q : high;
    return q > low ? q : low;
}

void pq_integer_round_ref(const float *x, float low, float high, float scale, float *out, size_t n) {
    for (size_t i = 0; i < n; i++) out[i] = integer_of(x[i] / scale, low, high) * scale + 0.0f; /* no -0 */
}

void pq_integer_error_ref(const float *x, float low, float high, float scale, double *sums, size_t n) {
    double dd = 0, dq = 0, qq = 0;
    float inverse = 1 / scale;
    for (size_t i = 0; i < n; i++) {
        float a = x[i] * inverse, q = integer_of(a, low, high);
        double d = (double)a - (double)q;
        dd += d * d;
        dq += d * (double)q;
        qq += (double)q * (double)q;
    }
    sums[0] = dd, sums[1] = dq, sums[2] = qq;
}

/* What magnitude a gets; NaN what the largest does. */
static float nearest_of(float a, const float *nearest, float largest) {
    return nearest[(int)(2 * (a < largest ? a : largest))];
}

void pq_halves_round_ref(const float *x, const float *nearest, float largest, float scale, float *out,
                         size_t n) {
    for (size_t i = 0; i < n; i++) {
        float value = nearest_of(fabsf(x[i]) / scale, nearest, largest) * scale;
        out[i] = x[i] < 0 && value != 0 ? -value : value;
    }
}

void pq_halves_error_ref(const float *x, const float *nearest, float largest, float scale, double *sums,
                         size_t n) {
    double dd = 0, dq = 0, qq = 0;
    float inverse = 1 / scale;
    for (size_t i = 0; i < n; i++) {
        float a = fabsf(x[i]) * inverse, q = nearest_of(a, nearest, largest);
        double d = (double)a - (double)q;
        dd += d * d;
        dq += d * (double)q;
        qq += (double)q * (double)q;
    }
    sums[0] = dd, sums[1] = dq, sums[2] = qq;
}

void pq_weighted_error_ref(const float *x, const float *value, const float *m, float inverse, double *sums,
                           size_t n) {
    double dd = 0, dq = 0, qq = 0;
    for (size_t i = 0; i < n; i++) {
        double q = (double)(value[i] * inverse), d = (double)((x[i] - value[i]) * inverse);
        dd += (double)m[i] * d * d;
        dq += (double)m[i] * d * q;
        qq += (double)m[i] * q * q;
    }
    sums[0] = dd, sums[1] = dq, sums[2] = qq;
}

void pq_magnitudes_ref(const float *x, uint32_t *largest, double *sum, size_t n) {
    uint32_t most = 0;
    double total = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = pq_bits_of_float(x[i]) & 0x7FFFFFFF;
        if (bits > most) most = bits;
        total += (double)fabsf(x[i]);
    }
    *largest = most;
    if (sum) *sum = total;
}

void pq_mask_range_ref(const float *x, float low, float high, float *y, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (x[i] < low || x[i] > high) y[i] = 0;
}
