/* The floating-point steps of the integer recipe, vectorised: the bits of ref/recipe.c. Sixteen lanes are one
 * vector of AVX-512 or two of AVX2; there is no fused multiply-add here. */
#include <math.h>
#include <string.h>

#include "kernels/x86/x86.h"

enum { LANES = 16, PARTS = LANES / VL };

/* Sixteen sums. */
typedef struct lanes {
    vf part[PARTS];
} lanes;

ALWAYS_INLINE lanes no_sums(void) {
    lanes s;
    for (int h = 0; h < PARTS; h++) s.part[h] = v_zero();
    return s;
}

/* In the recipe's tree: lane l + 8 to l, then v_sum's 4, 2, 1. */
ALWAYS_INLINE float fold(lanes s) {
    vf sum = s.part[0];
    for (int h = 1; h < PARTS; h++) sum = v_add(sum, s.part[h]);
    return v_sum(sum);
}

ALWAYS_INLINE vf load(const float *x, size_t left) {
    return left >= VL ? v_load(x) : v_load_some(v_first(left), x);
}

ALWAYS_INLINE void store(float *x, size_t left, vf a) {
    if (left >= VL)
        v_store(x, a);
    else
        v_store_some(v_first(left), x, a);
}

/* For part h of the sixteen numbers from i on: how many of n are left. */
ALWAYS_INLINE size_t left_at(size_t n, size_t i) {
    return n > i ? n - i : 0;
}

void PQ_ISA_NAME(recipe_norm)(const float *x, const float *gain, const float *bias, float *out, size_t rows,
                              size_t width) {
    for (size_t r = 0; r < rows; r++, x += width, out += width) {
        lanes sum = no_sums(), squares = no_sums();
        for (size_t i = 0; i < width; i += LANES)
            for (size_t h = 0, at = i; h < PARTS && at < width; h++, at += VL)
                sum.part[h] = v_add(sum.part[h], load(x + at, width - at));
        vf mean = v_set(fold(sum) / (float)width);
        for (size_t i = 0; i < width; i += LANES)
            for (size_t h = 0, at = i; h < PARTS && at < width; h++, at += VL) {
                vf d = v_sub(load(x + at, width - at), mean);
                if (width - at < VL) d = v_select(v_first(width - at), d, v_zero());
                squares.part[h] = v_add(squares.part[h], v_mul(d, d));
            }
        vf rstd = v_set(1.0f / sqrtf(fold(squares) / (float)width + 1e-5f));
        for (size_t i = 0; i < width; i += VL) {
            vf y = v_mul(v_mul(v_sub(load(x + i, width - i), mean), rstd), load(gain + i, width - i));
            store(out + i, width - i, bias ? v_add(y, load(bias + i, width - i)) : y);
        }
    }
}

static bool has_outliers(const float *x, size_t n, float span) {
    lanes sum = no_sums();
    for (size_t i = 0; i < n; i += LANES)
        for (size_t h = 0, at = i; h < PARTS && at < n; h++, at += VL)
            sum.part[h] = v_add(sum.part[h], v_abs(load(x + at, n - at)));
    return span > PQ_WIDE_SPAN * (fold(sum) / (float)n);
}

/* The bytes of VL numbers below 256. */
ALWAYS_INLINE void store_bytes(uint8_t *out, vi a) {
#ifdef __AVX512F__
    _mm_storeu_si128((__m128i *)out, _mm512_cvtepi32_epi8(a));
#else
    __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    _mm_storel_epi64((__m128i *)out, _mm_packus_epi16(words, words));
#endif
}

ALWAYS_INLINE vi upper_byte(vi a) {
#ifdef __AVX512F__
    return _mm512_srli_epi32(a, 8);
#else
    return _mm256_srli_epi32(a, 8);
#endif
}

void PQ_ISA_NAME(recipe_codes)(const float *x, size_t n, bool may_widen, uint8_t *low, uint8_t *high,
                               pq_int8_row *row) {
    const size_t padded = (n + 127) / 128 * 128;
    float least, most;
    PQ_ISA_NAME(extremes)(x, &least, &most, n);
    const float span = (most > 0 ? most : 0) - (least < 0 ? least : 0);
    const bool wide = may_widen && has_outliers(x, n, span);
    const float top = wide ? 65535 : 255;
    const pq_affine grid = pq_affine_make(least, most, 0, top, PQ_INT8_ROW_LEAST);
    *row = (pq_int8_row){.scale = grid.scale, .wide = wide};
    if (!isfinite(grid.scale)) {
        memset(low, 0, padded);
        if (wide) memset(high, 0, padded);
        return;
    }
    row->zero = (int32_t)grid.zero;
    for (size_t i = 0; i < padded; i += VL) {
        vi u = v_iset(0);
        if (i < n) {
            vf q = v_add(v_round(v_mul(load(x + i, n - i), v_set(grid.inverse))), v_set(grid.zero));
            q = v_min(v_set(top), v_max(v_zero(), q));
            if (n - i < VL) q = v_select(v_first(n - i), q, v_zero());
            u = v_to_int(q);
        }
        store_bytes(low + i, v_iand(u, v_iset(255)));
        if (wide) store_bytes(high + i, upper_byte(u));
    }
}

/* p * a + b, each rounded. */
ALWAYS_INLINE vf step(vf p, vf a, float b) {
    return v_add(v_mul(p, a), v_set(b));
}

ALWAYS_INLINE vf power_of_e(vf x) {
    vm flush = v_less(x, v_set(-87.33f));
    vf y = v_max(v_set(-87.33f), v_min(v_set(88.0f), x)); /* in this order NaN stays NaN */
    vf k = v_round(v_mul(y, v_set(1.44269504f)));
    vf f = v_sub(y, v_mul(k, v_set(0.693359375f)));
    f = v_add(f, v_mul(k, v_set(2.12194440e-4f)));
    f = v_mul(f, v_set(1.44269504f));
    vf p = step(v_set(1.54780177e-4f), f, 1.34004317e-3f);
    p = step(p, f, 9.61799453e-3f);
    p = step(p, f, 5.55032722e-2f);
    p = step(p, f, 2.40226515e-1f);
    p = step(p, f, 6.93147207e-1f);
    p = step(p, f, 1.0f);
    vf power = v_from_bits(v_shift_left(v_iadd(v_to_int(k), v_iset(127)), 23));
    return v_select(flush, v_zero(), v_mul(p, power));
}

ALWAYS_INLINE vf gelu_erf(vf x) {
    vf t = v_mul(v_abs(x), v_set(0.70710678f)), s = v_mul(t, t), m = v_min(v_set(9.4f), t);
    vf p = step(v_set(7.889119522911749e-05f), s, -0.0008020841277289003f);
    p = step(p, s, 0.0051895353390879456f);
    p = step(p, s, -0.026854444591790965f);
    p = step(p, s, 0.11283600176254961f);
    p = step(p, s, -0.37612627135965626f);
    p = step(p, s, 1.1283791659137499f);
    vf near = v_sub(v_set(0.5f), v_mul(p, v_mul(t, v_set(0.5f))));
    vf q = step(v_set(2.98592506275952e-09f), m, -1.7235043969776598e-07f);
    q = step(q, m, 4.447709670785116e-06f);
    q = step(q, m, -6.808352191001177e-05f);
    q = step(q, m, 0.000693075533490628f);
    q = step(q, m, -0.0050007253885269165f);
    q = step(q, m, 0.02673581801354885f);
    q = step(q, m, -0.11017752438783646f);
    q = step(q, m, -0.6320866942405701f);
    q = step(q, m, -1.1299138069152832f);
    q = step(q, m, 0.00020808780391234905f);
    vf far = v_mul(v_set(0.5f), power_of_e(q));
    vf low = v_select(v_less(t, v_set(1.0f)), near, far);
    return v_mul(x, v_select(v_less(x, v_zero()), low, v_sub(v_set(1.0f), low)));
}

ALWAYS_INLINE vf gelu_tanh(vf x) {
    vf w = v_mul(x, step(v_mul(x, x), v_set(0.0713548162726f), 1.59576912161f));
    vf power = power_of_e(v_from_bits(v_ixor(v_bits(w), v_iset(INT32_MIN))));
    return v_mul(x, v_div(v_set(1.0f), v_add(v_set(1.0f), power)));
}

#define EACH(name, value)                                                                                    \
    void PQ_ISA_NAME(name)(const float *x, float *out, size_t n) {                                           \
        for (size_t i = 0; i < n; i += VL) store(out + i, n - i, value(load(x + i, n - i)));                 \
    }

EACH(recipe_exp, power_of_e)
EACH(recipe_gelu_erf, gelu_erf)
EACH(recipe_gelu_tanh, gelu_tanh)

/* VL halves as floats; all of them are read. */
ALWAYS_INLINE vf load_halves(const uint16_t *x) {
#ifdef __AVX512F__
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)x));
#else
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)x));
#endif
}

ALWAYS_INLINE void store_halves(uint16_t *out, vf a) {
#ifdef __AVX512F__
    _mm256_storeu_si256((__m256i *)out, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
    _mm_storeu_si128((__m128i *)out, _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#endif
}

void PQ_ISA_NAME(to_half)(const float *x, uint16_t *out, size_t n) {
    size_t i = 0;
    for (; i + VL <= n; i += VL) store_halves(out + i, v_load(x + i));
    uint16_t rest[VL];
    if (i < n) {
        store_halves(rest, load(x + i, n - i));
        memcpy(out + i, rest, (n - i) * sizeof *out);
    }
}

/* Numbers c .. c + VL of one key or value. */
ALWAYS_INLINE vf element(const void *array, const bool half, size_t at, size_t left) {
    if (!half) return load((const float *)array + at, left);
    const uint16_t *x = (const uint16_t *)array + at;
    uint16_t rest[VL] = {0};
    if (left >= VL) return load_halves(x);
    memcpy(rest, x, left * sizeof *x);
    return load_halves(rest);
}

/* Sum of e^(scores - largest), which take the place of the scores. */
static float exponentials(float *scores, size_t n, float largest) {
    lanes sum = no_sums();
    vf top = v_set(largest);
    for (size_t i = 0; i < n; i += LANES)
        for (size_t h = 0, at = i; h < PARTS && at < n; h++, at += VL) {
            vf e = power_of_e(v_sub(load(scores + at, n - at), top));
            if (n - at < VL) e = v_select(v_first(n - at), e, v_zero());
            store(scores + at, n - at, e);
            sum.part[h] = v_add(sum.part[h], e);
        }
    return fold(sum);
}

/* out[c] = share * sum over j of scores[j] values[j][c], for `vectors` vectors from c on, the last of which
 * may be short. */
ALWAYS_INLINE void blend(const float *scores, const void *values, const bool half, size_t stride, size_t n,
                         size_t c, size_t left, const size_t vectors, float share, float *out) {
    vf total[4];
#pragma GCC unroll 4
    for (size_t k = 0; k < vectors; k++) total[k] = v_zero();
    for (size_t j = 0; j < n; j++) {
        vf score = v_set(scores[j]);
#pragma GCC unroll 4
        for (size_t k = 0; k < vectors; k++)
            total[k] =
                v_add(total[k],
                      v_mul(score, element(values, half, j * stride + c + k * VL, vectors > 1 ? VL : left)));
    }
#pragma GCC unroll 4
    for (size_t k = 0; k < vectors; k++)
        store(out + c + k * VL, vectors > 1 ? VL : left, v_mul(total[k], v_set(share)));
}

ALWAYS_INLINE void attend(const float *q, const void *keys, const void *values, const bool half,
                          size_t stride, size_t n, size_t head_size, float *out, float *scores) {
    const float factor = 1.0f / sqrtf((float)head_size);
    float largest = 0;
    for (size_t j = 0; j < n; j++) {
        lanes dot = no_sums();
        for (size_t c = 0; c < head_size; c += LANES)
#pragma GCC unroll 2
            for (size_t h = 0; h < PARTS; h++) {
                size_t at = c + h * VL;
                if (at >= head_size) break;
                vf product =
                    v_mul(load(q + at, head_size - at), element(keys, half, j * stride + at, head_size - at));
                dot.part[h] = v_add(dot.part[h], product);
            }
        scores[j] = fold(dot) * factor;
        if (j == 0 || scores[j] > largest) largest = scores[j];
    }
    const float share = 1.0f / exponentials(scores, n, largest);
    size_t c = 0;
    for (; head_size - c >= 4 * VL; c += 4 * VL)
        blend(scores, values, half, stride, n, c, 4 * VL, 4, share, out);
    for (; c < head_size; c += VL)
        blend(scores, values, half, stride, n, c, left_at(head_size, c), 1, share, out);
}

#ifdef __AVX512F__
enum { KEYS = 16, QUERIES = PQ_RECIPE_QUERIES, MOST_HEAD = 128 };

/* The folded sums of sixteen vectors, in order: each step of the tree for two vectors at once. */
ALWAYS_INLINE vf fold_sixteen(vf *s) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) /* lane l + 8 to l */
        s[i] = v_add(_mm512_shuffle_f32x4(s[2 * i], s[2 * i + 1], 0x44),
                     _mm512_shuffle_f32x4(s[2 * i], s[2 * i + 1], 0xEE));
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) /* l + 4 */
        s[i] = v_add(_mm512_shuffle_f32x4(s[2 * i], s[2 * i + 1], 0x88),
                     _mm512_shuffle_f32x4(s[2 * i], s[2 * i + 1], 0xDD));
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) { /* l + 2 */
        __m512d a = _mm512_castps_pd(s[2 * i]), b = _mm512_castps_pd(s[2 * i + 1]);
        s[i] = v_add(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    vf all = v_add(_mm512_shuffle_ps(s[0], s[1], 0x88), _mm512_shuffle_ps(s[0], s[1], 0xDD)); /* l + 1 */
    return _mm512_permutexvar_ps(_mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0), all);
}

/* `rows` (at most KEYS) keys or values as fp32, zeros behind them. */
static void widen(const void *array, bool half, size_t stride, size_t rows, size_t head_size, float *out) {
    for (size_t r = 0; r < KEYS; r++)
        for (size_t c = 0; c < head_size; c += VL)
            v_store(out + r * head_size + c, r >= rows ? v_zero()
                                             : half    ? element(array, true, r * stride + c, VL)
                                                       : element(array, false, r * stride + c, VL));
}

static const void *row_of(const void *array, bool half, size_t at) {
    return half ? (const void *)((const uint16_t *)array + at) : (const void *)((const float *)array + at);
}

/* scores[i][0 .. rounded up to KEYS) of some queries against `length` keys. */
static void score(const float *q, size_t q_stride, size_t queries, const void *keys, bool half, size_t stride,
                  size_t length, size_t head_size, float *scores, size_t scores_stride) {
    const vf factor = v_set(1.0f / sqrtf((float)head_size));
    float wide[KEYS * MOST_HEAD];
    for (size_t j = 0; j < length; j += KEYS) {
        widen(row_of(keys, half, j * stride), half, stride, length - j < KEYS ? length - j : KEYS, head_size,
              wide);
        for (size_t i = 0; i < queries; i++) {
            vf sum[KEYS];
#pragma GCC unroll 16
            for (int k = 0; k < KEYS; k++) sum[k] = v_zero();
            for (size_t c = 0; c < head_size; c += VL) {
                vf a = v_load(q + i * q_stride + c);
#pragma GCC unroll 16
                for (int k = 0; k < KEYS; k++)
                    sum[k] = v_add(sum[k], v_mul(a, v_load(wide + (size_t)k * head_size + c)));
            }
            v_store(scores + i * scores_stride + j, v_mul(fold_sixteen(sum), factor));
        }
    }
}

/* totals[i][c] += sum over the rows of scores[i][row] wide[row][c], rows rising; vectors of columns from c
 * on. */
ALWAYS_INLINE void gather(const float *scores, size_t scores_stride, const float *wide, size_t rows,
                          size_t head_size, size_t c, const size_t queries, const size_t vectors,
                          float (*totals)[MOST_HEAD]) {
    vf total[QUERIES][4];
#pragma GCC unroll 4
    for (size_t i = 0; i < queries; i++)
#pragma GCC unroll 4
        for (size_t k = 0; k < vectors; k++) total[i][k] = v_load(totals[i] + c + k * VL);
    for (size_t r = 0; r < rows; r++) {
        vf v[4];
#pragma GCC unroll 4
        for (size_t k = 0; k < vectors; k++) v[k] = v_load(wide + r * head_size + c + k * VL);
#pragma GCC unroll 4
        for (size_t i = 0; i < queries; i++) {
            vf p = v_set(scores[i * scores_stride + r]);
#pragma GCC unroll 4
            for (size_t k = 0; k < vectors; k++) total[i][k] = v_add(total[i][k], v_mul(p, v[k]));
        }
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < queries; i++)
#pragma GCC unroll 4
        for (size_t k = 0; k < vectors; k++) v_store(totals[i] + c + k * VL, total[i][k]);
}

static void gather_all(const float *scores, size_t scores_stride, const float *wide, size_t rows,
                       size_t head_size, size_t queries, float (*totals)[MOST_HEAD]) {
    size_t c = 0;
    for (; c + 4 * VL <= head_size; c += 4 * VL) {
        if (queries == QUERIES)
            gather(scores, scores_stride, wide, rows, head_size, c, QUERIES, 4, totals);
        else
            for (size_t i = 0; i < queries; i++)
                gather(scores + i * scores_stride, 0, wide, rows, head_size, c, 1, 4, totals + i);
    }
    for (; c < head_size; c += VL)
        for (size_t i = 0; i < queries; i++)
            gather(scores + i * scores_stride, 0, wide, rows, head_size, c, 1, 1, totals + i);
}

static float largest_of(const float *scores, size_t n) {
    const vf first = v_set(scores[0]);
    vf largest = first;
    for (size_t j = 0; j < n; j += VL) {
        vf a = load(scores + j, n - j);
        largest = v_max(largest, n - j < VL ? v_select(v_first(n - j), a, first) : a);
    }
    return v_largest(largest);
}

/* Up to QUERIES queries together. A query's own last keys, which those before it do not see, come in turn. */
static void attend_together(const float *q, size_t q_stride, size_t queries, const void *keys,
                            const void *values, bool half, size_t stride, size_t n, size_t head_size,
                            float *out, size_t out_stride, float *scores) {
    const size_t length = n + queries - 1, padded = (length + KEYS - 1) / KEYS * KEYS;
    float wide[KEYS * MOST_HEAD], totals[QUERIES][MOST_HEAD] = {0}, share[QUERIES];
    score(q, q_stride, queries, keys, half, stride, length, head_size, scores, padded);
    for (size_t i = 0; i < queries; i++) {
        float *row = scores + i * padded;
        share[i] = 1.0f / exponentials(row, n + i, largest_of(row, n + i));
    }
    for (size_t j = 0; j < length; j += KEYS) {
        const size_t rows = length - j < KEYS ? length - j : KEYS, common = n > j ? n - j : 0;
        const size_t shared = common < rows ? common : rows;
        widen(row_of(values, half, j * stride), half, stride, rows, head_size, wide);
        gather_all(scores + j, padded, wide, shared, head_size, queries, totals);
        for (size_t r = shared; r < rows; r++)
            for (size_t i = 0; i < queries; i++)
                if (j + r < n + i)
                    gather_all(scores + i * padded + j + r, padded, wide + r * head_size, 1, head_size, 1,
                               totals + i);
    }
    for (size_t i = 0; i < queries; i++)
        for (size_t c = 0; c < head_size; c += VL)
            v_store(out + i * out_stride + c, v_mul(v_load(totals[i] + c), v_set(share[i])));
}
#endif

void PQ_ISA_NAME(recipe_attention)(const float *q, size_t q_stride, size_t queries, const void *keys,
                                   const void *values, bool half, size_t stride, size_t n, size_t head_size,
                                   float *out, size_t out_stride, float *scores) {
#ifdef __AVX512F__
    if (head_size % VL == 0 && head_size <= MOST_HEAD) {
        for (size_t i = 0; i < queries; i += QUERIES)
            attend_together(q + i * q_stride, q_stride, queries - i < QUERIES ? queries - i : QUERIES, keys,
                            values, half, stride, n + i, head_size, out + i * out_stride, out_stride, scores);
        return;
    }
#endif
    for (size_t i = 0; i < queries; i++)
        if (half)
            attend(q + i * q_stride, keys, values, true, stride, n + i, head_size, out + i * out_stride,
                   scores);
        else
            attend(q + i * q_stride, keys, values, false, stride, n + i, head_size, out + i * out_stride,
                   scores);
}
