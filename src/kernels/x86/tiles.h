/* AMX's tiles: 16 rows of 16 floats, or of 16 pairs of bf16. They are a thread's own, and other code's
 * settings of them do not last, so that a kernel begins and ends with them. Without AMX both do nothing. */
#ifndef PQ_KERNELS_X86_TILES_H
#define PQ_KERNELS_X86_TILES_H

#include "kernels/x86/x86.h"

enum { TILE_ROWS = 16, TILE_BYTES = 64 };

#ifdef PQ_AMX

ALWAYS_INLINE void tiles_begin(void) {
    static const struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16]; /* of a row */
        uint8_t rows[16];
    } config = {
        .palette = 1, .bytes = {64, 64, 64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16, 16, 16}};
    /* gcc's intrinsic names 8 of the 64 bytes that are read, and may pass a copy of those. */
    __asm__ volatile("ldtilecfg %0" : : "m"(config));
}

ALWAYS_INLINE void tiles_end(void) {
    _tile_release();
}

/* Tiles 0 to 3 are C[32][32], two by two: 0, or what C has. gcc's loads of tiles do not say that they read.
 */
ALWAYS_INLINE void tiles_start(const float *C, size_t ldc, bool accumulate) {
    const size_t row = ldc * sizeof *C;
    __asm__ volatile("" : : : "memory");
    if (accumulate) {
        _tile_loadd(0, C, row);
        _tile_loadd(1, C + TILE_ROWS, row);
        _tile_loadd(2, C + TILE_ROWS * ldc, row);
        _tile_loadd(3, C + TILE_ROWS * ldc + TILE_ROWS, row);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
}

/* They += A[32][16] B[16][32], of pairs. */
ALWAYS_INLINE void tiles_step(const float *A, size_t lda, const float *B, size_t ldb) {
    const size_t a_row = lda * sizeof *A, b_row = ldb * sizeof *B;
    _tile_loadd(4, A, a_row);
    _tile_loadd(6, B, b_row);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, B + TILE_ROWS, b_row);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, A + TILE_ROWS * lda, a_row);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
}

ALWAYS_INLINE void tiles_store(float *C, size_t ldc) {
    const size_t row = ldc * sizeof *C;
    _tile_stored(0, C, row);
    _tile_stored(1, C + TILE_ROWS, row);
    _tile_stored(2, C + TILE_ROWS * ldc, row);
    _tile_stored(3, C + TILE_ROWS * ldc + TILE_ROWS, row);
}

/* C[m][n] (+)= A[m][k] B[k][n] of pairs: m and n are multiples of 32, k of 16. */
static inline void tiles_multiply(size_t m, size_t n, size_t k, const float *A, size_t lda, const float *B,
                                  size_t ldb, float *C, size_t ldc, bool accumulate) {
    for (size_t i = 0; i < m; i += 2 * TILE_ROWS)
        for (size_t j = 0; j < n; j += 2 * TILE_ROWS) {
            tiles_start(C + i * ldc + j, ldc, accumulate);
            for (size_t p = 0; p < k; p += TILE_ROWS) tiles_step(A + i * lda + p, lda, B + p * ldb + j, ldb);
            tiles_store(C + i * ldc + j, ldc);
        }
}

#else

ALWAYS_INLINE void tiles_begin(void) {}
ALWAYS_INLINE void tiles_end(void) {}

#endif
#endif
