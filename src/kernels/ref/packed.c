/* Products with packed codes, by shifts and sums alone: the meaning of the kernels in x86/packed.c. */
#include "kernels/kernels.h"

enum { BLOCK = 128 };

/* Code i of a block: its bits lie in planes of 4, 2 and 1 bits, the largest plane first, holding the lowest
 * bits. */
static unsigned code_at(int bits, const uint8_t *block, size_t i) {
    unsigned code = 0;
    int shift = 0;
    for (int width = 4; width > 0; width /= 2) {
        const size_t bytes = 16 * (size_t)width;
        if (!(bits & width)) continue;
        unsigned part = (unsigned)block[i % bytes] >> (size_t)width * (i / bytes) & ((1u << width) - 1);
        code |= part << shift;
        shift += width;
        block += bytes;
    }
    return code;
}

/* x * digit without a multiplication: one shift for each bit of the digit, so one alone for a power of two.
 */
static int32_t shift_and_add(uint8_t x, int8_t digit) {
    unsigned magnitude = (unsigned)(digit < 0 ? -digit : digit);
    uint32_t sum = 0;
    for (unsigned k = 0; magnitude >> k; k++)
        if (magnitude >> k & 1) sum += (uint32_t)x << k;
    return digit < 0 ? -(int32_t)sum : (int32_t)sum;
}

void pq_packed_any_ref(int bits, const uint8_t *table, const uint8_t *codes, size_t blocks, uint8_t *any) {
    unsigned found = 0;
    for (size_t b = 0; b < blocks; b++, codes += 16 * bits)
        for (size_t i = 0; i < BLOCK; i++) found |= table[code_at(bits, codes, i)];
    *any = (uint8_t)found;
}

void pq_packed_dots_ref(int bits, const int8_t *digit, const uint8_t *codes, size_t rows, size_t blocks,
                        size_t group, const uint8_t *const *x, size_t tokens, int32_t *out, size_t stride) {
    const size_t run = group ? group : BLOCK * blocks, groups = BLOCK * blocks / (run ? run : 1);
    for (size_t t = 0; t < tokens; t++)
        for (size_t r = 0; r < rows; r++)
            for (size_t g = 0; g < groups; g++) {
                int32_t sum = 0;
                for (size_t i = g * run; i < (g + 1) * run; i++) {
                    const uint8_t *block = codes + (r * blocks + i / BLOCK) * 16 * (size_t)bits;
                    sum += shift_and_add(x[t][i], digit[code_at(bits, block, i % BLOCK)]);
                }
                out[t * stride + r * groups + g] = sum;
            }
}

void pq_packed_outputs_ref(const int32_t *dots, const int32_t *sums, const float *scales, const float *bias,
                           const pq_int8_row *x, float *out, size_t n) {
    for (size_t r = 0; r < n; r++) {
        float y = (float)(dots[r] - x->zero * sums[r]) * scales[r] * x->scale;
        out[r] = bias ? y + bias[r] : y;
    }
}
