/* The speed of inference: a prompt at once, then tokens one by one. */
#ifndef PQ_INFER_BENCH_H
#define PQ_INFER_BENCH_H

#include <potqat/engine.h>

typedef struct pq_infer_bench {
    size_t prompt, tokens; /* how many, each at most the engine's context */
    size_t repeats;        /* after one that does not count; 1 to 64 */
} pq_infer_bench;

/* Medians over the repeats. */
typedef struct pq_infer_speed {
    double prompt_tokens_per_s, decode_tokens_per_s;
} pq_infer_speed;

/* The prompt in one call, from an empty cache; then, from an empty cache again, one token a call, each with
 * its logits. PQ_ERR_USAGE where the context does not hold them. */
pq_status pq_bench_infer(pq_engine *engine, const pq_infer_bench *bench, pq_infer_speed *out, pq_error *err);

#endif
