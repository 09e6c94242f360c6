/* The word a person most likely meant: for keys, choices, commands and options that do not exist. */
#ifndef PQ_CONFIG_NEAREST_H
#define PQ_CONFIG_NEAREST_H

#include <stddef.h>

/* Of the words offered one by one, the nearest to `wanted` by edit distance (a swap of neighbours counts as
 * one). Start with {.wanted = w}; `best` stays NULL while nothing is near enough to be worth naming. */
typedef struct pq_nearest {
    const char *wanted;
    const char *best; /* borrowed from the offers */
    size_t distance;
} pq_nearest;

void pq_nearest_offer(pq_nearest *nearest, const char *word);

size_t pq_edit_distance(const char *a, const char *b);

#endif
