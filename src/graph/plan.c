/* Owns the schedule and the places of buffers. */
#include "graph/plan.h"

#include <stdlib.h>

#include "base/memory.h"

static bool present(int tensor) {
    return tensor >= 0;
}

void pq_plan_destroy(pq_plan *plan) {
    if (!plan) return;
    free(plan->steps);
    free(plan->recomputed);
    free(plan->share);
    free(plan->over);
    free(plan->buffers);
    free(plan->times);
    free(plan);
}

static void add_step(pq_plan *plan, step_kind kind, int node) {
    plan->steps[plan->step_count++] = (pq_step){.kind = kind, .node = node};
}

/* A tensor is recomputed when its op is cheap, or blocks are recomputed and it does not leave its block; the
 * input of the last node is kept, since the backward pass starts right there. */
static void choose_recomputed(const pq_graph *graph, pq_plan *plan, bool recompute_blocks) {
    for (size_t t = 0; t < graph->tensor_count; t++) {
        const pq_tensor *tensor = &graph->tensors[t];
        if (tensor->parameter || tensor->kept_small || tensor->producer < 0) continue;
        const pq_node *node = &graph->nodes[tensor->producer];
        plan->recomputed[t] = node->op->cheap || (recompute_blocks && node->block >= 0);
    }
    for (size_t n = 0; n < graph->node_count; n++) {
        const pq_node *node = &graph->nodes[n];
        for (int i = 0; i < PQ_MAX_INPUTS; i++) {
            if (!present(node->inputs[i])) continue;
            int producer = graph->tensors[node->inputs[i]].producer;
            bool leaves = producer >= 0 && graph->nodes[producer].block != node->block &&
                          !graph->nodes[producer].op->cheap;
            if (leaves || n + 1 == graph->node_count) plan->recomputed[node->inputs[i]] = false;
        }
    }
}

/* Have the value of `tensor` at hand for the backward pass: recompute its node, and first that node's inputs.
 */
static void require(const pq_graph *graph, pq_plan *plan, int tensor, bool *done) {
    if (!plan->recomputed[tensor] || done[tensor]) return;
    const pq_node *node = &graph->nodes[graph->tensors[tensor].producer];
    for (int i = 0; i < PQ_MAX_INPUTS; i++)
        if (present(node->inputs[i])) require(graph, plan, node->inputs[i], done);
    for (int i = 0; i < PQ_MAX_OUTPUTS; i++)
        if (present(node->outputs[i])) done[node->outputs[i]] = true;
    add_step(plan, STEP_RECOMPUTE, node->index);
}

static void schedule(pq_graph *graph, pq_plan *plan, bool backward, bool *done) {
    for (size_t n = 0; n < graph->node_count; n++) add_step(plan, STEP_FORWARD, (int)n);
    plan->forward_steps = plan->step_count;
    for (size_t n = graph->node_count; backward && n-- > 0;) {
        const pq_node *node = &graph->nodes[n];
        for (int i = 0; i < PQ_MAX_INPUTS; i++)
            if (present(node->inputs[i]) && node->op->reads_inputs >> i & 1)
                require(graph, plan, node->inputs[i], done);
        for (int i = 0; i < PQ_MAX_OUTPUTS; i++)
            if (present(node->outputs[i]) && node->op->reads_outputs >> i & 1)
                require(graph, plan, node->outputs[i], done);
        add_step(plan, STEP_BACKWARD, (int)n);
    }
}

/* Does the op that made input i of the node read another of its inputs? In one buffer it would read the
 * gradient of what it made while it adds to that input's. */
static bool made_of_another(const pq_graph *graph, const pq_node *node, int i) {
    int producer = graph->tensors[node->inputs[i]].producer;
    for (int j = 0; producer >= 0 && j < PQ_MAX_INPUTS; j++)
        for (int k = 0; k < PQ_MAX_INPUTS; k++)
            if (k != i && present(node->inputs[k]) && graph->nodes[producer].inputs[j] == node->inputs[k])
                return true;
    return false;
}

/* Whether the value of input i is of no use to any other step of the backward pass. */
static bool read_last_by(const pq_graph *graph, const pq_node *node, int i) {
    int t = node->inputs[i], producer = graph->tensors[t].producer;
    if (producer < 0) return false;
    const pq_node *maker = &graph->nodes[producer];
    for (int k = 0; k < PQ_MAX_OUTPUTS; k++)
        if (maker->outputs[k] == t && maker->op->reads_outputs >> k & 1) return false;
    for (size_t n = 0; n < graph->node_count; n++)
        for (int k = 0; k < PQ_MAX_INPUTS; k++)
            if (graph->nodes[n].inputs[k] == t && (n != (size_t)node->index || k != i)) return false;
    return true;
}

/* Who writes a gradient first, and which gradients are one buffer. */
static void share_gradients(pq_graph *graph, pq_plan *plan, bool *touched) {
    for (size_t t = 0; t < graph->tensor_count; t++) plan->share[t] = (int)t;
    for (size_t n = graph->node_count; n-- > 0;) {
        pq_node *node = &graph->nodes[n];
        for (int i = 0; i < PQ_MAX_INPUTS; i++) {
            int t = node->inputs[i];
            if (!present(t)) continue;
            node->accumulate[i] = touched[t];
            if (!touched[t] && !graph->tensors[t].parameter && node->op->gradient_in_place &&
                graph->tensors[t].type == graph->tensors[node->outputs[0]].type &&
                node->op->gradient_in_place(node, i) && !made_of_another(graph, node, i))
                plan->share[t] = plan->share[node->outputs[0]];
            else if (node->op->gradient_over_input >> i & 1 && read_last_by(graph, node, i))
                plan->over[t] = true;
            touched[t] = true;
        }
    }
}

static void touch(pq_buffer *buffer, const pq_tensor *tensor, int step) {
    if (tensor->parameter) return;
    buffer->bytes = pq_round_up(tensor->rows * tensor->columns * pq_type_bytes(tensor->type), PQ_ALIGNMENT);
    if (buffer->first > buffer->last) buffer->first = step;
    buffer->last = step;
}

static void find_lifetimes(const pq_graph *graph, pq_plan *plan) {
    for (size_t b = 0; b < graph->tensor_count * ROLES; b++)
        plan->buffers[b] = (pq_buffer){.first = 0, .last = -1};
    for (size_t s = 0; s < plan->step_count; s++) {
        const pq_step *step = &plan->steps[s];
        const pq_node *node = &graph->nodes[step->node];
        bool backward = step->kind == STEP_BACKWARD;
        for (int i = 0; i < PQ_MAX_INPUTS + PQ_MAX_OUTPUTS; i++) {
            bool input = i < PQ_MAX_INPUTS;
            int place = input ? i : i - PQ_MAX_INPUTS, t = input ? node->inputs[place] : node->outputs[place];
            if (!present(t)) continue;
            const pq_tensor *tensor = &graph->tensors[t];
            int role = step->kind != STEP_FORWARD && plan->recomputed[t] ? ROLE_RECOMPUTED : ROLE_VALUE;
            unsigned reads = input ? node->op->reads_inputs : node->op->reads_outputs;
            if (!backward || reads >> place & 1)
                touch(&plan->buffers[(size_t)t * ROLES + (size_t)role], tensor, (int)s);
            if (backward && !tensor->kept_small)
                touch(&plan->buffers[pq_plan_gradient(plan, (size_t)t)], tensor, (int)s);
        }
    }
}

static int larger_first(const void *a, const void *b) {
    const pq_buffer *x = *(pq_buffer *const *)a, *y = *(pq_buffer *const *)b;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
    return x->first - y->first;
}

/* Largest first, each at the lowest place where nothing alive at the same time stands. */
static pq_status place_buffers(pq_plan *plan, size_t count, size_t *total, pq_error *err) {
    pq_buffer **order;
    size_t used = 0;
    *total = 0;
    PQ_TRY(pq_calloc(count, sizeof *order, "memory plan", &order, err));
    for (size_t b = 0; b < count; b++)
        if (plan->buffers[b].first <= plan->buffers[b].last && plan->buffers[b].bytes)
            order[used++] = &plan->buffers[b];
    qsort(order, used, sizeof *order, larger_first);
    for (size_t i = 0; i < used; i++) {
        pq_buffer *buffer = order[i];
        for (size_t j = 0; j < i; j++) {
            const pq_buffer *other = order[j];
            bool together = buffer->first <= other->last && other->first <= buffer->last;
            if (together && buffer->offset < other->offset + other->bytes &&
                other->offset < buffer->offset + buffer->bytes) {
                buffer->offset = other->offset + other->bytes;
                j = (size_t)-1; /* look at all again from the new place */
            }
        }
        if (buffer->offset + buffer->bytes > *total) *total = buffer->offset + buffer->bytes;
    }
    free(order);
    return PQ_OK;
}

pq_status pq_graph_plan(pq_graph *graph, bool backward, bool recompute_blocks, pq_plan_size *size,
                        pq_error *err) {
    pq_plan *plan;
    bool *marks = NULL;
    pq_status status;
    size_t tensors = graph->tensor_count, nodes = graph->node_count;
    PQ_TRY(pq_calloc(1, sizeof *plan, "plan", &plan, err));
    PQ_TRY_TO(status, fail, pq_calloc(3 * nodes, sizeof *plan->steps, "schedule", &plan->steps, err));
    PQ_TRY_TO(status, fail, pq_calloc(tensors, sizeof *plan->recomputed, "plan", &plan->recomputed, err));
    PQ_TRY_TO(status, fail, pq_calloc(tensors, sizeof *plan->share, "plan", &plan->share, err));
    PQ_TRY_TO(status, fail, pq_calloc(tensors, sizeof *plan->over, "plan", &plan->over, err));
    PQ_TRY_TO(status, fail, pq_calloc(tensors * ROLES, sizeof *plan->buffers, "plan", &plan->buffers, err));
    PQ_TRY_TO(status, fail, pq_calloc(nodes, sizeof *plan->times, "profile", &plan->times, err));
    PQ_TRY_TO(status, fail, pq_calloc(2 * tensors, sizeof *marks, "plan", &marks, err));
    if (backward) choose_recomputed(graph, plan, recompute_blocks);
    schedule(graph, plan, backward, marks);
    share_gradients(graph, plan, marks + tensors);
    find_lifetimes(graph, plan);
    PQ_TRY_TO(status, fail, place_buffers(plan, tensors * ROLES, &size->activations, err));
    size->scratch = 0;
    for (size_t n = 0; n < nodes; n++)
        if (graph->nodes[n].scratch > size->scratch) size->scratch = graph->nodes[n].scratch;
    free(marks);
    pq_plan_destroy(graph->plan);
    graph->plan = plan;
    return PQ_OK;
fail:
    free(marks);
    pq_plan_destroy(plan);
    return status;
}
