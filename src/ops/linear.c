/* The linear layer: out = x W^T + b; dx = dout W; dW += dout^T x; db += column sums of dout. x, W and out are
 * stored alike; dW and db are fp32. */
#include <string.h>

#include "ops/ops.h"
#include "ops/product.h"
#include "ops/view.h"

enum { X, WEIGHT, BIAS, OUT = 0, COLUMN_TILE = 64, ROWS = 32 };

static void forward(const pq_graph *graph, const pq_node *node) {
    const pq_tensor *x = &graph->tensors[node->inputs[X]], *w = &graph->tensors[node->inputs[WEIGHT]];
    pq_multiply(
        &(pq_product){.transpose_b = true,
                      .M = graph->tokens,
                      .N = w->rows,
                      .K = w->columns,
                      .A = pq_value_of(x),
                      .B = pq_value_of(w),
                      .C = pq_value_of(&graph->tensors[node->outputs[OUT]]),
                      .bias = node->inputs[BIAS] >= 0 ? graph->tensors[node->inputs[BIAS]].value : NULL});
}

typedef struct work {
    const pq_graph *graph;
    const pq_node *node;
    pq_tiles tiles;
} work;

static void bias_tile(void *context, size_t i) {
    const work *w = context;
    const pq_graph *g = w->graph;
    const pq_tensor *bias = &g->tensors[w->node->inputs[BIAS]];
    pq_view dout = pq_gradient_of(&g->tensors[w->node->outputs[OUT]]);
    size_t first = pq_tile_first(&w->tiles, i), n = pq_tile_length(&w->tiles, i), N = bias->columns;
    float *sums = (float *)bias->gradient + first, wide[ROWS * COLUMN_TILE];
    if (g->run->first && !w->node->accumulate[BIAS]) memset(sums, 0, n * sizeof *sums);
    if (dout.type == PQ_F32) {
        g->kernels->column_sums((const float *)dout.data + first, N, sums, g->tokens, n);
        return;
    }
    for (size_t r = 0; r < g->tokens; r += ROWS) {
        size_t rows = g->tokens - r < ROWS ? g->tokens - r : ROWS;
        for (size_t k = 0; k < rows; k++)
            pq_view_read(g->kernels, dout, (r + k) * N + first, n, wide + k * n);
        g->kernels->column_sums(wide, n, sums, rows, n);
    }
}

/* dx first: the gradient of a bf16 matrix may take the matrix's place. */
static void backward(const pq_graph *graph, const pq_node *node) {
    const pq_tensor *x = &graph->tensors[node->inputs[X]], *w = &graph->tensors[node->inputs[WEIGHT]];
    pq_view dout = pq_gradient_of(&graph->tensors[node->outputs[OUT]]);
    pq_multiply(&(pq_product){.accumulate = node->accumulate[X],
                              .M = graph->tokens,
                              .N = w->columns,
                              .K = w->rows,
                              .A = dout,
                              .B = pq_value_of(w),
                              .C = pq_gradient_of(x)});
    pq_multiply(&(pq_product){.transpose_a = true,
                              .accumulate = node->accumulate[WEIGHT] || !graph->run->first,
                              .M = w->rows,
                              .N = w->columns,
                              .K = graph->tokens,
                              .A = dout,
                              .B = pq_value_of(x),
                              .C = pq_gradient_of(w)});
    if (node->inputs[BIAS] < 0) return;
    work b = {.graph = graph, .node = node, .tiles = pq_tiles_cut(w->rows, COLUMN_TILE, 16)};
    pq_parallel_for(b.tiles.count, bias_tile, &b);
}

static pq_work work_of(const pq_graph *graph, const pq_node *node) {
    const pq_tensor *w = &graph->tensors[node->inputs[WEIGHT]];
    double product = 2.0 * (double)graph->tokens * (double)w->rows * (double)w->columns;
    return (pq_work){product, 2 * product, w->type};
}

static const pq_op op = {.name = "linear",
                         .forward = forward,
                         .backward = backward,
                         .reads_inputs = 1u << X | 1u << WEIGHT,
                         .work = work_of};

pq_status pq_op_linear(pq_graph *graph, int x, int weight, int bias, int *out, pq_error *err) {
    const pq_tensor *w = &graph->tensors[weight];
    if (graph->tensors[x].columns != w->columns)
        return PQ_FAIL(err, PQ_ERR_USAGE, "linear: %zu columns do not fit a weight of %zu x %zu",
                       graph->tensors[x].columns, w->rows, w->columns);
    if (graph->tensors[x].type != w->type)
        return PQ_FAIL(err, PQ_ERR_USAGE, "linear: the input and the weight are not stored alike");
    if (bias >= 0 && graph->tensors[bias].columns != w->rows)
        return PQ_FAIL(err, PQ_ERR_USAGE, "linear: a bias of %zu entries does not fit %zu rows",
                       graph->tensors[bias].columns, w->rows);
    PQ_TRY(pq_graph_add_activation(graph, w->rows, false, out, err));
    pq_node node = {.op = &op, .inputs = {x, weight, bias, PQ_NONE}, .outputs = {*out, PQ_NONE, PQ_NONE}};
    return pq_graph_add_node(graph, &node, err);
}
