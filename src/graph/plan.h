/* The schedule and the memory plan of a graph; of interest to graph.c alone. */
#ifndef PQ_GRAPH_PLAN_H
#define PQ_GRAPH_PLAN_H

#include "graph/graph.h"

typedef enum step_kind { STEP_FORWARD, STEP_RECOMPUTE, STEP_BACKWARD } step_kind;

typedef struct pq_step {
    step_kind kind;
    int node;
} pq_step;

/* A place in the activation memory and the steps during which it is taken. */
typedef struct pq_buffer {
    size_t bytes, offset;
    int first, last; /* steps; first > last: never used */
} pq_buffer;

typedef struct pq_plan {
    pq_step *steps;
    size_t step_count, forward_steps;
    bool *recomputed; /* [tensor] */
    int *share;       /* [tensor] the tensor whose gradient buffer is used */
    bool *over;       /* [tensor] whose gradient takes the place of its value */
    /* [3 x tensor + role]: value, recomputed value, gradient */
    pq_buffer *buffers;
    pq_node_time *times;
    char *activations;
} pq_plan;

enum { ROLE_VALUE, ROLE_RECOMPUTED, ROLE_GRADIENT, ROLES };

/* The buffer in which the gradient of a tensor lies. */
static inline size_t pq_plan_gradient(const pq_plan *plan, size_t tensor) {
    size_t t = (size_t)plan->share[tensor];
    return t * ROLES + (!plan->over[t] ? ROLE_GRADIENT : plan->recomputed[t] ? ROLE_RECOMPUTED : ROLE_VALUE);
}

void pq_plan_destroy(pq_plan *plan);

#endif
