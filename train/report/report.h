/* Reports of one or several runs: a self-contained HTML page with SVG curves (gnuplot), text tables, CSV. */
#ifndef PQ_TRAIN_REPORT_H
#define PQ_TRAIN_REPORT_H

#include <stdbool.h>
#include <stdio.h>

#include "base/error.h"

/* Everywhere runs[count] are run folders, or folders of runs, which stand for all runs in them. Differences
 * are to the first run.
 *
 * Write the HTML page about them to `path` (atomic). Figures need gnuplot; without it the page says so and
 * keeps its tables. */
pq_status pq_report_html(const char *const *runs, size_t count, const char *path, bool overwrite,
                         pq_error *err);
/* The page's figures, each as an SVG file in `folder` (made if need be): loss.svg, perplexity-bits.svg,
 * inside-sqnr_db.svg, levels-1.svg, ...; loss-2.svg and so on for further protocols. */
pq_status pq_report_figures(const char *const *runs, size_t count, const char *folder, bool overwrite,
                            pq_error *err);
/* Tables for a terminal, one a protocol. */
pq_status pq_report_text(const char *const *runs, size_t count, FILE *out, pq_error *err);
/* The same numbers as one JSON array, an object a run and protocol. */
pq_status pq_report_json(const char *const *runs, size_t count, FILE *out, pq_error *err);
/* Every number of curves and tables, one a row:
 * run,split,protocol,context,stride,iter,matrix,level,quantity,value,se */
pq_status pq_report_csv(const char *const *runs, size_t count, const char *path, bool overwrite,
                        pq_error *err);

#endif
