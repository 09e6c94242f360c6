/* Owns the choice of the next token from logits. */
#include <math.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/random.h"
#include "potqat/engine.h"

/* A token that may be drawn. */
typedef struct candidate {
    double weight; /* exp((logit - largest) / temperature) */
    float logit;
    uint32_t token;
} candidate;

/* Most likely first, ties to the lower id. */
static int by_likelihood(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return x->token < y->token ? -1 : 1;
}

static pq_status check(const pq_sampling *s, const float *logits, size_t vocab, pq_error *err) {
    if (!(s->temperature >= 0) || !isfinite(s->temperature))
        return PQ_FAIL(err, PQ_ERR_USAGE, "temperature must be a number from 0, found %g", s->temperature);
    if (s->top_k < 0)
        return PQ_FAIL(err, PQ_ERR_USAGE, "top-k must be 0 (all tokens) or more, found %lld",
                       (long long)s->top_k);
    if (!(s->top_p > 0 && s->top_p <= 1))
        return PQ_FAIL(err, PQ_ERR_USAGE, "top-p must be above 0 and at most 1, found %g", s->top_p);
    if (vocab == 0 || vocab > (size_t)UINT16_MAX + 1)
        return PQ_FAIL(err, PQ_ERR_USAGE, "a vocabulary has 1 to 65536 tokens, found %zu", vocab);
    for (size_t i = 0; i < vocab; i++)
        if (!isfinite(logits[i]))
            return PQ_FAIL(err, PQ_ERR_USAGE, "logit %zu is %g: no token can be chosen", i,
                           (double)logits[i]);
    return PQ_OK;
}

/* How many of candidates[count] (sorted) top-p keeps: the fewest whose share reaches p. */
static size_t nucleus(const candidate *candidates, size_t count, double p) {
    double total = 0, sum = 0;
    for (size_t i = 0; i < count; i++) total += candidates[i].weight;
    for (size_t i = 0; i < count; i++) {
        sum += candidates[i].weight;
        if (sum >= p * total) return i + 1;
    }
    return count;
}

pq_status pq_sample(const pq_sampling *sampling, const float *logits, size_t vocab, uint64_t draw,
                    uint16_t *token, pq_error *err) {
    candidate *candidates;
    uint32_t random[4];
    size_t best = 0, count = vocab;
    double total = 0, sum = 0;
    PQ_TRY(check(sampling, logits, vocab, err));
    for (size_t i = 1; i < vocab; i++)
        if (logits[i] > logits[best]) best = i;
    *token = (uint16_t)best;
    if (sampling->temperature == 0) return PQ_OK;

    PQ_TRY(pq_calloc(vocab, sizeof *candidates, "candidates", &candidates, err));
    for (size_t i = 0; i < vocab; i++) {
        double weight = exp(((double)logits[i] - (double)logits[best]) / sampling->temperature);
        candidates[i] = (candidate){weight, logits[i], (uint32_t)i};
    }
    if (sampling->top_k > 0 || sampling->top_p < 1) {
        qsort(candidates, vocab, sizeof *candidates, by_likelihood);
        if (sampling->top_k > 0 && (uint64_t)sampling->top_k < count) count = (size_t)sampling->top_k;
        count = nucleus(candidates, count, sampling->top_p);
    }
    for (size_t i = 0; i < count; i++) total += candidates[i].weight;
    pq_random4(sampling->seed, PQ_STREAM_SAMPLE, draw, 0, random);
    double mark = pq_random_unit(random[0], random[1]) * total;
    for (size_t i = 0; i < count; i++) { /* without a hit, by rounding, the most likely one stays */
        sum += candidates[i].weight;
        if (mark < sum) {
            *token = (uint16_t)candidates[i].token;
            break;
        }
    }
    free(candidates);
    return PQ_OK;
}
