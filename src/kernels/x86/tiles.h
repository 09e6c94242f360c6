/* AMX's tiles: 16 rows of 16 floats, or of 16 pairs of bf16. They are a thread's own, and other code's
 * settings of them do not last, so that a kernel begins and ends with them. Without AMX both do nothing. */
#ifndef PQ_KERNELS_X86_TILES_H
#define PQ_KERNELS_X86_TILES_H

#include "kernels/x86/x86.h"

enum { TILE_ROWS = 16, TILE_BYTES = 64, TILES = 8 };

#ifdef PQ_AMX

ALWAYS_INLINE void tiles_begin(void) {
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16]; /* of a row */
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int i = 0; i < TILES; i++) config.bytes[i] = TILE_BYTES, config.rows[i] = TILE_ROWS;
    _tile_loadconfig(&config);
}

ALWAYS_INLINE void tiles_end(void) {
    _tile_release();
}

#else

ALWAYS_INLINE void tiles_begin(void) {}
ALWAYS_INLINE void tiles_end(void) {}

#endif
#endif
