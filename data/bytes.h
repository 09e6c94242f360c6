/* The bytes of a text in order, in bounded memory: from a file, a file compressed by zstd (a name that ends
 * in .zst), or memory. */
#ifndef PQ_DATA_BYTES_H
#define PQ_DATA_BYTES_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef struct pq_bytes pq_bytes;

/* `path` must outlive it, as must data[size]. */
pq_status pq_bytes_open(const char *path, pq_bytes **out, pq_error *err);
pq_status pq_bytes_open_memory(const char *data, size_t size, pq_bytes **out, pq_error *err);
void pq_bytes_close(pq_bytes *bytes); /* NULL is fine */

/* *got = `most` bytes, or fewer where the text ends. PQ_ERR_FORMAT for what is not zstd's or ends too early.
 */
pq_status pq_bytes_read(pq_bytes *bytes, char *out, size_t most, size_t *got, pq_error *err);
/* Go on `count` bytes further on; by decompressing them where the file is compressed. PQ_ERR_FORMAT when
 * there are fewer. */
pq_status pq_bytes_skip(pq_bytes *bytes, uint64_t count, pq_error *err);
/* How much of the file, as it lies on the disk, was read. */
uint64_t pq_bytes_taken(const pq_bytes *bytes);

#endif
