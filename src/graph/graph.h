/* A static graph: tensors and nodes are added once, a plan gives every buffer its place, then the same steps
 * run for each micro-batch.
 *
 * A tensor is an activation [tokens][columns] (tokens = batch x context, the maximum the graph was built for)
 * or a parameter, whose values and gradients live in flat buffers outside. The backward pass of a node runs
 * in reverse order and adds to its inputs' gradients.
 *
 * Plan. The schedule is: forward of each node; then, node by node from the last, backward - with a second
 * forward
 * ("recompute") of nodes whose outputs were not kept. Each buffer (a value, a recomputed value, a gradient)
 * lives from the first to the last step that touches it; offsets are given so that buffers alive together
 * never overlap. Peak memory is therefore known before the first step. */
#ifndef PQ_GRAPH_GRAPH_H
#define PQ_GRAPH_GRAPH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "kernels/kernels.h"

typedef struct pq_graph pq_graph;
typedef struct pq_node pq_node;

/* How numbers are stored. What ops work out between loading and storing is fp32. */
typedef enum pq_type { PQ_F32, PQ_BF16 } pq_type;
static inline size_t pq_type_bytes(pq_type type) {
    return type == PQ_BF16 ? sizeof(pq_bf16) : sizeof(float);
}

enum { PQ_MAX_INPUTS = 4, PQ_MAX_OUTPUTS = 3, PQ_NONE = -1 };

/* Floating-point operations of an op's matrix products, a multiply-add counted as two, and the type of the
 * numbers that are multiplied. */
typedef struct pq_work {
    double forward, backward;
    pq_type type;
} pq_work;

/* What an op is: shapes are checked by the function that adds the node; forward and backward do the work. */
typedef struct pq_op {
    const char *name;
    void (*forward)(const pq_graph *graph, const pq_node *node);
    void (*backward)(const pq_graph *graph, const pq_node *node);
    unsigned reads_inputs;  /* bit i: backward reads the value of input i */
    unsigned reads_outputs; /* bit i: backward reads the value of output i */
    bool cheap;             /* outputs are recomputed for the backward pass instead of kept */
    /* Whether the gradient of input i may be the very buffer of the output's gradient (NULL: never). */
    bool (*gradient_in_place)(const pq_node *node, int input);
    /* bit i: backward writes the gradient of input i so that it may take the place of its value */
    unsigned gradient_over_input;
    /* What one call computes, for profiles; NULL: no products worth counting. */
    pq_work (*work)(const pq_graph *graph, const pq_node *node);
} pq_op;

/* A node's constants; each op reads its own. */
typedef struct pq_attributes {
    size_t heads;
    double dropout;
    bool tanh;
    size_t site; /* of graph->ranges */
} pq_attributes;

struct pq_node {
    const pq_op *op;
    int inputs[PQ_MAX_INPUTS];   /* tensors; PQ_NONE where an optional one is absent */
    int outputs[PQ_MAX_OUTPUTS]; /* tensors */
    pq_attributes attributes;
    size_t scratch;                 /* bytes the node needs while it runs */
    int block;                      /* the transformer block it belongs to, PQ_NONE outside */
    int index;                      /* place in the graph; also the dropout stream */
    bool accumulate[PQ_MAX_INPUTS]; /* set by the plan: a later node has already put a gradient there */
};

typedef struct pq_tensor {
    size_t rows, columns;
    pq_type type; /* of the values, and of an activation's gradient; a parameter's gradient is fp32 */
    bool parameter, kept_small; /* kept_small: a few numbers a row, never recomputed (means, log-sums) */
    size_t offset;              /* parameters: elements into the flat buffers */
    bool quantized;             /* parameters: the value is the fake-quantized one */
    void *value, *gradient;     /* set while the graph runs */
    int producer;
} pq_tensor;

/* What a plan needs, in bytes. */
typedef struct pq_plan_size {
    size_t activations, scratch;
} pq_plan_size;

/* What a training batch learns from besides its targets: a teacher's logits x wte^T, made slice by slice by
 * the head. The loss becomes (1 - weight) cross-entropy + weight T^2 KL(softmax(teacher / T) ||
 * softmax(student / T)), whose gradient flows; batch->losses stay the cross-entropy. */
typedef struct pq_soft_targets {
    const float *x;   /* [batch x context][columns]: the input of the teacher's head */
    const float *wte; /* [vocab][columns] */
    size_t columns;
    float weight, temperature;
    float *logits;      /* scratch: pq_op_head_slice_bytes */
    float *divergences; /* [batch][context], the KL in nats; 0 where the target is masked */
} pq_soft_targets;

/* One micro-batch. */
typedef struct pq_batch {
    const uint16_t *tokens;         /* [batch][context] */
    const int32_t *targets;         /* [batch][context]; < 0: no loss */
    float *losses;                  /* [batch][context], nats */
    float loss_scale;               /* of the gradient: 1 / (targets of the whole iteration) */
    bool training;                  /* dropout */
    bool first;                     /* of the iteration: parameter gradients are overwritten, not added to */
    uint64_t seed, iter;            /* of dropout */
    uint64_t sequence;              /* number, in the iteration, of the first sequence */
    const pq_soft_targets *teacher; /* NULL: none; training only */
    bool observe;                   /* the ranges of activations follow this batch */
} pq_batch;

struct pq_graph {
    size_t batch, context, tokens, vocab;
    pq_tensor *tensors;
    size_t tensor_count;
    pq_node *nodes;
    size_t node_count;
    int block;      /* given to nodes that are added */
    pq_type type;   /* given to activations and matrices that are added */
    pq_type stream; /* given to the residual stream */
    const pq_kernels *kernels;
    const pq_batch *run; /* the micro-batch that is running */
    bool again;          /* the forward that is running is a second one, for the backward pass */
    float (
        *ranges)[2]; /* [site] least and largest activation, low > high: none seen; NULL: no op reads them */
    float *scratch;
    struct pq_plan *plan;
};

pq_status pq_graph_create(size_t batch, size_t context, size_t vocab, pq_graph **out, pq_error *err);
void pq_graph_destroy(pq_graph *graph);

/* Before anything is added: how activations and matrices are stored, and how the residual stream is. fp32,
 * both, unless this is called. */
void pq_graph_set_types(pq_graph *graph, pq_type type, pq_type stream);

/* Add a parameter [rows][columns] (rows 0: a vector) at `offset` of the flat buffers, an activation, a node.
 * The number of the new tensor or node is returned through `out`. */
pq_status pq_graph_add_parameter(pq_graph *graph, size_t rows, size_t columns, size_t offset, bool quantized,
                                 int *out, pq_error *err);
pq_status pq_graph_add_activation(pq_graph *graph, size_t columns, bool kept_small, int *out, pq_error *err);
/* Inputs and outputs are ended by PQ_NONE or their maximum; an absent optional input is written as PQ_NONE
 * - 1. */
pq_status pq_graph_add_node(pq_graph *graph, const pq_node *node, pq_error *err);
static inline const pq_tensor *pq_graph_tensor(const pq_graph *graph, int tensor) {
    return &graph->tensors[tensor];
}

/* Make the schedule and lay out memory. Without `backward` only the forward steps are planned.
 * recompute_blocks: keep only what passes between blocks. */
pq_status pq_graph_plan(pq_graph *graph, bool backward, bool recompute_blocks, pq_plan_size *size,
                        pq_error *err);
/* Memory for the plan: `activations` and `scratch` of at least the sizes told, borrowed; values may be shared
 * with another graph that does not run between this one's forward and backward. */
void pq_graph_place(pq_graph *graph, void *activations, void *scratch);
/* Parameters: latent weights, fake-quantized weights (for tensors marked quantized), gradients; flat,
 * borrowed. */
void pq_graph_bind(pq_graph *graph, float *weights, float *quantized, float *gradients);

/* The matrix at `offset` is read from here, in the graph's type; borrowed. It may stand where its gradient
 * will: ops have read a matrix when they write that, but for the head's table. */
void pq_graph_bind_matrix(pq_graph *graph, size_t offset, void *values);

/* The ranges of activations, borrowed; batches with `observe` change them. */
void pq_graph_bind_ranges(pq_graph *graph, float (*ranges)[2]);

/* The values of an activation that no node makes, the input of a part of a model: [tokens][columns], borrowed
 * until the graph has run. */
void pq_graph_set_input(pq_graph *graph, int tensor, void *value);

/* Run the forward steps; with a plan for it, the backward steps too. Losses stand in batch->losses. */
void pq_graph_forward(pq_graph *graph, const pq_batch *batch);
void pq_graph_backward(pq_graph *graph, const pq_batch *batch);

/* Nanoseconds each node has taken since the last reset (forward, with recomputation, and backward) and how
 * often it ran, for profiles. */
typedef struct pq_node_time {
    uint64_t forward, backward, forward_calls, backward_calls;
} pq_node_time;
const pq_node_time *pq_graph_times(const pq_graph *graph);
void pq_graph_reset_times(pq_graph *graph);

#endif
