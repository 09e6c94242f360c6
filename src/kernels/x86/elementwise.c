/* Sums and products of plain arrays, vectorised. */
#include "kernels/x86/x86.h"

void PQ_ISA_NAME(add)(const float *a, const float *b, float *out, size_t n) {
    size_t i = 0;
    for (; i + VL <= n; i += VL) v_store(out + i, v_add(v_load(a + i), v_load(b + i)));
    vm m = v_first(n - i);
    if (i < n) v_store_some(m, out + i, v_add(v_load_some(m, a + i), v_load_some(m, b + i)));
}

void PQ_ISA_NAME(scale)(float *x, float factor, size_t n) {
    size_t i = 0;
    vf f = v_set(factor);
    for (; i + VL <= n; i += VL) v_store(x + i, v_mul(v_load(x + i), f));
    vm m = v_first(n - i);
    if (i < n) v_store_some(m, x + i, v_mul(v_load_some(m, x + i), f));
}

void PQ_ISA_NAME(column_sums)(const float *x, size_t stride, float *out, size_t rows, size_t columns) {
    for (size_t i = 0; i < columns; i += VL) {
        vm m = v_first(columns - i);
        vf sum = v_load_some(m, out + i);
        for (size_t r = 0; r < rows; r++) sum = v_add(sum, v_load_some(m, x + r * stride + i));
        v_store_some(m, out + i, sum);
    }
}

/* Blocks of 4096 in fp32 lanes, their sums in double. */
void PQ_ISA_NAME(sum_squares)(const float *x, double *sum, size_t n) {
    double total = 0;
    for (size_t first = 0; first < n; first += 4096) {
        size_t end = n - first < 4096 ? n : first + 4096, i = first;
        vf a = v_zero(), b = v_zero();
        for (; i + 2 * VL <= end; i += 2 * VL) {
            vf x0 = v_load(x + i), x1 = v_load(x + i + VL);
            a = v_fma(x0, x0, a);
            b = v_fma(x1, x1, b);
        }
        for (; i < end; i += VL) {
            vf x0 = v_load_some(v_first(end - i), x + i);
            a = v_fma(x0, x0, a);
        }
        total += v_sum(v_add(a, b));
    }
    *sum = total;
}
