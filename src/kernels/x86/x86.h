/* Prototypes of this instruction set's kernels, and vector functions that several of them share. */
#ifndef PQ_KERNELS_X86_X86_H
#define PQ_KERNELS_X86_X86_H

#include "kernels/kernels.h"
#include "kernels/x86/vec.h"

#define PQ_KERNEL(name, x86, arguments) void PQ_ISA_NAME(name) arguments;
#include "kernels/kernels.def"
#undef PQ_KERNEL

/* The next VL elements, or what is left of them (others 0). Masked loads alone would do, but on AVX2 they run
 * at a quarter of the speed where the data come from memory. */
ALWAYS_INLINE vf v_load_left(const float *x, size_t left) {
    return left >= VL ? v_load(x) : v_load_some(v_first(left), x);
}

ALWAYS_INLINE void v_store_left(float *x, size_t left, vf a) {
    if (left >= VL)
        v_store(x, a);
    else
        v_store_some(v_first(left), x, a);
}

/* e^x to 2 ulp; below -87.3 it is 0 (no subnormals), above 88 it stays at e^88. 2^f by a polynomial fitted
 * over
 * [-1/2, 1/2], relative error 2e-9. */
ALWAYS_INLINE vf v_exp(vf x) {
    vm flush = v_less(x, v_set(-87.33f));
    vf y = v_max(v_set(-87.33f), v_min(v_set(88.0f), x)); /* in this order NaN stays NaN */
    vf n = v_round(v_mul(y, v_set(1.44269504f)));
    vf f = v_fnma(n, v_set(0.693359375f), y); /* ln 2 in two parts */
    f = v_fnma(n, v_set(-2.12194440e-4f), f);
    f = v_mul(f, v_set(1.44269504f));
    vf p = v_set(1.54780177e-4f);
    p = v_fma(p, f, v_set(1.34004317e-3f));
    p = v_fma(p, f, v_set(9.61799453e-3f));
    p = v_fma(p, f, v_set(5.55032722e-2f));
    p = v_fma(p, f, v_set(2.40226515e-1f));
    p = v_fma(p, f, v_set(6.93147207e-1f));
    p = v_fma(p, f, v_set(1.0f));
    vf power = v_from_bits(v_shift_left(v_iadd(v_to_int(n), v_iset(127)), 23));
    return v_select(flush, v_zero(), v_mul(p, power));
}

#endif
