/* The teacher of a distillation (distill.*): another model, hard-quantized where it is quantized, that runs
 * forward on the student's windows without dropout. It may be of any width and depth, but knows the same
 * tokens. Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", arXiv 1503.02531. */
#ifndef PQ_TRAIN_TEACHER_H
#define PQ_TRAIN_TEACHER_H

#include "config/config.h"
#include "graph/graph.h"
#include "model/model.h"
#include "potqat/tokenizer.h"

typedef struct pq_teacher {
    pq_graph *graph;   /* forward only */
    pq_plan_size plan; /* memory that the student's session lends */
    uint64_t
        hash; /* of shape, effective weights and activations: the same for a checkpoint and its packed file */
    float *weights;             /* effective */
    float (*ranges)[2];         /* of its activations; NULL: not needed */
    size_t weight_bytes, bytes; /* bytes: what the teacher takes besides lent memory */
    float *x, *logits;          /* [tokens][columns], one slice; NULL until the teacher is placed */
    pq_soft_targets targets;
} pq_teacher;

/* A teacher for windows of batch x context tokens, as `config` says; `model` is not needed afterwards.
 * PQ_ERR_USAGE where its context is shorter than the windows, or its tokens are not those of `tokenizer`
 * (NULL: unknown; then their number, `vocab`, must agree alone). */
pq_status pq_teacher_create(const pq_model *model, const pq_config *config, size_t vocab,
                            const pq_tokenizer *tokenizer, size_t batch, size_t context, pq_teacher **out,
                            pq_error *err);
void pq_teacher_destroy(pq_teacher *teacher);

/* Allocate what teaching needs; activations and scratch, of at least teacher->plan, are lent, and free for
 * others between two runs. */
pq_status pq_teacher_place(pq_teacher *teacher, void *activations, void *scratch, pq_error *err);

/* Run over tokens [batch][context] and return what the student's batch is to be given; its divergences, for
 * the student's head to fill in, come from the caller. Valid until the next run. */
const pq_soft_targets *pq_teacher_run(pq_teacher *teacher, const uint16_t *tokens, float *divergences);

#endif
