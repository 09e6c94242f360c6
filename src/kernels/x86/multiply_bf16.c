/* A product of bf16 matrices by AMX. Both factors are laid out in pairs, filled up with 0: A in strips of 32
 * rows, B in panels of 32 columns, a block of panels staying in the L2. Rows of what is stored are read
 * whole, since memory is slow where they are read in pieces. Each element's sum has the same order whatever
 * the product is a part of, as long as that begins at a multiple of 32. */
#include <string.h>

#include "kernels/x86/layout.h"
#include "kernels/x86/tiles.h"

enum {
    SIDE = PQ_MULTIPLY_SIDE,
    DEPTH = PQ_MULTIPLY_DEPTH,
    DEEP = PQ_MULTIPLY_DEEP,
    ROWS = PQ_MULTIPLY_ROWS,
    WIDTH = PQ_MULTIPLY_WIDTH
};
_Static_assert(SIDE == 2 * TILE_ROWS, "blocks are two tiles wide");

/* How a product is cut: `depth` steps of K, `columns` of N and `rows` of M at a time. Of a wide product, C
 * keeps the sums over K. */
typedef struct blocks {
    size_t depth, columns, rows;       /* rows: 0 where all are taken */
    size_t panel, strip, strip_stride; /* floats */
} blocks;

static size_t whole(size_t n) {
    return (n + SIDE - 1) / SIDE * SIDE;
}

static blocks blocks_of(const pq_bf16_product *p) {
    blocks b = {.depth = whole(p->wide ? least(p->K, DEPTH) : p->K), .rows = p->transpose_a ? ROWS : 0};
    b.panel = b.depth / 2 * SIDE;
    size_t panels = PQ_MULTIPLY_PANELS / b.panel;
    b.columns = least(panels ? panels * SIDE : SIDE, whole(p->N));
    b.strip_stride = b.depth / 2 | TILE_ROWS; /* no two rows a multiple of 4096 bytes apart */
    b.strip = SIDE * b.strip_stride;
    return b;
}

/* Panels of op(B); other: scratch of a panel. */
static void make_panels(const pq_bf16_product *p, const blocks *b, size_t k, size_t depth, size_t column,
                        size_t columns, float *other, float *out) {
    size_t steps = least(depth, p->K - k);
    if (!p->transpose_b) {
        interleave(p->B + k * p->ldb + column, p->ldb, steps, columns, depth, whole(columns), SIDE, b->panel,
                   out);
        return;
    }
    for (size_t c = 0; c < columns; c += SIDE) {
        size_t rows = least(SIDE, columns - c);
        if (rows < SIDE) memset(other, 0, depth / 2 * SIDE * sizeof *other);
        pack(p->B + (column + c) * p->ldb + k, p->ldb, rows, steps, depth / 2, other);
        transpose(other, depth / 2, SIDE, depth / 2, out + c / SIDE * b->panel, SIDE);
    }
}

/* `rows` rows of op(A) from row m + i on, neighbours beside each other; of a transpose, from what is
 * interleaved of it from row m on. */
static void make_strip(const pq_bf16_product *p, const blocks *b, const float *interleaved, size_t k,
                       size_t depth, size_t m, size_t i, size_t rows, float *out) {
    if (p->transpose_a) {
        transpose(interleaved + i / SIDE * b->panel, SIDE, depth / 2, SIDE, out, b->strip_stride);
        return;
    }
    for (size_t r = 0; r < rows; r++)
        pack(p->A + (m + i + r) * p->lda + k, p->lda, 1, least(depth, p->K - k), depth / 2,
             out + r * b->strip_stride);
}

/* A block of sums that is still to go to C, as far as C reaches. */
typedef struct block {
    const float *sums; /* [rows][stride] */
    const float *bias; /* NULL: none */
    void *C;           /* the block's first element */
    size_t stride, rows, columns, ldc;
    bool wide, accumulate;
} block;

/* Row r of it, a vector of columns. */
ALWAYS_INLINE vf finished(const block *b, size_t r, size_t c, vm some) {
    vf x = v_load(b->sums + r * b->stride + c);
    size_t at = r * b->ldc + c;
    if (b->bias) x = v_add(x, v_load_some(some, b->bias + c));
    if (!b->accumulate) return x;
    if (b->wide) return v_add(x, v_load_some(some, (const float *)b->C + at));
    return v_add(x,
                 paired(_mm256_setzero_si256(), _mm256_maskz_loadu_epi16(some, (const pq_bf16 *)b->C + at)));
}

ALWAYS_INLINE void finish_row(const block *b, size_t r) {
    vm some[2] = {v_first(b->columns), v_first(b->columns > VL ? b->columns - VL : 0)};
    vf x[2] = {finished(b, r, 0, some[0]), finished(b, r, VL, some[1])};
    if (b->wide) {
        float *to = (float *)b->C + r * b->ldc;
        v_store_some(some[0], to, x[0]);
        v_store_some(some[1], to + VL, x[1]);
    } else {
        pq_bf16 *to = (pq_bf16 *)b->C + r * b->ldc;
        _mm512_mask_storeu_epi16(to, (__mmask32)some[1] << VL | some[0],
                                 (__m512i)_mm512_cvtne2ps_pbh(x[1], x[0]));
    }
}

/* to[SIDE][ldc] (+)= strip panel, while the rows of the block before go to C: tiles and vectors work side by
 * side. */
static void multiply_block(size_t pairs, const float *strip, size_t strip_stride, const float *panel,
                           float *to, size_t ldc, bool accumulate, const block *before) {
    const size_t each = pairs > TILE_ROWS * SIDE ? 1 : (SIDE * TILE_ROWS + pairs - 1) / pairs;
    size_t done = 0;
    tiles_start(to, ldc, accumulate);
    for (size_t p = 0; p < pairs; p += TILE_ROWS) {
        tiles_step(strip + p, strip_stride, panel + p * SIDE, SIDE);
        for (size_t end = least(done + each, before->rows); done < end; done++) finish_row(before, done);
    }
    tiles_store(to, ldc);
}

/* What the rows of A and the panels of a block of K and N add to C. */
static void multiply_strip(const pq_bf16_product *p, const blocks *b, const float *strip, const float *panels,
                           size_t depth, size_t row, size_t column, size_t columns, bool first, float *sums,
                           block *before) {
    for (size_t j = 0; j < columns; j += SIDE) {
        size_t place = row * p->ldc + column + j;
        block now = {.sums = before->sums == sums ? sums + SIDE * SIDE : sums,
                     .bias = first && p->bias ? p->bias + column + j : NULL,
                     .C = p->wide ? (void *)((float *)p->C + place) : (void *)((pq_bf16 *)p->C + place),
                     .stride = SIDE,
                     .rows = least(SIDE, p->M - row),
                     .columns = least(SIDE, p->N - column - j),
                     .ldc = p->ldc,
                     .wide = p->wide,
                     .accumulate = p->accumulate || !first};
        bool direct = p->wide && !now.bias && now.rows == SIDE && now.columns == SIDE;
        float *to = direct ? now.C : (float *)(uintptr_t)now.sums;
        multiply_block(depth / 2, strip, b->strip_stride, panels + j / SIDE * b->panel, to,
                       direct ? p->ldc : SIDE, direct && now.accumulate, before);
        if (direct) now.rows = 0;
        *before = now;
    }
}

static void run(const pq_bf16_product *p, float *scratch) {
    const blocks b = blocks_of(p);
    const size_t most = b.rows ? b.rows : p->M;
    float *panels = scratch, *strips = panels + b.columns / SIDE * b.panel,
          *strip = strips + b.rows / SIDE * b.panel, *other = strip + b.strip, *sums = other + b.panel;
    for (size_t n = 0; n < p->N; n += b.columns)
        for (size_t m = 0; m < p->M; m += most)
            for (size_t k = 0; k < p->K; k += b.depth) {
                size_t steps = least(b.depth, p->K - k), depth = whole(steps),
                       columns = least(b.columns, p->N - n);
                size_t rows = least(most, p->M - m);
                block before = {.rows = 0};
                make_panels(p, &b, k, depth, n, columns, other, panels);
                if (p->transpose_a)
                    interleave(p->A + k * p->lda + m, p->lda, steps, rows, depth, whole(rows), SIDE, b.panel,
                               strips);
                for (size_t i = 0; i < rows; i += SIDE) {
                    make_strip(p, &b, strips, k, depth, m, i, least(SIDE, rows - i), strip);
                    multiply_strip(p, &b, strip, panels, depth, m + i, n, columns, k == 0, sums, &before);
                }
                for (size_t r = 0; r < before.rows; r++) finish_row(&before, r);
            }
}

/* A deep product into bf16, by parts whose sums are kept in fp32. */
static void run_deep(const pq_bf16_product *p, float *scratch) {
    float *sums = scratch, *rest = sums + ROWS * WIDTH;
    for (size_t n = 0; n < p->N; n += WIDTH)
        for (size_t m = 0; m < p->M; m += ROWS) {
            pq_bf16_product part = *p;
            part.wide = true, part.accumulate = false, part.bias = NULL;
            part.A += p->transpose_a ? m : m * p->lda, part.B += p->transpose_b ? n * p->ldb : n;
            part.M = least(ROWS, p->M - m), part.N = least(WIDTH, p->N - n);
            part.C = sums, part.ldc = WIDTH;
            run(&part, rest);
            for (size_t c = 0; c < part.N; c += SIDE) {
                block b = {.sums = sums + c,
                           .bias = p->bias ? p->bias + n + c : NULL,
                           .C = (pq_bf16 *)p->C + m * p->ldc + n + c,
                           .stride = WIDTH,
                           .rows = part.M,
                           .columns = least(SIDE, part.N - c),
                           .ldc = p->ldc,
                           .accumulate = p->accumulate};
                for (size_t r = 0; r < b.rows; r++) finish_row(&b, r);
            }
        }
}

void PQ_ISA_NAME(multiply_bf16)(const pq_bf16_product *p, float *scratch) {
    tiles_begin();
    if (p->K > DEEP && !p->wide)
        run_deep(p, scratch);
    else
        run(p, scratch);
    tiles_end();
}
