/* Reports of one or several runs: a self-contained HTML page with SVG curves (gnuplot), text tables, CSV. */
#ifndef PQ_TRAIN_REPORT_H
#define PQ_TRAIN_REPORT_H

#include <stdbool.h>
#include <stdio.h>

#include "base/error.h"

/* Write the HTML page about runs[count] (run folders) to `path` (atomic). Figures need gnuplot; without it
 * the page says so and keeps its tables. */
pq_status pq_report_html(const char *const *runs, size_t count, const char *path, bool overwrite,
                         pq_error *err);
/* The page's curves, each as an SVG file in `folder` (made if need be): loss.svg, perplexity.svg, and
 * loss-2.svg and so on for further protocols. */
pq_status pq_report_figures(const char *const *runs, size_t count, const char *folder, bool overwrite,
                            pq_error *err);
/* Tables for a terminal, one a protocol. */
pq_status pq_report_text(const char *const *runs, size_t count, FILE *out, pq_error *err);
/* The same numbers as one JSON array, an object a run and protocol. */
pq_status pq_report_json(const char *const *runs, size_t count, FILE *out, pq_error *err);
/* One row an evaluation. */
pq_status pq_report_csv(const char *const *runs, size_t count, const char *path, bool overwrite,
                        pq_error *err);

#endif
