/* safetensors files: 8 bytes of header length (little-endian), a JSON header, then the tensors' bytes without
 * holes. Generic: knows nothing of potqat's models. */
#ifndef PQ_FORMATS_SAFETENSORS_H
#define PQ_FORMATS_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define PQ_SAFETENSORS_RANK 8 /* most dimensions a tensor may have */

/* One tensor of a file, row-major. */
typedef struct pq_safetensor {
    const char *name, *dtype; /* dtype: "F32", "BF16", "U8", ... */
    size_t rank;
    uint64_t shape[PQ_SAFETENSORS_RANK];
    size_t bytes;
    const void *data;
} pq_safetensor;

/* One string of __metadata__. */
typedef struct pq_safetensors_text {
    const char *key, *value;
} pq_safetensors_text;

/* A parsed file; texts belong to it, data leads into the image it was parsed from. */
typedef struct pq_safetensors {
    pq_safetensor *tensors; /* [count], in the order of their data */
    size_t count;
    pq_safetensors_text *texts; /* [text_count], in the file's order */
    size_t text_count;
    const void *data; /* all tensors' bytes */
    size_t data_bytes;
    void *json; /* owns names and texts */
} pq_safetensors;

/* Bytes of one element, 0 for a dtype that is not known. */
size_t pq_safetensors_dtype_bytes(const char *dtype);

/* Parse a file's whole image (borrowed, must outlive `out`); `name` stands for it in errors. PQ_ERR_FORMAT
 * for anything that is not exactly a safetensors file: lengths that lie, holes, overlaps, bytes left over,
 * unknown dtypes, shapes that disagree with their offsets, keys given twice, headers over 100 MB. */
pq_status pq_safetensors_parse(const void *image, size_t bytes, const char *name, pq_safetensors *out,
                               pq_error *err);
void pq_safetensors_deinit(pq_safetensors *file);

const pq_safetensor *pq_safetensors_find(const pq_safetensors *file, const char *name); /* NULL: absent */
const char *pq_safetensors_metadata(const pq_safetensors *file, const char *key);       /* NULL: absent */

/* The head of a file that holds `tensors` in this order (`bytes` is computed, `data` not read): length and
 * JSON, padded with spaces so that the tensors, which the caller writes behind it one after the other, start
 * at a multiple of 64 bytes. *header is on the heap. Each tensor is then aligned to 64 bytes, or to the
 * largest power of two that divides the sizes before it: give those with rounder sizes first. */
pq_status pq_safetensors_header(pq_safetensor *tensors, size_t count, const pq_safetensors_text *texts,
                                size_t text_count, char **header, size_t *header_bytes, pq_error *err);

#endif
