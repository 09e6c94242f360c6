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
    /* [3 x tensor + role]: value, recomputed value, gradient */
    pq_buffer *buffers;
    pq_node_time *times;
    char *activations;
} pq_plan;

enum { ROLE_VALUE, ROLE_RECOMPUTED, ROLE_GRADIENT, ROLES };

void pq_plan_destroy(pq_plan *plan);

#endif
