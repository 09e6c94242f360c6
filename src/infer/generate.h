/* Continuing a text beyond the context. */
#ifndef PQ_INFER_GENERATE_H
#define PQ_INFER_GENERATE_H

#include <potqat/engine.h>

/* Receives each new token; anything but PQ_OK ends the generation with that status. */
typedef pq_status (*pq_token_sink)(void *user, uint16_t token, pq_error *err);

/* Forget the engine's sequence, read prompt[count] and draw `tokens` tokens behind it (draw i with counter
 * i). When the context is full the window slides: the last half of it (context / 2 tokens) is read anew from
 * position 0. Of a prompt longer than the context its end is read. */
pq_status pq_generate(pq_engine *engine, const pq_sampling *sampling, const uint16_t *prompt, size_t count,
                      size_t tokens, pq_token_sink sink, void *user, pq_error *err);

#endif
