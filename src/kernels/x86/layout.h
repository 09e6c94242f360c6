/* Arrays laid out anew for products: transposes, and pairs of bf16, a lane each. */
#ifndef PQ_KERNELS_X86_LAYOUT_H
#define PQ_KERNELS_X86_LAYOUT_H

#include "kernels/x86/x86.h"

ALWAYS_INLINE size_t least(size_t a, size_t b) {
    return a < b ? a : b;
}

#ifdef __AVX512F__
/* 16 x 16, by ever larger pieces: pairs of rows, then fours, and quarters of vectors at the end. */
static inline void transpose_16(const float *x, size_t stride, float *out, size_t out_stride) {
    __m512 a[16], b[16];
#pragma GCC unroll 16
    for (size_t i = 0; i < 16; i++) a[i] = _mm512_loadu_ps(x + i * stride);
#pragma GCC unroll 8
    for (size_t i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < 16; i += 4)
#pragma GCC unroll 2
        for (size_t k = 0; k < 2; k++) {
            __m512d low = _mm512_castps_pd(b[i + k]), high = _mm512_castps_pd(b[i + 2 + k]);
            a[i + 2 * k] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
            a[i + 2 * k + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
        }
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) { /* a[4 q + i]: columns i, i + 4, i + 8, i + 12 of rows 4 q to 4 q + 3 */
        b[i] = _mm512_shuffle_f32x4(a[i], a[4 + i], 0x88);
        b[4 + i] = _mm512_shuffle_f32x4(a[8 + i], a[12 + i], 0x88);
        b[8 + i] = _mm512_shuffle_f32x4(a[i], a[4 + i], 0xDD);
        b[12 + i] = _mm512_shuffle_f32x4(a[8 + i], a[12 + i], 0xDD);
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) {
        _mm512_storeu_ps(out + i * out_stride, _mm512_shuffle_f32x4(b[i], b[4 + i], 0x88));
        _mm512_storeu_ps(out + (8 + i) * out_stride, _mm512_shuffle_f32x4(b[i], b[4 + i], 0xDD));
        _mm512_storeu_ps(out + (4 + i) * out_stride, _mm512_shuffle_f32x4(b[8 + i], b[12 + i], 0x88));
        _mm512_storeu_ps(out + (12 + i) * out_stride, _mm512_shuffle_f32x4(b[8 + i], b[12 + i], 0xDD));
    }
}
#endif

/* out[columns][out_stride] = transpose of x[rows][columns]; 16 x 16 or 4 x 4 at a time. */
static inline void transpose(const float *x, size_t stride, size_t rows, size_t columns, float *out,
                             size_t out_stride) {
#ifdef __AVX512F__
    if (rows % 16 == 0 && columns % 16 == 0) {
        for (size_t r = 0; r < rows; r += 16)
            for (size_t c = 0; c < columns; c += 16)
                transpose_16(x + r * stride + c, stride, out + c * out_stride + r, out_stride);
        return;
    }
#endif
    size_t r = 0;
    for (; r < rows / 4 * 4; r += 4) {
        size_t c = 0;
        for (; c < columns / 4 * 4; c += 4) {
            const float *from = x + r * stride + c;
            __m128 a = _mm_loadu_ps(from), b = _mm_loadu_ps(from + stride),
                   d = _mm_loadu_ps(from + 2 * stride), e = _mm_loadu_ps(from + 3 * stride);
            _MM_TRANSPOSE4_PS(a, b, d, e);
            float *to = out + c * out_stride + r;
            _mm_storeu_ps(to, a);
            _mm_storeu_ps(to + out_stride, b);
            _mm_storeu_ps(to + 2 * out_stride, d);
            _mm_storeu_ps(to + 3 * out_stride, e);
        }
        for (; c < columns; c++)
            for (size_t i = r; i < r + 4; i++) out[c * out_stride + i] = x[i * stride + c];
    }
    for (; r < rows; r++)
        for (size_t c = 0; c < columns; c++) out[c * out_stride + r] = x[r * stride + c];
}

#ifdef PQ_BF16

/* out[rows][pairs] = neighbours in the rows of x, whose columns end before or at the last pair. */
static void pack(const pq_bf16 *x, size_t stride, size_t rows, size_t columns, size_t pairs, float *out) {
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < 2 * pairs; c += 2 * VL) {
            __mmask32 some = columns >= c + 2 * VL ? ~0u : columns > c ? (1u << (columns - c)) - 1u : 0;
            __m512i pair = _mm512_maskz_loadu_epi16(some, x + r * stride + (some ? c : 0));
            v_store(out + r * pairs + c / 2, v_from_bits(pair));
        }
}

/* Lanes of neighbours, the first in the lower half. */
ALWAYS_INLINE vf paired(__m256i first, __m256i second) {
    return v_from_bits(v_ior(_mm512_cvtepu16_epi32(first), v_shift_left(_mm512_cvtepu16_epi32(second), 16)));
}

/* out[VL] = the first of columns, or all VL, of one or two rows; no row: 0. */
ALWAYS_INLINE void interleave_lanes(const pq_bf16 *x, size_t stride, size_t rows, size_t columns,
                                    float *out) {
    if (rows >= 2 && columns >= VL) {
        const __m256i *first = (const __m256i *)(const void *)x,
                      *second = (const __m256i *)(const void *)(x + stride);
        v_store(out, paired(_mm256_loadu_si256(first), _mm256_loadu_si256(second)));
        return;
    }
    vm masks[2] = {rows > 0 ? v_first(columns) : 0, rows > 1 ? v_first(columns) : 0};
    v_store(out, paired(_mm256_maskz_loadu_epi16(masks[0], x),
                        _mm256_maskz_loadu_epi16(masks[1], masks[1] ? x + stride : x)));
}

/* out[width / panel][all / 2][panel], panels `apart`: rows 2 i and 2 i + 1 of x, 0 beyond its rows and
 * columns. */
static void interleave(const pq_bf16 *x, size_t stride, size_t rows, size_t columns, size_t all, size_t width,
                       size_t panel, size_t apart, float *out) {
    enum { AHEAD = 16 };
    for (size_t r = 0; r < all; r += 2) {
        size_t pair = rows > r ? rows - r : 0, there = r + AHEAD + 1 < rows ? AHEAD : 0;
        for (size_t c = 0; c < width; c += VL) {
            size_t left = pair && columns > c ? columns - c : 0;
            const pq_bf16 *from = left ? x + r * stride + c : x;
            if (c % 32 == 0 && left) {
                _mm_prefetch((const char *)(from + there * stride), _MM_HINT_T0);
                _mm_prefetch((const char *)(from + (there + 1) * stride), _MM_HINT_T0);
            }
            interleave_lanes(from, stride, pair, left, out + c / panel * apart + r / 2 * panel + c % panel);
        }
    }
}

ALWAYS_INLINE __m256i narrowed(vf x) {
    return (__m256i)_mm512_cvtneps_pbh(x);
}

#endif
#endif
