/* Everything a training needs, made from its config: data, parent, model, quantizers, session. */
#ifndef PQ_TRAIN_JOB_H
#define PQ_TRAIN_JOB_H

#include "config/config.h"
#include "data/dataset.h"
#include "train/evaluate.h"
#include "train/session.h"

/* What a run remembers between iterations besides weights and moments; kept as JSON in checkpoints. */
typedef struct pq_counters {
    int64_t iter;
    int64_t best_iter;         /* -1: none yet */
    double best_loss, best_se; /* nats a token */
    int64_t evaluations_since_best;
    int64_t bad_iters;     /* in a row */
    double loss_sum;       /* over targets, since the last line of metrics.jsonl */
    double divergence_sum; /* the same of the KL from the teacher */
    double targets;
} pq_counters;

typedef struct pq_job {
    pq_config *config; /* borrowed; model.* and train.context are filled in */
    pq_dataset *dataset;
    pq_model *model;
    pq_teacher *teacher; /* NULL: no distillation */
    pq_session *session;
    pq_schedule schedule;
    pq_evaluation_options eval;
    pq_counters counters;
    pq_order order;
    char *parent;       /* what init.from named; NULL = random weights, or resumed */
    double parent_loss; /* NaN = unknown */
} pq_job;

/* Open the data and make model and session as `config` says; `checkpoint` (NULL: a new run) is a run's own
 * checkpoint to go on from. Without `allocate` nothing large is allocated (dry run). */
pq_status pq_job_prepare(pq_config *config, const char *checkpoint, bool allocate, pq_job **out,
                         pq_error *err);
void pq_job_destroy(pq_job *job);

/* Counters as JSON text (heap) and back; numbers keep every bit. */
pq_status pq_counters_write(const pq_job *job, char **text, pq_error *err);
pq_status pq_counters_read(const char *text, pq_job *job, pq_error *err);

/* "pot, 15 levels, row, mse", or "none": for people and run.json. Into text[bytes]. */
void pq_job_describe_quant(const pq_job *job, char *text, size_t bytes);
size_t pq_job_quantized_parameters(const pq_job *job);

/* Draw the windows of iteration `iter` into the session's tokens and targets. */
void pq_job_draw(pq_job *job, int64_t iter);

#endif
