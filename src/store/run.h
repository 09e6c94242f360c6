/* Run folders: config.yaml, run.json, metrics.jsonl, timing.jsonl, ckpt-N.h5, best.h5, report.html; and what
 * a MODEL argument names. */
#ifndef PQ_STORE_RUN_H
#define PQ_STORE_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* Make a run's folder (parents too). An existing one is refused unless overwrite, which removes the files a
 * run makes (and only those: config.yaml, run.json, metrics.jsonl, timing.jsonl, windows-*.csv,
 * events.out.tfevents.potqat, ckpt-*.h5, best.h5, report.html and left-over temporary files); a folder that
 * is not a run (other files, no config.yaml) is never touched. */
pq_status pq_run_create(const char *dir, bool overwrite, pq_error *err);
/* Take the run's lock (flock on the folder's file "lock"), so that two processes never train in one folder;
 * the descriptor keeps it until closed or the process ends. */
pq_status pq_run_lock(const char *dir, int *descriptor, pq_error *err);
/* PQ_ERR_USAGE with a sentence when `dir` is not a run folder. */
pq_status pq_run_check(const char *dir, pq_error *err);

char *pq_run_path(const char *dir, const char *name);        /* heap */
char *pq_run_checkpoint_path(const char *dir, int64_t iter); /* DIR/ckpt-N.h5, heap */
/* Iterations of the checkpoints in a run, ascending; heap. Removes left-over temporary files of dead writers.
 */
pq_status pq_run_checkpoints(const char *dir, int64_t **iters, size_t *count, pq_error *err);
/* Remove all but the last `keep` checkpoints. */
pq_status pq_run_prune(const char *dir, size_t keep, pq_error *err);

/* What a MODEL argument names: a run folder (its best), RUN@best, RUN@last, RUN@N, a checkpoint .h5, a packed
 * .safetensors, a Hugging Face folder (config.json, and no config.yaml). The file or folder must exist. */
typedef enum pq_model_kind { PQ_MODEL_CHECKPOINT, PQ_MODEL_PACKED, PQ_MODEL_HF } pq_model_kind;
pq_status pq_model_locate(const char *spec, char **path, pq_model_kind *kind, pq_error *err);

#endif
