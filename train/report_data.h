/* What a report knows about its runs: read from run folders once, used by the HTML, text, CSV and JSON
 * writers. Private to train/. */
#ifndef PQ_TRAIN_REPORT_DATA_H
#define PQ_TRAIN_REPORT_DATA_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

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
    const char *dir;
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
} pq_report;

/* Read the runs. Files and keys may be missing; PQ_ERR_USAGE where a folder holds none of a run's files,
 * PQ_ERR_FORMAT where one of them is damaged. Deinit also after an error. */
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

/* Numbers as people read them; "–" for NaN. They return `out`. */
typedef struct pq_text {
    char at[64];
} pq_text;
pq_text pq_text_count(double value);                /* 1,234,567 */
pq_text pq_text_loss(double loss, double se);       /* 1.5823 ± 0.0051 */
pq_text pq_text_perplexity(double loss, double se); /* e^loss ± e^loss·se */
pq_text pq_text_bytes(double bytes);                /* 1.23 MB */
pq_text pq_text_seconds(double seconds);            /* 1:02:03 */

#endif
