/* Owns the merging of a word: again and again the strongest merge (of equal ones the leftmost) until none is
 * left. Short words are searched from end to end; long ones keep their pairs in a heap, so that a run of a
 * million letters takes n log n steps. */
#include <stdlib.h>
#include <string.h>

#include "data/tokenizer_bpe.h"

enum { SHORT = 48 };

static size_t merge_short(const pq_bpe *bpe, size_t n, uint16_t *ids) {
    uint32_t rank[SHORT]; /* of the pair (i, i + 1) */
    for (size_t i = 0; i + 1 < n; i++) rank[i] = pq_bpe_rank(bpe, ids[i], ids[i + 1]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == UINT32_MAX) break;
        ids[best] = bpe->tables.merges[rank[best]].made;
        n--;
        memmove(ids + best + 1, ids + best + 2, (n - best - 1) * sizeof *ids);
        if (best + 1 < n) memmove(rank + best + 1, rank + best + 2, (n - best - 2) * sizeof *rank);
        if (best + 1 < n) rank[best] = pq_bpe_rank(bpe, ids[best], ids[best + 1]);
        if (best > 0) rank[best - 1] = pq_bpe_rank(bpe, ids[best - 1], ids[best]);
    }
    return n;
}

/* A long word: a linked list of tokens, and a heap of merges that were possible when they went in. */
typedef struct list {
    uint32_t *next, *previous; /* [n]; next = n: the last; NONE: no longer there */
    uint64_t *heap;            /* [heap_count]: rank << 32 | place of the left token; the least on top */
    size_t heap_count, n;
} list;

#define NONE UINT32_MAX

static void sink(list *l, size_t i) {
    const uint64_t moved = l->heap[i];
    for (size_t child; (child = 2 * i + 1) < l->heap_count; i = child) {
        if (child + 1 < l->heap_count && l->heap[child + 1] < l->heap[child]) child++;
        if (moved <= l->heap[child]) break;
        l->heap[i] = l->heap[child];
    }
    l->heap[i] = moved;
}

static void push(list *l, uint64_t value) {
    size_t i = l->heap_count++;
    for (; i && l->heap[(i - 1) / 2] > value; i = (i - 1) / 2) l->heap[i] = l->heap[(i - 1) / 2];
    l->heap[i] = value;
}

static uint32_t rank_at(const pq_bpe *bpe, const list *l, const uint16_t *ids, uint32_t at) {
    return l->next[at] == l->n ? UINT32_MAX : pq_bpe_rank(bpe, ids[at], ids[l->next[at]]);
}

static size_t merge_list(const pq_bpe *bpe, list *l, uint16_t *ids) {
    for (uint32_t i = 0; i < l->n; i++) {
        l->next[i] = i + 1;
        l->previous[i] = i - 1; /* the first one's is NONE */
    }
    for (uint32_t i = 0; i < l->n; i++) {
        uint32_t rank = rank_at(bpe, l, ids, i);
        if (rank != UINT32_MAX) l->heap[l->heap_count++] = (uint64_t)rank << 32 | i;
    }
    for (size_t i = l->heap_count / 2; i-- > 0;) sink(l, i);
    while (l->heap_count) {
        const uint32_t at = (uint32_t)l->heap[0], rank = (uint32_t)(l->heap[0] >> 32);
        l->heap[0] = l->heap[--l->heap_count];
        if (l->heap_count) sink(l, 0);
        if (l->next[at] == NONE || rank_at(bpe, l, ids, at) != rank) continue; /* out of date */
        const uint32_t gone = l->next[at], after = l->next[gone], before = l->previous[at];
        ids[at] = bpe->tables.merges[rank].made;
        l->next[at] = after;
        l->next[gone] = NONE;
        if (after < l->n) l->previous[after] = at;
        const uint32_t here = rank_at(bpe, l, ids, at);
        if (here != UINT32_MAX) push(l, (uint64_t)here << 32 | at);
        const uint32_t there = before == NONE ? UINT32_MAX : rank_at(bpe, l, ids, before);
        if (there != UINT32_MAX) push(l, (uint64_t)there << 32 | before);
    }
    size_t count = 0;
    for (uint32_t i = 0; i < l->n; i = l->next[i]) ids[count++] = ids[i];
    return count;
}

static pq_status merge_long(const pq_bpe *bpe, size_t n, uint16_t *ids, size_t *count, pq_error *err) {
    /* Each of at most n - 1 merges takes one pair out and puts at most two in. */
    list l = {.n = n,
              .next = malloc(n * sizeof *l.next),
              .previous = malloc(n * sizeof *l.previous),
              .heap = malloc(2 * n * sizeof *l.heap)};
    pq_status status = PQ_OK;
    if (n >= NONE || !l.next || !l.previous || !l.heap)
        status = PQ_FAIL(err, PQ_ERR_MEMORY, "a word of %zu bytes without a gap does not fit in memory", n);
    else
        *count = merge_list(bpe, &l, ids);
    free(l.next);
    free(l.previous);
    free(l.heap);
    return status;
}

pq_status pq_bpe_merge_word(const pq_bpe *bpe, const char *word, size_t bytes, uint16_t *out, size_t *count,
                            pq_error *err) {
    for (size_t i = 0; i < bytes; i++) out[i] = bpe->tables.byte_id[(unsigned char)word[i]];
    if (bytes > SHORT) return merge_long(bpe, bytes, out, count, err);
    *count = merge_short(bpe, bytes, out);
    return PQ_OK;
}
