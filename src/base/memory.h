/* Heap memory that is checked and, where kernels need it, aligned. Sizes are in bytes unless a name says
 * count. */
#ifndef PQ_BASE_MEMORY_H
#define PQ_BASE_MEMORY_H

#include <stddef.h>

#include "base/error.h"

#define PQ_ALIGNMENT 64 /* bytes: one cache line, one AVX-512 register */

/* Zeroed memory, aligned to PQ_ALIGNMENT, huge pages where the kernel can; *out is NULL-able only on error.
 * Free with free(). `what` names the use in the error. */
pq_status pq_calloc(size_t count, size_t size, const char *what, void *out_pointer, pq_error *err);

/* Round n up to a multiple of step. */
static inline size_t pq_round_up(size_t n, size_t step) {
    return (n + step - 1) / step * step;
}

/* A copy of `text` on the heap (NULL stays NULL); raises on lack of memory. */
pq_status pq_copy_text(const char *text, char **out, pq_error *err);

/* A large zeroed block straight from the kernel (huge pages where it can): pages never touched cost nothing.
 */
pq_status pq_pages_reserve(size_t bytes, const char *what, void *out_pointer, pq_error *err);
void pq_pages_release(void *memory, size_t bytes); /* NULL is fine */

/* Advice about data[bytes] of a mapped file. drop: the whole pages in it are not needed soon, so that files
 * may be as large as memory; fetch: they will be, so begin to read them now, without waiting for it. */
void pq_pages_drop(const void *data, size_t bytes);
void pq_pages_fetch(const void *data, size_t bytes);

#endif
