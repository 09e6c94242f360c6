/* What a report knows about its runs: read from run folders once, used by the HTML, text, CSV and JSON
 * writers. Private to train/. */
#ifndef PQ_TRAIN_REPORT_DATA_H
#define PQ_TRAIN_REPORT_DATA_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "train/evaluate.h"

/* One key of a run's config.yaml as text: "train.lr", "1.0e-4". */
typedef struct pq_report_setting {
    char *key, *value;
} pq_report_setting;

/* One evaluation. `group` indexes pq_report.groups: its split and protocol. */
typedef struct pq_report_eval {
    size_t group;
    int64_t iter;
    double loss, loss_se, tokens; /* nats a token; NaN = not recorded */
} pq_report_eval;

typedef struct pq_report_point {
    int64_t iter;
    double loss;
} pq_report_point;

/* One run folder. What its files do not say is NULL, NaN or -1. */
typedef struct pq_report_run {
    char *dir;
    char *label;  /* short, unique in the report, valid UTF-8 without control characters */
    char *config; /* config.yaml as it is */
    pq_report_setting *settings;
    size_t setting_count;
    json_t *info, *metrics, *timing; /* run.json; arrays of lines */
    pq_report_eval *evals;
    size_t eval_count;
    pq_report_point *training;
    size_t training_count;
    char quantizer[64];   /* "pot 15 row mse", "none" or empty */
    int levels, bits;     /* of the codebook and of one code; -1 */
    double bits_a_weight; /* of the quantized tensors, scales included */
    double weight_bytes, fp32_bytes, tokens_per_s, elapsed_s, floor;
    double *windows; /* losses of the last evaluation's windows; NULL where they do not belong to it */
    size_t window_count;
    bool has_matrices; /* metrics.jsonl has lines about matrices */
    bool swept;        /* a point of a sweep */
    size_t point;      /* runs of one point differ in the seed alone */
} pq_report_run;

/* A protocol: numbers of two groups never share a column or a figure. */
typedef struct pq_report_group {
    char split[24], protocol[24];
    int64_t context, stride; /* -1 = not recorded */
} pq_report_group;

typedef struct pq_report {
    pq_report_run *runs;
    size_t count;
    pq_report_group *groups;
    size_t group_count;
    size_t point_count;
    char **swept; /* config keys in which a sweep's points differ */
    size_t swept_count;
    bool sweep; /* an argument was a sweep folder */
} pq_report;

/* Read the runs; a folder that is no run but holds some (itself or in runs/) stands for all of them, a run
 * named twice counts once. Files and keys may be missing; PQ_ERR_USAGE where a folder holds none of a run's
 * files, PQ_ERR_FORMAT where one of them is damaged. Deinit also after an error. */
pq_status pq_report_read(const char *const *dirs, size_t count, pq_report *out, pq_error *err);
void pq_report_deinit(pq_report *report);

/* First, last and best (least loss, the earliest of equals) evaluation of a run under a protocol; false when
 * it has none. */
typedef struct pq_report_summary {
    const pq_report_eval *first, *last, *best;
} pq_report_summary;
bool pq_report_summarize(const pq_report_run *run, size_t group, pq_report_summary *out);
bool pq_report_evaluated(const pq_report_run *run, size_t group);
/* Whether run `index`, evaluated under the protocol, knows the entropy of its text and no run before it has
 * the same one: each floor is shown once. */
bool pq_report_new_floor(const pq_report *report, size_t group, size_t index);

/* "val, all-tokens, context 64" */
const char *pq_report_group_name(const pq_report_group *group, char *out, size_t bytes);

const char *pq_report_setting_value(const pq_report_run *run, const char *key); /* NULL when not there */
/* A number or text of run.json by the names on the way; NaN and NULL when not there. */
double pq_report_number(const json_t *object, const char *a, const char *b);
const char *pq_report_word(const json_t *object, const char *a, const char *b);

/* Losses over the seeds of a point: mean, half of its 95 % interval (Student's t; NaN with one seed), and how
 * many runs there are. */
typedef struct pq_report_mean {
    double mean, half;
    size_t count;
} pq_report_mean;
pq_report_mean pq_report_point_loss(const pq_report *report, size_t group, size_t point);
/* "levels 15, lr 1e-4" from a sweep's keys but `without` (may be NULL), else its first run's label; returns
 * `out`. */
const char *pq_report_point_name(const pq_report *report, size_t point, const char *without, char *out,
                                 size_t bytes);
const pq_report_run *pq_report_point_run(const pq_report *report, size_t point); /* its first run */
/* The value of a swept key as a number, NaN where it is none. */
double pq_report_point_number(const pq_report *report, size_t point, const char *key);

/* Last loss of run `a` minus that of run `b`, window by window; NaN where the two did not score the same
 * windows of the same text under this protocol. `freedom`: windows - 1. */
pq_difference pq_report_pair(const pq_report *report, size_t group, size_t a, size_t b, size_t *freedom);

/* Steps of pq_report_read(). */
pq_status pq_report_find_runs(const char *const *dirs, size_t count, pq_report *out, pq_error *err);
pq_status pq_report_read_windows(pq_report_run *run, pq_error *err);
pq_status pq_report_find_points(pq_report *report, pq_error *err);

#define PQ_REPORT_95 1.96           /* standard errors to each side, of many windows */
double pq_report_t(size_t freedom); /* of few */

/* Numbers as people read them; "–" for NaN. They return `out`. */
typedef struct pq_text {
    char at[64];
} pq_text;
pq_text pq_text_count(double value);                          /* 1,234,567 */
pq_text pq_text_loss(double loss, double se);                 /* 1.5823 ± 0.0051 */
pq_text pq_text_perplexity(double loss, double se);           /* e^loss ± e^loss·se */
pq_text pq_text_interval(double from, double to, int digits); /* 1.5721 to 1.5925 */
pq_text pq_text_difference(pq_difference difference);         /* +0.0123 */
pq_text pq_text_bytes(double bytes);                          /* 1.23 MB */
pq_text pq_text_seconds(double seconds);                      /* 1:02:03 */

#endif
