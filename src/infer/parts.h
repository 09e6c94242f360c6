/* The engine's parts inside the room: its buffers, and the product with a packed matrix. */
#ifndef PQ_INFER_PARTS_H
#define PQ_INFER_PARTS_H

#include <potqat/engine.h>

#include "base/threads.h"
#include "formats/packed.h"

enum {
    PQ_ENGINE_BATCH = 128, /* tokens that go through the layers together */
    PQ_ENGINE_LANES = 16   /* tasks a parallel loop is cut into; each has its own scratch */
};

/* pq_parallel_for where the work is worth waking threads for; else here. `work`: numbers touched, or for
 * products multiplications over 8. The results are the same. */
static inline void pq_tasks(size_t count, size_t work, void (*task)(void *context, size_t i), void *context) {
    enum { WORTH_THREADS = 65536 };
    if (work >= WORTH_THREADS)
        pq_parallel_for(count, task, context);
    else
        for (size_t i = 0; i < count; i++) task(context, i);
}

/* Tokens a sequence may have, and ids there are. */
int64_t pq_engine_context(const pq_engine *engine);
size_t pq_engine_vocab(const pq_engine *engine);

/* Rows of a matrix that are decoded at a time: a tile stays in the cache. Depends on the shape alone. */
size_t pq_tile_rows(size_t columns);

/* out[n][stride, the first `rows` of it] = x[n][columns] weights^T + bias (NULL: none). Tiles of rows are
 * decoded to scratch[PQ_ENGINE_LANES][pq_tile_rows(columns) * columns] and multiplied in fp32. */
void pq_packed_matmul(const pq_packed_tensor *weights, const float *bias, const float *x, size_t n,
                      float *out, size_t stride, float *scratch);

/* Causal attention of n queries at positions first .. first + n - 1 of one sequence. q: rows `stride` apart;
 * keys, values: [first + n][heads * head_size]; out: [n][heads * head_size]; scratch:
 * [PQ_ENGINE_LANES][n * (first + n)]. */
void pq_cached_attention(const float *q, size_t stride, const float *keys, const float *values, size_t first,
                         size_t n, size_t heads, size_t head_size, float *out, float *scratch);

/* Consecutive queries of one sequence, `queries` from number `first` of the batch on. */
typedef struct pq_cache_view {
    const void *keys, *values;    /* rows of heads * head_size numbers of fp16 or fp32 */
    size_t first, queries, count; /* count: keys that the first query sees; each next sees one more */
} pq_cache_view;

/* Attention as the integer recipe has it, for n views. q: rows `stride` apart; out: rows of heads *
 * head_size; scratch: [PQ_ENGINE_LANES][lane_scratch], the most that pq_recipe_scores gives for a view. */
void pq_recipe_attention(const float *q, size_t stride, const pq_cache_view *views, bool half, size_t n,
                         size_t heads, size_t head_size, float *out, float *scratch, size_t lane_scratch);

#endif
