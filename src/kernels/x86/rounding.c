/* Rounding to powers of two and to integers, in units of a scale; what a search for a scale sums up. */
#include <math.h>

#include "base/bits.h"
#include "kernels/x86/x86.h"

enum {
    CHUNK = 4096,    /* elements that are summed in fp32 before they go into a double */
    TWO = 0x40000000 /* the bits of 2.0 */
};

typedef struct grid {
    vi up, zero_below, one;
    vf top, bottom;
    bool whole;
} grid;

ALWAYS_INLINE grid grid_set(const pq_pow2_grid *g) {
    return (grid){.up = v_iset((int32_t)g->up),
                  .zero_below = v_iset((int32_t)g->zero_below),
                  .one = v_bits(v_set(1.0f)),
                  .top = v_set(g->top[0]),
                  .bottom = v_set(g->top[1]),
                  .whole = g->whole};
}

/* The power of two (or 0) that magnitude a gets. Bits of magnitudes are positive integers in the floats'
 * order; the minimum with the largest power also takes NaN there. */
ALWAYS_INLINE vf power_of(const grid *g, vf a, vm negative) {
    if (g->whole) a = v_round(a);
    vi bits = v_imin(v_bits(v_abs(a)), v_bits(v_select(negative, g->bottom, g->top)));
    vi power = v_imax(v_iand(v_iadd(bits, g->up), v_iset(0x7F800000)), g->one);
    return v_select(v_iless(bits, g->zero_below), v_zero(), v_from_bits(power));
}

/* Sign of x on a value that is not 0; 0 stays +0. */
ALWAYS_INLINE vf with_sign(vf value, vm negative) {
    return v_select(negative, v_sub(v_zero(), value), value);
}

/* Bits of the least x for which the float x / scale has at least these bits, or is the float of them. A
 * quotient halfway between that float and the one before is rounded to the even one, which is the former: so
 * x is not below their mean times the scale, and a double holds that product. */
static int32_t least_over(uint32_t bits, float scale) {
    if (bits == 0) return 0;
    double product =
        ((double)pq_float_of_bits(bits - 1) + (double)pq_float_of_bits(bits)) / 2 * (double)scale;
    float x = (float)product;
    return (int32_t)pq_bits_of_float(x) + ((double)x < product);
}

/* Without a division: x / scale is at least 2^k times the switch point where x is at least 2^k times the
 * least x for it, so their bits differ by k in the exponent. */
static void round_scaled(const float *x, const pq_pow2_grid *pow2, float scale, float *out, size_t n) {
    const vi low = v_iset((int32_t)pq_bits_of_float(scale)),
             zero_below = v_iset(least_over(pow2->zero_below, scale));
    const vi up = v_iset(TWO - least_over(TWO - pow2->up, scale));
    const vf top = v_set(pow2->top[0] * scale), bottom = v_set(pow2->top[1] * scale), s = v_set(scale);
    for (size_t i = 0; i < n; i += VL) {
        vf a = v_load_left(x + i, n - i);
        vm negative = v_less(a, v_zero());
        vi bits = v_bits(v_abs(a));
        vi inside = v_imin(v_imax(bits, low), v_bits(v_select(negative, bottom, top)));
        vf power = v_from_bits(v_iand(v_iadd(inside, up), v_iset(0x7F800000)));
        vf value = v_select(v_iless(bits, zero_below), v_zero(), v_mul(power, s));
        v_store_left(out + i, n - i, with_sign(value, negative));
    }
}

void PQ_ISA_NAME(pow2_round)(const float *x, const pq_pow2_grid *pow2, float scale, float *out, size_t n) {
    if (!pow2->whole && isnormal(scale) && isfinite(pow2->top[0] * scale) && isfinite(pow2->top[1] * scale)) {
        round_scaled(x, pow2, scale, out, n);
        return;
    }
    grid g = grid_set(pow2);
    vf s = v_set(scale);
    for (size_t i = 0; i < n; i += VL) {
        vf a = v_load_left(x + i, n - i);
        vm negative = v_less(a, v_zero());
        vf power = power_of(&g, v_div(v_abs(a), s), negative);
        v_store_left(out + i, n - i, with_sign(v_mul(power, s), negative));
    }
}

/* Sums of d^2, d q and q^2 over one chunk, added to sums. Lanes past the end must hold a = q = 0. */
typedef struct partial {
    vf dd, dq, qq;
} partial;

ALWAYS_INLINE void partial_add(partial *p, vf a, vf q) {
    vf d = v_sub(a, q);
    p->dd = v_fma(d, d, p->dd);
    p->dq = v_fma(d, q, p->dq);
    p->qq = v_fma(q, q, p->qq);
}

ALWAYS_INLINE void partial_flush(const partial *p, double *sums) {
    sums[0] += (double)v_sum(p->dd);
    sums[1] += (double)v_sum(p->dq);
    sums[2] += (double)v_sum(p->qq);
}

ALWAYS_INLINE void pow2_error_chunk(const grid *g, const float *x, vf inverse, double *sums, size_t n) {
    partial p = {v_zero(), v_zero(), v_zero()};
    for (size_t i = 0; i < n; i += VL) {
        vf w = v_load_left(x + i, n - i), a = v_mul(v_abs(w), inverse);
        vf q = power_of(g, a, v_less(w, v_zero()));
        if (n - i < VL) q = v_select(v_first(n - i), q, v_zero());
        partial_add(&p, a, q);
    }
    partial_flush(&p, sums);
}

void PQ_ISA_NAME(pow2_error)(const float *x, const pq_pow2_grid *pow2, float scale, double *sums, size_t n) {
    grid g = grid_set(pow2);
    vf inverse = v_set(1 / scale);
    sums[0] = sums[1] = sums[2] = 0;
    for (size_t i = 0; i < n; i += CHUNK)
        pow2_error_chunk(&g, x + i, inverse, sums, n - i < CHUNK ? n - i : CHUNK);
}

ALWAYS_INLINE vf integer_of(vf a, vf low, vf high) {
    return v_max(v_min(v_round(a), high), low); /* the minimum takes NaN to high */
}

void PQ_ISA_NAME(integer_round)(const float *x, float low, float high, float scale, float *out, size_t n) {
    vf s = v_set(scale), l = v_set(low), h = v_set(high);
    for (size_t i = 0; i < n; i += VL) {
        vf q = integer_of(v_div(v_load_left(x + i, n - i), s), l, h);
        v_store_left(out + i, n - i, v_add(v_mul(q, s), v_zero())); /* no -0 */
    }
}

void PQ_ISA_NAME(integer_error)(const float *x, float low, float high, float scale, double *sums, size_t n) {
    vf inverse = v_set(1 / scale), l = v_set(low), h = v_set(high);
    sums[0] = sums[1] = sums[2] = 0;
    for (size_t first = 0; first < n; first += CHUNK) {
        partial p = {v_zero(), v_zero(), v_zero()};
        size_t end = n - first < CHUNK ? n : first + CHUNK;
        for (size_t i = first; i < end; i += VL) {
            vf a = v_mul(v_load_left(x + i, end - i), inverse);
            partial_add(&p, a, integer_of(a, l, h)); /* low <= 0 <= high: lanes past the end give 0 */
        }
        partial_flush(&p, sums);
    }
}

/* What magnitude a gets; the minimum takes NaN to the largest. */
ALWAYS_INLINE vf nearest_of(vf a, const float *nearest, vf largest) {
    vf least = v_min(a, largest);
    return v_gather(nearest, v_truncate(v_add(least, least)));
}

void PQ_ISA_NAME(halves_round)(const float *x, const float *nearest, float largest, float scale, float *out,
                               size_t n) {
    vf s = v_set(scale), top = v_set(largest);
    for (size_t i = 0; i < n; i += VL) {
        vf w = v_load_left(x + i, n - i), q = nearest_of(v_div(v_abs(w), s), nearest, top);
        vm negative = v_less(w, v_zero());
        vf value = with_sign(v_mul(q, s), negative);
        v_store_left(out + i, n - i, v_add(value, v_zero())); /* no -0 */
    }
}

void PQ_ISA_NAME(halves_error)(const float *x, const float *nearest, float largest, float scale, double *sums,
                               size_t n) {
    vf inverse = v_set(1 / scale), top = v_set(largest);
    sums[0] = sums[1] = sums[2] = 0;
    for (size_t first = 0; first < n; first += CHUNK) {
        partial p = {v_zero(), v_zero(), v_zero()};
        size_t end = n - first < CHUNK ? n : first + CHUNK;
        for (size_t i = first; i < end; i += VL) {
            vf a = v_mul(v_abs(v_load_left(x + i, end - i)), inverse); /* lanes past the end get 0 */
            partial_add(&p, a, nearest_of(a, nearest, top));
        }
        partial_flush(&p, sums);
    }
}

void PQ_ISA_NAME(weighted_error)(const float *x, const float *value, const float *m, float inverse,
                                 double *sums, size_t n) {
    vf u = v_set(inverse);
    sums[0] = sums[1] = sums[2] = 0;
    for (size_t first = 0; first < n; first += CHUNK) {
        partial p = {v_zero(), v_zero(), v_zero()};
        size_t end = n - first < CHUNK ? n : first + CHUNK;
        for (size_t i = first; i < end; i += VL) {
            vf v = v_load_left(value + i, end - i), weight = v_load_left(m + i, end - i);
            vf q = v_mul(v, u), d = v_mul(v_sub(v_load_left(x + i, end - i), v), u), md = v_mul(weight, d);
            p.dd = v_fma(md, d, p.dd);
            p.dq = v_fma(md, q, p.dq);
            p.qq = v_fma(v_mul(weight, q), q, p.qq);
        }
        partial_flush(&p, sums);
    }
}

ALWAYS_INLINE vi magnitudes_chunk(vi most, const float *x, double *sum, size_t n) {
    vf total = v_zero();
    for (size_t i = 0; i < n; i += VL) {
        vf a = v_abs(v_load_left(x + i, n - i));
        most = v_imax(most, v_bits(a));
        if (sum) total = v_add(total, a);
    }
    if (sum) *sum += (double)v_sum(total);
    return most;
}

void PQ_ISA_NAME(magnitudes)(const float *x, uint32_t *largest, double *sum, size_t n) {
    vi most = v_iset(0);
    if (!sum) most = magnitudes_chunk(most, x, NULL, n);
    if (sum) *sum = 0;
    for (size_t i = 0; sum && i < n; i += CHUNK)
        most = magnitudes_chunk(most, x + i, sum, n - i < CHUNK ? n - i : CHUNK);
    *largest = (uint32_t)v_ilargest(most);
}

void PQ_ISA_NAME(mask_range)(const float *x, float low, float high, float *y, size_t n) {
    vf l = v_set(low), h = v_set(high);
    for (size_t i = 0; i < n; i += VL) {
        vf a = v_load_left(x + i, n - i), kept = v_load_left(y + i, n - i);
        kept = v_select(v_less(a, l), v_zero(), kept);
        v_store_left(y + i, n - i, v_select(v_less(h, a), v_zero(), kept));
    }
}
