/* Pieces of the HTML page shared by its files. Private to train/. */
#ifndef PQ_TRAIN_REPORT_HTML_H
#define PQ_TRAIN_REPORT_HTML_H

#include <stdio.h>

#include "train/report/data.h"

/* The only way of text from outside onto the page: escaped. */
void pq_html_put(FILE *out, const char *text);
/* `open`, escaped text, `close`. */
void pq_html_element(FILE *out, const char *open, const char *text, const char *close);
void pq_html_cell(FILE *out, pq_text text);
/* A table in a box of its own that scrolls; `class` is "numbers" or "words", `what` its spoken name. After
 * open, the caller writes caption, thead and <tbody>. */
void pq_html_open_table(FILE *out, const char *class, const char *what);
void pq_html_close_table(FILE *out);
/* <tr> and the run's name with its quantizer below, as the head of a row. */
void pq_html_run_head(FILE *out, const pq_report_run *run);

/* The tables about runs themselves; what is not known is left out. */
void pq_html_costs(FILE *out, const pq_report *report);       /* size and speed */
void pq_html_differences(FILE *out, const pq_report *report); /* config keys that differ */
void pq_html_matrices(FILE *out, const pq_report *report);    /* the last line of each quantized matrix */
void pq_html_events(FILE *out, const pq_report *report);
pq_status pq_html_facts(FILE *out, const pq_report *report, pq_error *err); /* what was run */

#endif
