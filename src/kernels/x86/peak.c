/* The loops that find out what a CPU can do, vectorised. */
#include "kernels/peak.h"
#include "kernels/x86/x86.h"

/* The registers are named to the compiler, which would else see that each round does the same. */
#define KEEP(x) __asm__ volatile("" : "+x"(x))

void PQ_ISA_NAME(peak_multiply_add)(float a, float b, size_t rounds, double *sum) {
    vf chains[PQ_PEAK_CHAINS], va = v_set(a), vb = v_set(b);
    for (int i = 0; i < PQ_PEAK_CHAINS; i++) chains[i] = v_zero();
    for (size_t r = 0; r < rounds; r++) {
        KEEP(va);
#pragma GCC unroll 12
        for (int i = 0; i < PQ_PEAK_CHAINS; i++) chains[i] = v_fma(va, vb, chains[i]);
    }
    *sum = 0;
    for (int i = 0; i < PQ_PEAK_CHAINS; i++) *sum += (double)v_sum(chains[i]);
}

void PQ_ISA_NAME(peak_read)(const float *x, size_t n, double *sum) {
    enum { SUMS = 8 };
    vf sums[SUMS];
    size_t i = 0;
    for (int k = 0; k < SUMS; k++) sums[k] = v_zero();
    for (; i + SUMS * VL <= n; i += SUMS * VL) {
#pragma GCC unroll 8
        for (int k = 0; k < SUMS; k++) sums[k] = v_add(sums[k], v_load(x + i + (size_t)k * VL));
    }
    for (; i < n; i += VL) sums[0] = v_add(sums[0], v_load_left(x + i, n - i));
    *sum = 0;
    for (int k = 0; k < SUMS; k++) *sum += (double)v_sum(sums[k]);
}

void PQ_ISA_NAME(peak_copy)(const float *x, float *out, size_t n) {
    enum { VECTORS = 4 };
    size_t i = 0;
    for (; i + VECTORS * VL <= n; i += VECTORS * VL) {
#pragma GCC unroll 4
        for (size_t k = 0; k < VECTORS; k++) v_store(out + i + k * VL, v_load(x + i + k * VL));
    }
    for (; i < n; i += VL) v_store_left(out + i, n - i, v_load_left(x + i, n - i));
}

void PQ_ISA_NAME(peak_update)(float *x, size_t n) {
    enum { VECTORS = 4 };
    const vi sign = v_iset(INT32_MIN);
    size_t i = 0;
    for (; i + VECTORS * VL <= n; i += VECTORS * VL) {
#pragma GCC unroll 4
        for (size_t k = 0; k < VECTORS; k++)
            v_store(x + i + k * VL, v_from_bits(v_ixor(v_bits(v_load(x + i + k * VL)), sign)));
    }
    for (; i < n; i += VL)
        v_store_left(x + i, n - i, v_from_bits(v_ixor(v_bits(v_load_left(x + i, n - i)), sign)));
}
