/* The graph of a GPT-2 (Radford et al., 2019), built from the parameter table: pre-norm blocks, tied head. */
#ifndef PQ_MODEL_GPT2_H
#define PQ_MODEL_GPT2_H

#include "graph/graph.h"
#include "model/model.h"

/* Build the graph for batches of `batch` sequences of `context` tokens (at most the model's). Matrices that
 * the model quantizes read their fake-quantized values, and quantized inputs where it quantizes activations;
 * the model's ranges are bound (borrowed: pq_graph_bind_ranges gives others). dropout in [0, 1): after the
 * embedding, on the attention probabilities, at both ends of a block's branches. */
pq_status pq_gpt2_graph(const pq_model *model, size_t batch, size_t context, double dropout, pq_graph **out,
                        pq_error *err);

/* Fill the weights with initial values: normal with the table's deviations, from (seed, parameter). */
void pq_gpt2_initialise(pq_model *model, uint64_t seed);

#endif
