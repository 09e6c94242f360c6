/* Evaluation of a model on a split: the hard-quantized weights, every token, windows that do not overlap. */
#ifndef PQ_TRAIN_EVALUATE_H
#define PQ_TRAIN_EVALUATE_H

#include "config/config.h"
#include "data/dataset.h"
#include "model/gpt2.h"

typedef enum pq_protocol { PQ_ALL_TOKENS, PQ_LAST_TOKEN } pq_protocol;

typedef struct pq_evaluation_options {
    pq_split split;
    pq_protocol protocol;
    size_t context; /* tokens a window */
    size_t windows; /* 0: as many as the split holds */
} pq_evaluation_options;

/* Window w reads tokens [w context, (w + 1) context) and predicts each one's successor (last-token: the last
 * one's). */
typedef struct pq_evaluation {
    size_t windows, tokens; /* tokens: predictions that count */
    double loss, loss_se;   /* mean over tokens, nats; standard error from the spread of the windows' means */
    double *window_loss;    /* [windows] mean of each, so that models can be compared in pairs; owned */
    double seconds;
} pq_evaluation;

/* From a config's eval section; `context` is used where eval.context is null. */
pq_status pq_evaluation_options_make(const pq_config *config, size_t context, pq_evaluation_options *out,
                                     pq_error *err);
const char *pq_protocol_name(pq_protocol protocol);
const char *pq_split_name(pq_split split);

/* "1.5986 ± 0.0068", or the number alone where there is no standard error (a single window). */
typedef struct pq_loss_text {
    char text[64];
} pq_loss_text;
pq_loss_text pq_format_loss(double loss, double se);

/* Loss of `model` (PQ_ERR_USAGE where the split is too short, or the context longer than the model's). */
pq_status pq_evaluate(const pq_model *model, const pq_dataset *dataset, const pq_evaluation_options *options,
                      pq_evaluation *out, pq_error *err);
void pq_evaluation_deinit(pq_evaluation *evaluation);

/* Mean and standard error of the differences of two evaluations of the same windows (a - b), window by
 * window. */
typedef struct pq_difference {
    double mean, se;
} pq_difference;
pq_status pq_evaluation_compare(const pq_evaluation *a, const pq_evaluation *b, pq_difference *out,
                                pq_error *err);

/* The windows' losses as CSV (window,offset,loss), appears whole or not at all. */
pq_status pq_evaluation_write_windows(const pq_evaluation *evaluation, const pq_evaluation_options *options,
                                      const char *path, bool overwrite, pq_error *err);

#endif
