/* The rows of the table of methods; see train/method.h. Stays in this room. */
#ifndef PQ_TRAIN_METHODS_ROWS_H
#define PQ_TRAIN_METHODS_ROWS_H

#include "train/method.h"

extern const pq_method pq_method_progressive, pq_method_refit, pq_method_hard, pq_method_stochastic,
    pq_method_soft, pq_method_learned, pq_method_clip, pq_method_freeze, pq_method_dampen, pq_method_ema,
    pq_method_watch;

#endif
