/* Products of floats, readable. */
#include "kernels/kernels.h"

void pq_multiply_ref(const pq_float_product *p, float *scratch) {
    (void)scratch;
    for (size_t i = 0; i < p->M; i++)
        for (size_t j = 0; j < p->N; j++) {
            float sum = 0, *to = p->C + i * p->ldc + j;
            for (size_t k = 0; k < p->K; k++)
                sum += p->A[p->transpose_a ? k * p->lda + i : i * p->lda + k] *
                       p->B[p->transpose_b ? j * p->ldb + k : k * p->ldb + j];
            if (p->bias) sum += p->bias[j];
            *to = p->accumulate ? *to + sum : sum;
        }
}
