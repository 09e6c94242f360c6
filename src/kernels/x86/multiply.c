/* A product of matrices of floats. Sums of 12 rows (6 with AVX2) and two vectors of columns stay in registers
 * while a strip of A is multiplied by a panel of B: B is laid out in panels, a block of them staying in the
 * L2, and A in strips, one at a time. While blocks are multiplied, what the next strip and panels are made of
 * is fetched, a cache line every few steps. Each element's sum has the same order whatever the product is a
 * part of. */
#include <string.h>

#include "kernels/x86/layout.h"

enum {
    ROWS = VL == 16 ? 12 : 6,
    SIDE = 2 * VL,
    DEPTH = 256,            /* steps of K at a time */
    DEPTH_TRANSPOSED = 128, /* the same with a transposed A, of whose rows BLOCK columns are in use */
    BLOCK = 384,
    PANELS = 1 << 17,    /* floats of a block of panels */
    STRIDE = DEPTH + 16, /* of a strip's rows: no two a multiple of 1024 bytes apart */
    STEPS = 4,           /* between two lines that are fetched */
    LINE = 16
};
_Static_assert(PANELS + ROWS * STRIDE + VL <= PQ_MULTIPLY_SCRATCH, "panels and a strip");
_Static_assert(DEPTH_TRANSPOSED <= DEPTH, "strips have room for both");

/* Rows of what is stored, and how far they have been fetched. */
typedef struct piece {
    const float *x;
    size_t stride, rows, columns, at;
} piece;

static piece piece_of(const float *x, size_t stride, bool transpose, size_t row, size_t column, size_t rows,
                      size_t columns) {
    if (rows == 0 || columns == 0) return (piece){.rows = 0};
    if (transpose) return piece_of(x, stride, false, column, row, columns, rows);
    return (piece){.x = x + row * stride + column, .stride = stride, .rows = rows, .columns = columns};
}

ALWAYS_INLINE void fetch_line(piece *p) {
    if (p->rows == 0) return;
    _mm_prefetch((const char *)(p->x + p->at), _MM_HINT_T1);
    p->at += LINE;
    if (p->at < p->columns) return;
    p->at = 0;
    p->x += p->stride;
    p->rows--;
}

ALWAYS_INLINE vf load_left(const float *x, size_t columns, size_t c) {
    return columns >= c + VL ? v_load(x + c)
           : c < columns     ? v_load_some(v_first(columns - c), x + c)
                             : v_zero();
}

/* out[columns / SIDE][depth][SIDE]: panels of op(B), the last one filled up with 0. */
static void make_panels(const pq_float_product *p, size_t k, size_t depth, size_t n, size_t columns,
                        float *out) {
    if (p->transpose_b) {
        for (size_t c = 0; c < columns; c += SIDE) {
            size_t rows = least(SIDE, columns - c);
            if (rows < SIDE) memset(out + c * depth, 0, depth * SIDE * sizeof *out);
            transpose(p->B + (n + c) * p->ldb + k, p->ldb, rows, depth, out + c * depth, SIDE);
        }
        return;
    }
    for (size_t r = 0; r < depth; r++) /* whole rows: memory is slow where they are read in pieces */
        for (size_t c = 0; c < columns; c += VL)
            v_store(out + c / SIDE * SIDE * depth + r * SIDE + c % SIDE,
                    load_left(p->B + (k + r) * p->ldb + n, columns, c));
    if (columns % SIDE > 0 && columns % SIDE <= VL)
        for (size_t r = 0; r < depth; r++)
            v_store(out + columns / SIDE * SIDE * depth + r * SIDE + VL, v_zero());
}

/* Rows as they are stored, `stride` apart: each row of op(A), or ROWS numbers for each step of K. */
static void make_strip(const piece *from, size_t stride, float *out) {
    for (size_t r = 0; r < from->rows; r++)
        for (size_t c = 0; c < from->columns; c += VL)
            v_store(out + r * stride + c, load_left(from->x + r * from->stride, from->columns, c));
}

/* Part of C, and the steps of K that are added to it. */
typedef struct block {
    size_t m, n, rows, columns, k, depth;
} block;

ALWAYS_INLINE void multiply_step(vf sums[ROWS][2], const float *a, size_t row_step, const float *b) {
    vf left = v_load(b), right = v_load(b + VL);
#pragma GCC unroll 12
    for (size_t r = 0; r < ROWS; r++) {
        vf x = v_set(a[r * row_step]);
        sums[r][0] = v_fma(x, left, sums[r][0]);
        sums[r][1] = v_fma(x, right, sums[r][1]);
    }
}

/* Number r of step k of the strip lies at r row_step + k k_step, both known to the compiler. */
ALWAYS_INLINE void multiply_block(const pq_float_product *p, const block *b, const float *strip,
                                  size_t row_step, size_t k_step, const float *panel, piece *wanted) {
    vf sums[ROWS][2];
    piece w = *wanted;
    float *C = p->C + b->m * p->ldc + b->n;
    size_t k = 0;
#pragma GCC unroll 12
    for (size_t r = 0; r < ROWS; r++) {
        const float *row = C + (r < b->rows ? r * p->ldc : 0);
        _mm_prefetch((const char *)row, _MM_HINT_T0);
        _mm_prefetch((const char *)(row + VL), _MM_HINT_T0);
        sums[r][0] = sums[r][1] = v_zero();
    }
    for (; k + STEPS <= b->depth; k += STEPS) {
        fetch_line(&w);
#pragma GCC unroll 8
        for (size_t i = k; i < k + STEPS; i++)
            multiply_step(sums, strip + i * k_step, row_step, panel + i * SIDE);
    }
    for (; k < b->depth; k++) multiply_step(sums, strip + k * k_step, row_step, panel + k * SIDE);
    *wanted = w;
    const vm some[2] = {v_first(b->columns), v_first(b->columns > VL ? b->columns - VL : 0)};
    const bool add = p->accumulate || b->k > 0, bias = p->bias && b->k == 0;
#pragma GCC unroll 12
    for (size_t r = 0; r < ROWS; r++)
        if (r < b->rows)
#pragma GCC unroll 2
            for (size_t h = 0; h < 2; h++) {
                float *to = C + r * p->ldc + h * VL;
                vf x = sums[r][h];
                if (bias) x = v_add(x, v_load_some(some[h], p->bias + b->n + h * VL));
                if (add) x = v_add(x, v_load_some(some[h], to));
                v_store_some(some[h], to, x);
            }
}

/* Rows m to m + rows of A by the panels from column n on. */
static void multiply_strip(const pq_float_product *p, const block *strip, const float *numbers,
                           const float *panels, piece wanted[2]) {
    for (size_t j = 0; j < strip->columns; j += SIDE) {
        block b = *strip;
        b.n += j, b.columns = least(SIDE, strip->columns - j);
        piece *w = wanted[0].rows ? &wanted[0] : &wanted[1];
        if (p->transpose_a)
            multiply_block(p, &b, numbers, 1, ROWS, panels + j * b.depth, w);
        else
            multiply_block(p, &b, numbers, STRIDE, 1, panels + j * b.depth, w);
    }
}

/* The blocks in their order: of K, of rows, of columns. None is left: depth 0. */
static block block_at(const pq_float_product *p, size_t m, size_t n, size_t k) {
    const size_t depth = p->transpose_a ? DEPTH_TRANSPOSED : DEPTH;
    return (block){.m = m,
                   .n = n,
                   .k = k,
                   .rows = least(p->transpose_a ? BLOCK : p->M, p->M - m),
                   .columns = least(PANELS / depth / SIDE * SIDE, p->N - n),
                   .depth = least(depth, p->K - k)};
}

static block block_after(const pq_float_product *p, const block *b) {
    if (b->k + b->depth < p->K) return block_at(p, b->m, b->n, b->k + b->depth);
    if (b->m + b->rows < p->M) return block_at(p, b->m + b->rows, b->n, 0);
    if (b->n + b->columns < p->N) return block_at(p, 0, b->n + b->columns, 0);
    return (block){.depth = 0};
}

static piece piece_of_a(const pq_float_product *p, const block *b, size_t from, size_t rows) {
    return from < b->rows ? piece_of(p->A, p->lda, p->transpose_a, b->m + from, b->k,
                                     least(rows, b->rows - from), b->depth)
                          : (piece){.rows = 0};
}

static void multiply_panels(const pq_float_product *p, const block *all, const block *next, float *panels,
                            float *strip) {
    piece wanted[2] = {piece_of_a(p, next, 0, p->transpose_a ? next->rows : 0),
                       piece_of(p->B, p->ldb, p->transpose_b, next->k, next->n, next->depth, next->columns)};
    make_panels(p, all->k, all->depth, all->n, all->columns, panels);
    for (size_t i = 0; i < all->rows; i += ROWS) {
        block b = *all;
        b.m += i, b.rows = least(ROWS, all->rows - i);
        piece now = piece_of_a(p, all, i, ROWS);
        make_strip(&now, p->transpose_a ? ROWS : STRIDE, strip);
        if (!p->transpose_a)
            wanted[0] =
                i + ROWS < all->rows ? piece_of_a(p, all, i + ROWS, ROWS) : piece_of_a(p, next, 0, ROWS);
        multiply_strip(p, &b, strip, panels, wanted);
    }
}

void PQ_ISA_NAME(multiply)(const pq_float_product *p, float *scratch) {
    float *strip = scratch + PANELS;
    memset(strip, 0, (ROWS * STRIDE + VL) * sizeof *strip); /* rows beyond M are multiplied, too */
    block now = p->M && p->N ? block_at(p, 0, 0, 0) : (block){.depth = 0};
    for (block next; now.depth; now = next) {
        next = block_after(p, &now);
        multiply_panels(p, &now, &next, scratch, strip);
    }
}
