/* Causal self-attention, a (sequence, head) pair a task. Kept for the backward pass: q|k|v, the output, and
 * one number a row and head (the log of the softmax's denominator). */
#include <math.h>

#include "ops/ops.h"
#include "ops/tiles.h"

enum { QKV, OUT = 0, LSE = 1 };

typedef struct work {
    const pq_graph *graph;
    const pq_node *node;
    pq_dropout dropout;
    size_t T, C, heads, head_size, scratch;
} work;

static work make_work(const pq_graph *graph, const pq_node *node) {
    work w = {.graph = graph, .node = node, .T = graph->context, .heads = node->attributes.heads};
    w.C = graph->tensors[node->outputs[OUT]].columns;
    w.head_size = w.C / w.heads;
    w.scratch = pq_attention_scratch(w.T, w.head_size);
    w.dropout =
        pq_dropout_make(node->attributes.dropout, graph->run->seed, graph->run->iter, (uint32_t)node->index);
    return w;
}

static void run_pair(const work *w, size_t i, bool backward) {
    const pq_graph *g = w->graph;
    const pq_tensor *qkv = &g->tensors[w->node->inputs[QKV]], *out = &g->tensors[w->node->outputs[OUT]];
    size_t T = w->T, C = w->C, D = w->head_size, sequence = i / w->heads, head = i % w->heads;
    const float *q = qkv->value + sequence * T * 3 * C + head * D;
    float *o = out->value + sequence * T * C + head * D;
    float *lse = g->tensors[w->node->outputs[LSE]].value + i * T;
    float *scratch = g->scratch + (size_t)pq_thread_index() * w->scratch;
    const pq_dropout *dropout = w->node->attributes.dropout > 0 && g->run->training ? &w->dropout : NULL;
    uint64_t first = ((g->run->sequence + sequence) * w->heads + head) * T * ((T + 63) / 64 * 64);
    if (backward) {
        float *dq = qkv->gradient + sequence * T * 3 * C + head * D;
        g->kernels->attention_backward(q, q + C, q + 2 * C, 3 * C, o,
                                       out->gradient + sequence * T * C + head * D, C, lse, dq, dq + C,
                                       dq + 2 * C, 3 * C, T, D, dropout, first, scratch);
    } else {
        g->kernels->attention_forward(q, q + C, q + 2 * C, 3 * C, o, C, lse, T, D, dropout, first, scratch);
    }
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

static const pq_op op = {.name = "attention",
                         .forward = forward,
                         .backward = backward,
                         .reads_inputs = 1u << QKV,
                         .reads_outputs = 1u << OUT | 1u << LSE};

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
                               pq_attention_scratch(graph->context, width / heads) * sizeof(float)};
    return pq_graph_add_node(graph, &node, err);
}
