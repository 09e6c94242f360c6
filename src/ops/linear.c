/* The linear layer: out = x W^T + b; dx = dout W; dW += dout^T x; db += column sums of dout. */
#include <string.h>

#include "kernels/gemm.h"
#include "ops/ops.h"
#include "ops/tiles.h"

enum { X, WEIGHT, BIAS, OUT = 0, COLUMN_TILE = 64 };

static void forward(const pq_graph *graph, const pq_node *node) {
    const pq_tensor *x = &graph->tensors[node->inputs[X]], *w = &graph->tensors[node->inputs[WEIGHT]];
    const float *bias = node->inputs[BIAS] >= 0 ? graph->tensors[node->inputs[BIAS]].value : NULL;
    pq_gemm_bias(true, graph->tokens, w->rows, w->columns, x->value, w->columns, w->value, w->columns, bias,
                 graph->tensors[node->outputs[OUT]].value, w->rows);
}

typedef struct work {
    const pq_graph *graph;
    const pq_node *node;
    pq_tiles tiles;
} work;

static void bias_tile(void *context, size_t i) {
    const work *w = context;
    const pq_tensor *bias = &w->graph->tensors[w->node->inputs[BIAS]];
    const float *dout = w->graph->tensors[w->node->outputs[OUT]].gradient;
    size_t first = pq_tile_first(&w->tiles, i), n = pq_tile_length(&w->tiles, i);
    if (w->graph->run->first && !w->node->accumulate[BIAS])
        memset(bias->gradient + first, 0, n * sizeof(float));
    w->graph->kernels->column_sums(dout + first, bias->columns, bias->gradient + first, w->graph->tokens, n);
}

static void backward(const pq_graph *graph, const pq_node *node) {
    const pq_tensor *x = &graph->tensors[node->inputs[X]], *w = &graph->tensors[node->inputs[WEIGHT]];
    const float *dout = graph->tensors[node->outputs[OUT]].gradient;
    pq_gemm(true, false, w->rows, w->columns, graph->tokens, dout, w->rows, x->value, w->columns,
            node->accumulate[WEIGHT] || !graph->run->first, w->gradient, w->columns);
    if (node->inputs[BIAS] >= 0) {
        work b = {.graph = graph, .node = node, .tiles = pq_tiles_cut(w->rows, COLUMN_TILE, 16)};
        pq_parallel_for(b.tiles.count, bias_tile, &b);
    }
    pq_gemm(false, false, graph->tokens, w->columns, w->rows, dout, w->rows, w->value, w->columns,
            node->accumulate[X], x->gradient, w->columns);
}

static const pq_op op = {
    .name = "linear", .forward = forward, .backward = backward, .reads_inputs = 1u << X | 1u << WEIGHT};

pq_status pq_op_linear(pq_graph *graph, int x, int weight, int bias, int *out, pq_error *err) {
    const pq_tensor *w = &graph->tensors[weight];
    if (graph->tensors[x].columns != w->columns)
        return PQ_FAIL(err, PQ_ERR_USAGE, "linear: %zu columns do not fit a weight of %zu x %zu",
                       graph->tensors[x].columns, w->rows, w->columns);
    if (bias >= 0 && graph->tensors[bias].columns != w->rows)
        return PQ_FAIL(err, PQ_ERR_USAGE, "linear: a bias of %zu entries does not fit %zu rows",
                       graph->tensors[bias].columns, w->rows);
    PQ_TRY(pq_graph_add_activation(graph, w->rows, false, out, err));
    pq_node node = {.op = &op, .inputs = {x, weight, bias, PQ_NONE}, .outputs = {*out, PQ_NONE, PQ_NONE}};
    return pq_graph_add_node(graph, &node, err);
}
