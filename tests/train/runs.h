/* Whole trainings of tiny models in a temporary folder, and comparing their files. */
#ifndef PQ_TESTS_TRAIN_RUNS_H
#define PQ_TESTS_TRAIN_RUNS_H

#include "potqat/trainer.h"

extern pq_error err;
extern char folder[64];

void make_folder(void);                         /* with text.txt in it, 4,000 bytes */
void make_text(const char *name, size_t bytes); /* words with some noise */
void remove_folder(void);
const char *path_of(const char *name); /* in the folder; the last eight stay valid */
void must(pq_status status);           /* fails with err's sentence */

/* Train in folder/run with a config of 2 layers, 16 wide, 9 iterations and `more` (ended by NULL); asked to
 * stop after `stop` iterations, -1: not. */
pq_status train(const char *run, const char *const *more, bool resume, int stop, pq_train_result *result);
void same_file(const char *run_a, const char *run_b, const char *name); /* fails where bytes differ */

#endif
