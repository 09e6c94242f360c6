/* Layer norm, readable: the meaning of the kernels in x86/layernorm.c. */
#include <math.h>

#include "kernels/kernels.h"

void pq_layernorm_forward_ref(const float *x, const float *gain, const float *bias, float *out, float *mean,
                              float *rstd, size_t rows, size_t width) {
    for (size_t r = 0; r < rows; r++, x += width, out += width) {
        double sum = 0, squares = 0;
        for (size_t i = 0; i < width; i++) sum += x[i];
        double m = sum / (double)width;
        for (size_t i = 0; i < width; i++) squares += (x[i] - m) * (x[i] - m);
        double s = 1.0 / sqrt(squares / (double)width + 1e-5);
        for (size_t i = 0; i < width; i++)
            out[i] = (float)((x[i] - m) * s) * gain[i] + (bias ? bias[i] : 0.0f);
        mean[r] = (float)m;
        rstd[r] = (float)s;
    }
}

/* With n = (x - mean) rstd and g = dout gain: dx = rstd (g - mean(g) - n mean(g n)). */
void pq_layernorm_backward_ref(const float *x, const float *gain, const float *dout, const float *mean,
                               const float *rstd, float *dx, bool accumulate, float *dgain, float *dbias,
                               size_t rows, size_t width) {
    for (size_t r = 0; r < rows; r++, x += width, dout += width, dx += width) {
        double sum_g = 0, sum_gn = 0;
        for (size_t i = 0; i < width; i++) {
            double n = (x[i] - (double)mean[r]) * rstd[r], g = (double)dout[i] * gain[i];
            sum_g += g;
            sum_gn += g * n;
            dgain[i] += (float)(dout[i] * n);
            if (dbias) dbias[i] += dout[i];
        }
        for (size_t i = 0; i < width; i++) {
            double n = (x[i] - (double)mean[r]) * rstd[r], g = (double)dout[i] * gain[i];
            float d = (float)(rstd[r] * (g - sum_g / (double)width - n * sum_gn / (double)width));
            dx[i] = accumulate ? dx[i] + d : d;
        }
    }
}
