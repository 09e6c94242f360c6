/* Token and position embedding. The backward pass is split by columns, so that each thread adds up its own
 * entries in the order of the tokens. */
#include <string.h>

#include "ops/ops.h"
#include "ops/tiles.h"

enum { X, WTE = 0, WPE = 1, COLUMN_TILE = 64, ROW_TILE = 64 };

typedef struct work {
    const pq_graph *graph;
    const pq_node *node;
    pq_tiles tiles;
    size_t columns;
    float *out;
} work;

static void forward_tile(void *context, size_t i) {
    const work *w = context;
    const pq_graph *g = w->graph;
    const float *wte = g->tensors[w->node->inputs[WTE]].value, *wpe = g->tensors[w->node->inputs[WPE]].value;
    size_t C = w->columns, first = pq_tile_first(&w->tiles, i), end = first + pq_tile_length(&w->tiles, i);
    for (size_t t = first; t < end; t++)
        g->kernels->add(wte + g->run->tokens[t] * C, wpe + t % g->context * C, w->out + t * C, C);
}

static void forward(const pq_graph *graph, const pq_node *node) {
    work w = {.graph = graph, .node = node, .tiles = pq_tiles_cut(graph->tokens, ROW_TILE, 1)};
    w.columns = graph->tensors[node->outputs[X]].columns;
    w.out = graph->tensors[node->outputs[X]].value;
    pq_parallel_for(w.tiles.count, forward_tile, &w);
}

static void backward_tile(void *context, size_t i) {
    const work *w = context;
    const pq_graph *g = w->graph;
    const pq_tensor *wte = &g->tensors[w->node->inputs[WTE]], *wpe = &g->tensors[w->node->inputs[WPE]];
    const float *dout = g->tensors[w->node->outputs[X]].gradient;
    size_t C = w->columns, first = pq_tile_first(&w->tiles, i), n = pq_tile_length(&w->tiles, i);
    const pq_tensor *tables[] = {wte, wpe};
    for (int t = 0; t < 2; t++)
        for (size_t r = 0; r < tables[t]->rows && g->run->first && !w->node->accumulate[t]; r++)
            memset(tables[t]->gradient + r * C + first, 0, n * sizeof(float));
    for (size_t t = 0; t < g->tokens; t++) {
        const float *d = dout + t * C + first;
        float *token = wte->gradient + g->run->tokens[t] * C + first;
        float *position = wpe->gradient + t % g->context * C + first;
        g->kernels->add(token, d, token, n);
        g->kernels->add(position, d, position, n);
    }
}

static void backward(const pq_graph *graph, const pq_node *node) {
    work w = {.graph = graph, .node = node, .columns = graph->tensors[node->outputs[X]].columns};
    w.tiles = pq_tiles_cut(w.columns, COLUMN_TILE, 16);
    pq_parallel_for(w.tiles.count, backward_tile, &w);
}

static const pq_op op = {.name = "embedding", .forward = forward, .backward = backward};

pq_status pq_op_embedding(pq_graph *graph, int wte, int wpe, int *out, pq_error *err) {
    const pq_tensor *table = &graph->tensors[wte], *positions = &graph->tensors[wpe];
    if (positions->columns != table->columns)
        return PQ_FAIL(err, PQ_ERR_USAGE, "embedding: wte has %zu columns, wpe %zu", table->columns,
                       positions->columns);
    if (graph->context > positions->rows)
        return PQ_FAIL(err, PQ_ERR_USAGE, "embedding: a context of %zu tokens is longer than the model's %zu",
                       graph->context, positions->rows);
    PQ_TRY(pq_graph_add_activation(graph, table->columns, false, out, err));
    pq_node node = {.op = &op, .inputs = {wte, wpe, PQ_NONE, PQ_NONE}, .outputs = {*out, PQ_NONE, PQ_NONE}};
    return pq_graph_add_node(graph, &node, err);
}
