/* The same for products of bf16: pairs, summed in fp32. */
#include "kernels/peak.h"
#include "kernels/x86/x86.h"

void PQ_ISA_NAME(peak_multiply_add_bf16)(float a, float b, size_t rounds, double *sum) {
    vf chains[PQ_PEAK_CHAINS];
    vf va = (vf)_mm512_cvtne2ps_pbh(v_set(a), v_set(a)), vb = (vf)_mm512_cvtne2ps_pbh(v_set(b), v_set(b));
    for (int i = 0; i < PQ_PEAK_CHAINS; i++) chains[i] = v_zero();
    for (size_t r = 0; r < rounds; r++) {
        __asm__ volatile("" : "+x"(va)); /* as in peak.c */
#pragma GCC unroll 12
        for (int i = 0; i < PQ_PEAK_CHAINS; i++) chains[i] = v_pairs_dot(va, vb, chains[i]);
    }
    *sum = 0;
    for (int i = 0; i < PQ_PEAK_CHAINS; i++) *sum += (double)v_sum(chains[i]);
}
