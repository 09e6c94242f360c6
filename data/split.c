/* Owns the rules by which tokens and documents fall into splits. */
#include "data/split.h"

#include <math.h>

enum { LEAST = 2 /* tokens of a split: one to read, one to predict */ };

const char *const pq_split_names[3] = {"train", "val", "test"};

/* Where a split of n tokens ends when the shares up to it sum to `share`: floor(n * share), but sums like
 * 0.7 + 0.2 lie a rounding error below the decimal number that was meant and must not lose a token by that.
 */
static size_t boundary(size_t n, double share) {
    double exact = (double)n * share, nearest = round(exact);
    size_t end = (size_t)(fabs(exact - nearest) <= 1e-15 * (double)n ? nearest : exact);
    return end < n ? end : n;
}

void pq_split_tokens(const double shares[3], size_t n, size_t tokens[3]) {
    double share = 0;
    size_t start = 0;
    for (int split = 0; split < 3; split++) {
        share += shares[split];
        size_t end = boundary(n, share);
        tokens[split] = end - start;
        start = end;
    }
}

int pq_split_of_document(const double shares[3], uint64_t document) {
    double place = (double)(((document + 1) * 0x9E3779B97F4A7C15u) >> 11) * 0x1p-53, share = 0;
    int last = 3;
    for (int split = 0; split < 3; split++) {
        share += shares[split];
        if (place < share) return split;
        if (shares[split] > 0) last = split;
    }
    return share >= 1 - 1e-9 ? last : 3; /* sums of shares may fall a rounding error short of 1 */
}

pq_status pq_split_check(const double shares[3], const size_t tokens[3], size_t n, const char *source,
                         pq_error *err) {
    for (int split = 0; split < 3; split++)
        if (shares[split] > 0 && tokens[split] < LEAST)
            return PQ_FAIL(
                err, PQ_ERR_USAGE,
                "%s has %zu tokens, of which its %s split (share %g) gets %zu; at least %d are needed",
                source, n, pq_split_names[split], shares[split], tokens[split], LEAST);
    return PQ_OK;
}
