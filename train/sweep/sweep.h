/* Sweeps: many runs from one file, trained by child processes, and their figures side by side. */
#ifndef PQ_TRAIN_SWEEP_H
#define PQ_TRAIN_SWEEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "config/config.h"

#define PQ_SWEEP_NONE SIZE_MAX

typedef enum pq_sweep_kind { PQ_SWEEP_PARENT, PQ_SWEEP_CONTROL, PQ_SWEEP_POINT } pq_sweep_kind;

/* Done and diverged are final; the others are tried (again) by the next pq_sweep_train. */
typedef enum pq_sweep_state {
    PQ_SWEEP_PENDING,
    PQ_SWEEP_RUNNING,
    PQ_SWEEP_DONE,
    PQ_SWEEP_DIVERGED,
    PQ_SWEEP_STOPPED,
    PQ_SWEEP_FAILED,
    PQ_SWEEP_NO_PARENT /* its parent failed or diverged */
} pq_sweep_state;
const char *pq_sweep_state_name(pq_sweep_state state);

typedef struct pq_sweep_run {
    pq_sweep_kind kind;
    char *name, *dir; /* dir: the run's folder */
    pq_config *config;
    int line;               /* of the sweep file where the run stands */
    size_t parent, control; /* indices of runs, or PQ_SWEEP_NONE */
    size_t group;           /* of points: those of one group differ in the seed alone */
    pq_sweep_state state;
    pid_t pid;      /* while it runs */
    double retry;   /* not before this second: another process trains in the folder */
    bool announced; /* that another process does */
} pq_sweep_run;

/* Runs in the order parents, controls, points; points in written order, the seed fastest. */
typedef struct pq_sweep {
    char *path, *dir; /* the file, the folder of the runs */
    char **keys;      /* what is swept, without the seed */
    size_t key_count;
    char **groups; /* names of points without their seed */
    size_t group_count;
    pq_sweep_run *runs;
    size_t count, first; /* runs in all; the first point's index */
    bool seeded;         /* the file names seeds */
} pq_sweep;

/* Read the sweep file `path`, make every run's config (`overrides` change the base), and check all of it:
 * PQ_ERR_USAGE with file and line. Nothing is written. */
pq_status pq_sweep_read(const char *path, const char *const *overrides, size_t count, pq_sweep **out,
                        pq_error *err);
void pq_sweep_destroy(pq_sweep *sweep);

/* Find out what stands in the folder already. PQ_ERR_USAGE naming run and key where a run there was begun
 * with another config. */
pq_status pq_sweep_inspect(pq_sweep *sweep, pq_error *err);

typedef struct pq_sweep_options {
    const char *program;           /* whose command `train` makes a run */
    size_t jobs;                   /* runs at once */
    int threads;                   /* of all of them together */
    size_t point;                  /* this one alone (from 1), with its parent; 0 = all */
    bool (*cancelled)(void *user); /* asked often; true: stop the runs, which save, and return */
    void *user;
} pq_sweep_options;

/* Train what is not finished; writes results now and then and at the end, but not for a single point, so that
 * many processes may each train one. Messages go to the log. PQ_STOPPED where something is left to be
 * resumed, PQ_ERR_IO where runs failed; a run that diverged is a result. */
pq_status pq_sweep_train(pq_sweep *sweep, const pq_sweep_options *options, pq_error *err);

/* DIR/results.csv, a row a point, and DIR/summary.csv, means over seeds, from the files of the finished
 * runs. */
pq_status pq_sweep_write_results(const pq_sweep *sweep, pq_error *err);

#endif
