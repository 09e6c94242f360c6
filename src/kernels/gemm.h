/* Matrix products of floats. gemm.c owns them: the kernel of the CPU for the large ones, else a BLAS (oneDNN
 * where the build has it, or OpenBLAS), whose only caller it is. */
#ifndef PQ_KERNELS_GEMM_H
#define PQ_KERNELS_GEMM_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "kernels/kernels.h"

/* In parallel; the bits do not depend on the number of threads: a BLAS gets tiles fixed by the shape, and the
 * kernel sums alike however a product is cut. */
void pq_gemm(const pq_float_product *product);

/* In the calling thread, for callers that have their own tiles. */
void pq_gemm_serial(const pq_float_product *product);

/* Lower triangle of C[N][N] += A^T A, A[M][N]. What is above the diagonal may be written or not. Tiles are
 * fixed by the shape. */
void pq_gemm_gram(size_t M, size_t N, const float *A, size_t lda, float *C, size_t ldc);

/* Lower triangle of a symmetric positive definite A[n][n] -> the inverse of its Cholesky factor: L^-1 with A
 * = L L^T, in the lower triangle, zeros above it. False where A is not positive definite. One thread. */
bool pq_gemm_inverse_factor(size_t n, float *A);

/* y[n] += a x[n], in the calling thread. */
void pq_gemm_axpy(size_t n, float a, const float *x, float *y);

/* Some BLAS builds compute wrong results on some CPUs: compare a few products with plain loops. PQ_ERR_IO
 * names the library when they differ. */
pq_status pq_gemm_check(pq_error *err);

/* Library and version, for people ("oneDNN 2.6.3", "OpenBLAS 0.3.21 Cooperlake"). */
const char *pq_gemm_describe(void);

/* One thread a product from here on; returns what the host program had, to be given back. */
typedef struct pq_gemm_threads {
    int blas, openmp;
} pq_gemm_threads;
pq_gemm_threads pq_gemm_threads_take(void);
void pq_gemm_threads_restore(pq_gemm_threads host);

#endif
