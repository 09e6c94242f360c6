/* Owns the products of floats: by the CPU's kernel or a BLAS, and how a product is cut into tiles. */
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
#include "kernels/cut.h"
#include "kernels/kernels.h"
#include "kernels/scratch.h"

#ifdef PQ_ONEDNN
#define PQ_GEMM_REMEDY "DNNL_MAX_CPU_ISA=AVX2"
#else
#define PQ_GEMM_REMEDY "OPENBLAS_CORETYPE to a supported core, for example Haswell"
#endif

/* LAPACK's part of OpenBLAS. Column-major: our lower triangle is its upper one. */
void spotrf_(const char *uplo, const int *n, float *a, const int *lda, int *info);
void strtri_(const char *uplo, const char *diag, const int *n, float *a, const int *lda, int *info);

/* With fewer rows, laying B out for the kernel costs more than it gains. */
enum { LEAST_ROWS = 192 };

/* Tiles of the kernel are cut by the number of threads, since their sums do not depend on it; those of a BLAS
 * by the shape alone, large enough for it to run at full speed and small enough to feed several threads. */
static const pq_cut_sizes kernel_sizes = {2048, PQ_MULTIPLY_GRAIN_ROWS, PQ_MULTIPLY_GRAIN_COLUMNS},
                          blas_sizes = {192, 16, 16};

static void multiply_by_blas(const pq_float_product *p) {
    for (size_t i = 0; i < p->M && p->bias; i++)
        for (size_t j = 0; j < p->N; j++)
            p->C[i * p->ldc + j] = p->bias[j] + (p->accumulate ? p->C[i * p->ldc + j] : 0);
    bool add = p->accumulate || p->bias;
#ifdef PQ_ONEDNN
    /* It makes its code for the CPU at run time: OpenBLAS's table of CPUs is as old as its release. */
    if (dnnl_sgemm(p->transpose_a ? 'T' : 'N', p->transpose_b ? 'T' : 'N', (dnnl_dim_t)p->M, (dnnl_dim_t)p->N,
                   (dnnl_dim_t)p->K, 1.0f, p->A, (dnnl_dim_t)p->lda, p->B, (dnnl_dim_t)p->ldb,
                   add ? 1.0f : 0.0f, p->C, (dnnl_dim_t)p->ldc) == dnnl_success)
        return;
#endif
    cblas_sgemm(CblasRowMajor, p->transpose_a ? CblasTrans : CblasNoTrans,
                p->transpose_b ? CblasTrans : CblasNoTrans, (int)p->M, (int)p->N, (int)p->K, 1.0f, p->A,
                (int)p->lda, p->B, (int)p->ldb, add ? 1.0f : 0.0f, p->C, (int)p->ldc);
}

/* Whether the CPU's kernel multiplies. */
static bool by_kernel(const pq_float_product *p) {
    return p->M >= LEAST_ROWS && p->K > 0 && pq_kernels_get()->multiply != pq_multiply_ref;
}

static void multiply(const pq_float_product *p, bool kernel) {
    if (p->M == 0 || p->N == 0) return;
    float *scratch = kernel ? pq_scratch(PQ_MULTIPLY_SCRATCH * sizeof *scratch) : NULL;
    if (scratch)
        pq_kernels_get()->multiply(p, scratch);
    else if (p->K > 0)
        multiply_by_blas(p);
    else
        pq_multiply_ref(p, NULL);
}

void pq_gemm_serial(const pq_float_product *p) {
    multiply(p, by_kernel(p));
}

typedef struct tiling {
    const pq_float_product *whole;
    pq_cut cut;
    bool kernel;
} tiling;

static void run_tile(void *context, size_t i) {
    const tiling *t = context;
    const pq_cut_tile at = pq_cut_tile_at(&t->cut, i);
    pq_float_product p = *t->whole;
    p.M = at.rows, p.N = at.columns;
    p.A += at.row * (p.transpose_a ? 1 : p.lda);
    p.B += at.column * (p.transpose_b ? p.ldb : 1);
    p.C += at.row * p.ldc + at.column;
    if (p.bias) p.bias += at.column;
    multiply(&p, t->kernel);
}

void pq_gemm(const pq_float_product *p) {
    const bool kernel = by_kernel(p);
    const size_t parts = kernel ? (size_t)pq_threads_get() : 2;
    tiling t = {p, pq_cut_make(p->M, p->N, parts, kernel ? &kernel_sizes : &blas_sizes), kernel};
    pq_parallel_for(t.cut.count, run_tile, &t);
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
    pq_gemm_serial(&(pq_float_product){.transpose_a = true,
                                       .accumulate = true,
                                       .M = rows,
                                       .N = columns,
                                       .K = g->M,
                                       .lda = g->lda,
                                       .ldb = g->lda,
                                       .ldc = g->ldc,
                                       .A = g->A + r,
                                       .B = g->A + c,
                                       .C = g->C + r * g->ldc + c});
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
        multiply_by_blas(&(pq_float_product){.transpose_a = ta,
                                             .transpose_b = tb,
                                             .M = M,
                                             .N = N,
                                             .K = K,
                                             .lda = ta ? M : K,
                                             .ldb = tb ? K : N,
                                             .ldc = N,
                                             .A = a,
                                             .B = b,
                                             .C = c});
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
