/* Owns the loop of reading, drawing and sliding the window. */
#include "infer/generate.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "infer/parts.h"

/* Read text[length - 1], or the last half of a context when that one is full; logits of the last token. */
static pq_status read_on(pq_engine *engine, const uint16_t *text, size_t length, float *logits,
                         pq_error *err) {
    const size_t context = (size_t)pq_engine_context(engine);
    size_t unread = 1;
    if (pq_engine_position(engine) == (int64_t)context) {
        pq_engine_reset(engine);
        unread = context > 1 ? context / 2 : 1;
    }
    return pq_engine_forward(engine, text + length - unread, unread, true, logits, err);
}

pq_status pq_generate(pq_engine *engine, const pq_sampling *sampling, const uint16_t *prompt, size_t count,
                      size_t tokens, pq_token_sink sink, void *user, pq_error *err) {
    const size_t context = (size_t)pq_engine_context(engine), vocab = pq_engine_vocab(engine);
    const size_t read = count < context ? count : context;
    uint16_t *text; /* prompt and continuation */
    float *logits = NULL;
    pq_status status;
    PQ_TRY(pq_calloc(count + tokens, sizeof *text, "tokens", &text, err));
    memcpy(text, prompt, count * sizeof *text);
    PQ_TRY_TO(status, done, pq_calloc(vocab, sizeof *logits, "logits", &logits, err));
    pq_engine_reset(engine);
    PQ_TRY_TO(status, done, pq_engine_forward(engine, text + count - read, read, true, logits, err));
    for (size_t i = 0; i < tokens; i++) {
        PQ_TRY_TO(status, done, pq_sample(sampling, logits, vocab, i, &text[count + i], err));
        PQ_TRY_TO(status, done, sink(user, text[count + i], err));
        if (i + 1 < tokens) PQ_TRY_TO(status, done, read_on(engine, text, count + i + 1, logits, err));
    }
done:
    free(logits);
    free(text);
    return status;
}
