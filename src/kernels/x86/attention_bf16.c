/* Causal attention of one head in bf16, by AVX512_BF16 or by AMX's tiles: the way of attention.c, with
 * products that take two steps of their inner dimension at a time. A lane of both factors is a pair of bf16
 * beside each other in that dimension: of A, neighbours in a row; of B, two rows, or where B is a transpose
 * neighbours in a row of what is transposed. What is missing of a pair, of a block and of a head of fewer
 * columns than fill a tile is 0. Scores, sums and the gradients that grow over blocks are fp32; probabilities
 * and the gradients of scores are rounded to bf16 where they are multiplied. */
#include "kernels/x86/attention.h"
#include "kernels/x86/tiles.h"

/* In scratch, of pairs where not said otherwise; padded = T rounded up to 64, columns = head_size to 32. */
typedef struct places {
    size_t padded, columns, pairs;      /* pairs: of a row of columns */
    float *scores, *gradients;          /* floats [BLOCK][padded] */
    float *rows;                        /* neighbours in a row: [BLOCK][padded / 2] */
    float *row_pairs[2];                /* in two rows: [BLOCK / 2][padded] */
    float *k_transposed, *v_transposed; /* [pairs][padded] */
    float *interleaved;       /* rows 2 i and 2 i + 1 of V or, backward, of K: [padded / 2][columns] */
    float *packed;            /* [T][pairs] */
    float *q, *g, *o;         /* of a block: [BLOCK][pairs] */
    float *block_interleaved; /* [BLOCK / 2][columns] */
    float *q_transposed, *g_transposed; /* [columns][BLOCK / 2] */
    float *block;                       /* floats [BLOCK][columns] */
    float *dk, *dv;                     /* transposed: floats [columns][padded] */
    float *mask, *ones;                 /* floats [padded] */
} places;

static places lay_out(float *scratch, size_t T, size_t head_size) {
    places p = {.padded = (T + 63) / 64 * 64, .columns = (head_size + 31) / 32 * 32};
    p.pairs = p.columns / 2;
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
                 {&p.interleaved, p.padded / 2 * p.columns},
                 {&p.packed, T * p.pairs},
                 {&p.q, BLOCK * p.pairs},
                 {&p.g, BLOCK * p.pairs},
                 {&p.o, BLOCK * p.pairs},
                 {&p.block_interleaved, BLOCK / 2 * p.columns},
                 {&p.q_transposed, BLOCK / 2 * p.columns},
                 {&p.g_transposed, BLOCK / 2 * p.columns},
                 {&p.block, BLOCK * p.columns},
                 {&p.dk, p.padded * p.columns},
                 {&p.dv, p.padded * p.columns},
                 {&p.mask, p.padded},
                 {&p.ones, p.padded}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) *parts[i].place = at, at += parts[i].floats;
    return p;
}

/* out[columns][padded] = neighbours in the rows of x, transposed. */
static void transpose_pairs(const places *s, const pq_bf16 *x, size_t stride, size_t T, size_t head_size,
                            float *out) {
    pack(x, stride, T, head_size, s->pairs, s->packed);
    transpose(s->packed, s->pairs, T, s->pairs, out, s->padded);
}

/* out[columns][BLOCK / 2] = neighbours in the columns of a block of x. */
static void transpose_block(const places *s, const pq_bf16 *x, size_t stride, size_t rows, size_t head_size,
                            float *out) {
    interleave(x, stride, rows, head_size, BLOCK, s->columns, s->columns, 0, s->block_interleaved);
    transpose(s->block_interleaved, s->columns, BLOCK / 2, s->columns, out, BLOCK / 2);
}

/* out[n] = x * factor */
ALWAYS_INLINE void narrow(const float *x, float factor, size_t n, pq_bf16 *out) {
    for (size_t j = 0; j < n; j += VL) {
        vm some = v_first(n - j);
        _mm256_mask_storeu_epi16(out + j, some, narrowed(v_mul(v_load_some(some, x + j), v_set(factor))));
    }
}

/* out[rows][stride] = the first n of the rows of x, `columns` apart. */
static void narrow_rows(const float *x, size_t columns, size_t rows, size_t n, pq_bf16 *out, size_t stride) {
    for (size_t r = 0; r < rows; r++) narrow(x + r * columns, 1, n, out + r * stride);
}

/* out[T][stride] = transpose of x[columns][padded] */
static void narrow_transposed(const places *s, const float *x, size_t T, size_t head_size, pq_bf16 *out,
                              size_t stride) {
    for (size_t t = 0; t < T; t += BLOCK) {
        transpose(x + t, s->padded, s->columns, BLOCK, s->block, s->columns);
        narrow_rows(s->block, s->columns, least(BLOCK, T - t), head_size, out + t * stride, stride);
    }
}

/* out[BLOCK / 2][stride] = rows 2 i and 2 i + 1 of the first n (whole vectors) of each row of x, 0 beyond
 * them. */
static void pair_rows(const float *x, size_t stride, size_t rows, size_t n, float *out) {
    for (size_t r = 0; r < BLOCK; r += 2)
        for (size_t j = 0; j < n; j += VL) {
            const float *from = x + r * stride + j;
            vf first = r < rows ? v_load(from) : v_zero();
            vf second = r + 1 < rows ? v_load(from + stride) : v_zero();
            v_store(out + r / 2 * stride + j, paired(narrowed(first), narrowed(second)));
        }
}

ALWAYS_INLINE pq_bf16 *halves(float *pairs) {
    return (pq_bf16 *)(void *)pairs;
}

/* C[m][n] (+)= A[m][k] B[k][n] of pairs. */
static inline void multiply(size_t m, size_t n, size_t k, const float *A, size_t lda, const float *B,
                            size_t ldb, float *C, size_t ldc, bool accumulate) {
#ifdef PQ_AMX
    tiles_multiply(m, n, k, A, lda, B, ldb, C, ldc, accumulate);
#else
    product(m, n, k, A, lda, 1, B, ldb, C, ldc, accumulate);
#endif
}

void PQ_ISA_NAME(attention_forward_bf16)(const pq_bf16 *q, const pq_bf16 *k, const pq_bf16 *v, size_t stride,
                                         pq_bf16 *out, size_t out_stride, float *lse, size_t T,
                                         size_t head_size, const pq_dropout *dropout, uint64_t first,
                                         float *scratch) {
    places s = lay_out(scratch, T, head_size);
    const float scale = 1.0f / sqrtf((float)head_size);
    transpose_pairs(&s, k, stride, T, head_size, s.k_transposed);
    interleave(v, stride, T, head_size, s.padded, s.columns, s.columns, 0, s.interleaved);
    tiles_begin();
    for (size_t i0 = 0; i0 < T; i0 += BLOCK) {
        size_t rows = least(BLOCK, T - i0), end = i0 + BLOCK;
        pack(q + i0 * stride, stride, rows, head_size, s.pairs, s.q);
        multiply(BLOCK, end, s.pairs, s.q, s.pairs, s.k_transposed, s.padded, s.scores, s.padded, false);
        for (size_t r = 0; r < rows; r++) {
            size_t i = i0 + r;
            float *p = s.scores + r * s.padded;
            float sum = softmax_row(p, i + 1, end, scale, lse + i, dropout, first + i * s.padded);
            narrow(p, 1.0f / sum, end, halves(s.rows) + r * s.padded);
        }
        multiply(BLOCK, s.columns, end / 2, s.rows, s.padded / 2, s.interleaved, s.columns, s.block,
                 s.columns, false);
        narrow_rows(s.block, s.columns, rows, head_size, out + i0 * out_stride, out_stride);
    }
    tiles_end();
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
    interleave(k, stride, T, head_size, s.padded, s.columns, s.columns, 0, s.interleaved);
    memset(s.dk, 0, s.padded * s.columns * sizeof *s.dk);
    memset(s.dv, 0, s.padded * s.columns * sizeof *s.dv);
    for (size_t i = 0; i < T; i++) s.ones[i] = 1.0f;
    tiles_begin();
    for (size_t i0 = 0; i0 < T; i0 += BLOCK) {
        size_t rows = least(BLOCK, T - i0), end = i0 + BLOCK;
        const pq_bf16 *qs = q + i0 * stride, *gs = dout + i0 * out_stride;
        pack(qs, stride, rows, head_size, s.pairs, s.q);
        pack(gs, out_stride, rows, head_size, s.pairs, s.g);
        pack(out + i0 * out_stride, out_stride, rows, head_size, s.pairs, s.o);
        multiply(BLOCK, end, s.pairs, s.q, s.pairs, s.k_transposed, s.padded, s.scores, s.padded, false);
        multiply(BLOCK, end, s.pairs, s.g, s.pairs, s.v_transposed, s.padded, s.gradients, s.padded, false);
        for (size_t r = 0; r < rows; r++) {
            size_t i = i0 + r;
            float *p = s.scores + r * s.padded, *dp = s.gradients + r * s.padded;
            vf inner = v_zero();
            for (size_t c = 0; c < s.pairs; c += VL)
                inner = v_pairs_dot(v_load(s.o + r * s.pairs + c), v_load(s.g + r * s.pairs + c), inner);
            softmax_row_backward(p, dp, i + 1, end, scale, lse[i], v_sum(inner), dropout,
                                 first + i * s.padded, s.ones, s.mask);
            narrow(dp, 1, end, halves(s.rows) + r * s.padded);
        }
        pair_rows(s.scores, s.padded, rows, end, s.row_pairs[0]);
        pair_rows(s.gradients, s.padded, rows, end, s.row_pairs[1]);
        transpose_block(&s, gs, out_stride, rows, head_size, s.g_transposed);
        transpose_block(&s, qs, stride, rows, head_size, s.q_transposed);
        multiply(s.columns, end, BLOCK / 2, s.g_transposed, BLOCK / 2, s.row_pairs[0], s.padded, s.dv,
                 s.padded, true);
        multiply(s.columns, end, BLOCK / 2, s.q_transposed, BLOCK / 2, s.row_pairs[1], s.padded, s.dk,
                 s.padded, true);
        multiply(BLOCK, s.columns, end / 2, s.rows, s.padded / 2, s.interleaved, s.columns, s.block,
                 s.columns, false);
        narrow_rows(s.block, s.columns, rows, head_size, dq + i0 * dstride, dstride);
    }
    tiles_end();
    narrow_transposed(&s, s.dk, T, head_size, dk, dstride);
    narrow_transposed(&s, s.dv, T, head_size, dv, dstride);
}
