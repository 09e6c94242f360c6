/* Whole trainings of tiny models in a temporary folder, and comparing their files. */
#ifndef PQ_TESTS_TRAIN_RUNS_H
#define PQ_TESTS_TRAIN_RUNS_H

#include "potqat/trainer.h"

extern pq_error err;
extern char folder[64];
extern const char cat_words[];

void make_folder(void); /* with text.txt in it, 4,000 bytes */
void make_text(const char *name, const char *words,
               size_t bytes); /* the words again and again, with some noise */
void remove_folder(void);
const char *path_of(const char *name); /* in the folder; the last eight stay valid */
void must(pq_status status);           /* fails with err's sentence */

/* The config of a run in folder/run on text.txt, with the keys of all lists; these and each of them end with
 * NULL. */
pq_status config_of(const char *run, const char *const *const *lists, pq_config **out);
/* Train by it; asked to stop after `stop` iterations, -1: not. */
pq_status train_lists(const char *run, const char *const *const *lists, bool resume, int stop,
                      pq_train_result *result);
/* The same with keys for 2 layers, 16 wide, 9 iterations and `more`. */
pq_status train(const char *run, const char *const *more, bool resume, int stop, pq_train_result *result);
void same_file(const char *run_a, const char *run_b, const char *name); /* fails where bytes differ */

#endif
