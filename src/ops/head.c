/* The tied head with cross-entropy, in slices of rows. The loss is a mean over targets whose number is known
 * before the pass, so the gradient of a slice's logits is known as soon as they are: in training each slice's
 * logits are computed once, turned into their gradient in place, and used up. Logits are fp32; where x is
 * bf16 their gradient is narrowed in place, too: rows of bf16 that begin where those of floats did. */
#include <string.h>

#include "base/memory.h"
#include "ops/ops.h"
#include "ops/product.h"
#include "ops/view.h"

enum { X, WTE, SLICE_GRAIN = 16, ROW_TILE = 16 };

/* As few slices as their size allows, about alike: each reads all of wte, and changes all of its gradient. */
static size_t slice_rows(const pq_graph *graph) {
    size_t most = PQ_HEAD_SLICE_BYTES / sizeof(float) / graph->vocab / SLICE_GRAIN * SLICE_GRAIN;
    if (most < SLICE_GRAIN) most = SLICE_GRAIN;
    size_t slices = (graph->tokens + most - 1) / most, rows = (graph->tokens + slices - 1) / slices;
    rows = pq_round_up(rows, SLICE_GRAIN);
    return rows < graph->tokens ? rows : graph->tokens;
}

typedef struct work {
    const pq_graph *graph;
    pq_tiles tiles;
    size_t first;
    bool gradient, narrow;
} work;

static void entropy_rows(const work *w, size_t r, size_t n) {
    const pq_batch *run = w->graph->run;
    size_t V = w->graph->vocab;
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

static void narrow_in_place(const work *w, float *row) {
    pq_bf16 piece[PQ_PIECE];
    for (size_t c = 0, n; c < w->graph->vocab; c += n) {
        n = w->graph->vocab - c < PQ_PIECE ? w->graph->vocab - c : PQ_PIECE;
        w->graph->kernels->narrow(row + c, piece, n);
        memcpy((char *)row + c * sizeof *piece, piece, n * sizeof *piece);
    }
}

static void entropy_tile(void *context, size_t i) {
    const work *w = context;
    size_t r = pq_tile_first(&w->tiles, i), n = pq_tile_length(&w->tiles, i), V = w->graph->vocab;
    entropy_rows(w, r, n);
    for (size_t k = r; w->narrow && k < r + n; k++) narrow_in_place(w, w->graph->scratch + k * V);
}

/* The teacher's logits of `n` rows from row `first`. */
static void teach(const pq_graph *graph, size_t first, size_t n) {
    const pq_soft_targets *t = graph->run->teacher;
    pq_gemm(&(pq_float_product){.transpose_b = true,
                                .M = n,
                                .N = graph->vocab,
                                .K = t->columns,
                                .lda = t->columns,
                                .ldb = t->columns,
                                .ldc = graph->vocab,
                                .A = t->x + first * t->columns,
                                .B = t->wte,
                                .C = t->logits});
}

/* The logits of `n` rows from row `first`. */
static void make_logits(const pq_graph *graph, const pq_node *node, size_t first, size_t n, float *logits) {
    const pq_tensor *x = &graph->tensors[node->inputs[X]], *wte = &graph->tensors[node->inputs[WTE]];
    pq_multiply(&(pq_product){.transpose_b = true,
                              .M = n,
                              .N = graph->vocab,
                              .K = wte->columns,
                              .A = pq_view_from(pq_value_of(x), first * wte->columns),
                              .B = pq_value_of(wte),
                              .C = {logits, PQ_F32}});
}

/* One slice: losses and, with `gradient`, the logits' gradient in their place. */
static void run_slice(const pq_graph *graph, const pq_node *node, size_t first, size_t n, bool gradient) {
    work w = {.graph = graph, .tiles = pq_tiles_cut(n, ROW_TILE, 1), .first = first, .gradient = gradient};
    w.narrow = gradient && graph->tensors[node->inputs[X]].type == PQ_BF16;
    make_logits(graph, node, first, n, graph->scratch);
    if (gradient && graph->run->teacher) teach(graph, first, n);
    pq_parallel_for(w.tiles.count, entropy_tile, &w);
}

/* What the logits' gradient [n][V] of the rows from row `first` gives. */
static void use_gradient(const pq_graph *graph, const pq_node *node, size_t first, size_t n) {
    const pq_tensor *x = &graph->tensors[node->inputs[X]], *wte = &graph->tensors[node->inputs[WTE]];
    const size_t V = graph->vocab, C = wte->columns, stride = V * sizeof(float) / pq_type_bytes(x->type);
    const pq_view dlogits = {graph->scratch, x->type};
    pq_multiply(&(pq_product){.transpose_a = true,
                              .accumulate = first > 0 || node->accumulate[WTE] || !graph->run->first,
                              .M = V,
                              .N = C,
                              .K = n,
                              .lda = stride,
                              .A = dlogits,
                              .B = pq_view_from(pq_value_of(x), first * C),
                              .C = pq_gradient_of(wte)});
    pq_multiply(&(pq_product){.accumulate = node->accumulate[X],
                              .M = n,
                              .N = C,
                              .K = V,
                              .lda = stride,
                              .A = dlogits,
                              .B = pq_value_of(wte),
                              .C = pq_view_from(pq_gradient_of(x), first * C)});
}

static void run(const pq_graph *graph, const pq_node *node, bool gradient) {
    const size_t slice = slice_rows(graph);
    for (size_t first = 0; first < graph->tokens; first += slice) {
        size_t n = graph->tokens - first < slice ? graph->tokens - first : slice;
        run_slice(graph, node, first, n, gradient);
        if (gradient) use_gradient(graph, node, first, n);
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
    make_logits(graph, &graph->nodes[graph->node_count - 1], first, count, logits);
}

/* In training; a teacher's logits are not counted. */
static pq_work work_of(const pq_graph *graph, const pq_node *node) {
    const pq_tensor *wte = &graph->tensors[node->inputs[WTE]];
    return (pq_work){0, 3 * 2.0 * (double)graph->tokens * (double)graph->vocab * (double)wte->columns,
                     wte->type};
}

static const pq_op op = {.name = "head",
                         .forward = forward,
                         .backward = backward,
                         .reads_inputs = 1u << X | 1u << WTE,
                         .work = work_of};

pq_status pq_op_head(pq_graph *graph, int x, int wte, pq_error *err) {
    const pq_tensor *table = &graph->tensors[wte];
    if (graph->tensors[x].columns != table->columns || table->rows != graph->vocab)
        return PQ_FAIL(err, PQ_ERR_USAGE, "head: %zu columns do not fit a table of %zu x %zu for %zu tokens",
                       graph->tensors[x].columns, table->rows, table->columns, graph->vocab);
    if (graph->tensors[x].type != table->type)
        return PQ_FAIL(err, PQ_ERR_USAGE, "head: the input and the table are not stored alike");
    pq_node node = {.op = &op,
                    .inputs = {x, wte, PQ_NONE, PQ_NONE},
                    .outputs = {PQ_NONE, PQ_NONE, PQ_NONE},
                    .scratch = pq_op_head_slice_bytes(graph)};
    return pq_graph_add_node(graph, &node, err);
}
