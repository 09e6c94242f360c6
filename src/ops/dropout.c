/* Dropout and the residual sum. Masks are made anew in the backward pass from their counters. */
#include <string.h>

#include "ops/ops.h"
#include "ops/tiles.h"

enum { OUT, TILE = 4096 };

/* out = base + mask x, sequence by sequence: a sequence's masks do not depend on the micro-batch it is in. */
typedef struct work {
    const pq_graph *graph;
    pq_dropout dropout;
    pq_tiles tiles; /* of one sequence */
    size_t stride;  /* mask elements a sequence: a multiple of 64 */
    const float *base, *x;
    float *out;
    bool masked;
} work;

static void run_tile(void *context, size_t i) {
    const work *w = context;
    size_t sequence = i / w->tiles.count, tile = i % w->tiles.count;
    size_t first = pq_tile_first(&w->tiles, tile), n = pq_tile_length(&w->tiles, tile);
    size_t at = sequence * w->tiles.extent + first;
    if (w->masked)
        w->graph->kernels->dropout(w->base ? w->base + at : NULL, w->x + at, w->out + at, n, &w->dropout,
                                   (w->graph->run->sequence + sequence) * w->stride + first);
    else
        w->graph->kernels->add(w->base + at, w->x + at, w->out + at, n);
}

static void run(const pq_graph *graph, const pq_node *node, const float *base, const float *x, float *out) {
    size_t elements = graph->context * graph->tensors[node->outputs[OUT]].columns;
    work w = {.graph = graph,
              .tiles = pq_tiles_cut(elements, TILE, 64),
              .stride = (elements + 63) / 64 * 64,
              .base = base,
              .x = x,
              .out = out,
              .masked = node->attributes.dropout > 0 && graph->run->training};
    w.dropout =
        pq_dropout_make(node->attributes.dropout, graph->run->seed, graph->run->iter, (uint32_t)node->index);
    pq_parallel_for(graph->batch * w.tiles.count, run_tile, &w);
}

typedef struct sum_work {
    const pq_graph *graph;
    pq_tiles tiles;
    const float *a, *b;
    float *out;
} sum_work;

static void add_tile(void *context, size_t i) {
    const sum_work *w = context;
    size_t first = pq_tile_first(&w->tiles, i), n = pq_tile_length(&w->tiles, i);
    w->graph->kernels->add(w->a + first, w->b + first, w->out + first, n);
}

/* to += from */
static void add_all(const pq_graph *graph, float *to, const float *from, size_t n) {
    sum_work w = {.graph = graph, .tiles = pq_tiles_cut(n, TILE, 16), .a = to, .b = from, .out = to};
    pq_parallel_for(w.tiles.count, add_tile, &w);
}

static void dropout_forward(const pq_graph *graph, const pq_node *node) {
    const pq_tensor *x = &graph->tensors[node->inputs[0]], *out = &graph->tensors[node->outputs[OUT]];
    if (graph->run->training)
        run(graph, node, NULL, x->value, out->value);
    else
        memcpy(out->value, x->value, graph->tokens * x->columns * sizeof(float));
}

static void dropout_backward(const pq_graph *graph, const pq_node *node) {
    const pq_tensor *x = &graph->tensors[node->inputs[0]], *out = &graph->tensors[node->outputs[OUT]];
    run(graph, node, node->accumulate[0] ? x->gradient : NULL, out->gradient, x->gradient);
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
    pq_node node = {.op = &dropout_op,
                    .inputs = {x, PQ_NONE, PQ_NONE, PQ_NONE},
                    .outputs = {*out, PQ_NONE, PQ_NONE},
                    .attributes = {.dropout = p}};
    return pq_graph_add_node(graph, &node, err);
}

static void residual_forward(const pq_graph *graph, const pq_node *node) {
    const pq_tensor *x = &graph->tensors[node->inputs[0]], *branch = &graph->tensors[node->inputs[1]];
    run(graph, node, x->value, branch->value, graph->tensors[node->outputs[OUT]].value);
}

static void residual_backward(const pq_graph *graph, const pq_node *node) {
    const pq_tensor *out = &graph->tensors[node->outputs[OUT]];
    size_t n = graph->tokens * out->columns;
    for (int i = 1; i >= 0; i--) {
        const pq_tensor *input = &graph->tensors[node->inputs[i]];
        if (i == 1 && node->attributes.dropout > 0)
            run(graph, node, node->accumulate[i] ? input->gradient : NULL, out->gradient, input->gradient);
        else if (node->accumulate[i])
            add_all(graph, input->gradient, out->gradient, n);
        else if (input->gradient != out->gradient)
            memcpy(input->gradient, out->gradient, n * sizeof(float));
    }
}

/* x takes over the sum's gradient. So may the branch when nothing is masked: whoever made the branch reads it
 * before anything is added to x's gradient, since x is older than the branch. */
static bool residual_in_place(const pq_node *node, int input) {
    return input == 0 || node->attributes.dropout == 0;
}

static const pq_op residual_op = {.name = "residual",
                                  .forward = residual_forward,
                                  .backward = residual_backward,
                                  .gradient_in_place = residual_in_place};

pq_status pq_op_residual(pq_graph *graph, int x, int branch, double p, int *out, pq_error *err) {
    if (graph->tensors[x].columns != graph->tensors[branch].columns)
        return PQ_FAIL(err, PQ_ERR_USAGE, "residual: %zu columns and %zu columns cannot be added",
                       graph->tensors[x].columns, graph->tensors[branch].columns);
    PQ_TRY(pq_graph_add_activation(graph, graph->tensors[x].columns, false, out, err));
    pq_node node = {.op = &residual_op,
                    .inputs = {x, branch, PQ_NONE, PQ_NONE},
                    .outputs = {*out, PQ_NONE, PQ_NONE},
                    .attributes = {.dropout = p}};
    return pq_graph_add_node(graph, &node, err);
}
