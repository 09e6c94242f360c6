/* Loops over tiles of rows or elements, cut by the shape alone. */
#ifndef PQ_OPS_TILES_H
#define PQ_OPS_TILES_H

#include <stddef.h>

#include "base/threads.h"

typedef struct pq_tiles {
    size_t count, size, extent;
} pq_tiles;

/* Cut `extent` into an even number of tiles of about `size`, each but the last a multiple of `grain`. */
static inline pq_tiles pq_tiles_cut(size_t extent, size_t size, size_t grain) {
    size_t pairs = (extent + 2 * size - 1) / (2 * size), count = 2 * (pairs ? pairs : 1);
    size_t each = (extent + count - 1) / count;
    each = (each + grain - 1) / grain * grain;
    if (each == 0) each = grain;
    return (pq_tiles){.count = (extent + each - 1) / each, .size = each, .extent = extent};
}

static inline size_t pq_tile_first(const pq_tiles *tiles, size_t i) {
    return i * tiles->size;
}
static inline size_t pq_tile_length(const pq_tiles *tiles, size_t i) {
    size_t left = tiles->extent - i * tiles->size;
    return left < tiles->size ? left : tiles->size;
}

#endif
