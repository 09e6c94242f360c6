/* GELU by erf or tanh; recomputed for the backward pass. */
#include "ops/ops.h"
#include "ops/tiles.h"
#include "ops/view.h"

enum { X, OUT = 0, TILE = 8192 };

typedef struct work {
    const pq_kernels *kernels;
    const pq_tensor *x, *out;
    void (*forward)(const float *x, float *out, size_t n);
    void (*backward)(const float *x, const float *dout, float *dx, size_t n);
    pq_tiles tiles;
} work;

static work make_work(const pq_graph *graph, const pq_node *node) {
    const pq_kernels *k = graph->kernels;
    bool tanh = node->attributes.tanh;
    work w = {
        .kernels = k, .x = &graph->tensors[node->inputs[X]], .out = &graph->tensors[node->outputs[OUT]]};
    w.forward = tanh ? k->gelu_tanh_forward : k->gelu_erf_forward;
    w.backward = tanh ? k->gelu_tanh_backward : k->gelu_erf_backward;
    w.tiles = pq_tiles_cut(graph->tokens * w.x->columns, TILE, 16);
    return w;
}

static void forward_tile(void *context, size_t i) {
    const work *w = context;
    pq_view x = pq_value_of(w->x), out = pq_value_of(w->out);
    float a[PQ_PIECE], b[PQ_PIECE];
    for (pq_piece p = pq_piece_first(&w->tiles, i); p.n; pq_piece_next(&p)) {
        float *result = pq_view_place(out, p.at, b);
        w->forward(pq_view_read(w->kernels, x, p.at, p.n, a), result, p.n);
        pq_view_store(w->kernels, out, p.at, p.n, result);
    }
}

static void backward_tile(void *context, size_t i) {
    const work *w = context;
    pq_view x = pq_value_of(w->x), dout = pq_gradient_of(w->out), dx = pq_gradient_of(w->x);
    float a[PQ_PIECE], b[PQ_PIECE];
    for (pq_piece p = pq_piece_first(&w->tiles, i); p.n; pq_piece_next(&p)) {
        float *result = pq_view_place(dx, p.at, b);
        w->backward(pq_view_read(w->kernels, x, p.at, p.n, a), pq_view_read(w->kernels, dout, p.at, p.n, b),
                    result, p.n);
        pq_view_store(w->kernels, dx, p.at, p.n, result);
    }
}

static void forward(const pq_graph *graph, const pq_node *node) {
    work w = make_work(graph, node);
    pq_parallel_for(w.tiles.count, forward_tile, &w);
}

static void backward(const pq_graph *graph, const pq_node *node) {
    work w = make_work(graph, node);
    pq_parallel_for(w.tiles.count, backward_tile, &w);
}

static bool in_place(const pq_node *node, int input) {
    (void)node, (void)input;
    return true;
}

static const pq_op op = {.name = "gelu",
                         .forward = forward,
                         .backward = backward,
                         .reads_inputs = 1u << X,
                         .cheap = true,
                         .gradient_in_place = in_place};

pq_status pq_op_gelu(pq_graph *graph, int x, bool tanh, int *out, pq_error *err) {
    PQ_TRY(pq_graph_add_activation(graph, graph->tensors[x].columns, false, out, err));
    pq_node node = {.op = &op,
                    .inputs = {x, PQ_NONE, PQ_NONE, PQ_NONE},
                    .outputs = {*out, PQ_NONE, PQ_NONE},
                    .attributes = {.tanh = tanh}};
    return pq_graph_add_node(graph, &node, err);
}
