/* Names of a sweep's points. Private to train/. */
#ifndef PQ_TRAIN_SWEEP_NAME_H
#define PQ_TRAIN_SWEEP_NAME_H

#include "train/sweep/sweep.h"

#define PQ_SWEEP_NAME 200 /* bytes, with the end */

/* "levels=7,granularity=row" from the keys that a point sets and their values in its config, or `given` where
 * that is not NULL; safe on every file system and in a shell. PQ_ERR_USAGE where it is too long. */
pq_status pq_sweep_name(const pq_sweep *sweep, const pq_setting *settings, size_t count,
                        const pq_config *config, const char *given, char out[PQ_SWEEP_NAME], pq_error *err);

#endif
