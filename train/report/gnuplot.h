/* gnuplot as a function from a script to SVG. Private to train/. */
#ifndef PQ_TRAIN_REPORT_GNUPLOT_H
#define PQ_TRAIN_REPORT_GNUPLOT_H

#include <stdio.h>

#include "base/error.h"

#define PQ_PLOT_INK "#123456" /* stands for the colour of text in a script, currentColor in the SVG */

/* Run a script (its stream is flushed by the caller, rewound here); *svg is all that gnuplot wrote, one
 * document after the other (heap). PQ_ERR_IO says why there is none: gnuplot not found, or what it said. */
pq_status pq_gnuplot(FILE *script, char **svg, pq_error *err);
/* Copy the inside of the first document in `svg`, without titles, definitions and empty groups; returns where
 * the next one begins, NULL where there was no whole one. */
const char *pq_svg_write_body(FILE *out, const char *svg);

#endif
