/* Layer norm over the channels. Gains' and biases' gradients are summed tile by tile into scratch, then over
 * the tiles in their order. */
#include <string.h>

#include "ops/ops.h"
#include "ops/view.h"

enum { X, GAIN, BIAS, OUT = 0, MEAN = 1, RSTD = 2, ROW_TILE = 128, ROWS = 4 };

typedef struct work {
    const pq_graph *graph;
    const pq_node *node;
    pq_tiles tiles;
    size_t columns;
} work;

static const pq_tensor *bias_of(const pq_graph *graph, const pq_node *node) {
    return node->inputs[BIAS] >= 0 ? &graph->tensors[node->inputs[BIAS]] : NULL;
}

/* A thread's scratch for ROWS rows of x and of out or their gradients, behind the tiles' sums. */
static float *wide_rows(const work *w, int which) {
    size_t each = ROWS * w->columns;
    return w->graph->scratch + 2 * w->tiles.count * w->columns +
           (3 * (size_t)pq_thread_index() + (size_t)which) * each;
}

/* Rows a call: all that are left where nothing is stored in bf16. */
static size_t rows_at_once(const work *w, size_t left) {
    const pq_tensor *t = w->graph->tensors;
    bool wide = t[w->node->inputs[X]].type == PQ_F32 && t[w->node->outputs[OUT]].type == PQ_F32;
    return wide || left < ROWS ? left : ROWS;
}

static void forward_tile(void *context, size_t i) {
    const work *w = context;
    const pq_kernels *k = w->graph->kernels;
    const pq_tensor *t = w->graph->tensors, *bias = bias_of(w->graph, w->node);
    const int *in = w->node->inputs, *out = w->node->outputs;
    pq_view x = pq_value_of(&t[in[X]]), y = pq_value_of(&t[out[OUT]]);
    float *mean = t[out[MEAN]].value, *rstd = t[out[RSTD]].value;
    size_t C = w->columns, r = pq_tile_first(&w->tiles, i), end = r + pq_tile_length(&w->tiles, i);
    for (size_t n; r < end; r += n) {
        n = rows_at_once(w, end - r);
        float *result = pq_view_place(y, r * C, wide_rows(w, 1));
        k->layernorm_forward(pq_view_read(k, x, r * C, n * C, wide_rows(w, 0)), t[in[GAIN]].value,
                             bias ? bias->value : NULL, result, mean + r, rstd + r, n, C);
        pq_view_store(k, y, r * C, n * C, result);
    }
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
    const pq_kernels *k = w->graph->kernels;
    const pq_tensor *t = w->graph->tensors;
    const int *in = w->node->inputs, *out = w->node->outputs;
    pq_view x = pq_value_of(&t[in[X]]), dx = pq_gradient_of(&t[in[X]]), dy = pq_gradient_of(&t[out[OUT]]);
    const float *mean = t[out[MEAN]].value, *rstd = t[out[RSTD]].value;
    size_t C = w->columns, r = pq_tile_first(&w->tiles, i), end = r + pq_tile_length(&w->tiles, i);
    float *dgain = w->graph->scratch + 2 * i * C, *dbias = dgain + C;
    memset(dgain, 0, 2 * C * sizeof *dgain);
    for (size_t n; r < end; r += n) {
        n = rows_at_once(w, end - r);
        float *result = pq_view_place(dx, r * C, wide_rows(w, 2));
        if (w->node->accumulate[X]) pq_view_read(k, dx, r * C, n * C, result);
        k->layernorm_backward(pq_view_read(k, x, r * C, n * C, wide_rows(w, 0)), t[in[GAIN]].value,
                              pq_view_read(k, dy, r * C, n * C, wide_rows(w, 1)), mean + r, rstd + r, result,
                              w->node->accumulate[X], dgain, bias_of(w->graph, w->node) ? dbias : NULL, n, C);
        pq_view_store(k, dx, r * C, n * C, result);
    }
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
                    .scratch = (pq_tiles_cut(graph->tokens, ROW_TILE, 1).count * 2 +
                                3 * ROWS * (size_t)pq_threads_get()) *
                               columns * sizeof(float)};
    return pq_graph_add_node(graph, &node, err);
}
