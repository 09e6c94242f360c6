/* Matrix products of bf16 numbers, summed in fp32. gemm_bf16.c owns them: the kernel of the CPU's
 * tiles (AMX), or else oneDNN. */
#ifndef PQ_KERNELS_GEMM_BF16_H
#define PQ_KERNELS_GEMM_BF16_H

#include "base/error.h"
#include "kernels/kernels.h"

/* In parallel; the bits do not depend on the number of threads: oneDNN gets tiles fixed by the shape, and the
 * kernel sums alike however a product is cut. oneDNN makes code at the first product of a shape; where that
 * fails for want of memory (or there is none) plain loops multiply. */
void pq_gemm_bf16(const pq_bf16_product *product);

/* PQ_ERR_USAGE names what is missing where bf16 cannot be multiplied at speed: instructions of the CPU, or
 * oneDNN in this build. PQ_ERR_IO where products come out wrong. */
pq_status pq_gemm_bf16_check(pq_error *err);

#endif
