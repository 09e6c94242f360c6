/* Causal self-attention, a (sequence, head) pair a task. Kept for the backward pass: q|k|v, the output, and
 * one number a row and head (the log of the softmax's denominator). A pair's numbers are widened as a whole
 * where they are stored in bf16. */
#include <math.h>

#include "ops/ops.h"
#include "ops/view.h"

enum { QKV, OUT = 0, LSE = 1, COPIES = 8 };

typedef struct work {
    const pq_graph *graph;
    const pq_node *node;
    pq_dropout dropout;
    size_t T, C, heads, head_size, scratch; /* scratch: floats a thread */
} work;

/* Floats a thread; wide copies of q, k, v and out, and of their gradients, come first. */
static size_t scratch_floats(size_t T, size_t head_size, pq_type type) {
    return pq_attention_scratch(T, head_size) + (type == PQ_BF16 ? COPIES * T * head_size : 0);
}

static work make_work(const pq_graph *graph, const pq_node *node) {
    work w = {.graph = graph, .node = node, .T = graph->context, .heads = node->attributes.heads};
    w.C = graph->tensors[node->outputs[OUT]].columns;
    w.head_size = w.C / w.heads;
    w.scratch = scratch_floats(w.T, w.head_size, graph->tensors[node->outputs[OUT]].type);
    w.dropout =
        pq_dropout_make(node->attributes.dropout, graph->run->seed, graph->run->iter, (uint32_t)node->index);
    return w;
}

/* T rows of a head, `stride` apart, as floats: where they lie, or copied to wide[T][head_size]. */
typedef struct rows {
    float *data;
    size_t stride;
} rows;

static rows rows_of(const work *w, pq_view view, size_t first, size_t stride, float *wide) {
    if (view.type == PQ_F32) return (rows){(float *)view.data + first, stride};
    return (rows){wide, w->head_size};
}

static void load(const work *w, pq_view view, size_t first, size_t stride, rows to) {
    for (size_t t = 0; view.type == PQ_BF16 && t < w->T; t++)
        pq_view_read(w->graph->kernels, view, first + t * stride, w->head_size, to.data + t * to.stride);
}

static void store(const work *w, pq_view view, size_t first, size_t stride, rows from) {
    for (size_t t = 0; view.type == PQ_BF16 && t < w->T; t++)
        pq_view_store(w->graph->kernels, view, first + t * stride, w->head_size, from.data + t * from.stride);
}

static void run_pair(const work *w, size_t i, bool backward) {
    const pq_graph *g = w->graph;
    const pq_tensor *qkv = &g->tensors[w->node->inputs[QKV]], *out = &g->tensors[w->node->outputs[OUT]];
    size_t T = w->T, C = w->C, D = w->head_size, sequence = i / w->heads, head = i % w->heads;
    size_t at = sequence * T * 3 * C + head * D, out_at = sequence * T * C + head * D;
    float *scratch = g->scratch + (size_t)pq_thread_index() * w->scratch;
    float *lse = (float *)g->tensors[w->node->outputs[LSE]].value + i * T;
    const pq_dropout *dropout = w->node->attributes.dropout > 0 && g->run->training ? &w->dropout : NULL;
    uint64_t first = ((g->run->sequence + sequence) * w->heads + head) * T * ((T + 63) / 64 * 64);
    pq_view x = pq_value_of(qkv), dx = pq_gradient_of(qkv), y = pq_value_of(out), dy = pq_gradient_of(out);
    rows in[3], din[3], o = rows_of(w, y, out_at, C, scratch + 3 * T * D), dout;
    for (size_t j = 0; j < 3; j++) {
        in[j] = rows_of(w, x, at + j * C, 3 * C, scratch + j * T * D);
        load(w, x, at + j * C, 3 * C, in[j]);
    }
    float *own = scratch + (x.type == PQ_BF16 ? COPIES * T * D : 0);
    if (!backward) {
        g->kernels->attention_forward(in[0].data, in[1].data, in[2].data, in[0].stride, o.data, o.stride, lse,
                                      T, D, dropout, first, own);
        store(w, y, out_at, C, o);
        return;
    }
    dout = rows_of(w, dy, out_at, C, scratch + 4 * T * D);
    load(w, y, out_at, C, o);
    load(w, dy, out_at, C, dout);
    for (size_t j = 0; j < 3; j++) din[j] = rows_of(w, dx, at + j * C, 3 * C, scratch + (5 + j) * T * D);
    g->kernels->attention_backward(in[0].data, in[1].data, in[2].data, in[0].stride, o.data, dout.data,
                                   o.stride, lse, din[0].data, din[1].data, din[2].data, din[0].stride, T, D,
                                   dropout, first, own);
    for (size_t j = 0; j < 3; j++) store(w, dx, at + j * C, 3 * C, din[j]);
}

static void forward_pair(void *context, size_t i) {
    run_pair(context, i, false);
}
static void backward_pair(void *context, size_t i) {
    run_pair(context, i, true);
}

static void forward(const pq_graph *graph, const pq_node *node) {
    work w = make_work(graph, node);
    pq_parallel_for(graph->batch * w.heads, forward_pair, &w);
}

static void backward(const pq_graph *graph, const pq_node *node) {
    work w = make_work(graph, node);
    pq_parallel_for(graph->batch * w.heads, backward_pair, &w);
}

/* Two products forward; five backward, which makes the scores again. Of each, the causal half. */
static pq_work work_of(const pq_graph *graph, const pq_node *node) {
    double columns = (double)graph->tensors[node->outputs[OUT]].columns;
    double product = (double)graph->tokens * ((double)graph->context + 1) * columns;
    return (pq_work){2 * product, 5 * product, PQ_F32};
}

static const pq_op op = {.name = "attention",
                         .forward = forward,
                         .backward = backward,
                         .reads_inputs = 1u << QKV,
                         .reads_outputs = 1u << OUT | 1u << LSE,
                         .work = work_of};

pq_status pq_op_attention(pq_graph *graph, int qkv, size_t heads, double p, int *out, pq_error *err) {
    size_t columns = graph->tensors[qkv].columns, width = columns / 3;
    int lse;
    if (columns % 3 || heads == 0 || width % heads)
        return PQ_FAIL(err, PQ_ERR_USAGE, "attention: %zu columns are not q, k and v of %zu heads", columns,
                       heads);
    PQ_TRY(pq_graph_add_activation(graph, width, false, out, err));
    PQ_TRY(pq_graph_add_activation(graph, heads, true, &lse, err));
    pq_node node = {.op = &op,
                    .inputs = {qkv, PQ_NONE, PQ_NONE, PQ_NONE},
                    .outputs = {*out, lse, PQ_NONE},
                    .attributes = {.heads = heads, .dropout = p},
                    .scratch = (size_t)pq_threads_get() *
                               scratch_floats(graph->context, width / heads, graph->type) * sizeof(float)};
    return pq_graph_add_node(graph, &node, err);
}
