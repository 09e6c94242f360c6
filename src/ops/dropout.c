/* Dropout and the residual sum. Masks are made anew in the backward pass from their counters. */
#include <string.h>

#include "ops/ops.h"
#include "ops/view.h"

enum { OUT, TILE = 4096 };

/* out = base + mask x, sequence by sequence: a sequence's masks do not depend on the micro-batch it is in. */
typedef struct work {
    const pq_graph *graph;
    pq_dropout dropout;
    pq_tiles tiles; /* of one sequence */
    size_t stride;  /* mask elements a sequence: a multiple of 64 */
    pq_view base, x, out;
    bool masked;
} work;

static const pq_view none = {NULL, PQ_F32};

/* One piece, by the mask or without: base may be none. */
static void run_piece(const work *w, size_t at, size_t n, uint64_t mask) {
    const pq_kernels *k = w->graph->kernels;
    float a[PQ_PIECE], b[PQ_PIECE];
    const float *base = w->base.data ? pq_view_read(k, w->base, at, n, a) : NULL;
    const float *x = pq_view_read(k, w->x, at, n, b);
    float *out = pq_view_place(w->out, at, b);
    if (w->masked)
        k->dropout(base, x, out, n, &w->dropout, mask);
    else if (base)
        k->add(base, x, out, n);
    else if (out != x)
        memcpy(out, x, n * sizeof *out);
    pq_view_store(k, w->out, at, n, out);
}

static void run_tile(void *context, size_t i) {
    const work *w = context;
    size_t sequence = i / w->tiles.count, start = sequence * w->tiles.extent;
    for (pq_piece p = pq_piece_first(&w->tiles, i % w->tiles.count); p.n; pq_piece_next(&p))
        run_piece(w, start + p.at, p.n, (w->graph->run->sequence + sequence) * w->stride + p.at);
}

static void run(const pq_graph *graph, const pq_node *node, bool masked, pq_view base, pq_view x,
                pq_view out) {
    size_t elements = graph->context * graph->tensors[node->outputs[OUT]].columns;
    work w = {.graph = graph,
              .tiles = pq_tiles_cut(elements, TILE, 64),
              .stride = (elements + 63) / 64 * 64,
              .base = base,
              .x = x,
              .out = out,
              .masked = masked && node->attributes.dropout > 0 && graph->run->training};
    w.dropout =
        pq_dropout_make(node->attributes.dropout, graph->run->seed, graph->run->iter, (uint32_t)node->index);
    pq_parallel_for(graph->batch * w.tiles.count, run_tile, &w);
}

static void dropout_forward(const pq_graph *graph, const pq_node *node) {
    run(graph, node, true, none, pq_value_of(&graph->tensors[node->inputs[0]]),
        pq_value_of(&graph->tensors[node->outputs[OUT]]));
}

/* The gradient of an input: that of the output, by the mask or as it is, added to what is there. */
static void pass_back(const pq_graph *graph, const pq_node *node, int input, bool masked) {
    pq_view dout = pq_gradient_of(&graph->tensors[node->outputs[OUT]]);
    pq_view dx = pq_gradient_of(&graph->tensors[node->inputs[input]]);
    if (node->accumulate[input] || masked || dx.data != dout.data)
        run(graph, node, masked, node->accumulate[input] ? dx : none, dout, dx);
}

static void dropout_backward(const pq_graph *graph, const pq_node *node) {
    pass_back(graph, node, 0, true);
}

static bool dropout_in_place(const pq_node *node, int input) {
    (void)node, (void)input;
    return true;
}

static const pq_op dropout_op = {.name = "dropout",
                                 .forward = dropout_forward,
                                 .backward = dropout_backward,
                                 .gradient_in_place = dropout_in_place};

pq_status pq_op_dropout(pq_graph *graph, int x, double p, int *out, pq_error *err) {
    *out = x;
    if (p == 0) return PQ_OK;
    PQ_TRY(pq_graph_add_activation(graph, graph->tensors[x].columns, false, out, err));
    graph->tensors[*out].type = graph->stream;
    pq_node node = {.op = &dropout_op,
                    .inputs = {x, PQ_NONE, PQ_NONE, PQ_NONE},
                    .outputs = {*out, PQ_NONE, PQ_NONE},
                    .attributes = {.dropout = p}};
    return pq_graph_add_node(graph, &node, err);
}

static void residual_forward(const pq_graph *graph, const pq_node *node) {
    run(graph, node, true, pq_value_of(&graph->tensors[node->inputs[0]]),
        pq_value_of(&graph->tensors[node->inputs[1]]), pq_value_of(&graph->tensors[node->outputs[OUT]]));
}

static void residual_backward(const pq_graph *graph, const pq_node *node) {
    pass_back(graph, node, 1, node->attributes.dropout > 0);
    pass_back(graph, node, 0, false);
}

/* x takes over the sum's gradient. So may the branch when nothing is masked: whoever made the branch reads it
 * before anything is added to x's gradient, since x is older than the branch. */
static bool residual_in_place(const pq_node *node, int input) {
    return input == 0 || node->attributes.dropout == 0;
}

/* The sum is kept, or recomputed from what was added. */
static const pq_op residual_ops[] = {{.name = "residual",
                                      .forward = residual_forward,
                                      .backward = residual_backward,
                                      .gradient_in_place = residual_in_place},
                                     {.name = "residual",
                                      .forward = residual_forward,
                                      .backward = residual_backward,
                                      .cheap = true,
                                      .gradient_in_place = residual_in_place}};

pq_status pq_op_residual(pq_graph *graph, int x, int branch, double p, bool recompute, int *out,
                         pq_error *err) {
    if (graph->tensors[x].columns != graph->tensors[branch].columns)
        return PQ_FAIL(err, PQ_ERR_USAGE, "residual: %zu columns and %zu columns cannot be added",
                       graph->tensors[x].columns, graph->tensors[branch].columns);
    PQ_TRY(pq_graph_add_activation(graph, graph->tensors[x].columns, false, out, err));
    graph->tensors[*out].type = graph->stream;
    pq_node node = {.op = &residual_ops[recompute],
                    .inputs = {x, branch, PQ_NONE, PQ_NONE},
                    .outputs = {*out, PQ_NONE, PQ_NONE},
                    .attributes = {.dropout = p}};
    return pq_graph_add_node(graph, &node, err);
}
