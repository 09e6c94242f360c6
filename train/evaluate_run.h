/* What the parts of evaluation share. */
#ifndef PQ_TRAIN_EVALUATE_RUN_H
#define PQ_TRAIN_EVALUATE_RUN_H

#include "base/memory.h"
#include "train/evaluate.h"

/* Do a model of this shape, data and options fit? */
pq_status pq_evaluation_check(const pq_gpt2_shape *shape, const pq_dataset *dataset,
                              const pq_evaluation_options *options, pq_error *err);

/* How many windows these options mean; the split holds at least one (pq_dataset_check). */
size_t pq_evaluation_window_count(const pq_dataset *dataset, const pq_evaluation_options *options);

/* Mean over tokens, and its standard error, of numbers that are means over windows [windows]. */
pq_difference pq_evaluation_mean(const pq_evaluation *evaluation, const double *of_windows);

/* What follows from window_loss, when `tokens` predictions count. */
void pq_evaluation_finish(pq_evaluation *evaluation, const pq_evaluation_options *options, size_t tokens);

#endif
