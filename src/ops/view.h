/* Tensors' numbers as floats, however they are stored: fp32 is used where it lies, bf16 goes through a
 * scratch array that stays in the cache. Ops walk through a tile piece by piece, so that each kernel is there
 * once. */
#ifndef PQ_OPS_VIEW_H
#define PQ_OPS_VIEW_H

#include "graph/graph.h"
#include "ops/tiles.h"

enum { PQ_PIECE = 1024 }; /* a multiple of 64, as dropout's masks ask */

typedef struct pq_view {
    void *data;
    pq_type type;
} pq_view;

static inline pq_view pq_value_of(const pq_tensor *tensor) {
    return (pq_view){tensor->value, tensor->type};
}
static inline pq_view pq_gradient_of(const pq_tensor *tensor) {
    return (pq_view){tensor->gradient, tensor->parameter ? PQ_F32 : tensor->type};
}

/* The view from element `first` on. */
static inline pq_view pq_view_from(pq_view view, size_t first) {
    return (pq_view){(char *)view.data + first * pq_type_bytes(view.type), view.type};
}

/* n floats from element `first` on; scratch[n] may be what is returned. */
static inline const float *pq_view_read(const pq_kernels *kernels, pq_view view, size_t first, size_t n,
                                        float *scratch) {
    if (view.type == PQ_F32) return (const float *)view.data + first;
    kernels->widen((const pq_bf16 *)view.data + first, scratch, n);
    return scratch;
}

/* Where floats for the elements from `first` on are to be written before they are stored. */
static inline float *pq_view_place(pq_view view, size_t first, float *scratch) {
    return view.type == PQ_F32 ? (float *)view.data + first : scratch;
}
static inline void pq_view_store(const pq_kernels *kernels, pq_view view, size_t first, size_t n,
                                 const float *from) {
    if (view.type == PQ_BF16) kernels->narrow(from, (pq_bf16 *)view.data + first, n);
}

/* The elements [at, at + n) of a tile; n = 0 behind its end. */
typedef struct pq_piece {
    size_t at, n, end;
} pq_piece;

static inline pq_piece pq_piece_of(size_t first, size_t length) {
    return (pq_piece){.at = first, .n = length < PQ_PIECE ? length : PQ_PIECE, .end = first + length};
}
static inline pq_piece pq_piece_first(const pq_tiles *tiles, size_t i) {
    return pq_piece_of(pq_tile_first(tiles, i), pq_tile_length(tiles, i));
}
static inline void pq_piece_next(pq_piece *piece) {
    *piece = pq_piece_of(piece->at + piece->n, piece->end - piece->at - piece->n);
}

#endif
