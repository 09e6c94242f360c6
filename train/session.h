/* One model being trained: its buffers, its graph, and one iteration at a time. No files, no data sets: the
 * caller says which windows, which rate, and when to stop. */
#ifndef PQ_TRAIN_SESSION_H
#define PQ_TRAIN_SESSION_H

#include "model/gpt2.h"
#include "optim/optim.h"
#include "train/evaluate.h"
#include "train/method.h"
#include "train/profile.h"
#include "train/teacher.h"

typedef struct pq_session_options {
    size_t batch, accumulate, context; /* sequences a micro-batch, micro-batches an iteration, tokens */
    double dropout;
    bool recompute;
    bool bf16; /* train.precision: products and activations; the caller has called pq_precision_check */
    double grad_clip; /* 0: off */
    uint64_t seed;
    const pq_config *config; /* borrowed: what the training methods read */
    pq_scale_options scale;
    int64_t iter;        /* of the first iteration */
    pq_teacher *teacher; /* borrowed; NULL: no distillation */
    pq_plan_size least;  /* activations and scratch that are to be lent between iterations */
} pq_session_options;

/* Bytes that a session takes; known before anything is allocated. */
typedef struct pq_session_memory {
    size_t weights, shown, gradients, moments, methods, teacher, activations, scratch, total;
} pq_session_memory;

typedef struct pq_session {
    pq_session_options options;
    pq_model *model; /* borrowed */
    pq_qat *qat;
    pq_graph *graph;
    pq_adamw adamw; /* step = updates behind the moments */
    float *gradients, *m, *v;
    void *apart;   /* what the graph sees of matrices, where that can't stand in the place of the gradients */
    void **places; /* [parameters] where it sees each that differs from the latent weights */
    float (*ranges)[2]; /* the model's ranges of activations before this iteration; NULL: it has none */
    pq_span *spans;
    size_t span_count;
    uint16_t *tokens;            /* [accumulate x batch][context], filled by the caller, as are the targets */
    int32_t *targets;            /* [accumulate x batch][context]; < 0: does not count */
    float *losses;               /* cross-entropy */
    float *divergences;          /* from the teacher; NULL without one */
    void *activations, *scratch; /* activations: room for any matrix in fp32, too */
    pq_session_memory memory;
    pq_profile profile;
} pq_session;

/* What an iteration did. An objective or norm that is not finite means that nothing was updated. */
typedef struct pq_iteration {
    double loss;       /* cross-entropy, mean over the targets that count, nats */
    double divergence; /* KL from the teacher, the same mean; 0 without one */
    double objective;  /* what the gradient is of: the two mixed, or the loss */
    double norm;       /* of the gradient, before clipping */
    size_t targets;
    bool updated;
} pq_iteration;

/* Can this machine and this build do train.precision and eval.precision? PQ_ERR_USAGE names what is missing.
 */
pq_status pq_precision_check(const pq_config *config, pq_error *err);

/* `allocate` = false plans only: memory is filled in, no iteration can run. */
pq_status pq_session_create(pq_model *model, const pq_session_options *options, const pq_adamw *adamw,
                            bool allocate, pq_session **out, pq_error *err);
void pq_session_destroy(pq_session *session);

/* The model that counts: with averaged weights where there is an average (qat.ema). */
const pq_model *pq_session_evaluated(const pq_session *session);

/* What a session does not need between two iterations; gradients are lost by using it. */
pq_lent pq_session_lend(const pq_session *session);

/* Forward and backward over all micro-batches of iteration `iter` (it draws the dropout masks), then one
 * update at rate `lr`. */
pq_iteration pq_session_iterate(pq_session *session, int64_t iter, double lr);

#endif
