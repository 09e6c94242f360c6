/* run.json: which program, machine, data and command made a run, and how it ended. */
#ifndef PQ_TRAIN_RUN_INFO_H
#define PQ_TRAIN_RUN_INFO_H

#include "train/job.h"

typedef struct pq_run_info {
    char cpu[128], quant[96], started[32];
    const char *const *arguments;
    int argument_count;
} pq_run_info;

void pq_run_info_fill(pq_run_info *info, const pq_job *job, const char *const *arguments, int count);
/* `status`: running, done, stopped or diverged. last_loss NaN: not evaluated in this process. */
pq_status pq_run_info_write(const pq_run_info *info, const pq_job *job, const char *dir, const char *status,
                            double last_loss, double last_se, pq_error *err);

#endif
