/* What goes on inside each quantized matrix: which levels its weights have, how often these change, how its
 * scales move, what gradient it gets. Counted by the method "watch" (train/methods/watch.c), written to
 * metrics.jsonl at each evaluation. */
#ifndef PQ_TRAIN_MATRIX_STATS_H
#define PQ_TRAIN_MATRIX_STATS_H

#include <jansson.h>

#include "train/session.h"

/* A weight's rank: its level as a small signed number that does not depend on the scale. 0 is the level 0,
 * the sign is the level's, and a larger level has a larger rank. */
enum { PQ_RANKED_MAGNITUDES = 1024 };
typedef struct pq_ranks {
    bool powers; /* +-2^k has rank +-(k + 1) */
    float most;  /* largest magnitude in units of the scale; a whole number in all other codebooks */
    int8_t of[PQ_RANKED_MAGNITUDES]; /* rank of a magnitude; read where `most` is above 127, below that it is
                        the number itself */
} pq_ranks;
void pq_ranks_init(pq_ranks *ranks, const pq_codebook *codebook);
/* ranks of n values of the codebook times `scale`, as pq_fake_quantize gives them. */
void pq_ranks_of(const pq_ranks *ranks, const float *values, float scale, int8_t *out, size_t n);

/* How many weights: have another rank than in the step before; have, at such a change, the rank that they had
 * before their previous change; went from a positive to a negative level or back. */
typedef struct pq_rank_changes {
    uint64_t changed, flipped_back, sign_flips;
} pq_rank_changes;
/* Compare now[n] with last[n], add to *sums, and step: last[n] becomes now[n], before[n] the rank that each
 * weight had before its latest change. At the first step both are copies of now[n]. */
void pq_rank_changes_add(const int8_t *now, int8_t *last, int8_t *before, size_t n, pq_rank_changes *sums);

/* Mean of |now - then| / then; then > 0. */
double pq_scale_drift(const float *now, const float *then, size_t n);

/* Shares of the weights that have each level, the most negative level first; shares[codebook->levels].
 * hard[n] is what pq_matrix_fake_quantize gives. */
void pq_level_shares(const pq_codebook *codebook, const float *hard, size_t group, const float *scales,
                     size_t n, double *shares);

/* What was counted since the last line, of the weights that training sees (hard ones, also where a blend or
 * chance decides what the graph gets): NaN where there was nothing to count yet. */
typedef struct pq_watched {
    double changed, flipped_back, sign_flips; /* share of the weights, mean over the steps */
    double scale_drift;
    bool trained; /* an iteration has run: there is a gradient */
} pq_watched;
pq_watched pq_watch_read(const pq_qat *qat, size_t index);
void pq_watch_restart(pq_qat *qat); /* a line of each matrix was written */

/* The line of matrix `index` (train/metrics.h has its keys); hard[count]: what pq_model_effective gives of
 * the evaluated model. NULL on lack of memory. */
json_t *pq_matrix_line(const pq_session *session, size_t index, int64_t iter, const float *hard);

#endif
