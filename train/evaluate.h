/* Evaluation of a model on a split with its hard-quantized weights, alone or beside another model. */
#ifndef PQ_TRAIN_EVALUATE_H
#define PQ_TRAIN_EVALUATE_H

#include "config/config.h"
#include "data/dataset.h"
#include "formats/packed.h"
#include "model/gpt2.h"
#include <potqat/engine.h>

/* A window reads `context` tokens and predicts the successor of each. What counts:
 *   all-tokens  all of them; windows stand side by side
 *   last-token  the last one's alone; windows stand side by side (the papers' released code)
 *   sliding     all of the first window's, the last `stride` ones' of those after it, which begin `stride`
 * tokens apart; the last window ends with the split, and may be shorter. Each token of the split but its
 *               first counts once. This is the loop of Hugging Face's guide to the perplexity of fixed-length
 * models with max_length = context + 1: there a window's last token is only predicted, here it is not counted
 * as one of the window. */
typedef enum pq_protocol { PQ_ALL_TOKENS, PQ_LAST_TOKEN, PQ_SLIDING } pq_protocol;

/* Memory that an evaluation uses while it runs, instead of its own where it suffices. */
typedef struct pq_lent {
    float *weights; /* as many as the model has */
    void *activations, *scratch;
    size_t activation_bytes, scratch_bytes;
} pq_lent;

typedef struct pq_evaluation_options {
    pq_split split;
    pq_protocol protocol;
    size_t context;      /* tokens a window */
    size_t stride;       /* sliding: 1 to context */
    size_t windows;      /* 0: as many as the split holds */
    const pq_lent *lent; /* borrowed; NULL: none; for the first model */
    bool bf16;           /* matrices and activations in bf16, where the machine can (pq_gemm_bf16_check) */
} pq_evaluation_options;

typedef struct pq_evaluation {
    size_t windows, tokens; /* tokens: predictions that count */
    size_t first,
        each; /* of them in the first window, and in each but the first and the last; 0: the same in all */
    double loss, loss_se; /* mean over tokens, nats; standard error from the spread of the windows' means */
    double *window_loss;  /* [windows] mean of each, so that models can be compared in pairs; owned */
    double seconds;
} pq_evaluation;

/* The predictions [from, to) of a window that count; the window begins at token `start` of the split, and the
 * successor of its token t is token start + t + 1. */
typedef struct pq_scored {
    size_t start, from, to;
} pq_scored;
pq_scored pq_evaluation_scored(const pq_dataset *dataset, const pq_evaluation_options *options,
                               size_t window);

/* From a config's eval section; `context` is used where eval.context is null. */
pq_status pq_evaluation_options_make(const pq_config *config, size_t context, pq_evaluation_options *out,
                                     pq_error *err);
/* "all-tokens", or "all-tokens bf16": losses of different names can't be compared. */
const char *pq_protocol_name(const pq_evaluation_options *options);
const char *pq_split_name(pq_split split);

/* "1.5986 ± 0.0068", or the number alone where there is no standard error (a single window). */
typedef struct pq_loss_text {
    char text[64];
} pq_loss_text;
pq_loss_text pq_format_loss(double loss, double se);

/* What an evaluation would like to be lent; errors as pq_evaluate's. */
pq_status pq_evaluation_plan(const pq_model *model, const pq_dataset *dataset,
                             const pq_evaluation_options *options, pq_plan_size *out, pq_error *err);

/* Loss of `model` (PQ_ERR_USAGE where the split is too short, or the context longer than the model's). */
pq_status pq_evaluate(const pq_model *model, const pq_dataset *dataset, const pq_evaluation_options *options,
                      pq_evaluation *out, pq_error *err);

/* How near a model is to another one, over the predictions that count; standard errors as those of losses. */
typedef struct pq_nearness {
    double kl, kl_se;               /* KL(other || model), nats a token */
    double agreement, agreement_se; /* share of tokens where both find the same token most likely (of equals
                                       the lowest id) */
} pq_nearness;

/* Losses of `model` and of `other`, which knows the same tokens, and how near they are. */
pq_status pq_evaluate_both(const pq_model *model, const pq_model *other, const pq_dataset *dataset,
                           const pq_evaluation_options *options, pq_evaluation *out, pq_evaluation *other_out,
                           pq_nearness *nearness, pq_error *err);
/* Loss by the inference engine, each window read from an empty cache. */
pq_status pq_evaluate_engine(const pq_packed *packed, const pq_engine_options *engine,
                             const pq_dataset *dataset, const pq_evaluation_options *options,
                             pq_evaluation *out, pq_error *err);
void pq_evaluation_deinit(pq_evaluation *evaluation);

/* Mean over tokens and standard error of the differences of two evaluations of the same windows (a - b),
 * window by window. */
typedef struct pq_difference {
    double mean, se;
} pq_difference;
pq_status pq_evaluation_compare(const pq_evaluation *a, const pq_evaluation *b, pq_difference *out,
                                pq_error *err);

/* What the predicted tokens say as text: its bytes, and its words, which are runs of anything but ASCII white
 * space (0 for last-token, whose tokens do not stand side by side). */
typedef struct pq_text_size {
    size_t words, bytes;
} pq_text_size;
pq_status pq_evaluation_count_text(const pq_evaluation *evaluation, const pq_dataset *dataset,
                                   const pq_evaluation_options *options, pq_text_size *out, pq_error *err);

/* The windows' losses as CSV (window,offset,loss), appears whole or not at all. */
pq_status pq_evaluation_write_windows(const pq_evaluation *evaluation, const pq_evaluation_options *options,
                                      const char *path, bool overwrite, pq_error *err);

#endif
