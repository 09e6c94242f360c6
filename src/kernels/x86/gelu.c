/* GELU, vectorised. Phi is taken from erf near 0 and from erfc further out, so that the negative tail keeps
 * its digits: absolute error of GELU below 1e-7 + 1e-7 |x| (tests/kernels). Polynomials fitted by iteratively
 * reweighted least squares on Chebyshev nodes: erf(t) / t in t^2 over [0, 1]; log erfc(t) over [1, 9.4]. */
#include "kernels/x86/x86.h"

/* Phi(x), the standard normal distribution function. */
ALWAYS_INLINE vf normal_cdf(vf x) {
    vf t = v_mul(v_abs(x), v_set(0.70710678f)), s = v_mul(t, t);
    vf near = v_set(7.889119522911749e-05f);
    near = v_fma(near, s, v_set(-0.0008020841277289003f));
    near = v_fma(near, s, v_set(0.0051895353390879456f));
    near = v_fma(near, s, v_set(-0.026854444591790965f));
    near = v_fma(near, s, v_set(0.11283600176254961f));
    near = v_fma(near, s, v_set(-0.37612627135965626f));
    near = v_fma(near, s, v_set(1.1283791659137499f));
    near = v_mul(near, v_mul(t, v_set(0.5f))); /* erf(t) / 2 */
    vf u = v_min(v_set(9.4f), t);
    vf far = v_set(2.98592506275952e-09f);
    far = v_fma(far, u, v_set(-1.7235043969776598e-07f));
    far = v_fma(far, u, v_set(4.447709670785116e-06f));
    far = v_fma(far, u, v_set(-6.808352191001177e-05f));
    far = v_fma(far, u, v_set(0.000693075533490628f));
    far = v_fma(far, u, v_set(-0.0050007253885269165f));
    far = v_fma(far, u, v_set(0.02673581801354885f));
    far = v_fma(far, u, v_set(-0.11017752438783646f));
    far = v_fma(far, u, v_set(-0.6320866942405701f));
    far = v_fma(far, u, v_set(-1.1299138069152832f));
    far = v_fma(far, u, v_set(0.00020808780391234905f));
    vf tail = v_mul(v_set(0.5f), v_exp(far)); /* erfc(t) / 2 */
    vm inner = v_less(t, v_set(1.0f)), negative = v_less(x, v_zero());
    vf low = v_select(inner, v_sub(v_set(0.5f), near), tail); /* Phi(-|x|) */
    return v_select(negative, low, v_sub(v_set(1.0f), low));
}

ALWAYS_INLINE vf erf_value(vf x) {
    return v_mul(x, normal_cdf(x));
}

ALWAYS_INLINE vf erf_slope(vf x) {
    vf density = v_mul(v_set(0.39894228f), v_exp(v_mul(v_set(-0.5f), v_mul(x, x))));
    return v_fma(x, density, normal_cdf(x));
}

/* gate = (1 + tanh u) / 2 = 1 / (1 + e^(-2u)) with u = sqrt(2/pi) (x + 0.044715 x^3). */
ALWAYS_INLINE vf tanh_gate(vf x, vf *inverse_power) {
    vf twice = v_mul(x, v_fma(v_mul(x, x), v_set(0.0713548162726f), v_set(1.59576912161f)));
    *inverse_power = v_exp(v_sub(v_zero(), twice));
    return v_div(v_set(1.0f), v_add(v_set(1.0f), *inverse_power));
}

ALWAYS_INLINE vf tanh_value(vf x) {
    vf unused;
    return v_mul(x, tanh_gate(x, &unused));
}

/* 1 - gate is taken as gate e^(-2u): no digits cancel. */
ALWAYS_INLINE vf tanh_slope(vf x) {
    vf power, gate = tanh_gate(x, &power);
    vf slope = v_fma(v_mul(x, x), v_set(0.2140644488f), v_set(1.59576912161f));
    return v_fma(v_mul(x, slope), v_mul(gate, v_mul(gate, power)), gate);
}

#define FORWARD(name, value)                                                                                 \
    void PQ_ISA_NAME(name)(const float *x, float *out, size_t n) {                                           \
        for (size_t i = 0; i < n; i += VL) {                                                                 \
            vm some = v_first(n - i);                                                                        \
            v_store_some(some, out + i, value(v_load_some(some, x + i)));                                    \
        }                                                                                                    \
    }
#define BACKWARD(name, slope)                                                                                \
    void PQ_ISA_NAME(name)(const float *x, const float *dout, float *dx, size_t n) {                         \
        for (size_t i = 0; i < n; i += VL) {                                                                 \
            vm some = v_first(n - i);                                                                        \
            vf d = v_load_some(some, dout + i);                                                              \
            v_store_some(some, dx + i, v_mul(d, slope(v_load_some(some, x + i))));                           \
        }                                                                                                    \
    }

FORWARD(gelu_erf_forward, erf_value)
FORWARD(gelu_tanh_forward, tanh_value)
BACKWARD(gelu_erf_backward, erf_slope)
BACKWARD(gelu_tanh_backward, tanh_slope)
