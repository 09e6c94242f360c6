/* GELU (Hendrycks and Gimpel, arXiv 1606.08415), readable: the meaning of the kernels in x86/gelu.c. */
#include <math.h>

#include "kernels/kernels.h"

#define SQRT_HALF      0.70710678118654752440
#define INV_SQRT_2PI   0.39894228040143267794
#define SQRT_2_OVER_PI 0.79788456080286535588

void pq_gelu_erf_forward_ref(const float *x, float *out, size_t n) {
    for (size_t i = 0; i < n; i++) out[i] = (float)(0.5 * x[i] * erfc(-x[i] * SQRT_HALF));
}

void pq_gelu_erf_backward_ref(const float *x, const float *dout, float *dx, size_t n) {
    for (size_t i = 0; i < n; i++) {
        double v = x[i], density = INV_SQRT_2PI * exp(-0.5 * v * v);
        dx[i] = (float)(dout[i] * (0.5 * erfc(-v * SQRT_HALF) + v * density));
    }
}

void pq_gelu_tanh_forward_ref(const float *x, float *out, size_t n) {
    for (size_t i = 0; i < n; i++) {
        double v = x[i];
        out[i] = (float)(0.5 * v * (1.0 + tanh(SQRT_2_OVER_PI * (v + 0.044715 * v * v * v))));
    }
}

void pq_gelu_tanh_backward_ref(const float *x, const float *dout, float *dx, size_t n) {
    for (size_t i = 0; i < n; i++) {
        double v = x[i], t = tanh(SQRT_2_OVER_PI * (v + 0.044715 * v * v * v));
        double slope = SQRT_2_OVER_PI * (1.0 + 3.0 * 0.044715 * v * v);
        dx[i] = (float)(dout[i] * (0.5 * (1.0 + t) + 0.5 * v * (1.0 - t * t) * slope));
    }
}

void pq_gelu_erf_both_ref(const float *x, const float *dout, float *out, float *dx, size_t n) {
    pq_gelu_erf_forward_ref(x, out, n);
    pq_gelu_erf_backward_ref(x, dout, dx, n);
}

void pq_gelu_tanh_both_ref(const float *x, const float *dout, float *out, float *dx, size_t n) {
    pq_gelu_tanh_forward_ref(x, out, n);
    pq_gelu_tanh_backward_ref(x, dout, dx, n);
}
