/* HDF5 checkpoints: one model with its optimizer moments and the trainer's state, atomic and checksummed.
 * The only user of HDF5. */
#ifndef PQ_STORE_CHECKPOINT_H
#define PQ_STORE_CHECKPOINT_H

#include "model/model.h"

/* What stands in a checkpoint besides the model. */
typedef struct pq_training_state {
    float *m, *v; /* AdamW moments [params.elements], laid out like the weights; NULL = none (PTQ, import) */
    char *state;  /* the trainer's own counters as JSON text, opaque here; NULL = none */
} pq_training_state;

/* Write model (weights, quantizers, scales, tokenizer, config, iter, val_loss) and state. Appears whole or
 * not at all; an existing file is replaced only with overwrite. Saving to the file being read from is safe.
 */
pq_status pq_checkpoint_write(const char *path, bool overwrite, const pq_model *model,
                              const pq_training_state *state, pq_error *err);

/* Read a checkpoint; `state` may be NULL (moments not wanted). Everything is checked: format, version, names,
 * types, shapes against the model's shape before anything is allocated, checksums, finite scales, codebooks,
 * the tokenizer's hash. */
pq_status pq_checkpoint_read(const char *path, pq_model **model, pq_training_state *state, pq_error *err);
void pq_training_state_deinit(pq_training_state *state);

#endif
