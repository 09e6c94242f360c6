/* What attention of both types shares: products, and the rows of softmax. A lane of products is
 * a float, or, in the kernels of AVX512_BF16, a pair of bf16 beside each other. */
#ifndef PQ_KERNELS_X86_ATTENTION_H
#define PQ_KERNELS_X86_ATTENTION_H

#include <math.h>
#include <string.h>

#include "kernels/x86/layout.h"

enum { BLOCK = 32 };
#ifdef __AVX512F__
enum { TILE = 8 }; /* rows of C in registers, two vectors each */
#else
enum { TILE = 4 };
#endif

ALWAYS_INLINE vf lanes_multiply_add(vf a, vf b, vf sum) {
#ifdef PQ_BF16
    return v_pairs_dot(a, b, sum);
#else
    return v_fma(a, b, sum);
#endif
}

/* C[rows][vectors * VL] (+)= A[rows][k] B[k][..]; A has any strides, `some` masks the last vector. */
ALWAYS_INLINE void product_tile(const size_t rows, const size_t vectors, vm some, size_t k, const float *A,
                                size_t row_stride, size_t column_stride, const float *B, size_t ldb, float *C,
                                size_t ldc, bool accumulate) {
    vf sum[TILE][2];
#pragma GCC unroll 8
    for (size_t r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (size_t c = 0; c < vectors; c++) {
            const float *from = C + r * ldc + c * VL;
            sum[r][c] = !accumulate ? v_zero() : c + 1 == vectors ? v_load_some(some, from) : v_load(from);
        }
    for (size_t i = 0; i < k; i++) {
        vf b[2];
#pragma GCC unroll 2
        for (size_t c = 0; c < vectors; c++)
            b[c] = c + 1 == vectors ? v_load_some(some, B + i * ldb + c * VL) : v_load(B + i * ldb + c * VL);
#pragma GCC unroll 8
        for (size_t r = 0; r < rows; r++) {
            vf a = v_set(A[r * row_stride + i * column_stride]);
#pragma GCC unroll 2
            for (size_t c = 0; c < vectors; c++) sum[r][c] = lanes_multiply_add(a, b[c], sum[r][c]);
        }
    }
#pragma GCC unroll 8
    for (size_t r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (size_t c = 0; c < vectors; c++) {
            float *to = C + r * ldc + c * VL;
            if (c + 1 == vectors)
                v_store_some(some, to, sum[r][c]);
            else
                v_store(to, sum[r][c]);
        }
}

/* C[m][n] (+)= A[m][k] B[k][n] */
static inline void product(size_t m, size_t n, size_t k, const float *A, size_t row_stride,
                           size_t column_stride, const float *B, size_t ldb, float *C, size_t ldc,
                           bool accumulate) {
    for (size_t j = 0; j < n; j += 2 * VL) {
        bool two = n - j > VL;
        vm some = v_first(two ? n - j - VL : n - j);
        for (size_t i = 0; i < m;) {
            const float *a = A + i * row_stride;
            float *c = C + i * ldc + j;
            size_t left = m - i;
            if (left >= TILE) {
                if (two)
                    product_tile(TILE, 2, some, k, a, row_stride, column_stride, B + j, ldb, c, ldc,
                                 accumulate);
                else
                    product_tile(TILE, 1, some, k, a, row_stride, column_stride, B + j, ldb, c, ldc,
                                 accumulate);
                i += TILE;
            } else {
                if (two)
                    product_tile(1, 2, some, k, a, row_stride, column_stride, B + j, ldb, c, ldc, accumulate);
                else
                    product_tile(1, 1, some, k, a, row_stride, column_stride, B + j, ldb, c, ldc, accumulate);
                i++;
            }
        }
    }
}

/* p[0 .. n) = exp(scale * p - shift), 0 from n to `end`; returns the sum. */
ALWAYS_INLINE float exponentials(float *p, size_t n, size_t end, float scale, float shift) {
    vf sum = v_zero(), a = v_set(scale), b = v_set(shift);
    for (size_t j = 0; j < end; j += VL) {
        vm valid = v_first(n > j ? n - j : 0);
        vf e = v_select(valid, v_exp(v_sub(v_mul(v_load_some(valid, p + j), a), b)), v_zero());
        v_store_some(v_first(end - j), p + j, e);
        sum = v_add(sum, e);
    }
    return v_sum(sum);
}

/* Row i of a block: p[0 .. n) from scores to probabilities before they are divided by what is returned, with
 * dropout; 0 from n to `end`. */
ALWAYS_INLINE float softmax_row(float *p, size_t n, size_t end, float scale, float *lse,
                                const pq_dropout *dropout, uint64_t first) {
    vf top = v_set(p[0]);
    for (size_t j = 0; j < n; j += VL) {
        vm valid = v_first(n - j);
        top = v_max(v_select(valid, v_load_some(valid, p + j), top), top);
    }
    float shift = v_largest(top) * scale, sum = exponentials(p, n, end, scale, shift);
    *lse = shift + logf(sum);
    if (dropout) PQ_ISA_NAME(dropout)(NULL, p, p, n, dropout, first);
    return sum;
}

/* Row i of a block, backward: p from scores to P M, dp from dO V^T to the gradient of scores P (dP M - inner)
 * scale. ones[n]; mask[n] is scratch. */
ALWAYS_INLINE void softmax_row_backward(float *p, float *dp, size_t n, size_t end, float scale, float lse,
                                        float inner, const pq_dropout *dropout, uint64_t first,
                                        const float *ones, float *mask) {
    vf shift = v_set(inner), factor = v_set(scale);
    const float *masks = dropout ? mask : ones;
    if (dropout) PQ_ISA_NAME(dropout)(NULL, ones, mask, n, dropout, first);
    exponentials(p, n, end, scale, lse);
    for (size_t j = 0; j < end; j += VL) {
        vm valid = v_first(n > j ? n - j : 0), whole = v_first(end - j);
        vf pj = v_load_some(whole, p + j), mj = v_load_some(valid, masks + j);
        vf ds = v_mul(v_mul(pj, factor), v_sub(v_mul(v_load_some(valid, dp + j), mj), shift));
        v_store_some(whole, dp + j, ds);
        v_store_some(whole, p + j, v_mul(pj, mj));
    }
}

#endif
