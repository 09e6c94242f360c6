/* Products of tensors' numbers, by the GEMM of their type. */
#ifndef PQ_OPS_PRODUCT_H
#define PQ_OPS_PRODUCT_H

#include "kernels/gemm.h"
#include "kernels/gemm_bf16.h"
#include "ops/view.h"

/* C[M][N] = op(A)[M][K] op(B)[K][N] (+ C), rows without gaps but where lda says otherwise. A and B are of
 * one type; C is too, or fp32. */
typedef struct pq_product {
    bool transpose_a, transpose_b, accumulate;
    size_t M, N, K;
    size_t lda; /* from row to row of what A stores; 0: no gaps */
    pq_view A, B, C;
    const float *bias; /* [N]; NULL: none */
} pq_product;

static inline void pq_multiply(const pq_product *p) {
    size_t lda = p->lda ? p->lda : p->transpose_a ? p->M : p->K, ldb = p->transpose_b ? p->K : p->N;
    if (p->A.type == PQ_BF16)
        pq_gemm_bf16(&(pq_bf16_product){.transpose_a = p->transpose_a,
                                        .transpose_b = p->transpose_b,
                                        .accumulate = p->accumulate,
                                        .wide = p->C.type == PQ_F32,
                                        .M = p->M,
                                        .N = p->N,
                                        .K = p->K,
                                        .lda = lda,
                                        .ldb = ldb,
                                        .ldc = p->N,
                                        .A = p->A.data,
                                        .B = p->B.data,
                                        .bias = p->bias,
                                        .C = p->C.data});
    else
        pq_gemm(&(pq_float_product){.transpose_a = p->transpose_a,
                                    .transpose_b = p->transpose_b,
                                    .accumulate = p->accumulate,
                                    .M = p->M,
                                    .N = p->N,
                                    .K = p->K,
                                    .lda = lda,
                                    .ldb = ldb,
                                    .ldc = p->N,
                                    .A = p->A.data,
                                    .B = p->B.data,
                                    .bias = p->bias,
                                    .C = p->C.data});
}

#endif
