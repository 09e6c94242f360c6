/* The JSON texts in a packed model's __metadata__: shape, codebooks, numbers. */
#ifndef PQ_FORMATS_PACKED_TEXT_H
#define PQ_FORMATS_PACKED_TEXT_H

#include "model/model.h"

/* How a parameter is quantized, as the codebooks text says. */
typedef struct pq_packed_coding {
    const pq_codebook *codebook; /* NULL: dense */
    size_t group;                /* weights a scale; divides a row, or is the whole matrix */
} pq_packed_coding;

/* Texts on the heap; NULL on lack of memory. */
char *pq_packed_shape_text(const pq_gpt2_shape *shape);
char *pq_packed_codebooks_text(const pq_model *model);
char *pq_packed_number_text(double value); /* round-trips; NaN is null */

/* The other way. Everything is checked; errors (PQ_ERR_FORMAT) say what the text has wrong. The codebooks go
 * to *codebooks (heap), codings[params->count] point into them. */
pq_status pq_packed_read_shape(const char *text, pq_gpt2_shape *shape, pq_error *err);
pq_status pq_packed_read_codebooks(const char *text, const pq_params *params, pq_codebook **codebooks,
                                   pq_packed_coding *codings, pq_error *err);
pq_status pq_packed_read_number(const char *text, double *value, pq_error *err);

#endif
