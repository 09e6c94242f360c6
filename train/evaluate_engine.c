/* Owns the way of windows through the inference engine, each from an empty cache. */
#include <math.h>
#include <stdlib.h>

#include "base/clock.h"
#include "train/evaluate_run.h"

/* -log softmax(logits)[target] */
static double cross_entropy(const float *logits, size_t vocab, size_t target) {
    float largest = logits[0];
    double sum = 0;
    for (size_t i = 1; i < vocab; i++) largest = logits[i] > largest ? logits[i] : largest;
    for (size_t i = 0; i < vocab; i++) sum += exp((double)logits[i] - (double)largest);
    return log(sum) + (double)largest - (double)logits[target];
}

static pq_status measure(pq_engine *engine, const pq_dataset *dataset, const pq_evaluation_options *o,
                         size_t vocab, pq_evaluation *e, pq_error *err) {
    const bool last = o->protocol == PQ_LAST_TOKEN; /* whose logits are then the only ones */
    size_t tokens = 0;
    uint16_t *window;
    float *logits = NULL;
    pq_status status;
    PQ_TRY(pq_calloc(o->context + 1, sizeof *window, "tokens", &window, err));
    PQ_TRY_TO(status, done,
              pq_calloc((last ? 1 : o->context) * vocab, sizeof *logits, "logits", &logits, err));
    for (size_t w = 0; w < e->windows; w++) {
        pq_scored scored = pq_evaluation_scored(dataset, o, w);
        pq_dataset_read(dataset, o->split, scored.start, scored.to + 1, window);
        pq_engine_reset(engine);
        PQ_TRY_TO(status, done, pq_engine_forward(engine, window, scored.to, last, logits, err));
        for (size_t t = scored.from; t < scored.to; t++)
            e->window_loss[w] += cross_entropy(logits + (last ? 0 : t * vocab), vocab, window[t + 1]);
        e->window_loss[w] /= (double)(scored.to - scored.from);
        tokens += scored.to - scored.from;
    }
    pq_evaluation_finish(e, o, tokens);
done:
    free(logits);
    free(window);
    return status;
}

pq_status pq_evaluate_engine(const pq_packed *packed, const pq_engine_options *engine,
                             const pq_dataset *dataset, const pq_evaluation_options *options,
                             pq_evaluation *out, pq_error *err) {
    const double start = pq_seconds();
    pq_engine *e = NULL;
    *out = (pq_evaluation){0};
    PQ_TRY(pq_evaluation_check(&packed->params.shape, dataset, options, err));
    out->windows = pq_evaluation_window_count(dataset, options);
    pq_status status = pq_calloc(out->windows, sizeof *out->window_loss, "losses", &out->window_loss, err);
    if (status == PQ_OK) status = pq_engine_create_with(packed, engine, &e, err);
    if (status == PQ_OK) status = measure(e, dataset, options, (size_t)packed->params.shape.vocab, out, err);
    pq_engine_destroy(e);
    if (status != PQ_OK) pq_evaluation_deinit(out);
    out->seconds = pq_seconds() - start;
    return status;
}
