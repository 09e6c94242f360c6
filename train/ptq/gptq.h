/* Rounding a matrix so that what it makes of its inputs changes little: GPTQ (Frantar et al., arXiv
 * 2210.17323) and descent by single weights and scales. */
#ifndef PQ_TRAIN_GPTQ_H
#define PQ_TRAIN_GPTQ_H

#include "quant/quantizer.h"

/* A matrix W[rows][columns] is to become Q with a small trace((W - Q) H (W - Q)^T), the squared error of the
 * outputs summed over the inputs x that H = sum x x^T was made from. */
typedef struct pq_gptq_problem {
    const pq_codebook *codebook;
    size_t rows, columns, group; /* group: weights a scale, as in pq_matrix_fit */
    const float *H;              /* [columns][columns], symmetric, positive definite: pq_gptq_damp */
} pq_gptq_problem;

/* From the lower triangle of H to all of it, `damping` times the mean of the diagonal added to the diagonal
 * (1 where that is 0). Columns that never read anything are then rounded to nearest. */
void pq_gptq_damp(size_t n, double damping, float *H);

/* GPTQ with the scales as they are: column by column, each error made up for by the columns that are not
 * rounded yet. Columns go by decreasing H_ii (groups are static: a weight keeps the scale of its place). W
 * becomes what each weight was when it was rounded: quantizing it with the same scales gives GPTQ's values.
 * The same bits for every number of threads. PQ_ERR_USAGE where H is not positive definite. */
pq_status pq_gptq(const pq_gptq_problem *problem, const float *scales, float *W, pq_error *err);

/* GPTQ, then better: scales on `grid` are fitted anew to the values found (NULL: they stay) and GPTQ run
 * again with them, twice; then, four times, scales are fitted and one weight after the other is set to its
 * best level while all others stay. W and `scales` as in pq_gptq: quantizing W gives the values found. */
pq_status pq_gptq_refined(const pq_gptq_problem *problem, const pq_scale_grid *grid, float *scales, float *W,
                          pq_error *err);

/* trace((W - Q) H (W - Q)^T), in double. */
double pq_gptq_objective(const pq_gptq_problem *problem, const float *W, const float *Q);

#endif
