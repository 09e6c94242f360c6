/* Owns the lists of tensors and nodes, and running the steps of a plan. */
#include "graph/graph.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/memory.h"
#include "graph/plan.h"

pq_status pq_graph_create(size_t batch, size_t context, size_t vocab, pq_graph **out, pq_error *err) {
    pq_graph *graph;
    *out = NULL;
    PQ_TRY(pq_calloc(1, sizeof *graph, "graph", &graph, err));
    graph->batch = batch;
    graph->context = context;
    graph->vocab = vocab;
    graph->block = PQ_NONE;
    graph->kernels = pq_kernels_get();
    if (__builtin_mul_overflow(batch, context, &graph->tokens)) {
        free(graph);
        return PQ_FAIL(err, PQ_ERR_USAGE, "a batch of %zu times %zu tokens is too large", batch, context);
    }
    *out = graph;
    return PQ_OK;
}

void pq_graph_destroy(pq_graph *graph) {
    if (!graph) return;
    pq_plan_destroy(graph->plan);
    free(graph->tensors);
    free(graph->nodes);
    free(graph);
}

void pq_graph_set_types(pq_graph *graph, pq_type type, pq_type stream) {
    graph->type = type;
    graph->stream = stream;
}

/* Lists grow by doubling; only building a graph pays for it. */
static pq_status grow(void *list, size_t count, size_t size, pq_error *err) {
    void **data = list;
    if (count & (count - 1)) return PQ_OK;
    void *larger = realloc(*data, (count ? 2 * count : 1) * size);
    if (!larger) return PQ_FAIL(err, PQ_ERR_MEMORY, "no memory for a graph of %zu entries", count);
    *data = larger;
    return PQ_OK;
}

static pq_status add_tensor(pq_graph *graph, const pq_tensor *tensor, int *out, pq_error *err) {
    PQ_TRY(grow(&graph->tensors, graph->tensor_count, sizeof *tensor, err));
    *out = (int)graph->tensor_count;
    graph->tensors[graph->tensor_count++] = *tensor;
    return PQ_OK;
}

pq_status pq_graph_add_parameter(pq_graph *graph, size_t rows, size_t columns, size_t offset, bool quantized,
                                 int *out, pq_error *err) {
    pq_tensor tensor = {.rows = rows ? rows : 1,
                        .columns = columns,
                        .type = rows ? graph->type : PQ_F32,
                        .parameter = true,
                        .offset = offset,
                        .quantized = quantized,
                        .producer = PQ_NONE};
    return add_tensor(graph, &tensor, out, err);
}

pq_status pq_graph_add_activation(pq_graph *graph, size_t columns, bool kept_small, int *out, pq_error *err) {
    pq_tensor tensor = {.rows = graph->tokens,
                        .columns = columns,
                        .type = kept_small ? PQ_F32 : graph->type,
                        .kept_small = kept_small,
                        .producer = PQ_NONE};
    return add_tensor(graph, &tensor, out, err);
}

pq_status pq_graph_add_node(pq_graph *graph, const pq_node *node, pq_error *err) {
    PQ_TRY(grow(&graph->nodes, graph->node_count, sizeof *node, err));
    pq_node *added = &graph->nodes[graph->node_count];
    *added = *node;
    added->index = (int)graph->node_count++;
    added->block = graph->block;
    for (int i = 0; i < PQ_MAX_OUTPUTS; i++)
        if (added->outputs[i] >= 0) graph->tensors[added->outputs[i]].producer = added->index;
    return PQ_OK;
}

static void *at(const pq_plan *plan, size_t place) {
    const pq_buffer *buffer = &plan->buffers[place];
    return buffer->first <= buffer->last ? plan->activations + buffer->offset : NULL;
}

void pq_graph_place(pq_graph *graph, void *activations, void *scratch) {
    graph->plan->activations = activations;
    graph->scratch = scratch;
    for (size_t t = 0; t < graph->tensor_count; t++)
        if (!graph->tensors[t].parameter)
            graph->tensors[t].gradient = at(graph->plan, pq_plan_gradient(graph->plan, t));
}

void pq_graph_bind(pq_graph *graph, float *weights, float *quantized, float *gradients) {
    for (size_t t = 0; t < graph->tensor_count; t++) {
        pq_tensor *tensor = &graph->tensors[t];
        if (!tensor->parameter) continue;
        if (tensor->type == PQ_F32)
            tensor->value = (tensor->quantized ? quantized : weights) + tensor->offset;
        tensor->gradient = gradients ? gradients + tensor->offset : NULL;
    }
}

void pq_graph_bind_matrix(pq_graph *graph, size_t offset, void *values) {
    for (size_t t = 0; t < graph->tensor_count; t++)
        if (graph->tensors[t].parameter && graph->tensors[t].offset == offset)
            graph->tensors[t].value = values;
}

void pq_graph_bind_ranges(pq_graph *graph, float (*ranges)[2]) {
    graph->ranges = ranges;
}

void pq_graph_set_input(pq_graph *graph, int tensor, void *value) {
    graph->tensors[tensor].value = value;
}

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void run_steps(pq_graph *graph, const pq_batch *batch, size_t first, size_t end) {
    pq_plan *plan = graph->plan;
    graph->run = batch;
    for (size_t s = first; s < end; s++) {
        const pq_step *step = &plan->steps[s];
        const pq_node *node = &graph->nodes[step->node];
        uint64_t start = now();
        if (step->kind == STEP_BACKWARD) {
            node->op->backward(graph, node);
            plan->times[step->node].backward += now() - start;
            plan->times[step->node].backward_calls++;
            continue;
        }
        for (int i = 0; i < PQ_MAX_OUTPUTS; i++) {
            int t = node->outputs[i];
            if (t < 0) continue;
            bool again = step->kind == STEP_RECOMPUTE && plan->recomputed[t];
            graph->tensors[t].value = at(plan, (size_t)t * ROLES + (again ? ROLE_RECOMPUTED : ROLE_VALUE));
        }
        graph->again = step->kind == STEP_RECOMPUTE;
        node->op->forward(graph, node);
        plan->times[step->node].forward += now() - start;
        plan->times[step->node].forward_calls++;
    }
    graph->run = NULL;
}

void pq_graph_forward(pq_graph *graph, const pq_batch *batch) {
    run_steps(graph, batch, 0, graph->plan->forward_steps);
}

void pq_graph_backward(pq_graph *graph, const pq_batch *batch) {
    run_steps(graph, batch, graph->plan->forward_steps, graph->plan->step_count);
}

const pq_node_time *pq_graph_times(const pq_graph *graph) {
    return graph->plan->times;
}

void pq_graph_reset_times(pq_graph *graph) {
    memset(graph->plan->times, 0, graph->node_count * sizeof *graph->plan->times);
}
