/* The tied head with cross-entropy, in slices of rows. The loss is a mean over targets whose number is known
 * before the pass, so the gradient of a slice's logits is known as soon as they are: in training each slice's
 * logits are computed once, turned into their gradient in place, and used up. */
#include "kernels/gemm.h"
#include "ops/ops.h"
#include "ops/tiles.h"

enum { X, WTE, SLICE_BYTES = 32 << 20, SLICE_GRAIN = 64, ROW_TILE = 16 };

static size_t slice_rows(const pq_graph *graph) {
    size_t rows = SLICE_BYTES / sizeof(float) / graph->vocab / SLICE_GRAIN * SLICE_GRAIN;
    if (rows < SLICE_GRAIN) rows = SLICE_GRAIN;
    return rows < graph->tokens ? rows : graph->tokens;
}

typedef struct work {
    const pq_graph *graph;
    pq_tiles tiles;
    size_t first;
    bool gradient;
} work;

static void entropy_tile(void *context, size_t i) {
    const work *w = context;
    const pq_batch *run = w->graph->run;
    size_t r = pq_tile_first(&w->tiles, i), n = pq_tile_length(&w->tiles, i), V = w->graph->vocab;
    if (w->gradient && run->teacher) {
        const pq_soft_targets *teacher = run->teacher;
        pq_distill_mix mix = {teacher->weight, teacher->temperature, run->loss_scale};
        w->graph->kernels->distill_cross_entropy(w->graph->scratch + r * V, teacher->logits + r * V, V,
                                                 run->targets + w->first + r, run->losses + w->first + r,
                                                 teacher->divergences + w->first + r, &mix, n, V);
        return;
    }
    w->graph->kernels->cross_entropy(w->graph->scratch + r * V, V, run->targets + w->first + r,
                                     run->losses + w->first + r, w->gradient, run->loss_scale, n, V);
}

/* The teacher's logits of `n` rows from row `first`. */
static void teach(const pq_graph *graph, size_t first, size_t n) {
    const pq_soft_targets *t = graph->run->teacher;
    pq_gemm(false, true, n, graph->vocab, t->columns, t->x + first * t->columns, t->columns, t->wte,
            t->columns, false, t->logits, graph->vocab);
}

static void run(const pq_graph *graph, const pq_node *node, bool gradient) {
    const pq_tensor *x = &graph->tensors[node->inputs[X]], *wte = &graph->tensors[node->inputs[WTE]];
    size_t V = graph->vocab, C = wte->columns, rows = slice_rows(graph);
    for (size_t first = 0; first < graph->tokens; first += rows) {
        size_t n = graph->tokens - first < rows ? graph->tokens - first : rows;
        const float *input = x->value + first * C;
        pq_gemm(false, true, n, V, C, input, C, wte->value, C, false, graph->scratch, V);
        if (gradient && graph->run->teacher) teach(graph, first, n);
        work w = {
            .graph = graph, .tiles = pq_tiles_cut(n, ROW_TILE, 1), .first = first, .gradient = gradient};
        pq_parallel_for(w.tiles.count, entropy_tile, &w);
        if (!gradient) continue;
        pq_gemm(true, false, V, C, n, graph->scratch, V, input, C,
                first > 0 || node->accumulate[WTE] || !graph->run->first, wte->gradient, C);
        pq_gemm(false, false, n, C, V, graph->scratch, V, wte->value, C, node->accumulate[X],
                x->gradient + first * C, C);
    }
}

static void forward(const pq_graph *graph, const pq_node *node) {
    if (!graph->run->training) run(graph, node, false);
}

static void backward(const pq_graph *graph, const pq_node *node) {
    run(graph, node, true);
}

size_t pq_op_head_slice_bytes(const pq_graph *graph) {
    return slice_rows(graph) * graph->vocab * sizeof(float);
}

const pq_tensor *pq_op_head_input(const pq_graph *graph) {
    return &graph->tensors[graph->nodes[graph->node_count - 1].inputs[X]];
}

void pq_op_head_logits(const pq_graph *graph, size_t first, size_t count, float *logits) {
    const pq_node *node = &graph->nodes[graph->node_count - 1];
    const pq_tensor *x = &graph->tensors[node->inputs[X]], *wte = &graph->tensors[node->inputs[WTE]];
    pq_gemm(false, true, count, graph->vocab, wte->columns, x->value + first * wte->columns, wte->columns,
            wte->value, wte->columns, false, logits, graph->vocab);
}

static const pq_op op = {
    .name = "head", .forward = forward, .backward = backward, .reads_inputs = 1u << X | 1u << WTE};

pq_status pq_op_head(pq_graph *graph, int x, int wte, pq_error *err) {
    const pq_tensor *table = &graph->tensors[wte];
    if (graph->tensors[x].columns != table->columns || table->rows != graph->vocab)
        return PQ_FAIL(err, PQ_ERR_USAGE, "head: %zu columns do not fit a table of %zu x %zu for %zu tokens",
                       graph->tensors[x].columns, table->rows, table->columns, graph->vocab);
    pq_node node = {.op = &op,
                    .inputs = {x, wte, PQ_NONE, PQ_NONE},
                    .outputs = {PQ_NONE, PQ_NONE, PQ_NONE},
                    .scratch = pq_op_head_slice_bytes(graph)};
    return pq_graph_add_node(graph, &node, err);
}
