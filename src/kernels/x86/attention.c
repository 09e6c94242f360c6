/* Causal attention of one head, vectorised. BLOCK queries at a time keep their scores against all keys up to
 * them, so B x H x T x T is never stored and softmax needs no second pass. All products have one form: C (+)=
 * A B with B row-major; K and V are transposed once into scratch where they stand on the right transposed.
 *
 *   scratch: scores [BLOCK][padded] | gradients of scores [BLOCK][padded] | K^T, V^T [head_size][padded] |
 * mask, ones padded = T rounded up to 64 */
#include <math.h>
#include <string.h>

#include "kernels/x86/x86.h"

enum { BLOCK = 32 };
#ifdef __AVX512F__
enum { TILE = 8 }; /* rows of C in registers, two vectors each */
#else
enum { TILE = 4 };
#endif

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
            for (size_t c = 0; c < vectors; c++) sum[r][c] = v_fma(a, b[c], sum[r][c]);
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
static void product(size_t m, size_t n, size_t k, const float *A, size_t row_stride, size_t column_stride,
                    const float *B, size_t ldb, float *C, size_t ldc, bool accumulate) {
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

/* out[columns][out_stride] = transpose of x[rows][columns]; 4 x 4 at a time. */
static void transpose(const float *x, size_t stride, size_t rows, size_t columns, float *out,
                      size_t out_stride) {
    size_t r = 0;
    for (; r + 4 <= rows; r += 4) {
        size_t c = 0;
        for (; c + 4 <= columns; c += 4) {
            const float *from = x + r * stride + c;
            __m128 a = _mm_loadu_ps(from), b = _mm_loadu_ps(from + stride),
                   d = _mm_loadu_ps(from + 2 * stride), e = _mm_loadu_ps(from + 3 * stride);
            _MM_TRANSPOSE4_PS(a, b, d, e);
            float *to = out + c * out_stride + r;
            _mm_storeu_ps(to, a);
            _mm_storeu_ps(to + out_stride, b);
            _mm_storeu_ps(to + 2 * out_stride, d);
            _mm_storeu_ps(to + 3 * out_stride, e);
        }
        for (; c < columns; c++)
            for (size_t i = r; i < r + 4; i++) out[c * out_stride + i] = x[i * stride + c];
    }
    for (; r < rows; r++)
        for (size_t c = 0; c < columns; c++) out[c * out_stride + r] = x[r * stride + c];
}

typedef struct places {
    size_t padded;
    float *scores, *gradients, *k_transposed, *v_transposed, *mask, *ones;
} places;

static places lay_out(float *scratch, size_t T, size_t head_size) {
    places p = {.padded = (T + 63) / 64 * 64};
    p.scores = scratch;
    p.gradients = p.scores + BLOCK * p.padded;
    p.k_transposed = p.gradients + BLOCK * p.padded;
    p.v_transposed = p.k_transposed + head_size * p.padded;
    p.mask = p.v_transposed + head_size * p.padded;
    p.ones = p.mask + p.padded;
    return p;
}

ALWAYS_INLINE size_t least(size_t a, size_t b) {
    return a < b ? a : b;
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

void PQ_ISA_NAME(attention_forward)(const float *q, const float *k, const float *v, size_t stride, float *out,
                                    size_t out_stride, float *lse, size_t T, size_t head_size,
                                    const pq_dropout *dropout, uint64_t first, float *scratch) {
    places s = lay_out(scratch, T, head_size);
    const float scale = 1.0f / sqrtf((float)head_size);
    transpose(k, stride, T, head_size, s.k_transposed, s.padded);
    for (size_t i0 = 0; i0 < T; i0 += BLOCK) {
        size_t rows = least(BLOCK, T - i0), keys = i0 + rows;
        float weight[BLOCK];
        product(rows, keys, head_size, q + i0 * stride, stride, 1, s.k_transposed, s.padded, s.scores,
                s.padded, false);
        for (size_t r = 0; r < rows; r++) {
            size_t n = i0 + r + 1;
            float *p = s.scores + r * s.padded;
            vf top = v_set(p[0]);
            for (size_t j = 0; j < n; j += VL) {
                vm valid = v_first(n - j);
                top = v_max(v_select(valid, v_load_some(valid, p + j), top), top);
            }
            float shift = v_largest(top) * scale, sum = exponentials(p, n, keys, scale, shift);
            lse[i0 + r] = shift + logf(sum);
            weight[r] = 1.0f / sum;
            if (dropout) PQ_ISA_NAME(dropout)(NULL, p, p, n, dropout, first + (i0 + r) * s.padded);
        }
        product(rows, head_size, keys, s.scores, s.padded, 1, v, stride, out + i0 * out_stride, out_stride,
                false);
        for (size_t r = 0; r < rows; r++)
            PQ_ISA_NAME(scale)(out + (i0 + r) * out_stride, weight[r], head_size);
    }
}

void PQ_ISA_NAME(attention_backward)(const float *q, const float *k, const float *v, size_t stride,
                                     const float *out, const float *dout, size_t out_stride, const float *lse,
                                     float *dq, float *dk, float *dv, size_t dstride, size_t T,
                                     size_t head_size, const pq_dropout *dropout, uint64_t first,
                                     float *scratch) {
    places s = lay_out(scratch, T, head_size);
    const float scale = 1.0f / sqrtf((float)head_size);
    transpose(k, stride, T, head_size, s.k_transposed, s.padded);
    transpose(v, stride, T, head_size, s.v_transposed, s.padded);
    for (size_t i = 0; i < T; i++) {
        memset(dk + i * dstride, 0, head_size * sizeof *dk);
        memset(dv + i * dstride, 0, head_size * sizeof *dv);
        s.ones[i] = 1.0f;
    }
    for (size_t i0 = 0; i0 < T; i0 += BLOCK) {
        size_t rows = least(BLOCK, T - i0), keys = i0 + rows;
        const float *g = dout + i0 * out_stride;
        product(rows, keys, head_size, q + i0 * stride, stride, 1, s.k_transposed, s.padded, s.scores,
                s.padded, false);
        product(rows, keys, head_size, g, out_stride, 1, s.v_transposed, s.padded, s.gradients, s.padded,
                false);
        for (size_t r = 0; r < rows; r++) {
            size_t i = i0 + r, n = i + 1;
            float *p = s.scores + r * s.padded, *dp = s.gradients + r * s.padded;
            const float *o = out + i * out_stride, *d = dout + i * out_stride;
            vf inner = v_zero();
            for (size_t c = 0; c < head_size; c += VL) {
                vm some = v_first(head_size - c);
                inner = v_fma(v_load_some(some, o + c), v_load_some(some, d + c), inner);
            }
            vf shift = v_set(v_sum(inner)), factor = v_set(scale);
            exponentials(p, n, keys, scale, lse[i]);
            const float *mask = s.ones;
            if (dropout) {
                PQ_ISA_NAME(dropout)(NULL, s.ones, s.mask, n, dropout, first + i * s.padded);
                mask = s.mask;
            }
            for (size_t j = 0; j < keys; j += VL) {
                vm valid = v_first(n > j ? n - j : 0), whole = v_first(keys - j);
                vf pj = v_load_some(whole, p + j), mj = v_load_some(valid, mask + j);
                vf ds = v_mul(v_mul(pj, factor), v_sub(v_mul(v_load_some(whole, dp + j), mj), shift));
                v_store_some(whole, dp + j, ds);
                v_store_some(whole, p + j, v_mul(pj, mj));
            }
        }
        product(keys, head_size, rows, s.scores, 1, s.padded, g, out_stride, dv, dstride, true);
        product(keys, head_size, rows, s.gradients, 1, s.padded, q + i0 * stride, stride, dk, dstride, true);
        product(rows, head_size, keys, s.gradients, s.padded, 1, k, stride, dq + i0 * dstride, dstride,
                false);
    }
}
