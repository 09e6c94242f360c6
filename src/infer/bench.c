/* Owns how the time of inference is taken. */
#include "infer/bench.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/memory.h"
#include "infer/parts.h"

enum { MOST_REPEATS = 64 };

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *seconds, size_t n) {
    qsort(seconds, n, sizeof *seconds, ascending);
    return (seconds[(n - 1) / 2] + seconds[n / 2]) / 2;
}

/* Seconds for `count` tokens, `step` a call. */
static pq_status time_tokens(pq_engine *engine, const uint16_t *tokens, size_t count, size_t step,
                             float *logits, double *seconds, pq_error *err) {
    pq_engine_reset(engine);
    const double start = pq_seconds();
    for (size_t i = 0; i < count; i += step)
        PQ_TRY(pq_engine_forward(engine, tokens + i, step, true, logits, err));
    *seconds = pq_seconds() - start;
    return PQ_OK;
}

pq_status pq_bench_infer(pq_engine *engine, const pq_infer_bench *bench, pq_infer_speed *out, pq_error *err) {
    const size_t vocab = pq_engine_vocab(engine),
                 most = bench->prompt > bench->tokens ? bench->prompt : bench->tokens;
    double prompt[MOST_REPEATS + 1], decode[MOST_REPEATS + 1];
    uint16_t *tokens;
    float *logits = NULL;
    pq_status status;
    PQ_TRY(pq_calloc(most, sizeof *tokens, "tokens", &tokens, err));
    PQ_TRY_TO(status, done, pq_calloc(vocab, sizeof *logits, "logits", &logits, err));
    for (size_t i = 0; i < most; i++) tokens[i] = (uint16_t)(i * 7919 % vocab);
    for (size_t r = 0; r <= bench->repeats; r++) {
        PQ_TRY_TO(status, done,
                  time_tokens(engine, tokens, bench->prompt, bench->prompt, logits, &prompt[r], err));
        PQ_TRY_TO(status, done, time_tokens(engine, tokens, bench->tokens, 1, logits, &decode[r], err));
    }
    out->prompt_tokens_per_s = (double)bench->prompt / median(prompt + 1, bench->repeats);
    out->decode_tokens_per_s = (double)bench->tokens / median(decode + 1, bench->repeats);
done:
    free(logits);
    free(tokens);
    return status;
}
