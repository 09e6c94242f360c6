/* The optimizer: AdamW with its decay groups, clipping by the global norm, learning-rate schedules. */
#ifndef PQ_OPTIM_OPTIM_H
#define PQ_OPTIM_OPTIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A run of a flat buffer with one treatment. */
typedef struct pq_span {
    size_t offset, count; /* elements */
    bool decay;
} pq_span;

typedef struct pq_adamw {
    double beta1, beta2, epsilon, weight_decay;
    int64_t step; /* updates done; the next one is step + 1 (bias correction) */
} pq_adamw;

/* The Euclidean norm of all spans of g: sums of fixed tiles, added in their order. NaN or Inf where g holds
 * one. */
double pq_gradient_norm(const float *g, const pq_span *spans, size_t count);

/* One update of w, m, v from g (flat buffers of one layout) at rate `lr`; g counts `gradient_scale` times
 * (clipping). Threads share fixed tiles. */
void pq_adamw_update(pq_adamw *adamw, float *w, const float *g, float *m, float *v, const pq_span *spans,
                     size_t count, double lr, double gradient_scale);

/* The rate of iteration `iter` (0-based): linear warm-up lr (iter + 1) / warmup, then constant, or a cosine
 * from lr at the end of the warm-up to min_lr at decay_iters, and min_lr after it. */
typedef struct pq_schedule {
    bool cosine;
    double lr, min_lr;
    int64_t warmup_iters, decay_iters;
} pq_schedule;
double pq_schedule_rate(const pq_schedule *schedule, int64_t iter);

#endif
