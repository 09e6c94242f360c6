/* Fake quantization of activations to 8 bits: rounding to an affine grid, a grid for each row, extremes. */
#include "kernels/x86/x86.h"

/* A number of the grid; not yet clamped. */
ALWAYS_INLINE vf number_of(vf x, const pq_affine *grid) {
    return v_add(v_round(v_mul(x, v_set(grid->inverse))), v_set(grid->zero));
}

void PQ_ISA_NAME(affine_round)(const float *x, const pq_affine *grid, float *out, size_t n) {
    vf scale = v_set(grid->scale), zero = v_set(grid->zero), low = v_set(grid->low), high = v_set(grid->high);
    for (size_t i = 0; i < n; i += VL) {
        vf q =
            v_min(high, v_max(low, number_of(v_load_left(x + i, n - i), grid))); /* in this order NaN stays */
        v_store_left(out + i, n - i, v_mul(v_sub(q, zero), scale));
    }
}

void PQ_ISA_NAME(affine_mask)(const float *x, const pq_affine *grid, const float *dout, float *dx, size_t n) {
    vf low = v_set(grid->low), high = v_set(grid->high);
    for (size_t i = 0; i < n; i += VL) {
        vf q = number_of(v_load_left(x + i, n - i), grid), d = v_load_left(dout + i, n - i);
        d = v_select(v_less(q, low), v_zero(), d);
        v_store_left(dx + i, n - i, v_select(v_less(high, q), v_zero(), d));
    }
}

void PQ_ISA_NAME(extremes)(const float *x, float *low, float *high, size_t n) {
    vf start = v_set(x[0]), least = start, most = start, odd = v_zero(); /* odd: NaN where x is not finite */
    for (size_t i = 0; i < n; i += VL) {
        vf a = n - i >= VL ? v_load(x + i) : v_select(v_first(n - i), v_load_left(x + i, n - i), start);
        least = v_min(least, a);
        most = v_max(most, a);
        odd = v_add(odd, v_sub(a, a));
    }
    float bad = v_sum(odd);
    *low = bad - v_largest(v_sub(v_zero(), least));
    *high = bad + v_largest(most);
}

void PQ_ISA_NAME(int8_rows)(const float *x, float *out, size_t rows, size_t width) {
    for (size_t r = 0; width > 0 && r < rows; r++, x += width, out += width) {
        float low, high;
        PQ_ISA_NAME(extremes)(x, &low, &high, width);
        pq_affine grid = pq_affine_make(low, high, 0, 255, PQ_INT8_ROW_LEAST);
        PQ_ISA_NAME(affine_round)(x, &grid, out, width);
    }
}
