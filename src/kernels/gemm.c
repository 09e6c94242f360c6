/* Owns the products of floats: every call into the BLAS, and how a product is cut into tiles. */
#include "kernels/gemm.h"

#include <cblas.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef PQ_ONEDNN
#include <oneapi/dnnl/dnnl.h>
#endif

#include "base/threads.h"

#ifdef PQ_ONEDNN
#define PQ_GEMM_REMEDY "DNNL_MAX_CPU_ISA=AVX2"
#else
#define PQ_GEMM_REMEDY "OPENBLAS_CORETYPE to a supported core, for example Haswell"
#endif

/* LAPACK's part of OpenBLAS. Column-major: our lower triangle is its upper one. */
void spotrf_(const char *uplo, const int *n, float *a, const int *lda, int *info);
void strtri_(const char *uplo, const char *diag, const int *n, float *a, const int *lda, int *info);

/* Rows a tile: large enough for the BLAS to run at full speed, small enough to feed several threads. */
enum { TILE_ROWS = 192, TILE_GRAIN = 16 };

void pq_gemm_serial(bool transpose_a, bool transpose_b, size_t M, size_t N, size_t K, const float *A,
                    size_t lda, const float *B, size_t ldb, bool accumulate, float *C, size_t ldc) {
    if (M == 0 || N == 0) return;
    if (K == 0) {
        for (size_t i = 0; i < M && !accumulate; i++) memset(C + i * ldc, 0, N * sizeof *C);
        return;
    }
#ifdef PQ_ONEDNN
    /* It makes its code for the CPU at run time: OpenBLAS's table of CPUs is as old as its release. */
    if (dnnl_sgemm(transpose_a ? 'T' : 'N', transpose_b ? 'T' : 'N', (dnnl_dim_t)M, (dnnl_dim_t)N,
                   (dnnl_dim_t)K, 1.0f, A, (dnnl_dim_t)lda, B, (dnnl_dim_t)ldb, accumulate ? 1.0f : 0.0f, C,
                   (dnnl_dim_t)ldc) == dnnl_success)
        return;
#endif
    cblas_sgemm(CblasRowMajor, transpose_a ? CblasTrans : CblasNoTrans,
                transpose_b ? CblasTrans : CblasNoTrans, (int)M, (int)N, (int)K, 1.0f, A, (int)lda, B,
                (int)ldb, accumulate ? 1.0f : 0.0f, C, (int)ldc);
}

typedef struct product {
    bool transpose_a, transpose_b, accumulate, by_columns;
    size_t M, N, K, lda, ldb, ldc, tile;
    const float *A, *B, *bias;
    float *C;
} product;

static void run_tile(void *context, size_t i) {
    const product *p = context;
    size_t first = i * p->tile, extent = p->by_columns ? p->N : p->M;
    size_t count = extent - first < p->tile ? extent - first : p->tile;
    size_t row = p->by_columns ? 0 : first, column = p->by_columns ? first : 0;
    size_t rows = p->by_columns ? p->M : count, columns = p->by_columns ? count : p->N;
    float *C = p->C + row * p->ldc + column;
    for (size_t r = 0; p->bias && r < rows; r++)
        memcpy(C + r * p->ldc, p->bias + column, columns * sizeof *C);
    pq_gemm_serial(
        p->transpose_a, p->transpose_b, rows, columns, p->K, p->A + row * (p->transpose_a ? 1 : p->lda),
        p->lda, p->B + column * (p->transpose_b ? p->ldb : 1), p->ldb, p->accumulate || p->bias, C, p->ldc);
}

static void run(product *p) {
    p->by_columns = p->N > p->M;
    size_t extent = p->by_columns ? p->N : p->M;
    size_t tiles =
        2 * ((extent + 2 * TILE_ROWS - 1) / (2 * TILE_ROWS)); /* even: two threads share them evenly */
    if (tiles == 0) return;
    p->tile = ((extent + tiles - 1) / tiles + TILE_GRAIN - 1) / TILE_GRAIN * TILE_GRAIN;
    pq_parallel_for((extent + p->tile - 1) / p->tile, run_tile, p);
}

void pq_gemm(bool transpose_a, bool transpose_b, size_t M, size_t N, size_t K, const float *A, size_t lda,
             const float *B, size_t ldb, bool accumulate, float *C, size_t ldc) {
    product p = {.transpose_a = transpose_a, .transpose_b = transpose_b, .accumulate = accumulate};
    p.M = M, p.N = N, p.K = K, p.A = A, p.lda = lda, p.B = B, p.ldb = ldb, p.C = C, p.ldc = ldc;
    run(&p);
}

void pq_gemm_bias(bool transpose_b, size_t M, size_t N, size_t K, const float *A, size_t lda, const float *B,
                  size_t ldb, const float *bias, float *C, size_t ldc) {
    product p = {.transpose_b = transpose_b, .bias = bias};
    p.M = M, p.N = N, p.K = K, p.A = A, p.lda = lda, p.B = B, p.ldb = ldb, p.C = C, p.ldc = ldc;
    run(&p);
}

typedef struct gram {
    size_t M, N, lda, ldc, tile;
    const float *A;
    float *C;
} gram;

/* Tile i of the lower triangle, counted row by row. */
static void gram_tile(void *context, size_t i) {
    const gram *g = context;
    size_t row = 0;
    for (; i > row; row++) i -= row + 1;
    size_t r = row * g->tile, c = i * g->tile, rows = g->N - r < g->tile ? g->N - r : g->tile;
    size_t columns = g->N - c < g->tile ? g->N - c : g->tile;
    pq_gemm_serial(true, false, rows, columns, g->M, g->A + r, g->lda, g->A + c, g->lda, true,
                   g->C + r * g->ldc + c, g->ldc);
}

void pq_gemm_gram(size_t M, size_t N, const float *A, size_t lda, float *C, size_t ldc) {
    gram g = {.M = M, .N = N, .lda = lda, .ldc = ldc, .A = A, .C = C};
    g.tile = N > 1024 ? 256 : 64;
    size_t n = (N + g.tile - 1) / g.tile;
    pq_parallel_for(n * (n + 1) / 2, gram_tile, &g);
}

bool pq_gemm_inverse_factor(size_t n, float *A) {
    int order = (int)n, info = 0;
    spotrf_("U", &order, A, &order, &info);
    if (info == 0) strtri_("U", "N", &order, A, &order, &info);
    bool found = info == 0;
    for (size_t i = 0; i < n; i++) {
        found = found && isfinite(A[i * n + i]); /* LAPACK lets NaN pass */
        memset(A + i * n + i + 1, 0, (n - i - 1) * sizeof *A);
    }
    return found;
}

void pq_gemm_axpy(size_t n, float a, const float *x, float *y) {
    cblas_saxpy((int)n, a, x, 1, y, 1);
}

pq_status pq_gemm_check(pq_error *err) {
    enum { M = 37, N = 65, K = 129 };
    static const bool flags[] = {false, true};
    float *a = malloc(sizeof(float) * M * K), *b = malloc(sizeof(float) * K * N),
          *c = malloc(sizeof(float) * M * N);
    pq_status status = a && b && c ? PQ_OK : PQ_FAIL(err, PQ_ERR_MEMORY, "no memory for the BLAS check");
    for (int t = 0; t < 4 && status == PQ_OK; t++) {
        bool ta = flags[t & 1], tb = flags[t >> 1];
        /* Small integers: every product and sum is exact in fp32. */
        for (int i = 0; i < M * K; i++) a[i] = (float)((i * 7 + t) % 17 - 8);
        for (int i = 0; i < K * N; i++) b[i] = (float)((i * 5 + t) % 13 - 6);
        pq_gemm_serial(ta, tb, M, N, K, a, ta ? M : K, b, tb ? K : N, false, c, N);
        for (int i = 0; i < M && status == PQ_OK; i++)
            for (int j = 0; j < N && status == PQ_OK; j++) {
                float sum = 0;
                for (int k = 0; k < K; k++)
                    sum += a[ta ? k * M + i : i * K + k] * b[tb ? j * K + k : k * N + j];
                if (c[i * N + j] != sum)
                    status = PQ_FAIL(
                        err, PQ_ERR_IO,
                        "%s computes wrong products on this CPU (expected %g, found %g): set " PQ_GEMM_REMEDY,
                        pq_gemm_describe(), (double)sum, (double)c[i * N + j]);
            }
    }
    free(a);
    free(b);
    free(c);
    return status;
}

const char *pq_gemm_describe(void) {
    static char text[128];
#ifdef PQ_ONEDNN
    const dnnl_version_t *version = dnnl_version();
    snprintf(text, sizeof text, "oneDNN %d.%d.%d", version->major, version->minor, version->patch);
#else
    char version[64] = "";
    sscanf(openblas_get_config(), "OpenBLAS %63s", version);
    snprintf(text, sizeof text, "OpenBLAS %s %s", version, openblas_get_corename());
#endif
    return text;
}

pq_gemm_threads pq_gemm_threads_take(void) {
    pq_gemm_threads host = {.blas = openblas_get_num_threads(), .openmp = omp_get_max_threads()};
    openblas_set_num_threads(1);
    omp_set_num_threads(1); /* what oneDNN takes; our own loops name their number */
    return host;
}

void pq_gemm_threads_restore(pq_gemm_threads host) {
    openblas_set_num_threads(host.blas);
    omp_set_num_threads(host.openmp);
}
