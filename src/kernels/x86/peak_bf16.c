/* The same for products of bf16: pairs, summed in fp32; with AMX, of tiles. */
#include "kernels/peak.h"
#include "kernels/x86/tiles.h"

#ifdef PQ_AMX
void PQ_ISA_NAME(peak_multiply_add_bf16)(float a, float b, size_t rounds, double *sum) {
    enum { LANES = TILE_ROWS * VL, ACCUMULATORS = 6 };
    /* Not on the stack: with sanitizers gcc may put that 32 bytes beside what its aligned stores expect. The
     * first two are the factors until the sums are stored. */
    static _Thread_local float tiles[ACCUMULATORS][LANES];
    for (size_t i = 0; i < LANES; i += VL) {
        v_store(tiles[0] + i, (vf)_mm512_cvtne2ps_pbh(v_set(a), v_set(a)));
        v_store(tiles[1] + i, (vf)_mm512_cvtne2ps_pbh(v_set(b), v_set(b)));
    }
    __asm__ volatile("" : : : "memory"); /* gcc's loads of tiles do not say that they read */
    tiles_begin();
    _tile_loadd(6, tiles[0], TILE_BYTES);
    _tile_loadd(7, tiles[1], TILE_BYTES);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    for (size_t r = 0; r < rounds; r++) {
        _tile_dpbf16ps(0, 6, 7);
        _tile_dpbf16ps(1, 6, 7);
        _tile_dpbf16ps(2, 6, 7);
        _tile_dpbf16ps(3, 6, 7);
        _tile_dpbf16ps(4, 6, 7);
        _tile_dpbf16ps(5, 6, 7);
    }
    _tile_stored(0, tiles[0], TILE_BYTES);
    _tile_stored(1, tiles[1], TILE_BYTES);
    _tile_stored(2, tiles[2], TILE_BYTES);
    _tile_stored(3, tiles[3], TILE_BYTES);
    _tile_stored(4, tiles[4], TILE_BYTES);
    _tile_stored(5, tiles[5], TILE_BYTES);
    tiles_end();
    *sum = 0;
    for (size_t t = 0; t < ACCUMULATORS; t++)
        for (size_t i = 0; i < LANES; i++) *sum += (double)tiles[t][i];
}
#else
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
#endif
