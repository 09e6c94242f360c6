/* The parts of a GGUF file inside the room: element types, the container, the tokenizer's keys. */
#ifndef PQ_FORMATS_GGUF_PARTS_H
#define PQ_FORMATS_GGUF_PARTS_H

#include <stdint.h>
#include <stdio.h>

#include "formats/gguf.h"

/* ---- element types: a row is cut into blocks of `block` values that take `bytes` bytes each ---- */

typedef struct pq_gguf_type {
    const char *name;
    uint32_t id, file_type; /* ggml's number, and llama.cpp's for a file that is mostly of it */
    size_t block, bytes;
    /* One block. `scale` helps to find an exact code where the values are small multiples of it (0: unknown);
     * where there is none, the nearest one is taken. */
    void (*encode)(const float *x, float scale, uint8_t *out);
    void (*decode)(const uint8_t *in, float *out);
} pq_gguf_type;

enum { PQ_GGUF_BLOCK = 32 }; /* the longest block */

const pq_gguf_type *pq_gguf_type_find(const char *name); /* NULL: unknown */
const pq_gguf_type *pq_gguf_type_find_id(uint32_t id);
const pq_gguf_type *pq_gguf_type_at(size_t index); /* from the smallest to fp32; NULL past the last */

/* out = x[rows][columns], columns a multiple of the block; scales (NULL: none) belong to `group` values each.
 * Returns the largest absolute error, infinite where a value is beyond the type's range. */
pq_status pq_gguf_encode(const pq_gguf_type *type, const float *x, size_t rows, size_t columns,
                         const float *scales, size_t group, uint8_t *out, double *largest_error,
                         pq_error *err);

/* ---- the container ---- */

/* Keys and values as they are collected. Errors of the stream show up in pq_gguf_header. */
typedef struct pq_gguf_metadata {
    FILE *stream;
    char *bytes;
    size_t size;
    uint64_t count;
} pq_gguf_metadata;

pq_status pq_gguf_metadata_init(pq_gguf_metadata *metadata, pq_error *err);
void pq_gguf_metadata_deinit(pq_gguf_metadata *metadata);
void pq_gguf_add_u32(pq_gguf_metadata *metadata, const char *key, uint32_t value);
void pq_gguf_add_f32(pq_gguf_metadata *metadata, const char *key, float value);
void pq_gguf_add_bool(pq_gguf_metadata *metadata, const char *key, bool value);
void pq_gguf_add_text(pq_gguf_metadata *metadata, const char *key, const char *value);
/* The texts lie one behind the other, each ended by NUL. */
void pq_gguf_add_texts(pq_gguf_metadata *metadata, const char *key, const char *values, size_t count);
void pq_gguf_add_i32s(pq_gguf_metadata *metadata, const char *key, const int32_t *values, size_t count);

typedef struct pq_gguf_tensor {
    char name[64];
    const pq_gguf_type *type;
    size_t rows, columns; /* a vector has rows = 0 */
    size_t offset, bytes; /* in the data, which starts behind the header */
} pq_gguf_tensor;

enum { PQ_GGUF_ALIGNMENT = 32 };

/* All that stands before the data: *header on the heap, padded to the alignment; fills in offset and bytes of
 * each tensor. */
pq_status pq_gguf_header(pq_gguf_metadata *metadata, pq_gguf_tensor *tensors, size_t count, char **header,
                         size_t *bytes, pq_error *err);
/* The other way: tensors[*count] on the heap, and where their data starts. Checks every length. */
pq_status pq_gguf_parse(const char *image, size_t size, pq_gguf_tensor **tensors, size_t *count, size_t *data,
                        pq_error *err);

/* ---- the tokenizer ---- */

/* The keys tokenizer.ggml.* for a tokenizer's JSON text (NULL: none) and `vocab` rows of the token table. */
pq_status pq_gguf_add_tokenizer(pq_gguf_metadata *metadata, const char *json, size_t vocab, pq_error *err);

#endif
