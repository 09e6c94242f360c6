/* Calibration: a text's way through the model, one part after the other, and what the linear layers read. */
#ifndef PQ_TRAIN_CALIBRATE_H
#define PQ_TRAIN_CALIBRATE_H

#include "data/dataset.h"
#include "model/gpt2.h"

typedef struct pq_calibration_options {
    size_t sequences, context; /* windows of the train split, `context` tokens each */
    uint64_t seed;             /* of their choice */
} pq_calibration_options;

/* Between two calls the residual stream of all windows is held, and nothing else of their way. */
typedef struct pq_calibration {
    const pq_model *model; /* borrowed: its shape counts, not its weights */
    float *weights; /* [params.elements] that the parts run with: the model's latent ones until the caller
                       puts quantized ones in their places */
    size_t context, tokens;
    size_t batch, padded; /* sequences run at once; tokens, filled up to whole batches */
    uint16_t *text;       /* [padded] */
    float *stream;        /* [padded][C] */
} pq_calibration;

/* PQ_ERR_USAGE where the train split holds fewer tokens than asked for (windows do not overlap), or the
 * context is longer than the model's: nothing is allocated before. Needs another program's BLAS threads taken
 * (kernels/gemm.h). */
pq_status pq_calibration_check(const pq_model *model, const pq_dataset *dataset,
                               const pq_calibration_options *options, pq_error *err);
pq_status pq_calibration_init(const pq_model *model, const pq_dataset *dataset,
                              const pq_calibration_options *options, pq_calibration *out, pq_error *err);
void pq_calibration_deinit(pq_calibration *calibration);

/* The stream through one part: PQ_PART_EMBEDDING starts it, PQ_PART_ATTENTION and PQ_PART_MLP take it through
 * a half of a block. */
pq_status pq_calibration_advance(pq_calibration *calibration, int layer, pq_gpt2_part part, pq_error *err);

/* The lower triangle of H[n][n] = sum over all tokens of x x^T, x what the linear layer behind `part` (one of
 * PQ_PART_*_INPUT) reads; the stream stays. Sums in an order fixed by the shape. */
pq_status pq_calibration_hessian(pq_calibration *calibration, int layer, pq_gpt2_part part, size_t n,
                                 float *H, pq_error *err);

#endif
