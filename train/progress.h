/* What a person sees while a run goes on: one line that is redrawn on a terminal, plain lines elsewhere. To
 * stderr. */
#ifndef PQ_TRAIN_PROGRESS_H
#define PQ_TRAIN_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct pq_progress pq_progress;

/* `quiet`: nothing is shown, the rate is kept. NULL on lack of memory is accepted by all calls. */
pq_progress *pq_progress_create(int64_t first_iter, int64_t last_iter, bool quiet);
/* One iteration done: loss (nats a token), tokens of this iteration, iterations until the next save and eval.
 * Redraws at most ten times a second on a terminal; prints a line every `log_every` iterations elsewhere.
 * Shows iteration, loss, tokens/s (moving), time left, next save. */
void pq_progress_step(pq_progress *progress, int64_t iter, double loss, double tokens, int64_t log_every,
                      int64_t next_save);
/* A line of its own above the redrawn one (evaluations, saves, warnings). */
void pq_progress_note(pq_progress *progress, const char *format, ...) __attribute__((format(printf, 2, 3)));
void pq_progress_destroy(pq_progress *progress); /* ends the redrawn line */
double
pq_progress_rate(const pq_progress *progress); /* tokens a second since the start, evaluations excluded */
/* Time spent outside training (evaluation, saving) that the rate should not count: bracket it. */
void pq_progress_pause(pq_progress *progress);
void pq_progress_continue(pq_progress *progress);

#endif
