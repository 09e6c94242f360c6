/* Curves as SVG text, drawn by gnuplot. Private to train/. */
#ifndef PQ_TRAIN_REPORT_PLOT_H
#define PQ_TRAIN_REPORT_PLOT_H

#include "train/report_data.h"

typedef enum pq_figure_kind { PQ_FIGURE_LOSS, PQ_FIGURE_PERPLEXITY, PQ_FIGURE_KINDS } pq_figure_kind;

/* Where a figure stands decides its size, its legend and its colours. */
typedef enum pq_figure_place {
    PQ_FIGURE_WIDE,   /* inline on a page, no legend, axes in currentColor, no ids; class "wide" */
    PQ_FIGURE_NARROW, /* the same for a phone; class "narrow" */
    PQ_FIGURE_FILE    /* a file of its own: legend inside, dark on white */
} pq_figure_place;

extern const char *const pq_figure_titles[PQ_FIGURE_KINDS]; /* "Loss", "Perplexity" */
extern const char *const pq_figure_colors[8];               /* of runs, in turn; legible on light and dark */

/* One figure of all runs under one protocol as <svg> text (heap). PQ_ERR_IO says why there is none (gnuplot
 * not found, or what it said). */
pq_status pq_figure_draw(const pq_report *report, size_t group, pq_figure_kind kind, pq_figure_place place,
                         char **svg, pq_error *err);

#endif
