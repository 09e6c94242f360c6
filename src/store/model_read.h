/* From what a MODEL argument names to the one in-memory form: every room that takes a MODEL reads it here. */
#ifndef PQ_STORE_MODEL_READ_H
#define PQ_STORE_MODEL_READ_H

#include "formats/foreign.h"
#include "store/checkpoint.h"
#include "store/run.h"

/* Read any MODEL. `state` (NULL: not wanted) is filled from a checkpoint and empty otherwise. */
pq_status pq_model_read(const char *spec, pq_model **out, pq_training_state *state, pq_error *err);

/* pq_foreign_read, and the config that such a model starts with: the defaults, with model.* as it is. */
pq_status pq_model_import(const char *path, const pq_foreign_options *options, pq_model **out, pq_error *err);

#endif
