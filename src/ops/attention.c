/* Causal self-attention, a (sequence, head) pair a task. Kept for the backward pass: q|k|v, the output, and
 * one number a row and head (the log of the softmax's denominator). */
#include <math.h>

#include "ops/ops.h"
#include "ops/view.h"

enum { QKV, OUT = 0, LSE = 1 };

typedef struct work {
    const pq_graph *graph;
    const pq_node *node;
    pq_dropout dropout;
    size_t T, C, heads, head_size, scratch; /* scratch: floats a thread */
} work;

static size_t scratch_floats(size_t T, size_t head_size, pq_type type) {
    return type == PQ_BF16 ? pq_attention_bf16_scratch(T, head_size) : pq_attention_scratch(T, head_size);
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

/* Both types' kernels take the same arguments. */
#define RUN_FORWARD(kernel)                                                                                  \
    g->kernels->kernel(x.q, x.k, x.v, 3 * C, y, C, lse, w->T, w->head_size, dropout, first, scratch)
#define RUN_BACKWARD(kernel)                                                                                 \
    g->kernels->kernel(x.q, x.k, x.v, 3 * C, y, dy, C, lse, dx.q, dx.k, dx.v, 3 * C, w->T, w->head_size,     \
                       dropout, first, scratch)

/* Where a head's part of a sequence's first row begins: of q|k|v, and of the output. */
typedef struct parts {
    void *q, *k, *v;
} parts;

static parts parts_of(const work *w, pq_view qkv, size_t row, size_t head) {
    size_t first = 3 * row * w->C + head * w->head_size;
    return (parts){pq_view_from(qkv, first).data, pq_view_from(qkv, first + w->C).data,
                   pq_view_from(qkv, first + 2 * w->C).data};
}

static void *part_of(const work *w, pq_view out, size_t row, size_t head) {
    return pq_view_from(out, row * w->C + head * w->head_size).data;
}

static void run_pair(const work *w, size_t i, bool backward) {
    const pq_graph *g = w->graph;
    const pq_tensor *qkv = &g->tensors[w->node->inputs[QKV]], *out = &g->tensors[w->node->outputs[OUT]];
    size_t sequence = i / w->heads, head = i % w->heads, row = sequence * w->T, C = w->C;
    float *scratch = g->scratch + (size_t)pq_thread_index() * w->scratch;
    float *lse = (float *)g->tensors[w->node->outputs[LSE]].value + i * w->T;
    const pq_dropout *dropout = w->node->attributes.dropout > 0 && g->run->training ? &w->dropout : NULL;
    uint64_t first = ((g->run->sequence + sequence) * w->heads + head) * w->T * ((w->T + 63) / 64 * 64);
    bool bf16 = out->type == PQ_BF16;
    parts x = parts_of(w, pq_value_of(qkv), row, head);
    void *y = part_of(w, pq_value_of(out), row, head);
    if (backward) {
        parts dx = parts_of(w, pq_gradient_of(qkv), row, head);
        void *dy = part_of(w, pq_gradient_of(out), row, head);
        if (bf16)
            RUN_BACKWARD(attention_backward_bf16);
        else
            RUN_BACKWARD(attention_backward);
    } else if (bf16)
        RUN_FORWARD(attention_forward_bf16);
    else
        RUN_FORWARD(attention_forward);
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
    return (pq_work){2 * product, 5 * product, graph->tensors[node->outputs[OUT]].type};
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
