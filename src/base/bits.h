/* Floats and their bits. */
#ifndef PQ_BASE_BITS_H
#define PQ_BASE_BITS_H

#include <stdint.h>
#include <string.h>

static inline float pq_float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t pq_bits_of_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

#endif
