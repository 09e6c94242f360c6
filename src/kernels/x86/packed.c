/* Products with packed codes: codes become bytes in registers by shuffles of a table, and meet the inputs in
 * 8-bit dot products. Compiled for AVX2 and AVX-512 (maddubs: 255 x 64 x 2 fits 16 bits) and for their VNNI
 * forms. AMX's tiles would be one more form, for many tokens: `bytes` and `dot` are what it needs.
 *
 * A block of 128 weights is two vectors of AVX-512 or four of AVX2. */
#include <string.h>

#include "kernels/x86/x86.h"

enum {
    BLOCK = 128,
    AHEAD = 16384 /* bytes of codes that are fetched before they are needed; rows follow each other */
};

#ifdef __AVX512F__
typedef __m512i vb;
enum { VECTORS = 2, ROWS_OF_ONE = 8, ROWS_OF_MANY = 4, MANY = 4 };
#define B(name)    _mm512_##name
#define BV(name)   _mm512_##name##_si512
#define B_LOAD(p)  _mm512_loadu_si512(p)
#define B_TABLE(p) _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(p)))
#define B_SHIFT    _mm512_srli_epi16
#else
typedef __m256i vb;
enum { VECTORS = 4, ROWS_OF_ONE = 4, ROWS_OF_MANY = 2, MANY = 4 };
#define B(name)    _mm256_##name
#define BV(name)   _mm256_##name##_si256
#define B_LOAD(p)  _mm256_loadu_si256((const __m256i *)(p))
#define B_TABLE(p) _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(p)))
#define B_SHIFT    _mm256_srli_epi16
#endif

/* Codes of vector v of a block. `bits` and v are constants wherever this is inlined. */
ALWAYS_INLINE vb codes_of(const int bits, const uint8_t *block, const int v) {
    vb codes = BV(setzero)();
    int shift = 0;
    if (bits & 4) { /* 64 bytes: low nibbles are the first half of the block */
#ifdef __AVX512F__
        vb plane = B_LOAD(block);
        codes = BV(and)(v ? B_SHIFT(plane, 4) : plane, B(set1_epi8)(15));
#else
        vb plane = B_LOAD(block + 32 * (v % 2));
        codes = BV(and)(v / 2 ? B_SHIFT(plane, 4) : plane, B(set1_epi8)(15));
#endif
        shift = 4;
        block += 64;
    }
    if (bits & 2) { /* 32 bytes: one quarter of the block after the other */
#ifdef __AVX512F__
        vb plane = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)block));
        const int low = 4 * v, high = 4 * v + 2;
        plane = _mm512_srlv_epi32(plane, _mm512_set_epi32(high, high, high, high, high, high, high, high, low,
                                                          low, low, low, low, low, low, low));
#else
        vb plane = B_SHIFT(B_LOAD(block), 2 * v);
#endif
        vb part = BV(and)(plane, B(set1_epi8)(3));
        codes = BV(or)(codes, shift ? B(slli_epi16)(part, 4) : part);
        shift += 2;
        block += 32;
    }
    if (bits & 1) { /* 16 bytes: one eighth after the other */
        vb plane = B_TABLE(block);
#ifdef __AVX512F__
        const int a = 4 * v, b = a + 1, c = a + 2, d = a + 3;
        plane = _mm512_srlv_epi32(plane, _mm512_set_epi32(d, d, d, d, c, c, c, c, b, b, b, b, a, a, a, a));
#else
        const int a = 2 * v, b = a + 1;
        plane = _mm256_srlv_epi32(plane, _mm256_set_epi32(b, b, b, b, a, a, a, a));
#endif
        codes = BV(or)(codes, B(sll_epi16)(BV(and)(plane, B(set1_epi8)(1)), _mm_cvtsi32_si128(shift)));
    }
    return codes;
}

/* A table of up to 128 bytes in registers, 16 entries each. */
typedef struct table {
    vb part[8];
} table;

ALWAYS_INLINE int parts_of(const int bits) {
    return bits > 4 ? 1 << (bits - 4) : 1;
}

ALWAYS_INLINE table load_table(const int bits, const void *entries) {
    table t;
    uint8_t padded[16] = {0};
    if (bits < 4) {
        memcpy(padded, entries, (size_t)1 << bits);
        entries = padded;
    }
#pragma GCC unroll 8
    for (int k = 0; k < parts_of(bits); k++) t.part[k] = B_TABLE((const uint8_t *)entries + 16 * k);
    return t;
}

/* table[codes] */
ALWAYS_INLINE vb bytes_of(const int bits, const table *t, vb codes) {
    vb bytes = B(shuffle_epi8)(t->part[0], codes); /* by the low four bits */
    if (bits <= 4) return bytes;
    vb which = BV(and)(B_SHIFT(codes, 4), B(set1_epi8)(7));
#pragma GCC unroll 8
    for (int k = 1; k < parts_of(bits); k++) {
#ifdef __AVX512F__
        bytes = _mm512_mask_shuffle_epi8(bytes, _mm512_cmpeq_epi8_mask(which, _mm512_set1_epi8((char)k)),
                                         t->part[k], codes);
#else
        vb here = _mm256_cmpeq_epi8(which, _mm256_set1_epi8((char)k));
        bytes = _mm256_blendv_epi8(bytes, _mm256_shuffle_epi8(t->part[k], codes), here);
#endif
    }
    return bytes;
}

/* sum + the products of four neighbours, x unsigned and w signed. */
ALWAYS_INLINE vb dot(vb sum, vb x, vb w) {
#if defined(__AVX512VNNI__)
    return _mm512_dpbusd_epi32(sum, x, w);
#elif defined(__AVXVNNI__)
    return _mm256_dpbusd_avx_epi32(sum, x, w);
#else
    return B(add_epi32)(sum, B(madd_epi16)(B(maddubs_epi16)(x, w), B(set1_epi16)(1)));
#endif
}

ALWAYS_INLINE int32_t sum_of(vb a) {
#ifdef __AVX512F__
    __m256i b = _mm256_add_epi32(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64(a, 1));
#else
    __m256i b = a;
#endif
    __m128i c = _mm_add_epi32(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1));
    c = _mm_add_epi32(c, _mm_unpackhi_epi64(c, c));
    return _mm_cvtsi128_si32(_mm_add_epi32(c, _mm_shuffle_epi32(c, 1)));
}

/* Four sums to one vector of 128 bits. */
ALWAYS_INLINE __m128i sums_of_four(vb a, vb b, vb c, vb d) {
    vb ab = B(add_epi32)(B(unpacklo_epi32)(a, b), B(unpackhi_epi32)(a, b));
    vb cd = B(add_epi32)(B(unpacklo_epi32)(c, d), B(unpackhi_epi32)(c, d));
    vb all = B(add_epi32)(B(unpacklo_epi64)(ab, cd), B(unpackhi_epi64)(ab, cd));
#ifdef __AVX512F__
    __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
#else
    __m256i half = all;
#endif
    return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

/* One job: what packed_dots is asked for. */
typedef struct job {
    const uint8_t *codes;
    size_t row_bytes, blocks;
    const uint8_t *const *x;
    int32_t *out;
    size_t stride;
} job;

/* Rows r .. r + rows, tokens t .. t + tokens, whole rows. */
ALWAYS_INLINE void tile(const int bits, const table *tab, const job *j, size_t r, size_t t, const int rows,
                        const int tokens) {
    vb sum[ROWS_OF_ONE > ROWS_OF_MANY * MANY ? ROWS_OF_ONE : ROWS_OF_MANY * MANY];
    const uint8_t *at = j->codes + r * j->row_bytes, *x[MANY];
#pragma GCC unroll 4
    for (int n = 0; n < tokens; n++) x[n] = j->x[t + (size_t)n];
#pragma GCC unroll 16
    for (int k = 0; k < rows * tokens; k++) sum[k] = BV(setzero)();
    for (size_t b = 0; b < j->blocks; b++, at += 16 * bits)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) {
            vb in[MANY];
            const size_t from = b * BLOCK + (size_t)v * sizeof(vb);
#pragma GCC unroll 4
            for (int n = 0; n < tokens; n++) in[n] = B_LOAD(x[n] + from);
#pragma GCC unroll 8
            for (int k = 0; k < rows; k++) {
                const uint8_t *block = at + (size_t)k * j->row_bytes;
                if (v == 0) _mm_prefetch((const char *)block + AHEAD, _MM_HINT_T0);
                vb w = bytes_of(bits, tab, codes_of(bits, block, v));
#pragma GCC unroll 4
                for (int n = 0; n < tokens; n++) sum[k * tokens + n] = dot(sum[k * tokens + n], in[n], w);
            }
        }
#pragma GCC unroll 4
    for (int n = 0; n < tokens; n++) {
        int32_t *out = j->out + (t + (size_t)n) * j->stride + r;
        int k = 0;
#pragma GCC unroll 2
        for (; k + 4 <= rows; k += 4)
            _mm_storeu_si128((__m128i *)(out + k),
                             sums_of_four(sum[k * tokens + n], sum[(k + 1) * tokens + n],
                                          sum[(k + 2) * tokens + n], sum[(k + 3) * tokens + n]));
#pragma GCC unroll 4
        for (; k < rows; k++) out[k] = sum_of(sum[k * tokens + n]);
    }
}

ALWAYS_INLINE void whole_rows(const int bits, const void *digit, const job *j, size_t rows, size_t tokens) {
    const table tab = load_table(bits, digit);
    size_t r = 0;
    if (tokens == 1)
        for (; r + ROWS_OF_ONE <= rows; r += ROWS_OF_ONE) tile(bits, &tab, j, r, 0, ROWS_OF_ONE, 1);
    for (; r + ROWS_OF_MANY <= rows; r += ROWS_OF_MANY) {
        size_t t = 0;
        for (; t + MANY <= tokens; t += MANY) tile(bits, &tab, j, r, t, ROWS_OF_MANY, MANY);
        if (tokens - t == 3) tile(bits, &tab, j, r, t, ROWS_OF_MANY, 3);
        if (tokens - t == 2) tile(bits, &tab, j, r, t, ROWS_OF_MANY, 2);
        if (tokens - t == 1) tile(bits, &tab, j, r, t, ROWS_OF_MANY, 1);
    }
    for (; r < rows; r++)
        for (size_t t = 0; t < tokens; t++) tile(bits, &tab, j, r, t, 1, 1);
}

/* The sums of the four quarters of a block of products. */
ALWAYS_INLINE __m128i quarters(const int bits, const table *tab, const uint8_t *block, const uint8_t *x) {
    __m256i part[4];
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) {
        vb w = bytes_of(bits, tab, codes_of(bits, block, v));
        vb s = dot(BV(setzero)(), B_LOAD(x + (size_t)v * sizeof(vb)), w);
#ifdef __AVX512F__
        part[2 * v] = _mm512_castsi512_si256(s);
        part[2 * v + 1] = _mm512_extracti64x4_epi64(s, 1);
#else
        part[v] = s;
#endif
    }
    __m256i all = _mm256_hadd_epi32(_mm256_hadd_epi32(part[0], part[1]), _mm256_hadd_epi32(part[2], part[3]));
    return _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
}

ALWAYS_INLINE void in_groups(const int bits, const void *digit, const job *j, size_t rows, size_t group,
                             size_t tokens) {
    const table tab = load_table(bits, digit);
    const size_t groups = BLOCK / group;
    for (size_t r = 0; r < rows; r++)
        for (size_t t = 0; t < tokens; t++) {
            int32_t *out = j->out + t * j->stride + r * j->blocks * groups;
            for (size_t b = 0; b < j->blocks; b++, out += groups) {
                int32_t sum[4];
                __m128i four =
                    quarters(bits, &tab, j->codes + r * j->row_bytes + b * 16 * bits, j->x[t] + b * BLOCK);
                _mm_storeu_si128((__m128i *)sum, four);
                if (groups == 4)
                    memcpy(out, sum, sizeof sum);
                else if (groups == 2)
                    out[0] = sum[0] + sum[1], out[1] = sum[2] + sum[3];
                else
                    out[0] = sum[0] + sum[1] + sum[2] + sum[3];
            }
        }
}

ALWAYS_INLINE void dots(const int bits, const int8_t *digit, const job *j, size_t rows, size_t group,
                        size_t tokens) {
    if (group)
        in_groups(bits, digit, j, rows, group, tokens);
    else
        whole_rows(bits, digit, j, rows, tokens);
}

void PQ_ISA_NAME(packed_dots)(int bits, const int8_t *digit, const uint8_t *codes, size_t rows, size_t blocks,
                              size_t group, const uint8_t *const *x, size_t tokens, int32_t *out,
                              size_t stride) {
    const job j = {codes, blocks * 16 * (size_t)bits, blocks, x, out, stride};
    switch (bits) { /* so that each has its own loops */
    case 1:
        dots(1, digit, &j, rows, group, tokens);
        break;
    case 2:
        dots(2, digit, &j, rows, group, tokens);
        break;
    case 3:
        dots(3, digit, &j, rows, group, tokens);
        break;
    case 4:
        dots(4, digit, &j, rows, group, tokens);
        break;
    case 5:
        dots(5, digit, &j, rows, group, tokens);
        break;
    case 6:
        dots(6, digit, &j, rows, group, tokens);
        break;
    default:
        dots(7, digit, &j, rows, group, tokens);
        break;
    }
}

#ifndef PQ_VNNI
ALWAYS_INLINE uint8_t any_of(const int bits, const uint8_t *entries, const uint8_t *codes, size_t blocks) {
    const table tab = load_table(bits, entries);
    vb found = BV(setzero)();
    for (size_t b = 0; b < blocks; b++, codes += 16 * bits)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++)
            found = BV(or)(found, bytes_of(bits, &tab, codes_of(bits, codes, v)));
    uint8_t bytes[sizeof(vb)], any = 0;
    memcpy(bytes, &found, sizeof bytes);
    for (size_t i = 0; i < sizeof bytes; i++) any |= bytes[i];
    return any;
}

void PQ_ISA_NAME(packed_any)(int bits, const uint8_t *entries, const uint8_t *codes, size_t blocks,
                             uint8_t *any) {
    switch (bits) {
    case 1:
        *any = any_of(1, entries, codes, blocks);
        break;
    case 2:
        *any = any_of(2, entries, codes, blocks);
        break;
    case 3:
        *any = any_of(3, entries, codes, blocks);
        break;
    case 4:
        *any = any_of(4, entries, codes, blocks);
        break;
    case 5:
        *any = any_of(5, entries, codes, blocks);
        break;
    case 6:
        *any = any_of(6, entries, codes, blocks);
        break;
    default:
        *any = any_of(7, entries, codes, blocks);
        break;
    }
}

void PQ_ISA_NAME(packed_outputs)(const int32_t *sums_of_products, const int32_t *sums, const float *scales,
                                 const float *bias, const pq_int8_row *x, float *out, size_t n) {
    vi zero = v_iset(x->zero);
    vf scale = v_set(x->scale);
    size_t r = 0;
    for (; r + VL <= n; r += VL) {
        vi whole = B(sub_epi32)(B_LOAD(sums_of_products + r), B(mullo_epi32)(zero, B_LOAD(sums + r)));
        vf y = v_mul(v_mul(B(cvtepi32_ps)(whole), v_load(scales + r)), scale);
        v_store(out + r, bias ? v_add(y, v_load(bias + r)) : y);
    }
    for (; r < n; r++) {
        float y = (float)(sums_of_products[r] - x->zero * sums[r]) * scales[r] * x->scale;
        out[r] = bias ? y + bias[r] : y;
    }
}
#endif
