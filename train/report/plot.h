/* Figures of a report as SVG text, drawn by gnuplot. Private to train/. */
#ifndef PQ_TRAIN_REPORT_PLOT_H
#define PQ_TRAIN_REPORT_PLOT_H

#include "train/report/data.h"

typedef enum pq_figure_kind {
    PQ_FIGURE_LOSS,   /* against iterations, a curve a run */
    PQ_FIGURE_BITS,   /* perplexity against bits a weight, a dot a run */
    PQ_FIGURE_POINTS, /* loss against bits a weight, a dot a point of a sweep */
    PQ_FIGURE_KEY,    /* loss against a swept key */
    PQ_FIGURE_INSIDE, /* what metrics.jsonl says of matrices, a panel a kind of matrix */
    PQ_FIGURE_LEVELS  /* shares of the levels, a panel a matrix of one run */
} pq_figure_kind;

typedef struct pq_figure {
    pq_figure_kind kind;
    size_t group, run; /* what the kind needs of these */
    const char *key;   /* of config or of metrics.jsonl; borrowed from the report */
    char name[80];     /* of its file, without .svg */
    char title[160];   /* one line */
    const char *note;  /* what the eye needs to know; may be empty */
} pq_figure;

/* All figures that the report's data can fill, in the order of the page; heap. */
pq_status pq_figures_list(const pq_report *report, pq_figure **out, size_t *count, pq_error *err);

/* For a page: one or several <svg> (classes wide, narrow, small), axes in currentColor, without ids. For a
 * file: one document, legend inside, dark on white. Heap. PQ_ERR_IO says why there is none. */
pq_status pq_figure_draw(const pq_report *report, const pq_figure *figure, bool file, char **svg,
                         pq_error *err);

/* Series of a figure, in order: their names and marks; false past the last. */
bool pq_figure_series(const pq_report *report, const pq_figure *figure, size_t index, size_t *style,
                      char *name, size_t bytes);
/* A line with its marker as SVG elements, 28 x 12. */
void pq_figure_mark(FILE *out, size_t style);

/* Panels about matrices (matrix.c). Names of matrices or kinds by panel; NULL past the last. */
pq_status pq_figures_of_matrices(const pq_report *report, pq_figure **list, size_t *count, pq_error *err);
size_t pq_matrix_panels(const pq_report *report, const pq_figure *figure);
pq_status pq_matrix_panel(FILE *script, const pq_report *report, const pq_figure *figure, size_t panel,
                          pq_error *err);
pq_status pq_figure_add(pq_figure **list, size_t *count, pq_figure figure, pq_error *err);
void pq_plot_style(FILE *script, size_t style, bool lines); /* " with linespoints ..." */
void pq_plot_quote(FILE *script, const char *text, size_t most);
/* The smallest of 1, 2, 5 x 10^k that covers `span` in at most `steps` steps. */
double pq_plot_step(double span, int steps);

#endif
