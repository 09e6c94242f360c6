/* Causal attention of one head, readable: one query row at a time, so B x H x T x T is never stored. */
#include <math.h>
#include <string.h>

#include "kernels/kernels.h"

/* Rows of queries that the vector kernels take at a time; they keep their scores against all keys, and K and
 * V transposed (rows padded to 64 floats). */
size_t pq_attention_scratch(size_t T, size_t head_size) {
    size_t padded = (T + 63) / 64 * 64, rows = 32;
    return 2 * rows * padded + 2 * head_size * padded + 2 * padded + 64;
}

/* bf16: what both forms ask, the vector kernels' 5 T columns and blocks, the columns of a head filled up to
 * 32, and the readable ones' eight wide copies. */
size_t pq_attention_bf16_scratch(size_t T, size_t head_size) {
    size_t padded = (T + 63) / 64 * 64, rows = 32, columns = (head_size + 31) / 32 * 32;
    return 4 * rows * padded + (8 * padded + 5 * rows) * columns;
}

static float rounded(float x, bool bf16) {
    pq_bf16 narrow;
    if (bf16) pq_narrow_ref(&x, &narrow, 1), pq_widen_ref(&narrow, &x, 1);
    return x;
}

/* p[0 .. i] = probability of each key for query i (before dropout). */
static void probabilities(const float *q, const float *k, size_t stride, size_t i, size_t head_size, float *p,
                          const float *known_lse, float *lse) {
    double scale = 1.0 / sqrt((double)head_size), largest = -INFINITY, sum = 0;
    for (size_t j = 0; j <= i; j++) {
        double dot = 0;
        for (size_t d = 0; d < head_size; d++) dot += (double)q[i * stride + d] * k[j * stride + d];
        p[j] = (float)(dot * scale);
        largest = fmax(largest, p[j]);
    }
    for (size_t j = 0; j <= i; j++) sum += exp(p[j] - largest);
    double log_sum = known_lse ? known_lse[i] : largest + log(sum);
    if (lse) lse[i] = (float)log_sum;
    for (size_t j = 0; j <= i; j++) p[j] = (float)exp(p[j] - log_sum);
}

/* mask[0 .. i] = 0 or the keep scale of each probability of row i. */
static void mask_row(const pq_dropout *dropout, uint64_t first, size_t i, size_t T, float *mask) {
    for (size_t j = 0; j <= i; j++) mask[j] = 1.0f;
    if (dropout) pq_dropout_ref(NULL, mask, mask, i + 1, dropout, first + i * ((T + 63) / 64 * 64));
}

static void forward(const float *q, const float *k, const float *v, size_t stride, float *out,
                    size_t out_stride, float *lse, size_t T, size_t head_size, const pq_dropout *dropout,
                    uint64_t first, float *scratch, bool bf16) {
    float *p = scratch, *mask = scratch + (T + 63) / 64 * 64;
    for (size_t i = 0; i < T; i++) {
        probabilities(q, k, stride, i, head_size, p, NULL, lse);
        mask_row(dropout, first, i, T, mask);
        for (size_t d = 0; d < head_size; d++) {
            double sum = 0;
            for (size_t j = 0; j <= i; j++) sum += (double)rounded(p[j] * mask[j], bf16) * v[j * stride + d];
            out[i * out_stride + d] = (float)sum;
        }
    }
}

/* With P the probabilities, M the mask, O = (P M) V: dV = (P M)^T dO, dP = M (dO V^T), dS = P (dP - sum(dO
 * O)). */
static void backward(const float *q, const float *k, const float *v, size_t stride, const float *out,
                     const float *dout, size_t out_stride, const float *lse, float *dq, float *dk, float *dv,
                     size_t dstride, size_t T, size_t head_size, const pq_dropout *dropout, uint64_t first,
                     float *scratch, bool bf16) {
    float *p = scratch, *mask = scratch + (T + 63) / 64 * 64;
    float scale = (float)(1.0 / sqrt((double)head_size));
    for (size_t i = 0; i < T; i++) {
        memset(dq + i * dstride, 0, head_size * sizeof *dq);
        memset(dk + i * dstride, 0, head_size * sizeof *dk);
        memset(dv + i * dstride, 0, head_size * sizeof *dv);
    }
    for (size_t i = 0; i < T; i++) {
        const float *o = out + i * out_stride, *g = dout + i * out_stride;
        double inner = 0;
        probabilities(q, k, stride, i, head_size, p, lse, NULL);
        mask_row(dropout, first, i, T, mask);
        for (size_t d = 0; d < head_size; d++) inner += (double)g[d] * o[d];
        for (size_t j = 0; j <= i; j++) {
            double dp = 0;
            float masked = rounded(p[j] * mask[j], bf16);
            for (size_t d = 0; d < head_size; d++) {
                dv[j * dstride + d] += masked * g[d];
                dp += (double)g[d] * v[j * stride + d];
            }
            float ds = rounded((float)(p[j] * (dp * mask[j] - inner)) * scale, bf16);
            for (size_t d = 0; d < head_size; d++) {
                dq[i * dstride + d] += ds * k[j * stride + d];
                dk[j * dstride + d] += ds * q[i * stride + d];
            }
        }
    }
}

void pq_attention_forward_ref(const float *q, const float *k, const float *v, size_t stride, float *out,
                              size_t out_stride, float *lse, size_t T, size_t head_size,
                              const pq_dropout *dropout, uint64_t first, float *scratch) {
    forward(q, k, v, stride, out, out_stride, lse, T, head_size, dropout, first, scratch, false);
}

void pq_attention_backward_ref(const float *q, const float *k, const float *v, size_t stride,
                               const float *out, const float *dout, size_t out_stride, const float *lse,
                               float *dq, float *dk, float *dv, size_t dstride, size_t T, size_t head_size,
                               const pq_dropout *dropout, uint64_t first, float *scratch) {
    backward(q, k, v, stride, out, dout, out_stride, lse, dq, dk, dv, dstride, T, head_size, dropout, first,
             scratch, false);
}

/* wide[n][T][head_size] = the rows of x[n], which are stride[n] apart. */
static void widen_rows(const pq_bf16 *const *x, const size_t *stride, size_t n, size_t T, size_t head_size,
                       float *wide) {
    for (size_t i = 0; i < n * T; i++)
        pq_widen_ref(x[i / T] + i % T * stride[i / T], wide + i * head_size, head_size);
}

static void narrow_rows(const float *wide, size_t T, size_t head_size, pq_bf16 *out, size_t stride) {
    for (size_t t = 0; t < T; t++) pq_narrow_ref(wide + t * head_size, out + t * stride, head_size);
}

void pq_attention_forward_bf16_ref(const pq_bf16 *q, const pq_bf16 *k, const pq_bf16 *v, size_t stride,
                                   pq_bf16 *out, size_t out_stride, float *lse, size_t T, size_t head_size,
                                   const pq_dropout *dropout, uint64_t first, float *scratch) {
    size_t n = T * head_size;
    float *wide = scratch, *result = wide + 3 * n;
    widen_rows((const pq_bf16 *[]){q, k, v}, (size_t[]){stride, stride, stride}, 3, T, head_size, wide);
    forward(wide, wide + n, wide + 2 * n, head_size, result, head_size, lse, T, head_size, dropout, first,
            result + n, true);
    narrow_rows(result, T, head_size, out, out_stride);
}

void pq_attention_backward_bf16_ref(const pq_bf16 *q, const pq_bf16 *k, const pq_bf16 *v, size_t stride,
                                    const pq_bf16 *out, const pq_bf16 *dout, size_t out_stride,
                                    const float *lse, pq_bf16 *dq, pq_bf16 *dk, pq_bf16 *dv, size_t dstride,
                                    size_t T, size_t head_size, const pq_dropout *dropout, uint64_t first,
                                    float *scratch) {
    size_t n = T * head_size;
    float *wide = scratch, *result = wide + 5 * n;
    widen_rows((const pq_bf16 *[]){q, k, v, out, dout},
               (size_t[]){stride, stride, stride, out_stride, out_stride}, 5, T, head_size, wide);
    backward(wide, wide + n, wide + 2 * n, head_size, wide + 3 * n, wide + 4 * n, head_size, lse, result,
             result + n, result + 2 * n, head_size, T, head_size, dropout, first, result + 3 * n, true);
    narrow_rows(result, T, head_size, dq, dstride);
    narrow_rows(result + n, T, head_size, dk, dstride);
    narrow_rows(result + 2 * n, T, head_size, dv, dstride);
}
