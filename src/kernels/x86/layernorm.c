/* Layer norm, vectorised over the channels of a row. */
#include <math.h>

#include "kernels/x86/x86.h"

void PQ_ISA_NAME(layernorm_forward)(const float *x, const float *gain, const float *bias, float *out,
                                    float *mean, float *rstd, size_t rows, size_t width) {
    const float inverse = 1.0f / (float)width;
    for (size_t r = 0; r < rows; r++, x += width, out += width) {
        vf sum = v_zero(), squares = v_zero();
        for (size_t i = 0; i < width; i += VL) sum = v_add(sum, v_load_some(v_first(width - i), x + i));
        vf m = v_set(v_sum(sum) * inverse);
        for (size_t i = 0; i < width; i += VL) {
            vm some = v_first(width - i);
            vf d = v_select(some, v_sub(v_load_some(some, x + i), m), v_zero());
            squares = v_fma(d, d, squares);
        }
        float s = 1.0f / sqrtf(v_sum(squares) * inverse + 1e-5f);
        for (size_t i = 0; i < width; i += VL) {
            vm some = v_first(width - i);
            vf n = v_mul(v_sub(v_load_some(some, x + i), m), v_set(s));
            vf b = bias ? v_load_some(some, bias + i) : v_zero();
            v_store_some(some, out + i, v_fma(n, v_load_some(some, gain + i), b));
        }
        mean[r] = v_sum(sum) * inverse;
        rstd[r] = s;
    }
}

void PQ_ISA_NAME(layernorm_backward)(const float *x, const float *gain, const float *dout, const float *mean,
                                     const float *rstd, float *dx, bool accumulate, float *dgain,
                                     float *dbias, size_t rows, size_t width) {
    const float inverse = 1.0f / (float)width;
    for (size_t r = 0; r < rows; r++, x += width, dout += width, dx += width) {
        vf sum_g = v_zero(), sum_gn = v_zero(), m = v_set(mean[r]), s = v_set(rstd[r]);
        for (size_t i = 0; i < width; i += VL) {
            vm some = v_first(width - i);
            vf d = v_load_some(some, dout + i);
            vf n = v_mul(v_sub(v_load_some(some, x + i), m), s), g = v_mul(d, v_load_some(some, gain + i));
            sum_g = v_add(sum_g, g);
            sum_gn = v_fma(g, n, sum_gn);
            v_store_some(some, dgain + i, v_fma(d, n, v_load_some(some, dgain + i)));
            if (dbias) v_store_some(some, dbias + i, v_add(d, v_load_some(some, dbias + i)));
        }
        vf mean_g = v_set(v_sum(sum_g) * inverse), mean_gn = v_set(v_sum(sum_gn) * inverse);
        for (size_t i = 0; i < width; i += VL) {
            vm some = v_first(width - i);
            vf g = v_mul(v_load_some(some, dout + i), v_load_some(some, gain + i));
            vf n = v_mul(v_sub(v_load_some(some, x + i), m), s);
            vf d = v_mul(s, v_fnma(n, mean_gn, v_sub(g, mean_g)));
            if (accumulate) d = v_add(d, v_load_some(some, dx + i));
            v_store_some(some, dx + i, d);
        }
    }
}
