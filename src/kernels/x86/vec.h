/* One vector type for two instruction sets, so that each kernel is written once and compiled for AVX2 (8
 * lanes) and AVX-512 (16 lanes). Only what the kernels use is here. Bits may differ between instruction sets,
 * never between runs. */
#ifndef PQ_KERNELS_X86_VEC_H
#define PQ_KERNELS_X86_VEC_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#define PQ_JOIN_(a, b)    a##_##b
#define PQ_JOIN(a, b)     PQ_JOIN_(a, b)
#define PQ_ISA_NAME(name) PQ_JOIN(pq_##name, PQ_ISA) /* pq_gelu_avx2, ... */
#define ALWAYS_INLINE     static inline __attribute__((always_inline))

#ifdef __AVX512F__

#define VL 16
typedef __m512 vf;
typedef __m512i vi;
typedef __mmask16 vm; /* one bit a lane */

ALWAYS_INLINE vf v_load(const float *p) {
    return _mm512_loadu_ps(p);
}
/* 16-bit numbers to the upper halves of the lanes, and the lower halves of the lanes to 16-bit numbers. */
ALWAYS_INLINE vf v_load_halves(const uint16_t *p) {
    __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(a), 16));
}
ALWAYS_INLINE void v_store_halves(uint16_t *p, vi a) {
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtepi32_epi16(a));
}
ALWAYS_INLINE void v_store(float *p, vf a) {
    _mm512_storeu_ps(p, a);
}
ALWAYS_INLINE vf v_set(float a) {
    return _mm512_set1_ps(a);
}
ALWAYS_INLINE vf v_zero(void) {
    return _mm512_setzero_ps();
}
ALWAYS_INLINE vf v_add(vf a, vf b) {
    return _mm512_add_ps(a, b);
}
ALWAYS_INLINE vf v_sub(vf a, vf b) {
    return _mm512_sub_ps(a, b);
}
ALWAYS_INLINE vf v_mul(vf a, vf b) {
    return _mm512_mul_ps(a, b);
}
ALWAYS_INLINE vf v_div(vf a, vf b) {
    return _mm512_div_ps(a, b);
}
ALWAYS_INLINE vf v_sqrt(vf a) {
    return _mm512_sqrt_ps(a);
}
ALWAYS_INLINE vf v_max(vf a, vf b) {
    return _mm512_max_ps(a, b);
}
ALWAYS_INLINE vf v_min(vf a, vf b) {
    return _mm512_min_ps(a, b);
}
ALWAYS_INLINE vf v_fma(vf a, vf b, vf c) {
    return _mm512_fmadd_ps(a, b, c);
} /* a b + c */
ALWAYS_INLINE vf v_fnma(vf a, vf b, vf c) {
    return _mm512_fnmadd_ps(a, b, c);
} /* c - a b */
ALWAYS_INLINE vf v_round(vf a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
ALWAYS_INLINE vm v_less(vf a, vf b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}
ALWAYS_INLINE vf v_select(vm m, vf yes, vf no) {
    return _mm512_mask_blend_ps(m, no, yes);
}
ALWAYS_INLINE vm v_first(size_t n) {
    return n >= VL ? (vm)0xFFFF : (vm)((1u << n) - 1u);
} /* the first n lanes */
ALWAYS_INLINE vf v_load_some(vm m, const float *p) {
    return _mm512_maskz_loadu_ps(m, p);
} /* others 0, not read */
ALWAYS_INLINE void v_store_some(vm m, float *p, vf a) {
    _mm512_mask_storeu_ps(p, m, a);
}

ALWAYS_INLINE vi v_bits(vf a) {
    return _mm512_castps_si512(a);
}
ALWAYS_INLINE vf v_from_bits(vi a) {
    return _mm512_castsi512_ps(a);
}
ALWAYS_INLINE vi v_iset(int32_t a) {
    return _mm512_set1_epi32(a);
}
ALWAYS_INLINE vi v_iadd(vi a, vi b) {
    return _mm512_add_epi32(a, b);
}
ALWAYS_INLINE vi v_isub(vi a, vi b) {
    return _mm512_sub_epi32(a, b);
}
ALWAYS_INLINE vi v_iand(vi a, vi b) {
    return _mm512_and_si512(a, b);
}
ALWAYS_INLINE vi v_ior(vi a, vi b) {
    return _mm512_or_si512(a, b);
}
ALWAYS_INLINE vi v_ixor(vi a, vi b) {
    return _mm512_xor_si512(a, b);
}
ALWAYS_INLINE vi v_imax(vi a, vi b) {
    return _mm512_max_epi32(a, b);
} /* signed */
ALWAYS_INLINE vi v_imin(vi a, vi b) {
    return _mm512_min_epi32(a, b);
}
ALWAYS_INLINE int32_t v_ilargest(vi a) {
    return _mm512_reduce_max_epi32(a);
}
ALWAYS_INLINE vm v_iless(vi a, vi b) {
    return _mm512_cmplt_epi32_mask(a, b);
} /* signed */
ALWAYS_INLINE vm v_iless_unsigned(vi a, vi b) {
    return _mm512_cmplt_epu32_mask(a, b);
}
ALWAYS_INLINE vi v_shift_left(vi a, int n) {
    return _mm512_slli_epi32(a, (unsigned)n);
}
ALWAYS_INLINE vi v_shift_right(vi a, int n) {
    return _mm512_srli_epi32(a, (unsigned)n);
} /* zeros come in */
ALWAYS_INLINE vi v_to_int(vf a) {
    return _mm512_cvtps_epi32(a);
} /* nearest, half to even */
ALWAYS_INLINE vi v_truncate(vf a) {
    return _mm512_cvttps_epi32(a);
}
ALWAYS_INLINE vf v_gather(const float *table, vi at) {
    return _mm512_i32gather_ps(at, table, 4);
}
ALWAYS_INLINE vi v_lanes(void) {
    return _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
}
/* 32 x 32 -> 64 bits a lane */
ALWAYS_INLINE void v_multiply_wide(vi a, vi b, vi *high, vi *low) {
    vi even = _mm512_mul_epu32(a, b), odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), b);
    *low = _mm512_mask_blend_epi32(0xAAAA, even, _mm512_slli_epi64(odd, 32));
    *high = _mm512_mask_blend_epi32(0xAAAA, _mm512_srli_epi64(even, 32), odd);
}

#ifdef __AVX512BF16__
/* sum + a b, lanes being pairs of bf16; subnormals count as 0. */
ALWAYS_INLINE vf v_pairs_dot(vf a, vf b, vf sum) {
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}
#endif
/* Horizontal sums in a fixed tree. */
ALWAYS_INLINE float v_sum(vf a) {
    __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
}
ALWAYS_INLINE float v_largest(vf a) {
    return _mm512_reduce_max_ps(a);
}

#else /* AVX2 and FMA */

#define VL 8
typedef __m256 vf;
typedef __m256i vi;
typedef __m256i vm; /* all bits of a lane */

ALWAYS_INLINE vf v_load(const float *p) {
    return _mm256_loadu_ps(p);
}
ALWAYS_INLINE vf v_load_halves(const uint16_t *p) {
    __m128i a = _mm_loadu_si128((const __m128i *)(const void *)p);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(a), 16));
}
ALWAYS_INLINE void v_store_halves(uint16_t *p, vi a) {
    __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(a, a), 0x88);
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_castsi256_si128(packed));
}
ALWAYS_INLINE void v_store(float *p, vf a) {
    _mm256_storeu_ps(p, a);
}
ALWAYS_INLINE vf v_set(float a) {
    return _mm256_set1_ps(a);
}
ALWAYS_INLINE vf v_zero(void) {
    return _mm256_setzero_ps();
}
ALWAYS_INLINE vf v_add(vf a, vf b) {
    return _mm256_add_ps(a, b);
}
ALWAYS_INLINE vf v_sub(vf a, vf b) {
    return _mm256_sub_ps(a, b);
}
ALWAYS_INLINE vf v_mul(vf a, vf b) {
    return _mm256_mul_ps(a, b);
}
ALWAYS_INLINE vf v_div(vf a, vf b) {
    return _mm256_div_ps(a, b);
}
ALWAYS_INLINE vf v_sqrt(vf a) {
    return _mm256_sqrt_ps(a);
}
ALWAYS_INLINE vf v_max(vf a, vf b) {
    return _mm256_max_ps(a, b);
}
ALWAYS_INLINE vf v_min(vf a, vf b) {
    return _mm256_min_ps(a, b);
}
ALWAYS_INLINE vf v_fma(vf a, vf b, vf c) {
    return _mm256_fmadd_ps(a, b, c);
}
ALWAYS_INLINE vf v_fnma(vf a, vf b, vf c) {
    return _mm256_fnmadd_ps(a, b, c);
}
ALWAYS_INLINE vf v_round(vf a) {
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
ALWAYS_INLINE vm v_less(vf a, vf b) {
    return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_LT_OQ));
}
ALWAYS_INLINE vf v_select(vm m, vf yes, vf no) {
    return _mm256_blendv_ps(no, yes, _mm256_castsi256_ps(m));
}
ALWAYS_INLINE vi v_lanes(void) {
    return _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0);
}
ALWAYS_INLINE vm v_first(size_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n >= VL ? VL : (int)n), v_lanes());
}
ALWAYS_INLINE vf v_load_some(vm m, const float *p) {
    return _mm256_maskload_ps(p, m);
}
ALWAYS_INLINE void v_store_some(vm m, float *p, vf a) {
    _mm256_maskstore_ps(p, m, a);
}

ALWAYS_INLINE vi v_bits(vf a) {
    return _mm256_castps_si256(a);
}
ALWAYS_INLINE vf v_from_bits(vi a) {
    return _mm256_castsi256_ps(a);
}
ALWAYS_INLINE vi v_iset(int32_t a) {
    return _mm256_set1_epi32(a);
}
ALWAYS_INLINE vi v_iadd(vi a, vi b) {
    return _mm256_add_epi32(a, b);
}
ALWAYS_INLINE vi v_isub(vi a, vi b) {
    return _mm256_sub_epi32(a, b);
}
ALWAYS_INLINE vi v_iand(vi a, vi b) {
    return _mm256_and_si256(a, b);
}
ALWAYS_INLINE vi v_ior(vi a, vi b) {
    return _mm256_or_si256(a, b);
}
ALWAYS_INLINE vi v_ixor(vi a, vi b) {
    return _mm256_xor_si256(a, b);
}
ALWAYS_INLINE vi v_imax(vi a, vi b) {
    return _mm256_max_epi32(a, b);
}
ALWAYS_INLINE vi v_imin(vi a, vi b) {
    return _mm256_min_epi32(a, b);
}
ALWAYS_INLINE int32_t v_ilargest(vi a) {
    __m128i c = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    c = _mm_max_epi32(c, _mm_shuffle_epi32(c, 0x4E));
    return _mm_cvtsi128_si32(_mm_max_epi32(c, _mm_shuffle_epi32(c, 0xB1)));
}
ALWAYS_INLINE vm v_iless(vi a, vi b) {
    return _mm256_cmpgt_epi32(b, a);
}
ALWAYS_INLINE vm v_iless_unsigned(vi a, vi b) {
    vi flip = _mm256_set1_epi32(INT32_MIN);
    return _mm256_cmpgt_epi32(_mm256_xor_si256(b, flip), _mm256_xor_si256(a, flip));
}
ALWAYS_INLINE vi v_shift_left(vi a, int n) {
    return _mm256_slli_epi32(a, n);
}
ALWAYS_INLINE vi v_shift_right(vi a, int n) {
    return _mm256_srli_epi32(a, n);
}
ALWAYS_INLINE vi v_to_int(vf a) {
    return _mm256_cvtps_epi32(a);
}
ALWAYS_INLINE vi v_truncate(vf a) {
    return _mm256_cvttps_epi32(a);
}
ALWAYS_INLINE vf v_gather(const float *table, vi at) {
    return _mm256_i32gather_ps(table, at, 4);
}
ALWAYS_INLINE void v_multiply_wide(vi a, vi b, vi *high, vi *low) {
    vi even = _mm256_mul_epu32(a, b), odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), b);
    *low = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA);
    *high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA);
}

ALWAYS_INLINE float v_sum(vf a) {
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
}
ALWAYS_INLINE float v_largest(vf a) {
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_shuffle_ps(c, c, 1)));
}

#endif

ALWAYS_INLINE vf v_abs(vf a) {
    return v_from_bits(v_iand(v_bits(a), v_iset(0x7FFFFFFF)));
}
ALWAYS_INLINE vf v_copysign(vf magnitude, vf sign) {
    vi mask = v_iset(INT32_MIN);
    return v_from_bits(v_ior(v_iand(v_bits(sign), mask), v_iand(v_bits(magnitude), v_iset(0x7FFFFFFF))));
}

/* All lanes full but the last step: for (size_t i = 0; i < n; i += VL) { vm m = v_first(n - i); ... } */

#endif
