/* Token and position embedding. The backward pass is split by columns, so that each thread adds up its own
 * entries in the order of the tokens. */
#include <string.h>

#include "ops/ops.h"
#include "ops/view.h"

enum { X, WTE = 0, WPE = 1, COLUMN_TILE = 64, ROW_TILE = 64 };

typedef struct work {
    const pq_graph *graph;
    const pq_node *node;
    pq_tiles tiles;
    size_t columns;
} work;

static void forward_tile(void *context, size_t i) {
    const work *w = context;
    const pq_graph *g = w->graph;
    pq_view wte = pq_value_of(&g->tensors[w->node->inputs[WTE]]);
    pq_view wpe = pq_value_of(&g->tensors[w->node->inputs[WPE]]);
    pq_view out = pq_value_of(&g->tensors[w->node->outputs[X]]);
    size_t C = w->columns, first = pq_tile_first(&w->tiles, i), end = first + pq_tile_length(&w->tiles, i);
    float a[PQ_PIECE], b[PQ_PIECE];
    for (size_t t = first; t < end; t++)
        for (pq_piece p = pq_piece_of(0, C); p.n; pq_piece_next(&p)) {
            float *sum = pq_view_place(out, t * C + p.at, a);
            g->kernels->add(pq_view_read(g->kernels, wte, g->run->tokens[t] * C + p.at, p.n, a),
                            pq_view_read(g->kernels, wpe, t % g->context * C + p.at, p.n, b), sum, p.n);
            pq_view_store(g->kernels, out, t * C + p.at, p.n, sum);
        }
}

static void forward(const pq_graph *graph, const pq_node *node) {
    work w = {.graph = graph, .node = node, .tiles = pq_tiles_cut(graph->tokens, ROW_TILE, 1)};
    w.columns = graph->tensors[node->outputs[X]].columns;
    pq_parallel_for(w.tiles.count, forward_tile, &w);
}

static void backward_tile(void *context, size_t i) {
    const work *w = context;
    const pq_graph *g = w->graph;
    const pq_tensor *wte = &g->tensors[w->node->inputs[WTE]], *wpe = &g->tensors[w->node->inputs[WPE]];
    pq_view dout = pq_gradient_of(&g->tensors[w->node->outputs[X]]);
    float *rows[] = {wte->gradient, wpe->gradient}, wide[COLUMN_TILE];
    size_t C = w->columns, first = pq_tile_first(&w->tiles, i), n = pq_tile_length(&w->tiles, i);
    const pq_tensor *tables[] = {wte, wpe};
    for (int t = 0; t < 2; t++)
        for (size_t r = 0; r < tables[t]->rows && g->run->first && !w->node->accumulate[t]; r++)
            memset(rows[t] + r * C + first, 0, n * sizeof(float));
    for (size_t t = 0; t < g->tokens; t++) {
        const float *d = pq_view_read(g->kernels, dout, t * C + first, n, wide);
        float *token = rows[WTE] + g->run->tokens[t] * C + first;
        float *position = rows[WPE] + t % g->context * C + first;
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
    graph->tensors[*out].type = graph->stream;
    pq_node node = {.op = &op, .inputs = {wte, wpe, PQ_NONE, PQ_NONE}, .outputs = {*out, PQ_NONE, PQ_NONE}};
    return pq_graph_add_node(graph, &node, err);
}
