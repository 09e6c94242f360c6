/* Owns what follows GPTQ: scales fitted to the values found, and descent by single weights. All steps keep R
 * = (W - Q) H, from which the best change of a scale or of a weight is read at once. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/threads.h"
#include "kernels/gemm.h"
#include "train/ptq/gptq.h"

enum { ROUNDS = 2, SWEEPS = 4, TILE_ROWS = 32 };

typedef struct work {
    const pq_gptq_problem *problem;
    const float *W; /* the matrix as it was */
    float *latent, *Q, *R, *scales;
    const pq_scale_grid *grid;
    size_t segment,
        length; /* the stretch of a row whose scale is being fitted: its first column, its columns */
    double *numerator, *denominator; /* [rows], of the scale's change */
    float *factor;                   /* [rows]: new scale by old one */
    float *scratch;                  /* [threads][TILE_ROWS][length] */
} work;

static size_t tile_rows(const work *k, size_t tile) {
    size_t left = k->problem->rows - tile * TILE_ROWS;
    return left < TILE_ROWS ? left : TILE_ROWS;
}

static void over_tiles(work *k, void (*tile)(void *context, size_t i)) {
    pq_parallel_for((k->problem->rows + TILE_ROWS - 1) / TILE_ROWS, tile, k);
}

/* R = (W - Q) H. */
static void start_tile(void *context, size_t tile) {
    const work *k = context;
    size_t n = k->problem->columns, row = tile * TILE_ROWS, rows = tile_rows(k, tile);
    float *d = k->scratch + (size_t)pq_thread_index() * TILE_ROWS * n;
    for (size_t i = 0; i < rows * n; i++) d[i] = k->W[row * n + i] - k->Q[row * n + i];
    pq_gemm_serial(&(pq_float_product){.M = rows,
                                       .N = n,
                                       .K = n,
                                       .lda = n,
                                       .ldb = n,
                                       .ldc = n,
                                       .A = d,
                                       .B = k->problem->H,
                                       .C = k->R + row * n});
}

/* With q the values of a segment, the rest 0: q H (W - Q)^T and q H q^T, row by row. */
static void sums_tile(void *context, size_t tile) {
    const work *k = context;
    size_t n = k->problem->columns, row = tile * TILE_ROWS, rows = tile_rows(k, tile), s = k->segment;
    float *g = k->scratch + (size_t)pq_thread_index() * TILE_ROWS * n;
    pq_gemm_serial(&(pq_float_product){.M = rows,
                                       .N = k->length,
                                       .K = k->length,
                                       .lda = n,
                                       .ldb = n,
                                       .ldc = k->length,
                                       .A = k->Q + row * n + s,
                                       .B = k->problem->H + s * n + s,
                                       .C = g});
    for (size_t r = 0; r < rows; r++) {
        const float *q = k->Q + (row + r) * n + s, *e = k->R + (row + r) * n + s;
        double numerator = 0, denominator = 0;
        for (size_t i = 0; i < k->length; i++) {
            numerator += (double)q[i] * (double)e[i];
            denominator += (double)q[i] * (double)g[r * k->length + i];
        }
        k->numerator[row + r] = numerator, k->denominator[row + r] = denominator;
    }
}

/* The values of a segment with their new scale: the same codes. */
static void rescale_tile(void *context, size_t tile) {
    const work *k = context;
    size_t n = k->problem->columns, row = tile * TILE_ROWS, rows = tile_rows(k, tile), s = k->segment;
    float *change = k->scratch + (size_t)pq_thread_index() * TILE_ROWS * n;
    for (size_t r = 0; r < rows; r++) {
        float *q = k->Q + (row + r) * n + s, *c = change + r * k->length, factor = k->factor[row + r];
        memcpy(c, q, k->length * sizeof *c);
        if (factor != 1) {
            for (size_t i = 0; i < k->length; i++) q[i] *= factor;
            /* They are a rounding off their levels. */
            pq_fake_quantize(k->problem->codebook, q, k->scales[((row + r) * n + s) / k->problem->group], q,
                             k->length);
        }
        for (size_t i = 0; i < k->length; i++) c[i] -= q[i];
    }
    pq_gemm_serial(&(pq_float_product){.accumulate = true,
                                       .M = rows,
                                       .N = n,
                                       .K = k->length,
                                       .lda = k->length,
                                       .ldb = n,
                                       .ldc = n,
                                       .A = change,
                                       .B = k->problem->H + s * n,
                                       .C = k->R + row * n});
}

/* The scale of rows [first, end), on the grid, where that is better; the error falls by 2 f numerator - f^2
 * denominator. */
static void fit_scale(work *k, size_t index, size_t first, size_t end) {
    double numerator = 0, denominator = 0;
    for (size_t r = first; r < end; r++) numerator += k->numerator[r], denominator += k->denominator[r];
    double f = denominator > 0 ? numerator / denominator : 0, scale = (double)k->scales[index];
    if (f > 1) f = 1;
    if (f < -0.5) f = -0.5;
    float fitted = pq_scale_to_grid((float)(scale * (1 + f)), *k->grid);
    f = (double)fitted / scale - 1;
    if (!(2 * f * numerator - f * f * denominator > 0) || !isfinite(fitted)) fitted = k->scales[index], f = 0;
    for (size_t r = first; r < end; r++) k->factor[r] = (float)(1 + f);
    k->scales[index] = fitted;
}

/* Every scale once, segment after segment: those of one segment do not touch each other. */
static void fit_scales(work *k) {
    const pq_gptq_problem *p = k->problem;
    size_t n = p->columns, tall = p->group > n ? p->group / n : 1;
    k->length = p->group < n ? p->group : n;
    for (k->segment = 0; k->segment < n; k->segment += k->length) {
        over_tiles(k, sums_tile);
        for (size_t r = 0; r < p->rows; r += tall) fit_scale(k, (r * n + k->segment) / p->group, r, r + tall);
        over_tiles(k, rescale_tile);
    }
}

/* Each weight to the level of where the error is least while all others stay, if that is better (the nearest
 * level is; quantizers that round otherwise may find a worse one). */
static void sweep_tile(void *context, size_t tile) {
    const work *k = context;
    const pq_gptq_problem *p = k->problem;
    size_t n = p->columns, row = tile * TILE_ROWS, rows = tile_rows(k, tile);
    for (size_t r = row; r < row + rows; r++) {
        float *R = k->R + r * n;
        for (size_t j = 0; j < n; j++) {
            const float *h = p->H + j * n;
            size_t place = r * n + j;
            float best = k->Q[place] + R[j] / h[j], q;
            pq_fake_quantize(p->codebook, &best, k->scales[place / p->group], &q, 1);
            float change = q - k->Q[place];
            bool better = change * (change * h[j] - 2 * R[j]) < 0;
            k->latent[place] = better || change == 0 ? best : k->Q[place];
            if (!better) continue;
            pq_gemm_axpy(n, -change, h, R);
            k->Q[place] = q;
        }
    }
}

/* GPTQ from the start with the scales as they are, and R of its values. */
static pq_status round_anew(work *k, pq_error *err) {
    const pq_gptq_problem *p = k->problem;
    memcpy(k->latent, k->W, p->rows * p->columns * sizeof(float));
    PQ_TRY(pq_gptq(p, k->scales, k->latent, err));
    pq_matrix_fake_quantize(p->codebook, k->latent, p->rows, p->columns, p->group, k->scales, k->Q);
    over_tiles(k, start_tile);
    return PQ_OK;
}

static pq_status refine(work *k, pq_error *err) {
    PQ_TRY(round_anew(k, err));
    for (int i = 0; k->grid && i < ROUNDS; i++) {
        fit_scales(k);
        PQ_TRY(round_anew(k, err));
    }
    for (int i = 0; i < SWEEPS; i++) {
        if (k->grid) fit_scales(k);
        over_tiles(k, sweep_tile);
    }
    return PQ_OK;
}

pq_status pq_gptq_refined(const pq_gptq_problem *problem, const pq_scale_grid *grid, float *scales, float *W,
                          pq_error *err) {
    size_t rows = problem->rows, n = problem->columns;
    work k = {.problem = problem, .latent = W, .scales = scales, .grid = grid};
    float *original = NULL;
    pq_status status;
    PQ_TRY_TO(status, done, pq_calloc(rows * n, sizeof *original, "weights", &original, err));
    PQ_TRY_TO(status, done, pq_calloc(rows * n, sizeof *k.Q, "weights", &k.Q, err));
    PQ_TRY_TO(status, done, pq_calloc(rows * n, sizeof *k.R, "weights", &k.R, err));
    PQ_TRY_TO(status, done, pq_calloc(rows, sizeof *k.numerator, "sums", &k.numerator, err));
    PQ_TRY_TO(status, done, pq_calloc(rows, sizeof *k.denominator, "sums", &k.denominator, err));
    PQ_TRY_TO(status, done, pq_calloc(rows, sizeof *k.factor, "scales", &k.factor, err));
    PQ_TRY_TO(
        status, done,
        pq_calloc((size_t)pq_threads_get() * TILE_ROWS * n, sizeof *k.scratch, "weights", &k.scratch, err));
    memcpy(original, W, rows * n * sizeof *original);
    k.W = original;
    status = refine(&k, err);
done:
    free(original);
    free(k.Q);
    free(k.R);
    free(k.numerator);
    free(k.denominator);
    free(k.factor);
    free(k.scratch);
    return status;
}
