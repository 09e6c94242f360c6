/* Fake quantization of activations to 8 bits: rounding to an affine grid, a grid for each row, extremes. */
#include <math.h>

#include "kernels/kernels.h"

static float clamp(float q, const pq_affine *grid) { /* NaN stays */
    q = q < grid->low ? grid->low : q;
    return q > grid->high ? grid->high : q;
}

void pq_affine_round_ref(const float *x, const pq_affine *grid, float *out, size_t n) {
    for (size_t i = 0; i < n; i++)
        out[i] = (clamp(rintf(x[i] * grid->inverse) + grid->zero, grid) - grid->zero) * grid->scale;
}

void pq_affine_mask_ref(const float *x, const pq_affine *grid, const float *dout, float *dx, size_t n) {
    for (size_t i = 0; i < n; i++) {
        float q = rintf(x[i] * grid->inverse) + grid->zero;
        dx[i] = q < grid->low || q > grid->high ? 0 : dout[i];
    }
}

void pq_extremes_ref(const float *x, float *low, float *high, size_t n) {
    *low = *high = x[0];
    for (size_t i = 0; i < n; i++) {
        if (x[i] < *low) *low = x[i];
        if (x[i] > *high) *high = x[i];
        if (!isfinite(x[i])) {
            *low = *high = NAN;
            return;
        }
    }
}

void pq_int8_rows_ref(const float *x, float *out, size_t rows, size_t width) {
    for (size_t r = 0; width > 0 && r < rows; r++, x += width, out += width) {
        float low, high;
        pq_extremes_ref(x, &low, &high, width);
        pq_affine grid = pq_affine_make(low, high, 0, 255, PQ_INT8_ROW_LEAST);
        pq_affine_round_ref(x, &grid, out, width);
    }
}
