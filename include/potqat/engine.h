/* The inference engine: a packed model, a key/value cache, logits and sampling. */
#ifndef POTQAT_ENGINE_H
#define POTQAT_ENGINE_H

#include <potqat/packed.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Sequences being read and continued. Not for use by two threads at once. */
typedef struct pq_engine pq_engine;

/** How an engine computes. All zero: exact, one sequence of the model's context. */
typedef struct pq_engine_options {
    int64_t context; /**< tokens a sequence may have; 0: the model's */
    bool int8; /**< inputs of quantized matrices as whole numbers (docs/formats.md, Integer recipe): the same
                  bits on every CPU; otherwise everything is fp32 */
    bool half_cache;   /**< keys and values are kept as fp16 instead of fp32 */
    int64_t sequences; /**< that are read and continued side by side, 1 to 65,536; 0: one */
} pq_engine_options;

/** An engine over `packed` (borrowed; must outlive it). options may be NULL. */
PQ_API pq_status pq_engine_create_with(const pq_packed *packed, const pq_engine_options *options,
                                       pq_engine **out, pq_error *err);
/** An exact engine for one sequence of up to `context` tokens (0: the model's). */
PQ_API pq_status pq_engine_create(const pq_packed *packed, int64_t context, pq_engine **out, pq_error *err);
PQ_API void pq_engine_destroy(pq_engine *engine);

/** Forget all sequences: the next token of each stands at position 0. */
PQ_API void pq_engine_reset(pq_engine *engine);
/** Tokens of the first sequence read so far. */
PQ_API int64_t pq_engine_position(const pq_engine *engine);

/** Read tokens[count] on in the first sequence and, where logits is not NULL, give the logits of every one of
 * them ([count][vocab]) or, with last_only, of the last ([vocab]). Errors: more tokens than the context
 * holds, an id out of range, count 0; the sequence is then as before. */
PQ_API pq_status pq_engine_forward(pq_engine *engine, const uint16_t *tokens, size_t count, bool last_only,
                                   float *logits, pq_error *err);
/** The same in sequence number `sequence`, from 0. */
PQ_API pq_status pq_engine_forward_in(pq_engine *engine, int64_t sequence, const uint16_t *tokens,
                                      size_t count, bool last_only, float *logits, pq_error *err);
/** Read one token in each of the first `count` sequences, together: the weights are gone through once.
 * tokens[count], logits[count][vocab] (NULL: none). Errors as above; all sequences are then as before. */
PQ_API pq_status pq_engine_step(pq_engine *engine, const uint16_t *tokens, size_t count, float *logits,
                                pq_error *err);

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
