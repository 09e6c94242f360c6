/* Causal attention of one head, vectorised. BLOCK queries at a time keep their scores against all keys up to
 * them, so B x H x T x T is never stored and softmax needs no second pass. All products have one form: C (+)=
 * A B with B row-major; K and V are transposed once into scratch where they stand on the right transposed.
 *
 *   scratch: scores [BLOCK][padded] | gradients of scores [BLOCK][padded] | K^T, V^T [head_size][padded] |
 * mask, ones padded = T rounded up to 64 */
#include "kernels/x86/attention.h"

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
            size_t i = i0 + r;
            weight[r] = 1.0f / softmax_row(s.scores + r * s.padded, i + 1, keys, scale, lse + i, dropout,
                                           first + i * s.padded);
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
            size_t i = i0 + r;
            float *p = s.scores + r * s.padded, *dp = s.gradients + r * s.padded;
            const float *o = out + i * out_stride, *d = dout + i * out_stride;
            vf inner = v_zero();
            for (size_t c = 0; c < head_size; c += VL) {
                vm some = v_first(head_size - c);
                inner = v_fma(v_load_some(some, o + c), v_load_some(some, d + c), inner);
            }
            softmax_row_backward(p, dp, i + 1, keys, scale, lse[i], v_sum(inner), dropout,
                                 first + i * s.padded, s.ones, s.mask);
        }
        product(keys, head_size, rows, s.scores, 1, s.padded, g, out_stride, dv, dstride, true);
        product(keys, head_size, rows, s.gradients, 1, s.padded, q + i0 * stride, stride, dk, dstride, true);
        product(rows, head_size, keys, s.gradients, s.padded, 1, k, stride, dq + i0 * dstride, dstride,
                false);
    }
}
