/* Where a text is cut into its three splits. */
#ifndef PQ_DATA_SPLIT_H
#define PQ_DATA_SPLIT_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef enum pq_split { PQ_TRAIN, PQ_VAL, PQ_TEST } pq_split;

extern const char *const pq_split_names[3]; /* train, val, test */

/* Three contiguous splits of n tokens: each ends at floor(n * sum of the shares so far). */
void pq_split_tokens(const double shares[3], size_t n, size_t tokens[3]);
/* The split of a document where splits are cut between documents, 3 = none. Multiples of the golden section
 * keep every run of documents close to the shares. */
int pq_split_of_document(const double shares[3], uint64_t document);
/* PQ_ERR_USAGE, naming `source` of n tokens, for a split that has a share and yet too few tokens to learn
 * from. */
pq_status pq_split_check(const double shares[3], const size_t tokens[3], size_t n, const char *source,
                         pq_error *err);

#endif
