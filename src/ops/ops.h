/* The ops of a GPT-2: each function checks shapes, adds a node to the graph and returns its output tensor's
 * number through `out`. Activations are [tokens][columns], tokens = batch x context, sequence after sequence.
 */
#ifndef PQ_OPS_OPS_H
#define PQ_OPS_OPS_H

#include "graph/graph.h"

/* Rows of wte [V][C] for the batch's tokens plus the rows of wpe [T][C] for their positions. */
pq_status pq_op_embedding(pq_graph *graph, int wte, int wpe, int *out, pq_error *err);
/* x with a share `p` of its entries set to 0, the others divided by 1 - p; nothing is added for p = 0. */
pq_status pq_op_dropout(pq_graph *graph, int x, double p, int *out, pq_error *err);
/* (x - mean) / sqrt(variance + 1e-5) * gain + bias; bias may be PQ_NONE. */
pq_status pq_op_layernorm(pq_graph *graph, int x, int gain, int bias, int *out, pq_error *err);
/* x W^T + bias, W [columns out][columns in]; bias may be PQ_NONE. */
pq_status pq_op_linear(pq_graph *graph, int x, int weight, int bias, int *out, pq_error *err);
/* The same of gelu(x), by erf or by tanh; x is read by nothing else. */
pq_status pq_op_gelu_linear(pq_graph *graph, int x, bool tanh, int weight, int bias, int *out, pq_error *err);
/* Causal self-attention of q|k|v [tokens][3 C] with `heads` heads; dropout p on the probabilities. */
pq_status pq_op_attention(pq_graph *graph, int qkv, size_t heads, double p, int *out, pq_error *err);
/* GELU by erf, or by tanh. */
pq_status pq_op_gelu(pq_graph *graph, int x, bool tanh, int *out, pq_error *err);
/* x + dropout(branch). */
pq_status pq_op_residual(pq_graph *graph, int x, int branch, double p, bool recompute, int *out,
                         pq_error *err);
/* x with each row (token) rounded to 256 values of its own: kernels.def, int8_rows. The gradient passes as it
 * is. */
pq_status pq_op_int8_token(pq_graph *graph, int x, int *out, pq_error *err);
/* x rounded to the numbers -128 to 127 of the range graph->ranges[site], which moves by PQ_RANGE_SHARE of the
 * way to the extremes of each batch that is observed (the first sets it); as it is while no range is known.
 * No gradient for what lies outside: torch.fake_quantize_per_tensor_affine after a
 * MovingAverageMinMaxObserver. */
#define PQ_RANGE_SHARE 0.01f
pq_status pq_op_int8_affine(pq_graph *graph, int x, size_t site, int *out, pq_error *err);
/* The tied head: cross-entropy of x wte^T against the batch's targets, in slices of rows, so that the logits
 * of a large vocabulary are never whole in memory. In training the losses and the gradients come from one
 * product each, in the backward pass. The last node of a graph; its result is batch->losses. */
pq_status pq_op_head(pq_graph *graph, int x, int wte, pq_error *err);
enum { PQ_HEAD_SLICE_BYTES = 64 << 20 }; /* at most, where a few rows fit */
/* Bytes of one slice of logits: what batch->teacher->logits needs. */
size_t pq_op_head_slice_bytes(const pq_graph *graph);
/* The input of the head [tokens][columns] after a forward pass: where another graph's teacher->x comes from.
 */
const pq_tensor *pq_op_head_input(const pq_graph *graph);
/* The logits [count][V] of `count` rows of the head's input from row `first`, after a forward pass of a graph
 * planned without backward (tests, inspection). */
void pq_op_head_logits(const pq_graph *graph, size_t first, size_t count, float *logits);

#endif
