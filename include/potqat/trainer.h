/* Training from a config. */
#ifndef POTQAT_TRAINER_H
#define POTQAT_TRAINER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <potqat/config.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pq_train_options {
    bool resume;    /**< continue the run in run.dir from its newest checkpoint */
    bool overwrite; /**< a run that stands in run.dir already is replaced */
    bool quiet;     /**< no progress on stderr */
    /** Asked between iterations; true: save, return PQ_STOPPED. May be NULL. */
    bool (*cancelled)(void *user);
    void *user;
    const char *const *arguments; /**< kept in run.json; may be NULL */
    int argument_count;
    FILE *profile; /**< where the run ends with a table of what took its time; NULL: nowhere */
} pq_train_options;

/** What a training ended with. Losses are nats a token on eval.split; NaN where nothing was evaluated. */
typedef struct pq_train_result {
    int64_t iter;
    double loss, loss_se;
    int64_t best_iter;
    double best_loss, best_loss_se;
    double tokens_per_s; /**< training alone, without evaluations and saves */
} pq_train_result;

/** Train as `config` says, in the folder run.dir. The config is filled in: model.* as the parent has it.
 * Returns PQ_OK, PQ_STOPPED (saved; resume continues bit for bit), PQ_DIVERGED (train.max_bad_iters passed;
 * the last good weights are saved), or an error; `result` (may be NULL) is filled in the first three cases.
 * Not for use by two threads of one process at once. */
PQ_API pq_status pq_train(pq_config *config, const pq_train_options *options, pq_train_result *result,
                          pq_error *err);

#ifdef __cplusplus
}
#endif
#endif
