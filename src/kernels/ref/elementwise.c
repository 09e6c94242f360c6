/* Sums and products of plain arrays, readable. */
#include "kernels/kernels.h"

void pq_add_ref(const float *a, const float *b, float *out, size_t n) {
    for (size_t i = 0; i < n; i++) out[i] = a[i] + b[i];
}

void pq_scale_ref(float *x, float factor, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] *= factor;
}

void pq_column_sums_ref(const float *x, size_t stride, float *out, size_t rows, size_t columns) {
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < columns; i++) out[i] += x[r * stride + i];
}

void pq_sum_squares_ref(const float *x, double *sum, size_t n) {
    double total = 0;
    for (size_t i = 0; i < n; i++) total += (double)x[i] * x[i];
    *sum = total;
}
