/* The graph of a GPT-2 (Radford et al., 2019), built from the parameter table: pre-norm blocks, tied head. */
#ifndef PQ_MODEL_GPT2_H
#define PQ_MODEL_GPT2_H

#include "graph/graph.h"
#include "model/model.h"

/* Build the graph for batches of `batch` sequences of `context` tokens (at most the model's). Matrices that
 * the model quantizes read their fake-quantized values, and quantized inputs where it quantizes activations;
 * the model's ranges are bound (borrowed: pq_graph_bind_ranges gives others). dropout in [0, 1): after the
 * embedding, on the attention probabilities, at both ends of a block's branches. type is
 * that of matrices and activations; the residual stream, whose sums are of all layers, stays fp32, and with
 * bf16 matrices are bound by pq_graph_bind_matrix. PQ_ERR_USAGE where a model with quantized activations is
 * to be bf16. */
pq_status pq_gpt2_graph(const pq_model *model, pq_type type, size_t batch, size_t context, double dropout,
                        pq_graph **out, pq_error *err);

/* Parts of the model that calibration runs one after the other. x: what the residual stream carries,
 * [tokens][C]. Each *_INPUT gives what that linear layer (the head: wte) reads. */
typedef enum pq_gpt2_part {
    PQ_PART_EMBEDDING,         /* tokens -> x */
    PQ_PART_C_ATTN_INPUT,      /* x -> ln_1(x) */
    PQ_PART_ATTN_C_PROJ_INPUT, /* x -> the heads' outputs */
    PQ_PART_ATTENTION,         /* x -> x behind the attention */
    PQ_PART_C_FC_INPUT,        /* x behind the attention -> ln_2(x) */
    PQ_PART_MLP_C_PROJ_INPUT,  /* x behind the attention -> gelu */
    PQ_PART_MLP,               /* x behind the attention -> x behind the block */
    PQ_PART_HEAD_INPUT         /* x -> ln_f(x) */
} pq_gpt2_part;

/* The graph of one part of block `layer`, without dropout and with inputs that are not quantized. Its input
 * is tensor *in (PQ_NONE: the tokens), to be given by pq_graph_set_input; tensor *out is the last that it
 * makes and stands after a forward pass. */
pq_status pq_gpt2_part_graph(const pq_model *model, int layer, pq_gpt2_part part, size_t batch,
                             size_t context, int *in, int *out, pq_graph **graph, pq_error *err);

/* Fill the weights with initial values: normal with the table's deviations, from (seed, parameter). */
void pq_gpt2_initialise(pq_model *model, uint64_t seed);

#endif
