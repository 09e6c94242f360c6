/* The shape of a GPT-2 model and one model in memory: weights, quantizers with their scales, tokenizer. */
#ifndef POTQAT_MODEL_H
#define POTQAT_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <potqat/status.h>

#ifdef __cplusplus
extern "C" {
#endif

/** The shape of a GPT-2 model. */
typedef struct pq_gpt2_shape {
    int64_t layers, heads;
    int64_t width;   /**< C, channels; a multiple of heads */
    int64_t context; /**< rows of wpe: the longest input, in tokens */
    int64_t vocab;   /**< V, rows of wte */
    bool bias;       /**< biases in linear layers and layer norms */
    bool gelu_tanh;  /**< GELU by tanh (GPT-2) instead of erf */
} pq_gpt2_shape;

/** One model in memory. Owned by its creator; not for use by two threads at once. */
typedef struct pq_model pq_model;

PQ_API void pq_model_destroy(pq_model *model);
PQ_API pq_gpt2_shape pq_model_shape(const pq_model *model);

#ifdef __cplusplus
}
#endif
#endif
