/* What the packed model's reader and writer share: versions, hashes, and how codes lie in a row. */
#ifndef PQ_FORMATS_PACKED_LAYOUT_H
#define PQ_FORMATS_PACKED_LAYOUT_H

#include "base/file.h"
#include "formats/packed.h"
#include "formats/safetensors.h"

#define PQ_PACKED_FORMAT  "potqat packed"
#define PQ_PACKED_VERSION "1"

enum { PQ_PACKED_BLOCK = 128 }; /* weights of a row that are packed together */
enum { PQ_HASH_TEXT = 17 };     /* 16 hexadecimal digits and the end */

/* XXH3 of `bytes` bytes as text. */
void pq_packed_hash_text(const void *data, size_t bytes, char out[PQ_HASH_TEXT]);
/* The hash of all that a header says: every metadata text but header_hash itself, sorted by key, as
 * key NUL value NUL, then every tensor in the order of the data as name NUL dtype NUL, its dimensions as
 * decimal NUL each, and one more NUL. */
pq_status pq_packed_header_hash(const pq_safetensor *tensors, size_t count, const pq_safetensors_text *texts,
                                size_t text_count, char out[PQ_HASH_TEXT], pq_error *err);

/* Scales a row of the stored [rows][scales] has; a scale for the whole matrix is [1][1]. */
static inline size_t pq_packed_scales_per_row(size_t columns, size_t group) {
    return group < columns ? columns / group : 1;
}

/* Take over a file's image (closed on failure too) and check everything; `name` stands for it in errors. */
pq_status pq_packed_from_view(pq_file_view *view, const char *name, pq_packed **out, pq_error *err);

#endif
