/* The inference engine: a packed model, a key/value cache, logits and sampling. */
#ifndef POTQAT_ENGINE_H
#define POTQAT_ENGINE_H

#include <potqat/packed.h>

#ifdef __cplusplus
extern "C" {
#endif

/** One sequence being read and continued. Not for use by two threads at once. */
typedef struct pq_engine pq_engine;

/** An engine over `packed` (borrowed; must outlive it) for sequences of up to `context` tokens (0: the
 * model's). */
PQ_API pq_status pq_engine_create(const pq_packed *packed, int64_t context, pq_engine **out, pq_error *err);
PQ_API void pq_engine_destroy(pq_engine *engine);

/** Forget the sequence: the next token stands at position 0. */
PQ_API void pq_engine_reset(pq_engine *engine);
/** Tokens read so far. */
PQ_API int64_t pq_engine_position(const pq_engine *engine);

/** Read tokens[count] and, where logits is not NULL, give the logits of every one of them ([count][vocab])
 * or, with last_only, of the last ([vocab]). Errors: more tokens than the context holds, an id out of range,
 * count 0; the sequence is then as before. */
PQ_API pq_status pq_engine_forward(pq_engine *engine, const uint16_t *tokens, size_t count, bool last_only,
                                   float *logits, pq_error *err);

/** How to choose a token from logits. */
typedef struct pq_sampling {
    double temperature; /**< 0: the most likely token (greedy) */
    int64_t top_k;      /**< 0: all */
    double top_p;       /**< 1: all */
    uint64_t seed;
} pq_sampling;

/** Choose from logits[vocab]; the same (logits, sampling, draw) give the same token. `draw` counts the tokens
 * drawn. */
PQ_API pq_status pq_sample(const pq_sampling *sampling, const float *logits, size_t vocab, uint64_t draw,
                           uint16_t *token, pq_error *err);

#ifdef __cplusplus
}
#endif
#endif
