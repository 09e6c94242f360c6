/* Layer norm over the channels. Gains' and biases' gradients are summed tile by tile into scratch, then over
 * the tiles in their order. */
#include <string.h>

#include "ops/ops.h"
#include "ops/tiles.h"

enum { X, GAIN, BIAS, OUT = 0, MEAN = 1, RSTD = 2, ROW_TILE = 128 };

typedef struct work {
    const pq_graph *graph;
    const pq_node *node;
    pq_tiles tiles;
    size_t columns;
} work;

static const pq_tensor *bias_of(const pq_graph *graph, const pq_node *node) {
    return node->inputs[BIAS] >= 0 ? &graph->tensors[node->inputs[BIAS]] : NULL;
}

static void forward_tile(void *context, size_t i) {
    const work *w = context;
    const pq_tensor *t = w->graph->tensors, *bias = bias_of(w->graph, w->node);
    const int *in = w->node->inputs, *out = w->node->outputs;
    size_t first = pq_tile_first(&w->tiles, i), n = pq_tile_length(&w->tiles, i), C = w->columns;
    w->graph->kernels->layernorm_forward(t[in[X]].value + first * C, t[in[GAIN]].value,
                                         bias ? bias->value : NULL, t[out[OUT]].value + first * C,
                                         t[out[MEAN]].value + first, t[out[RSTD]].value + first, n, C);
}

static work make_work(const pq_graph *graph, const pq_node *node) {
    return (work){.graph = graph,
                  .node = node,
                  .tiles = pq_tiles_cut(graph->tokens, ROW_TILE, 1),
                  .columns = graph->tensors[node->outputs[OUT]].columns};
}

static void forward(const pq_graph *graph, const pq_node *node) {
    work w = make_work(graph, node);
    pq_parallel_for(w.tiles.count, forward_tile, &w);
}

static void backward_tile(void *context, size_t i) {
    const work *w = context;
    const pq_tensor *t = w->graph->tensors;
    const int *in = w->node->inputs, *out = w->node->outputs;
    size_t first = pq_tile_first(&w->tiles, i), n = pq_tile_length(&w->tiles, i), C = w->columns;
    float *dgain = w->graph->scratch + 2 * i * C, *dbias = dgain + C;
    memset(dgain, 0, 2 * C * sizeof *dgain);
    w->graph->kernels->layernorm_backward(
        t[in[X]].value + first * C, t[in[GAIN]].value, t[out[OUT]].gradient + first * C,
        t[out[MEAN]].value + first, t[out[RSTD]].value + first, t[in[X]].gradient + first * C,
        w->node->accumulate[X], dgain, bias_of(w->graph, w->node) ? dbias : NULL, n, C);
}

static void backward(const pq_graph *graph, const pq_node *node) {
    work w = make_work(graph, node);
    pq_parallel_for(w.tiles.count, backward_tile, &w);
    for (int p = GAIN; p <= BIAS; p++) {
        if (node->inputs[p] < 0) continue;
        float *gradient = graph->tensors[node->inputs[p]].gradient;
        if (graph->run->first && !node->accumulate[p]) memset(gradient, 0, w.columns * sizeof *gradient);
        for (size_t i = 0; i < w.tiles.count; i++)
            graph->kernels->add(gradient, graph->scratch + (2 * i + (p == BIAS)) * w.columns, gradient,
                                w.columns);
    }
}

static const pq_op op = {.name = "layernorm",
                         .forward = forward,
                         .backward = backward,
                         .reads_inputs = 1u << X | 1u << GAIN,
                         .reads_outputs = 1u << MEAN | 1u << RSTD,
                         .cheap = true};

pq_status pq_op_layernorm(pq_graph *graph, int x, int gain, int bias, int *out, pq_error *err) {
    size_t columns = graph->tensors[x].columns;
    int mean, rstd;
    if (graph->tensors[gain].columns != columns)
        return PQ_FAIL(err, PQ_ERR_USAGE, "layernorm: a gain of %zu entries does not fit %zu columns",
                       graph->tensors[gain].columns, columns);
    PQ_TRY(pq_graph_add_activation(graph, columns, false, out, err));
    PQ_TRY(pq_graph_add_activation(graph, 1, true, &mean, err));
    PQ_TRY(pq_graph_add_activation(graph, 1, true, &rstd, err));
    pq_node node = {.op = &op,
                    .inputs = {x, gain, bias, PQ_NONE},
                    .outputs = {*out, mean, rstd},
                    .scratch = pq_tiles_cut(graph->tokens, ROW_TILE, 1).count * 2 * columns * sizeof(float)};
    return pq_graph_add_node(graph, &node, err);
}
