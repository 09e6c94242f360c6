/* A model as C99 for a device: one source file with the packed weights in it, and its header. */
#ifndef PQ_FORMATS_C_SOURCE_H
#define PQ_FORMATS_C_SOURCE_H

#include "model/model.h"

#define PQ_C_LIMIT ((size_t)8 << 20) /* bytes of packed weights */

typedef struct pq_c_summary {
    size_t weight_bytes; /* packed, as in a packed model */
    size_t flash, ram;   /* bytes of constants and of variables, without the code and the stack */
    char name[64];       /* what the functions' names begin with */
} pq_c_summary;

/* Write `model` as `path`, a name that ends in .c, and the header beside it. The program follows the integer
 * recipe of docs/formats.md. PQ_ERR_USAGE: matrices that are not quantized, levels that are no powers of two,
 * more than PQ_C_LIMIT bytes packed, an existing target without overwrite. The source is opened again and
 * every weight in it compared before the files get their names. */
pq_status pq_c_write(const char *path, bool overwrite, const pq_model *model, pq_c_summary *out,
                     pq_error *err);

#endif
