/* The 16-bit floats of other programs' files: IEEE half (F16) and bfloat16 (BF16), to fp32 and back. The way
 * back rounds to nearest, ties to even; what is too large for F16 becomes infinite. */
#ifndef PQ_FORMATS_HALF_H
#define PQ_FORMATS_HALF_H

#include "base/bits.h"

static inline float pq_bf16_to_float(uint16_t half) {
    return pq_float_of_bits((uint32_t)half << 16);
}

static inline uint16_t pq_bf16_from_float(float value) {
    uint32_t bits = pq_bits_of_float(value);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return (uint16_t)(bits >> 16 | 0x40u); /* NaN stays NaN */
    return (uint16_t)((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

static inline float pq_f16_to_float(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16, body = half & 0x7FFFu;
    if (body >= 0x7C00u) return pq_float_of_bits(sign | 0x7F800000u | (body & 0x3FFu) << 13);
    if (body >= 0x0400u) return pq_float_of_bits(sign | ((body << 13) + (112u << 23)));
    float small = (float)body * 0x1p-24f; /* subnormal in half, exact in fp32 */
    return sign ? -small : small;
}

static inline uint16_t pq_f16_from_float(float value) {
    uint32_t bits = pq_bits_of_float(value), body = bits & 0x7FFFFFFFu;
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
    if (body > 0x7F800000u) return sign | 0x7E00u;
    if (body >= 0x47800000u) return sign | 0x7C00u;                   /* 2^16 and beyond */
    if (body < 0x38800000u) {                                         /* below 2^-14: units of 2^-24 */
        float units = pq_float_of_bits(body) * 0x1p24f + 8388608.0f;  /* 2^23: the sum rounds to a unit */
        return (uint16_t)(sign | (pq_bits_of_float(units) & 0x7FFu)); /* 0x400 is the least normal number */
    }
    body += 0xFFFu + (body >> 13 & 1u);
    return (uint16_t)(sign | ((body - (112u << 23)) >> 13)); /* a carry past the largest gives infinity */
}

#endif
