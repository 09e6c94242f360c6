/* Where the time of a training goes. One clock runs through the trainer and the session: at each border the
 * time since the last border is given to the phase that ends there, so that the phases add up to the whole by
 * construction. What the graph takes is told op by op from the graph's own times. It always runs (a few dozen
 * readings of the clock an iteration); nothing of it goes into a run's files. */
#ifndef PQ_TRAIN_PROFILE_H
#define PQ_TRAIN_PROFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef enum pq_phase {
    /* of an iteration */
    PQ_PHASE_LOADER,   /* the batch is drawn */
    PQ_PHASE_QUANTIZE, /* what the graph sees of the weights */
    PQ_PHASE_TEACHER,
    PQ_PHASE_GRAPH,   /* the ops, forward and backward */
    PQ_PHASE_METHODS, /* gradients of the latent weights; what methods do after an update */
    PQ_PHASE_CLIP,    /* the gradient's norm */
    PQ_PHASE_ADAMW,
    /* around them */
    PQ_PHASE_EVALUATE,
    PQ_PHASE_SAVE,
    PQ_PHASE_REST,
    PQ_PHASES
} pq_phase;

typedef struct pq_profile {
    double last; /* border, seconds on the monotonic clock */
    double seconds[PQ_PHASES];
    uint64_t calls[PQ_PHASES];
} pq_profile;

/* Forget all; the clock runs from here. */
void pq_profile_start(pq_profile *profile);
/* `phase` ends here; pause: it will go on, and does not count as a call yet. */
void pq_profile_end(pq_profile *profile, pq_phase phase);
void pq_profile_pause(pq_profile *profile, pq_phase phase);

/* One line of a profile. Shares of an iteration's parts are of all iterations, those of the rest of the
 * whole; each kind adds up to 1. */
typedef struct pq_profile_row {
    const char *name, *pass; /* of an op: "forward", "backward"; else "" */
    bool iteration;          /* a part of the iterations, or a part of the whole */
    uint64_t calls;          /* 0: nothing that could be counted */
    double seconds, share;
    double flops, peak_share; /* a second, and of what the machine can do; 0: no products */
} pq_profile_row;

struct pq_session;

/* The rows of `session`, heap; the caller frees. NULL on lack of memory. Measures the machine's peak, which
 * takes a fraction of a second. */
pq_profile_row *pq_profile_rows(const struct pq_session *session, size_t *count);

/* The same as a table for people. */
void pq_profile_print(const struct pq_session *session, FILE *out);

#endif
