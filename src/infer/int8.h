/* Products with packed matrices in whole numbers: the engine's side of the integer recipe. */
#ifndef PQ_INFER_INT8_H
#define PQ_INFER_INT8_H

#include "formats/packed.h"
#include "kernels/kernels.h"

enum { PQ_MOST_DIGITS = 5, PQ_MOST_CODES = 128 };

/* A quantized matrix as the products read it: its codes in place, and what is small beside them. A value is
 * the sum of digit[d][code] * 128^d, one digit for values up to 64. */
typedef struct pq_int8_matrix {
    const pq_packed_tensor *tensor; /* NULL: not quantized */
    size_t rows, blocks, groups;    /* groups of scales a row */
    int digits;
    int8_t digit[PQ_MOST_DIGITS][PQ_MOST_CODES];
    int32_t *sums; /* [digits][rows][groups]: sums of the digits */
    float *scales; /* [rows][groups] */
} pq_int8_matrix;

/* Inputs of n tokens as whole numbers. */
typedef struct pq_int8_inputs {
    size_t stride;     /* bytes of a token: its lower bytes, then as many upper ones */
    uint8_t *bytes;    /* [n][stride] */
    pq_int8_row *rows; /* [n] */
} pq_int8_inputs;

/* Reads the tensor once, for the sums. Owned: give it to pq_int8_matrix_deinit, on failure too. */
pq_status pq_int8_matrix_init(const pq_packed_tensor *tensor, pq_int8_matrix *out, pq_error *err);
void pq_int8_matrix_deinit(pq_int8_matrix *matrix);

/* Integers of scratch that a lane of pq_int8_product needs. */
size_t pq_int8_scratch(const pq_int8_matrix *matrix);

/* x[n][columns] as whole numbers; may_widen: 16 bits for tokens with outliers. */
void pq_int8_take(const float *x, size_t n, size_t columns, bool may_widen, pq_int8_inputs *out);

/* out[n][stride, the first `rows` of it] = inputs weights^T + bias (NULL: none). scratch:
 * [PQ_ENGINE_LANES][lane_scratch]. */
void pq_int8_product(const pq_int8_matrix *matrix, const float *bias, const pq_int8_inputs *inputs, size_t n,
                     float *out, size_t stride, int32_t *scratch, size_t lane_scratch);

#endif
