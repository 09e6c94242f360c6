/* How much the loss rises when one matrix alone is quantized, and the level counts that fit into so many
 * bytes with the least rise together. */
#ifndef PQ_TRAIN_SENSITIVITY_H
#define PQ_TRAIN_SENSITIVITY_H

#include "train/evaluate.h"

/* One matrix with one level count, every other matrix in fp32. */
typedef struct pq_sensitivity_row {
    size_t index; /* of the parameter */
    int levels, bits;
    size_t bytes;   /* codes and scales */
    double sqnr_db; /* of the rounded weights */
    double rise,
        rise_se; /* of the loss above fp32, nats a token: mean and standard error over the same windows */
} pq_sensitivity_row;

typedef struct pq_sensitivity {
    pq_sensitivity_row *rows; /* matrix by matrix, levels upwards; owned */
    size_t count;
    double loss; /* of fp32; NaN in a table that was read */
} pq_sensitivity;

/* Each matrix that quant.params names at each of 3, 5, 7, 9, 15, 31, 63 levels (pot-zero-free: 4, 8, 16, 32,
 * 64), rounded to nearest with scales as section quant says (overrides aside). One evaluation a row: its cost
 * is said by pq_log. The model is left without quantization. PQ_ERR_USAGE where the quantizer goes by a
 * range. */
pq_status pq_sensitivity_measure(const pq_config *config, pq_model *model, const pq_dataset *dataset,
                                 const pq_evaluation_options *options, pq_sensitivity *out, pq_error *err);
void pq_sensitivity_deinit(pq_sensitivity *table);

/* As CSV: matrix,levels,bits,bytes,sqnr_db,loss_rise,loss_rise_se. Reading refuses a table that is not of
 * this model and section quant: other matrices, level counts or sizes. The model's marks change as by
 * pq_sensitivity_measure. */
pq_status pq_sensitivity_write(const pq_sensitivity *table, const pq_model *model, const char *path,
                               bool overwrite, pq_error *err);
pq_status pq_sensitivity_read(const char *path, const pq_config *config, pq_model *model, pq_sensitivity *out,
                              pq_error *err);

/* PQ_ERR_USAGE where even the fewest levels make the model larger than `budget` bytes; needs no table. */
pq_status pq_sensitivity_check_budget(const pq_config *config, pq_model *model, size_t budget, pq_error *err);

/* One row a matrix so that all weights of the model (fp32 vectors and scales included) take at most `budget`
 * bytes and the sum of the rises is the least there is; of equal ones the smallest. chosen[params.count]:
 * NULL where the table has no such matrix. */
pq_status pq_sensitivity_allocate(const pq_sensitivity *table, const pq_model *model, size_t budget,
                                  const pq_sensitivity_row **chosen, pq_error *err);

/* The choice as an override, "quant.overrides=[{match: ..., levels: 7}, ...]"; heap. */
pq_status pq_sensitivity_override(const pq_model *model, const pq_sensitivity_row *const *chosen, char **text,
                                  pq_error *err);

#endif
