/* Causal attention of one head in bf16, by AVX512_BF16: the way of attention.c, with products that take two
 * steps of their inner dimension at a time. A lane of both factors is a pair of bf16 beside each other in
 * that dimension: of A, neighbours in a row; of B, two rows, or where B is a transpose neighbours in a row of
 * what is transposed. An odd one is paired with 0. Scores, sums and the gradients that grow over blocks are
 * fp32; probabilities and the gradients of scores are rounded to bf16 where they are multiplied. */
#include "kernels/x86/attention.h"

/* In scratch, of pairs [..] where not said otherwise; padded = T rounded up to 64. */
typedef struct places {
    size_t padded, pairs;               /* pairs: of a row of head_size */
    float *scores, *gradients;          /* floats [BLOCK][padded] */
    float *rows;                        /* neighbours in a row: [BLOCK][padded / 2] */
    float *row_pairs[2];                /* in two rows: [BLOCK / 2][padded] */
    float *k_transposed, *v_transposed; /* [pairs][padded] */
    float *interleaved; /* rows 2 i and 2 i + 1 of V or, backward, of K: [padded / 2][head_size] */
    float *packed;      /* [T][pairs] */
    float *q, *g, *o;   /* of a block: [BLOCK][pairs] */
    float *q_interleaved, *g_interleaved; /* [BLOCK / 2][head_size] */
    float *block;                         /* floats [BLOCK][head_size] */
    float *dk, *dv;                       /* floats [T][head_size] */
    float *mask, *ones;                   /* floats [padded] */
} places;

static places lay_out(float *scratch, size_t T, size_t head_size) {
    places p = {.padded = (T + 63) / 64 * 64, .pairs = (head_size + 1) / 2};
    float *at = scratch;
    const struct {
        float **place;
        size_t floats;
    } parts[] = {{&p.scores, BLOCK * p.padded},
                 {&p.gradients, BLOCK * p.padded},
                 {&p.rows, BLOCK * p.padded / 2},
                 {&p.row_pairs[0], BLOCK * p.padded / 2},
                 {&p.row_pairs[1], BLOCK * p.padded / 2},
                 {&p.k_transposed, p.pairs * p.padded},
                 {&p.v_transposed, p.pairs * p.padded},
                 {&p.interleaved, p.padded / 2 * head_size},
                 {&p.packed, T * p.pairs},
                 {&p.q, BLOCK * p.pairs},
                 {&p.g, BLOCK * p.pairs},
                 {&p.o, BLOCK * p.pairs},
                 {&p.q_interleaved, BLOCK / 2 * head_size},
                 {&p.g_interleaved, BLOCK / 2 * head_size},
                 {&p.block, BLOCK * head_size},
                 {&p.dk, T * head_size},
                 {&p.dv, T * head_size},
                 {&p.mask, p.padded},
                 {&p.ones, p.padded}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) *parts[i].place = at, at += parts[i].floats;
    return p;
}

/* out[rows][(columns + 1) / 2] = neighbours in the rows of x. */
static void pack(const pq_bf16 *x, size_t stride, size_t rows, size_t columns, float *out) {
    size_t pairs = (columns + 1) / 2;
    for (size_t r = 0; r < rows; r++) {
        pq_bf16 *to = (pq_bf16 *)(void *)(out + r * pairs);
        memcpy(to, x + r * stride, columns * sizeof *x);
        if (columns % 2) to[columns] = 0;
    }
}

/* Lanes of neighbours, the first in the lower half. */
ALWAYS_INLINE vf paired(__m256i first, __m256i second) {
    return v_from_bits(v_ior(_mm512_cvtepu16_epi32(first), v_shift_left(_mm512_cvtepu16_epi32(second), 16)));
}

/* out[(rows + 1) / 2][columns] = rows 2 i and 2 i + 1 of x. */
static void interleave(const pq_bf16 *x, size_t stride, size_t rows, size_t columns, float *out) {
    for (size_t r = 0; r < rows; r += 2)
        for (size_t c = 0; c < columns; c += VL) {
            vm some = v_first(columns - c);
            const pq_bf16 *from = x + r * stride + c;
            bool last = r + 1 == rows; /* an odd one */
            __m256i second = _mm256_maskz_loadu_epi16(last ? 0 : some, last ? from : from + stride);
            v_store_some(some, out + r / 2 * columns + c,
                         paired(_mm256_maskz_loadu_epi16(some, from), second));
        }
}

/* out[columns][padded] = neighbours in the rows of x, transposed. */
static void transpose_pairs(const places *s, const pq_bf16 *x, size_t stride, size_t T, size_t head_size,
                            float *out) {
    pack(x, stride, T, head_size, s->packed);
    transpose(s->packed, s->pairs, T, s->pairs, out, s->padded);
}

ALWAYS_INLINE __m256i narrowed(vf x) {
    return (__m256i)_mm512_cvtneps_pbh(x);
}

/* out[n] = x * factor */
ALWAYS_INLINE void narrow(const float *x, float factor, size_t n, pq_bf16 *out) {
    for (size_t j = 0; j < n; j += VL) {
        vm some = v_first(n - j);
        _mm256_mask_storeu_epi16(out + j, some, narrowed(v_mul(v_load_some(some, x + j), v_set(factor))));
    }
}

static void narrow_rows(const float *x, size_t rows, size_t columns, pq_bf16 *out, size_t stride) {
    for (size_t r = 0; r < rows; r++) narrow(x + r * columns, 1, columns, out + r * stride);
}

/* out[(rows + 1) / 2][stride] = rows 2 i and 2 i + 1 of the first n of each row of x[rows][stride]. */
static void pair_rows(const float *x, size_t stride, size_t rows, size_t n, float *out) {
    for (size_t r = 0; r < rows; r += 2)
        for (size_t j = 0; j < n; j += VL) { /* rows are padded */
            const float *from = x + r * stride + j;
            vf second = r + 1 < rows ? v_load(from + stride) : v_zero();
            v_store(out + r / 2 * stride + j, paired(narrowed(v_load(from)), narrowed(second)));
        }
}

ALWAYS_INLINE pq_bf16 *halves(float *pairs) {
    return (pq_bf16 *)(void *)pairs;
}

void PQ_ISA_NAME(attention_forward_bf16)(const pq_bf16 *q, const pq_bf16 *k, const pq_bf16 *v, size_t stride,
                                         pq_bf16 *out, size_t out_stride, float *lse, size_t T,
                                         size_t head_size, const pq_dropout *dropout, uint64_t first,
                                         float *scratch) {
    places s = lay_out(scratch, T, head_size);
    const float scale = 1.0f / sqrtf((float)head_size);
    transpose_pairs(&s, k, stride, T, head_size, s.k_transposed);
    interleave(v, stride, T, head_size, s.interleaved);
    for (size_t i0 = 0; i0 < T; i0 += BLOCK) {
        size_t rows = least(BLOCK, T - i0), keys = i0 + rows, even = (keys + 1) / 2 * 2;
        pack(q + i0 * stride, stride, rows, head_size, s.q);
        product(rows, keys, s.pairs, s.q, s.pairs, 1, s.k_transposed, s.padded, s.scores, s.padded, false);
        for (size_t r = 0; r < rows; r++) {
            size_t i = i0 + r;
            float *p = s.scores + r * s.padded;
            float sum = softmax_row(p, i + 1, even, scale, lse + i, dropout, first + i * s.padded);
            narrow(p, 1.0f / sum, even, halves(s.rows) + r * s.padded);
        }
        product(rows, head_size, even / 2, s.rows, s.padded / 2, 1, s.interleaved, head_size, s.block,
                head_size, false);
        narrow_rows(s.block, rows, head_size, out + i0 * out_stride, out_stride);
    }
}

void PQ_ISA_NAME(attention_backward_bf16)(const pq_bf16 *q, const pq_bf16 *k, const pq_bf16 *v, size_t stride,
                                          const pq_bf16 *out, const pq_bf16 *dout, size_t out_stride,
                                          const float *lse, pq_bf16 *dq, pq_bf16 *dk, pq_bf16 *dv,
                                          size_t dstride, size_t T, size_t head_size,
                                          const pq_dropout *dropout, uint64_t first, float *scratch) {
    places s = lay_out(scratch, T, head_size);
    const float scale = 1.0f / sqrtf((float)head_size);
    transpose_pairs(&s, k, stride, T, head_size, s.k_transposed);
    transpose_pairs(&s, v, stride, T, head_size, s.v_transposed);
    interleave(k, stride, T, head_size, s.interleaved);
    memset(s.dk, 0, T * head_size * sizeof *s.dk);
    memset(s.dv, 0, T * head_size * sizeof *s.dv);
    for (size_t i = 0; i < T; i++) s.ones[i] = 1.0f;
    for (size_t i0 = 0; i0 < T; i0 += BLOCK) {
        size_t rows = least(BLOCK, T - i0), keys = i0 + rows, even = (keys + 1) / 2 * 2, two = (rows + 1) / 2;
        const pq_bf16 *qs = q + i0 * stride, *gs = dout + i0 * out_stride;
        pack(qs, stride, rows, head_size, s.q), interleave(qs, stride, rows, head_size, s.q_interleaved);
        pack(gs, out_stride, rows, head_size, s.g),
            interleave(gs, out_stride, rows, head_size, s.g_interleaved);
        pack(out + i0 * out_stride, out_stride, rows, head_size, s.o);
        product(rows, keys, s.pairs, s.q, s.pairs, 1, s.k_transposed, s.padded, s.scores, s.padded, false);
        product(rows, keys, s.pairs, s.g, s.pairs, 1, s.v_transposed, s.padded, s.gradients, s.padded, false);
        for (size_t r = 0; r < rows; r++) {
            size_t i = i0 + r;
            float *p = s.scores + r * s.padded, *dp = s.gradients + r * s.padded;
            vf inner = v_zero();
            for (size_t c = 0; c < s.pairs; c += VL) {
                vm some = v_first(s.pairs - c);
                inner = v_pairs_dot(v_load_some(some, s.o + r * s.pairs + c),
                                    v_load_some(some, s.g + r * s.pairs + c), inner);
            }
            softmax_row_backward(p, dp, i + 1, even, scale, lse[i], v_sum(inner), dropout,
                                 first + i * s.padded, s.ones, s.mask);
            narrow(dp, 1, even, halves(s.rows) + r * s.padded);
        }
        pair_rows(s.scores, s.padded, rows, keys, s.row_pairs[0]);
        pair_rows(s.gradients, s.padded, rows, keys, s.row_pairs[1]);
        product(keys, head_size, two, s.row_pairs[0], 1, s.padded, s.g_interleaved, head_size, s.dv,
                head_size, true);
        product(keys, head_size, two, s.row_pairs[1], 1, s.padded, s.q_interleaved, head_size, s.dk,
                head_size, true);
        product(rows, head_size, even / 2, s.rows, s.padded / 2, 1, s.interleaved, head_size, s.block,
                head_size, false);
        narrow_rows(s.block, rows, head_size, dq + i0 * dstride, dstride);
    }
    narrow_rows(s.dk, T, head_size, dk, dstride);
    narrow_rows(s.dv, T, head_size, dv, dstride);
}
