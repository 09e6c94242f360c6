/* GPT-2 in double precision, as naive as can be: the engine's independent reference. */
#ifndef PQ_TESTS_NAIVE_GPT2_H
#define PQ_TESTS_NAIVE_GPT2_H

#include "model/model.h"

/* logits[count][vocab] of tokens[count] from position 0, by the model's effective weights. */
void naive_gpt2(const pq_model *model, const uint16_t *tokens, size_t count, double *logits);

#endif
