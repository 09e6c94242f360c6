/* Fields of CSV files. */
#ifndef PQ_TRAIN_REPORT_CSV_H
#define PQ_TRAIN_REPORT_CSV_H

#include <stdio.h>

/* A text as one field, in quotes where RFC 4180 wants them. */
void pq_csv_put(FILE *out, const char *text);

#endif
