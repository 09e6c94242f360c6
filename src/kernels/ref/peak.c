/* The loops that find out what a CPU can do, readable. */
#include "kernels/peak.h"

void pq_peak_multiply_add_ref(float a, float b, size_t rounds, double *sum) {
    float chains[PQ_PEAK_CHAINS] = {0};
    for (size_t r = 0; r < rounds; r++)
        for (int i = 0; i < PQ_PEAK_CHAINS; i++) chains[i] += a * b;
    *sum = 0;
    for (int i = 0; i < PQ_PEAK_CHAINS; i++) *sum += (double)chains[i];
}

void pq_peak_multiply_add_bf16_ref(float a, float b, size_t rounds, double *sum) {
    pq_peak_multiply_add_ref(a, b, rounds, sum);
    *sum *= 2;
}

void pq_peak_read_ref(const float *x, size_t n, double *sum) {
    float sums[4] = {0};
    for (size_t i = 0; i < n; i++) sums[i % 4] += x[i];
    *sum = (double)(sums[0] + sums[1] + sums[2] + sums[3]);
}

void pq_peak_copy_ref(const float *x, float *out, size_t n) {
    for (size_t i = 0; i < n; i++) out[i] = x[i];
}

void pq_peak_update_ref(float *x, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] = -x[i];
}
