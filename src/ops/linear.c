/* The linear layer: out = x W^T + b; dx = dout W; dW += dout^T x; db += column sums of dout. x, W and out are
 * stored alike; dW and db are fp32. The same of gelu(x), by CHUNK tokens at a time: neither gelu(x) nor its
 * gradient is ever whole in memory, nor kept. */
#include <string.h>

#include "base/memory.h"
#include "ops/ops.h"
#include "ops/product.h"
#include "ops/view.h"

enum { X, WEIGHT, BIAS, OUT = 0, COLUMN_TILE = 64, ROWS = 32, CHUNK = 2048, TILE = 8192 };

static const float *bias_of(const pq_graph *graph, const pq_node *node) {
    return node->inputs[BIAS] >= 0 ? graph->tensors[node->inputs[BIAS]].value : NULL;
}

static void forward(const pq_graph *graph, const pq_node *node) {
    const pq_tensor *x = &graph->tensors[node->inputs[X]], *w = &graph->tensors[node->inputs[WEIGHT]];
    pq_multiply(&(pq_product){.transpose_b = true,
                              .M = graph->tokens,
                              .N = w->rows,
                              .K = w->columns,
                              .A = pq_value_of(x),
                              .B = pq_value_of(w),
                              .C = pq_value_of(&graph->tensors[node->outputs[OUT]]),
                              .bias = bias_of(graph, node)});
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

static void bias_backward(const pq_graph *graph, const pq_node *node) {
    if (node->inputs[BIAS] < 0) return;
    size_t columns = graph->tensors[node->inputs[BIAS]].columns;
    work w = {.graph = graph, .node = node, .tiles = pq_tiles_cut(columns, COLUMN_TILE, 16)};
    pq_parallel_for(w.tiles.count, bias_tile, &w);
}

/* dx first: the gradient of a matrix may take the matrix's place. */
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
    bias_backward(graph, node);
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

static pq_status check(const pq_graph *graph, int x, int weight, int bias, pq_error *err) {
    const pq_tensor *w = &graph->tensors[weight];
    if (graph->tensors[x].columns != w->columns)
        return PQ_FAIL(err, PQ_ERR_USAGE, "linear: %zu columns do not fit a weight of %zu x %zu",
                       graph->tensors[x].columns, w->rows, w->columns);
    if (graph->tensors[x].type != w->type)
        return PQ_FAIL(err, PQ_ERR_USAGE, "linear: the input and the weight are not stored alike");
    if (bias >= 0 && graph->tensors[bias].columns != w->rows)
        return PQ_FAIL(err, PQ_ERR_USAGE, "linear: a bias of %zu entries does not fit %zu rows",
                       graph->tensors[bias].columns, w->rows);
    return PQ_OK;
}

pq_status pq_op_linear(pq_graph *graph, int x, int weight, int bias, int *out, pq_error *err) {
    PQ_TRY(check(graph, x, weight, bias, err));
    PQ_TRY(pq_graph_add_activation(graph, graph->tensors[weight].rows, false, out, err));
    pq_node node = {.op = &op, .inputs = {x, weight, bias, PQ_NONE}, .outputs = {*out, PQ_NONE, PQ_NONE}};
    return pq_graph_add_node(graph, &node, err);
}

/* ---- of GELU ---- */

/* One chunk: `tokens` of them from `first` on. Its arrays and a copy of the matrix are in scratch. */
typedef struct chunk {
    const pq_graph *graph;
    pq_view x, dx, hidden, gradient, weight;
    void (*value)(const float *x, float *out, size_t n);
    void (*both)(const float *x, const float *dout, float *out, float *dx, size_t n);
    size_t first, tokens, columns;
    pq_tiles tiles;
} chunk;

static size_t chunk_tokens(const pq_graph *graph) {
    return graph->tokens < CHUNK ? graph->tokens : CHUNK;
}

static size_t hidden_bytes(const pq_graph *graph, const pq_tensor *w) {
    return pq_round_up(chunk_tokens(graph) * w->columns * pq_type_bytes(w->type), PQ_ALIGNMENT);
}

static chunk chunk_of(const pq_graph *graph, const pq_node *node) {
    const pq_tensor *x = &graph->tensors[node->inputs[X]], *w = &graph->tensors[node->inputs[WEIGHT]];
    const pq_kernels *k = graph->kernels;
    char *scratch = (char *)graph->scratch;
    bool tanh = node->attributes.tanh;
    return (chunk){.graph = graph,
                   .x = pq_value_of(x),
                   .dx = pq_gradient_of(x),
                   .hidden = {scratch, x->type},
                   .gradient = {scratch + hidden_bytes(graph, w), x->type},
                   .weight = {scratch + 2 * hidden_bytes(graph, w), w->type},
                   .value = tanh ? k->gelu_tanh_forward : k->gelu_erf_forward,
                   .both = tanh ? k->gelu_tanh_both : k->gelu_erf_both,
                   .columns = w->columns};
}

/* The chunk behind; false behind the last. */
static bool next_chunk(chunk *c) {
    c->first += c->tokens;
    size_t left = c->graph->tokens - c->first, most = chunk_tokens(c->graph);
    c->tokens = left < most ? left : most;
    c->tiles = pq_tiles_cut(c->tokens * c->columns, TILE, 16);
    return c->tokens > 0;
}

static void value_tile(void *context, size_t i) {
    const chunk *c = context;
    const pq_kernels *k = c->graph->kernels;
    float a[PQ_PIECE], b[PQ_PIECE];
    for (pq_piece p = pq_piece_first(&c->tiles, i); p.n; pq_piece_next(&p)) {
        float *value = pq_view_place(c->hidden, p.at, b);
        c->value(pq_view_read(k, c->x, c->first * c->columns + p.at, p.n, a), value, p.n);
        pq_view_store(k, c->hidden, p.at, p.n, value);
    }
}

static void both_tile(void *context, size_t i) {
    const chunk *c = context;
    const pq_kernels *k = c->graph->kernels;
    float a[PQ_PIECE], b[PQ_PIECE], d[PQ_PIECE], e[PQ_PIECE];
    for (pq_piece p = pq_piece_first(&c->tiles, i); p.n; pq_piece_next(&p)) {
        size_t at = c->first * c->columns + p.at;
        float *value = pq_view_place(c->hidden, p.at, b), *dx = pq_view_place(c->dx, at, e);
        c->both(pq_view_read(k, c->x, at, p.n, a), pq_view_read(k, c->gradient, p.at, p.n, d), value, dx,
                p.n);
        pq_view_store(k, c->hidden, p.at, p.n, value);
        pq_view_store(k, c->dx, at, p.n, dx);
    }
}

static void gelu_forward(const pq_graph *graph, const pq_node *node) {
    const pq_tensor *w = &graph->tensors[node->inputs[WEIGHT]], *out = &graph->tensors[node->outputs[OUT]];
    chunk c = chunk_of(graph, node);
    while (next_chunk(&c)) {
        pq_parallel_for(c.tiles.count, value_tile, &c);
        pq_multiply(&(pq_product){.transpose_b = true,
                                  .M = c.tokens,
                                  .N = w->rows,
                                  .K = w->columns,
                                  .A = c.hidden,
                                  .B = pq_value_of(w),
                                  .C = pq_view_from(pq_value_of(out), c.first * w->rows),
                                  .bias = bias_of(graph, node)});
    }
}

/* The matrix where dW, which the first chunk writes, does not take its place. */
static pq_view kept_weight(const chunk *c, const pq_tensor *w) {
    if (w->value != w->gradient || c->graph->tokens <= CHUNK) return pq_value_of(w);
    memcpy(c->weight.data, w->value, w->rows * w->columns * pq_type_bytes(w->type));
    return c->weight;
}

static void gelu_backward(const pq_graph *graph, const pq_node *node) {
    const pq_tensor *w = &graph->tensors[node->inputs[WEIGHT]];
    chunk c = chunk_of(graph, node);
    pq_view weight = kept_weight(&c, w), dout = pq_gradient_of(&graph->tensors[node->outputs[OUT]]);
    while (next_chunk(&c)) {
        pq_view d = pq_view_from(dout, c.first * w->rows);
        pq_multiply(&(pq_product){
            .M = c.tokens, .N = w->columns, .K = w->rows, .A = d, .B = weight, .C = c.gradient});
        pq_parallel_for(c.tiles.count, both_tile, &c);
        pq_multiply(&(pq_product){.transpose_a = true,
                                  .accumulate = node->accumulate[WEIGHT] || !graph->run->first || c.first > 0,
                                  .M = w->rows,
                                  .N = w->columns,
                                  .K = c.tokens,
                                  .A = d,
                                  .B = c.hidden,
                                  .C = pq_gradient_of(w)});
    }
    bias_backward(graph, node);
}

static const pq_op gelu_op = {.name = "gelu, linear",
                              .forward = gelu_forward,
                              .backward = gelu_backward,
                              .reads_inputs = 1u << X | 1u << WEIGHT,
                              .gradient_over_input = 1u << X,
                              .work = work_of};

pq_status pq_op_gelu_linear(pq_graph *graph, int x, bool tanh, int weight, int bias, int *out,
                            pq_error *err) {
    const pq_tensor *w = &graph->tensors[weight];
    PQ_TRY(check(graph, x, weight, bias, err));
    PQ_TRY(pq_graph_add_activation(graph, w->rows, false, out, err));
    pq_node node = {.op = &gelu_op,
                    .inputs = {x, weight, bias, PQ_NONE},
                    .outputs = {*out, PQ_NONE, PQ_NONE},
                    .attributes = {.tanh = tanh}};
    node.scratch = 2 * hidden_bytes(graph, w);
    if (graph->tokens > CHUNK) node.scratch += w->rows * w->columns * pq_type_bytes(w->type);
    return pq_graph_add_node(graph, &node, err);
}
