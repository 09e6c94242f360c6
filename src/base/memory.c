/* Owns allocation: overflow checks and alignment. */
#include "base/memory.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { HUGE_PAGE = 2 << 20 };

/* The whole pages of a block. */
static void advise_pages(const void *data, size_t bytes, int advice) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = pq_round_up((uintptr_t)data, page), end = ((uintptr_t)data + bytes) / page * page;
    if (begin < end) (void)madvise((void *)begin, end - begin, advice); /* advice only: failing is fine */
}

pq_status pq_calloc(size_t count, size_t size, const char *what, void *out_pointer, pq_error *err) {
    void **out = out_pointer;
    *out = NULL;
    size_t bytes = 0;
    void *memory = NULL;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX - 2 * PQ_ALIGNMENT)
        return PQ_FAIL(err, PQ_ERR_MEMORY, "%s: %zu elements of %zu bytes do not fit in memory", what, count,
                       size);
    bytes = pq_round_up(bytes ? bytes : 1, PQ_ALIGNMENT);
    memory = aligned_alloc(PQ_ALIGNMENT, bytes);
    if (!memory) return PQ_FAIL(err, PQ_ERR_MEMORY, "%s: %zu bytes could not be allocated", what, bytes);
    if (bytes >= HUGE_PAGE) advise_pages(memory, bytes, MADV_HUGEPAGE);
    memset(memory, 0, bytes);
    *out = memory;
    return PQ_OK;
}

pq_status pq_copy_text(const char *text, char **out, pq_error *err) {
    *out = NULL;
    if (!text) return PQ_OK;
    *out = strdup(text);
    return *out ? PQ_OK
                : PQ_FAIL(err, PQ_ERR_MEMORY, "a text of %zu bytes could not be copied", strlen(text));
}

pq_status pq_pages_reserve(size_t bytes, const char *what, void *out_pointer, pq_error *err) {
    void **out = out_pointer;
    *out = mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                -1, 0);
    if (*out == MAP_FAILED) {
        *out = NULL;
        return PQ_FAIL(err, PQ_ERR_MEMORY, "%s: %zu bytes could not be reserved", what, bytes);
    }
    advise_pages(*out, bytes, MADV_HUGEPAGE);
    return PQ_OK;
}

void pq_pages_release(void *memory, size_t bytes) {
    if (memory) munmap(memory, bytes ? bytes : 1);
}

void pq_pages_drop(const void *data, size_t bytes) {
    advise_pages(data, bytes, MADV_DONTNEED);
}

void pq_pages_fetch(const void *data, size_t bytes) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = (uintptr_t)data / page * page, end = (uintptr_t)data + bytes;
    if (bytes) (void)madvise((void *)begin, end - begin, MADV_WILLNEED);
}
