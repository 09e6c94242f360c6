/* Dropout masks, readable, and how a probability becomes a threshold. */
#include "base/random.h"
#include "kernels/kernels.h"

pq_dropout pq_dropout_make(double p, uint64_t seed, uint64_t iter, uint32_t tensor) {
    uint32_t threshold = (uint32_t)(p * 4294967296.0);
    return (pq_dropout){.seed = seed,
                        .iter = iter,
                        .tensor = tensor,
                        .threshold = threshold,
                        .keep_scale = (float)(1.0 / (1.0 - threshold / 4294967296.0))};
}

static float mask(const pq_dropout *d, uint64_t element) {
    uint32_t words[4];
    /* Iterations stay below 2^40 and tensors below 2^24, so (iter, tensor) is one 64-bit counter. */
    pq_random4(d->seed, PQ_STREAM_DROPOUT, d->iter << 24 | d->tensor, element / 64 * 16 + element % 16,
               words);
    return words[element % 64 / 16] >= d->threshold ? d->keep_scale : 0.0f;
}

void pq_dropout_ref(const float *base, const float *x, float *out, size_t n, const pq_dropout *dropout,
                    uint64_t first) {
    for (size_t i = 0; i < n; i++) out[i] = (base ? base[i] : 0.0f) + x[i] * mask(dropout, first + i);
}
