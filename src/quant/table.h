/* The rows of quantizer.c's table, one a quantizer, and the names that the rows share. */
#ifndef PQ_QUANT_TABLE_H
#define PQ_QUANT_TABLE_H

#include "quant/quantizer.h"

extern const pq_quantizer pq_quantizer_pot, pq_quantizer_pot_zero_free, pq_quantizer_uniform,
    pq_quantizer_pot_released, pq_quantizer_apot;

/* Largest magnitude of the codebook in units of s. */
static inline double pq_codebook_largest(const pq_codebook *codebook) {
    return codebook->range[1] > -codebook->range[0] ? codebook->range[1] : -codebook->range[0];
}

/* PQ_ERR_USAGE unless levels come without a range, or a range is given where one is taken. */
pq_status pq_refuse_range(const pq_codebook *codebook, const double *range, pq_error *err);
pq_status pq_refuse_log(const pq_codebook *codebook, pq_error *err);
/* Least bits that hold `levels` codes. */
int pq_code_bits(int levels);

#endif
