/* HDF5 checkpoints: one model with its optimizer moments and the trainer's state, atomic and checksummed. */
#ifndef POTQAT_CHECKPOINT_H
#define POTQAT_CHECKPOINT_H

#include <stdbool.h>
#include <stddef.h>

#include <potqat/model.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Type of a state array's items. */
typedef enum pq_array_type { PQ_ARRAY_F32, PQ_ARRAY_U8 } pq_array_type;

/** A list of numbers that a training method keeps between iterations, opaque here. */
typedef struct pq_state_array {
    char name[96];      /**< letters, digits, '.', '_', '-'; unique in a checkpoint */
    pq_array_type type; /**< float or unsigned char */
    size_t count;       /**< at least 1 */
    void *data;
    bool borrowed; /**< data belongs to someone else: not freed by pq_training_state_deinit */
} pq_state_array;

/** What stands in a checkpoint besides the model. */
typedef struct pq_training_state {
    float *m, *v;           /**< AdamW moments, laid out like the weights; NULL = none (PTQ, import) */
    char *state;            /**< the trainer's own counters as JSON text, opaque here; NULL = none */
    pq_state_array *arrays; /**< [array_count], state of the training methods; NULL = none */
    size_t array_count;
} pq_training_state;

/** Write model (weights, quantizers, scales, tokenizer, config, iteration, validation loss) and state (may be
 * NULL). Appears whole or not at all; an existing file is replaced only with overwrite. Saving to the file
 * being read from is safe. PQ_DIVERGED: weights or moments that are not finite, or scales that are not
 * positive. HDF5 is not thread-safe: one call into this header at a time in a process. */
PQ_API pq_status pq_checkpoint_write(const char *path, bool overwrite, const pq_model *model,
                                     const pq_training_state *state, pq_error *err);

/** Read a checkpoint; `state` may be NULL (moments not wanted). Everything is checked: format, version,
 * names, types, shapes against the model's shape before anything is allocated, checksums, finite scales,
 * codebooks, the tokenizer's hash. */
PQ_API pq_status pq_checkpoint_read(const char *path, pq_model **model, pq_training_state *state,
                                    pq_error *err);
PQ_API void pq_training_state_deinit(pq_training_state *state);

#ifdef __cplusplus
}
#endif
#endif
