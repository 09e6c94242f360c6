/* How a product is cut into tiles: of rows, or of columns where it has more of those. */
#ifndef PQ_KERNELS_CUT_H
#define PQ_KERNELS_CUT_H

#include <stdbool.h>
#include <stddef.h>

typedef struct pq_cut {
    size_t M, N, tile, count;
    bool by_columns;
} pq_cut;

/* Tile sizes: at most `largest`, a multiple of a grain for either direction. */
typedef struct pq_cut_sizes {
    size_t largest, row_grain, column_grain;
} pq_cut_sizes;

/* Into a multiple of `parts` tiles before they are rounded up to the grain, so that threads share evenly. */
static inline pq_cut pq_cut_make(size_t M, size_t N, size_t parts, const pq_cut_sizes *sizes) {
    pq_cut cut = {.M = M, .N = N, .by_columns = N > M};
    if (M == 0 || N == 0) return cut;
    size_t extent = cut.by_columns ? N : M, grain = cut.by_columns ? sizes->column_grain : sizes->row_grain;
    size_t tiles = parts * ((extent + parts * sizes->largest - 1) / (parts * sizes->largest));
    cut.tile = ((extent + tiles - 1) / tiles + grain - 1) / grain * grain;
    cut.count = (extent + cut.tile - 1) / cut.tile;
    return cut;
}

typedef struct pq_cut_tile {
    size_t row, column, rows, columns;
} pq_cut_tile;

static inline pq_cut_tile pq_cut_tile_at(const pq_cut *cut, size_t i) {
    size_t first = i * cut->tile, left = (cut->by_columns ? cut->N : cut->M) - first;
    size_t length = left < cut->tile ? left : cut->tile;
    return cut->by_columns ? (pq_cut_tile){.column = first, .rows = cut->M, .columns = length}
                           : (pq_cut_tile){.row = first, .rows = length, .columns = cut->N};
}

#endif
