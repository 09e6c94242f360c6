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

/* Of the kernel for tiles: a block of panels, or one that is larger; a transposed A; a panel and a strip,
 * whose rows are a tile's 16 pairs longer at most; two blocks of sums; the sums of a deep product. */
size_t pq_multiply_bf16_scratch(const pq_bf16_product *p) {
    const size_t side = PQ_MULTIPLY_SIDE;
    bool deep = !p->wide && p->K > PQ_MULTIPLY_DEEP;
    size_t steps = (p->wide || deep) && p->K > PQ_MULTIPLY_DEPTH ? PQ_MULTIPLY_DEPTH : p->K;
    size_t pairs = (steps + side - 1) / side * side / 2, panel = pairs * side;
    size_t panels = panel > PQ_MULTIPLY_PANELS ? panel : PQ_MULTIPLY_PANELS;
    return panels + (p->transpose_a ? PQ_MULTIPLY_ROWS / side * panel : 0) + panel + side * (pairs + 16) +
           2 * side * side + (deep ? PQ_MULTIPLY_ROWS * PQ_MULTIPLY_WIDTH : 0);
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
