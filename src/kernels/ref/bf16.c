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
