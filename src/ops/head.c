/* The tied head with cross-entropy, in slices of rows. The loss is a mean over targets whose number is known
 * before the pass, so the gradient of a slice's logits is known as soon as they are: in training each slice's
 * logits are computed once, turned into their gradient in place, and used up. Logits are fp32; where x is
 * bf16 their gradient is narrowed, and collected over GROUP slices, since each product with it reads and
 * writes all of wte's. */
#include "ops/ops.h"
#include "ops/product.h"
#include "ops/view.h"

enum { X, WTE, SLICE_BYTES = 64 << 20, SLICE_GRAIN = 64, ROW_TILE = 16, GROUP = 2 };

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
    pq_bf16 *narrow; /* where the slice's gradient goes; NULL: it stays */
} work;

/* Behind a slice of logits. */
static pq_bf16 *narrow_gradients(const pq_graph *graph) {
    return (pq_bf16 *)(void *)((char *)graph->scratch + pq_op_head_slice_bytes(graph));
}

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

static void entropy_tile(void *context, size_t i) {
    const work *w = context;
    size_t r = pq_tile_first(&w->tiles, i), n = pq_tile_length(&w->tiles, i), V = w->graph->vocab;
    entropy_rows(w, r, n);
    if (w->narrow) w->graph->kernels->narrow(w->graph->scratch + r * V, w->narrow + r * V, n * V);
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

/* One slice: losses and, with `gradient`, the logits' gradient in their place or in `narrow`. */
static void run_slice(const pq_graph *graph, const pq_node *node, size_t first, size_t n, bool gradient,
                      pq_bf16 *narrow) {
    work w = {.graph = graph, .tiles = pq_tiles_cut(n, ROW_TILE, 1), .first = first};
    w.gradient = gradient, w.narrow = narrow;
    make_logits(graph, node, first, n, graph->scratch);
    if (gradient && graph->run->teacher) teach(graph, first, n);
    pq_parallel_for(w.tiles.count, entropy_tile, &w);
}

/* What the logits' gradient [n][V] of the rows from row `first` gives. */
static void use_gradient(const pq_graph *graph, const pq_node *node, size_t first, size_t n,
                         pq_view dlogits) {
    const pq_tensor *x = &graph->tensors[node->inputs[X]], *wte = &graph->tensors[node->inputs[WTE]];
    size_t V = graph->vocab, C = wte->columns;
    pq_multiply(&(pq_product){.transpose_a = true,
                              .accumulate = first > 0 || node->accumulate[WTE] || !graph->run->first,
                              .M = V,
                              .N = C,
                              .K = n,
                              .A = dlogits,
                              .B = pq_view_from(pq_value_of(x), first * C),
                              .C = pq_gradient_of(wte)});
    pq_multiply(&(pq_product){.accumulate = node->accumulate[X],
                              .M = n,
                              .N = C,
                              .K = V,
                              .A = dlogits,
                              .B = pq_value_of(wte),
                              .C = pq_view_from(pq_gradient_of(x), first * C)});
}

static void run(const pq_graph *graph, const pq_node *node, bool gradient) {
    bool narrow = gradient && graph->tensors[node->inputs[X]].type == PQ_BF16;
    size_t slice = slice_rows(graph), group = narrow ? GROUP * slice : slice, n;
    pq_view dlogits = {graph->scratch, PQ_F32};
    if (narrow) dlogits = (pq_view){narrow_gradients(graph), PQ_BF16};
    for (size_t first = 0; first < graph->tokens; first += group) {
        size_t end = graph->tokens - first < group ? graph->tokens : first + group;
        for (size_t at = first; at < end; at += n) {
            n = end - at < slice ? end - at : slice;
            run_slice(graph, node, at, n, gradient,
                      narrow ? narrow_gradients(graph) + (at - first) * graph->vocab : NULL);
        }
        if (gradient) use_gradient(graph, node, first, end - first, dlogits);
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

/* Bytes of a group's narrow gradients; none for fp32. */
static size_t group_bytes(const pq_graph *graph, int x) {
    size_t rows = GROUP * slice_rows(graph);
    if (rows > graph->tokens) rows = graph->tokens;
    return graph->tensors[x].type == PQ_BF16 ? rows * graph->vocab * sizeof(pq_bf16) : 0;
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
                    .scratch = pq_op_head_slice_bytes(graph) + group_bytes(graph, x)};
    return pq_graph_add_node(graph, &node, err);
}
