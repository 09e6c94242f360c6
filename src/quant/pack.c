/* Owns the order of packed codes: blocks of 128 weights, planes of 4, 2 and 1 bits (see quantizer.h). */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "kernels/kernels.h"
#include "quant/quantizer.h"

enum { BLOCK = 128 };

size_t pq_packed_row_bytes(int bits, size_t columns) {
    return pq_round_up(columns, BLOCK) / BLOCK * 16 * (size_t)bits;
}

/* One block: `plane` bytes hold BLOCK x width bits; `shift` is the plane's lowest bit inside a code. */
static void pack_plane(int width, int shift, const uint8_t *codes, uint8_t *plane) {
    size_t bytes = 16 * (size_t)width;
    memset(plane, 0, bytes);
    for (size_t first = 0, at = 0; first < BLOCK; first += bytes, at += (size_t)width)
        for (size_t i = 0; i < bytes; i++)
            plane[i] = (uint8_t)(plane[i] | (codes[first + i] >> shift & ((1 << width) - 1)) << at);
}

static void unpack_plane(int width, int shift, const uint8_t *plane, uint8_t *codes) {
    size_t bytes = 16 * (size_t)width;
    for (size_t first = 0, at = 0; first < BLOCK; first += bytes, at += (size_t)width)
        for (size_t i = 0; i < bytes; i++)
            codes[first + i] = (uint8_t)(codes[first + i] | (plane[i] >> at & ((1 << width) - 1)) << shift);
}

void pq_pack_row(int bits, const uint8_t *codes, size_t columns, uint8_t *out) {
    for (size_t first = 0; first < columns; first += BLOCK) {
        uint8_t block[BLOCK] = {0};
        memcpy(block, codes + first, columns - first < BLOCK ? columns - first : BLOCK);
        for (int width = 4, shift = 0; width > 0; width /= 2) {
            if (!(bits & width)) continue;
            pack_plane(width, shift, block, out);
            shift += width;
            out += 16 * width;
        }
    }
}

void pq_unpack_row(int bits, const uint8_t *packed, size_t columns, uint8_t *codes) {
    for (size_t first = 0; first < columns; first += BLOCK) {
        uint8_t block[BLOCK] = {0};
        for (int width = 4, shift = 0; width > 0; width /= 2) {
            if (!(bits & width)) continue;
            unpack_plane(width, shift, packed, block);
            shift += width;
            packed += 16 * width;
        }
        memcpy(codes + first, block, columns - first < BLOCK ? columns - first : BLOCK);
    }
}

bool pq_packed_row_valid(const pq_codebook *codebook, const uint8_t *packed, size_t columns) {
    const size_t blocks = pq_round_up(columns, BLOCK) / BLOCK, tail = columns % BLOCK;
    uint8_t bad[256], codes[BLOCK], any;
    for (size_t i = 0; i < sizeof bad; i++) bad[i] = isnan(codebook->value[i]);
    pq_kernels_get()->packed_any(codebook->bits, bad, packed, blocks, &any);
    if (any || tail == 0) return !any;
    pq_unpack_row(codebook->bits, packed + (blocks - 1) * 16 * (size_t)codebook->bits, BLOCK, codes);
    for (size_t i = tail; i < BLOCK; i++)
        if (codes[i] != 0) return false;
    return true;
}
