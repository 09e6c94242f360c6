/* bf16 to fp32 and back, readable. */
#include <string.h>

#include "kernels/kernels.h"

void pq_widen_ref(const pq_bf16 *x, float *out, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)x[i] << 16;
        memcpy(out + i, &bits, sizeof bits);
    }
}

void pq_narrow_ref(const float *x, pq_bf16 *out, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        if (isnan(x[i]))
            out[i] = (pq_bf16)(bits >> 16 | 0x40); /* the bits that make it NaN may be below */
        else
            out[i] = (pq_bf16)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
    }
}

/* What the kernel of AMX takes: a block of B's panels (1 MiB, or one panel), 512 columns of a transposed A, a
 * strip of A, a panel more, two blocks of sums, and where a bf16 C is deeper than 4,096, 512 x 1,024 sums.
 * Panels and strips are 32 wide and as deep as K, or 512 where sums over K are kept. */
size_t pq_multiply_bf16_scratch(const pq_bf16_product *p) {
    bool deep = !p->wide && p->K > 4096;
    size_t depth = (((p->wide || deep) && p->K > 512 ? 512 : p->K) + 31) / 32 * 32, panel = depth / 2 * 32;
    return (panel > 1 << 18 ? panel : 1 << 18) + (p->transpose_a ? 17 : 1) * panel + 32 * (depth / 2 + 16) +
           2 * 32 * 32 + (deep ? 512 * 1024 : 0);
}

static float wide_of(pq_bf16 x) {
    float y;
    pq_widen_ref(&x, &y, 1);
    return y;
}

void pq_multiply_bf16_ref(const pq_bf16_product *p, float *scratch) {
    (void)scratch;
    for (size_t i = 0; i < p->M; i++)
        for (size_t j = 0; j < p->N; j++) {
            float sum = 0, *wide = (float *)p->C + i * p->ldc + j;
            pq_bf16 *narrow = (pq_bf16 *)p->C + i * p->ldc + j;
            for (size_t k = 0; k < p->K; k++)
                sum += wide_of(p->A[p->transpose_a ? k * p->lda + i : i * p->lda + k]) *
                       wide_of(p->B[p->transpose_b ? j * p->ldb + k : k * p->ldb + j]);
            if (p->bias) sum += p->bias[j];
            if (p->accumulate) sum += p->wide ? *wide : wide_of(*narrow);
            if (p->wide)
                *wide = sum;
            else
                pq_narrow_ref(&sum, narrow, 1);
        }
}
