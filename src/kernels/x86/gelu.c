/* GELU, vectorised. Phi(-|x|) = exp(-x^2 / 2) t P(t) with t = 1 / (1 + |x| / sqrt(8)): one product for all x,
 * whose relative error is that of its factors, so that the negative tail keeps its digits. 2 t P(t) is
 * e^(u^2) erfc(u), u = |x| / sqrt(2), to 4e-8 (3e-7 in floats) over u in [0, 9.4]; beyond, the power is 0. P
 * was fitted by iteratively reweighted least squares on Chebyshev nodes. */
#include "kernels/x86/x86.h"

/* Phi(x), the standard normal distribution function; *power = exp(-x^2 / 2). */
ALWAYS_INLINE vf normal_cdf(vf x, vf *power) {
    vf t = v_div(v_set(1.0f), v_fma(v_abs(x), v_set(0.35355339f), v_set(1.0f)));
    vf p = v_set(-0.029423926025629044f);
    p = v_fma(p, t, v_set(0.14174559712409973f));
    p = v_fma(p, t, v_set(-0.24247203767299652f));
    p = v_fma(p, t, v_set(0.13773547112941742f));
    p = v_fma(p, t, v_set(-0.012412426993250847f));
    p = v_fma(p, t, v_set(0.1009594202041626f));
    p = v_fma(p, t, v_set(0.1216498389840126f));
    p = v_fma(p, t, v_set(0.1411740481853485f));
    p = v_fma(p, t, v_set(0.1410439908504486f));
    *power = v_exp(v_mul(v_set(-0.5f), v_mul(x, x)));
    vf low = v_mul(*power, v_mul(t, p));
    return v_select(v_less(x, v_zero()), low, v_sub(v_set(1.0f), low));
}

/* The slope; *value = x Phi(x). */
ALWAYS_INLINE vf erf_both(vf x, vf *value) {
    vf power, phi = normal_cdf(x, &power);
    *value = v_mul(x, phi);
    return v_fma(v_mul(x, v_set(0.39894228f)), power, phi);
}

/* gate = (1 + tanh u) / 2 = 1 / (1 + e^(-2u)) with u = sqrt(2/pi) (x + 0.044715 x^3). */
ALWAYS_INLINE vf tanh_gate(vf x, vf *inverse_power) {
    vf twice = v_mul(x, v_fma(v_mul(x, x), v_set(0.0713548162726f), v_set(1.59576912161f)));
    *inverse_power = v_exp(v_sub(v_zero(), twice));
    return v_div(v_set(1.0f), v_add(v_set(1.0f), *inverse_power));
}

/* The same with the gate; 1 - gate is taken as gate e^(-2u): no digits cancel. */
ALWAYS_INLINE vf tanh_both(vf x, vf *value) {
    vf power, gate = tanh_gate(x, &power);
    *value = v_mul(x, gate);
    vf slope = v_fma(v_mul(x, x), v_set(0.2140644488f), v_set(1.59576912161f));
    return v_fma(v_mul(x, slope), v_mul(gate, v_mul(gate, power)), gate);
}

#define FORWARD(name, both)                                                                                  \
    void PQ_ISA_NAME(name)(const float *x, float *out, size_t n) {                                           \
        for (size_t i = 0; i < n; i += VL) {                                                                 \
            vm some = v_first(n - i);                                                                        \
            vf value;                                                                                        \
            both(v_load_some(some, x + i), &value);                                                          \
            v_store_some(some, out + i, value);                                                              \
        }                                                                                                    \
    }
#define BACKWARD(name, both)                                                                                 \
    void PQ_ISA_NAME(name)(const float *x, const float *dout, float *dx, size_t n) {                         \
        for (size_t i = 0; i < n; i += VL) {                                                                 \
            vm some = v_first(n - i);                                                                        \
            vf d = v_load_some(some, dout + i), unused;                                                      \
            v_store_some(some, dx + i, v_mul(d, both(v_load_some(some, x + i), &unused)));                   \
        }                                                                                                    \
    }
#define BOTH(name, both)                                                                                     \
    void PQ_ISA_NAME(name)(const float *x, const float *dout, float *out, float *dx, size_t n) {             \
        for (size_t i = 0; i < n; i += VL) {                                                                 \
            vm some = v_first(n - i);                                                                        \
            vf d = v_load_some(some, dout + i), value, slope = both(v_load_some(some, x + i), &value);       \
            v_store_some(some, dx + i, v_mul(d, slope));                                                     \
            v_store_some(some, out + i, value);                                                              \
        }                                                                                                    \
    }

FORWARD(gelu_erf_forward, erf_both)
FORWARD(gelu_tanh_forward, tanh_both)
BACKWARD(gelu_erf_backward, erf_both)
BACKWARD(gelu_tanh_backward, tanh_both)
BOTH(gelu_erf_both, erf_both)
BOTH(gelu_tanh_both, tanh_both)
