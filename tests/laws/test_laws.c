/* The laws of docs/quantizers.md over every quantizer, several parameters, scales and granularities. What a
 * level is comes from an oracle here that searches all levels in exact arithmetic, not from bits. */
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "base/threads.h"
#include "cases.h"
#include "kernels/kernels.h"
#include "tests/harness/suite.h"

/* Scales that keep each case's levels finite and normal. */
static const float scales[] = {1.0f, 0.0078125f, 0.369140625f, 0.1f, 0x1p-126f, 0x1.fep-126f, 0x1.82p90f};
enum { SCALES = sizeof scales / sizeof *scales };

static float from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static uint32_t to_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* The value in units of s that `weight` must get: the level nearest to a = weight / s, by comparing squares
 * and products that are exact in double (a has 24 bits). */
static double oracle(const pq_codebook *b, float weight, float scale) {
    float quotient = weight / scale;
    double a = fabs((double)quotient), best = NAN;
    bool negative = weight < 0, uniform = strcmp(b->type->name, "uniform") == 0;
    bool released = strcmp(b->type->name, "pot-released") == 0;
    bool by_log = released || b->rounding == PQ_ROUND_LOG;
    if (isnan(weight)) return b->range[1];
    if (released) a = nearbyint(a);
    if (released && a == 0) return 0;
    for (int code = 0; code < 1 << b->bits; code++) {
        double v = (double)b->value[code], m = fabs(v), n = fabs(best);
        if (isnan(v)) continue;
        if (uniform) { /* nearest, half to even */
            double d = fabs(v - (double)quotient), e = fabs(best - (double)quotient);
            if (isinf(quotient) ? (v < 0) == negative && !(m <= n) : !(d >= e) || (d == e && fmod(v, 2) == 0))
                best = v;
            continue;
        }
        /* In units of the other levels: on the weight's side, or zero. */
        if (v != 0 && (v < 0) != negative) continue;
        if (isnan(best)) {
            best = v;
            continue;
        }
        double low = m < n ? m : n, high = m < n ? n : m;
        bool take_high;
        if (low == 0 && released)
            take_high = true;
        else if (low == 0 && by_log) /* zero ends at 2^-0.5 of the first level */
            take_high = 2 * a * a >= high * high;
        else if (by_log)
            take_high = a * a >= low * high;
        else
            take_high = 2 * a >= low + high;
        best = take_high == (m == high) ? v : best;
    }
    return best;
}

static void check_weight(const pq_codebook *b, int i, float weight, float scale) {
    double expected = oracle(b, weight, scale);
    float got = b->value[b->type->encode(b, weight, scale)];
    REQUIRE((double)got == expected, "case %d (%s): %a / %a gives %g, expected %g", i, b->type->name,
            (double)weight, (double)scale, (double)got, expected);
}

/* Law 5: each rounding decision, in windows of floats around every switch point and level, both signs. */
START_TEST(law5_switch_points) {
    pq_codebook b = case_codebook(_i);
    for (int s = 0; s < SCALES; s++) {
        for (double at = 0.25; at <= 2 * b.range[1]; at *= at < 8 ? 1 : 2) {
            static const double points[] = {1, 0.5, 0.75, 1.5, 1.41421356237309505, 0.70710678118654752};
            for (size_t p = 0; p < sizeof points / sizeof *points; p++) {
                uint32_t centre = to_bits((float)(at * points[p] * (double)scales[s]));
                for (uint32_t bits = centre > 40 ? centre - 40 : 0; bits < centre + 40 && bits < 0x7F800000;
                     bits++) {
                    check_weight(&b, _i, from_bits(bits), scales[s]);
                    check_weight(&b, _i, -from_bits(bits), scales[s]);
                }
            }
            if (at < 8) at += 0.25;
        }
    }
}
END_TEST

/* Law 5: all floats of five octaves, both signs: values rise with the weight, and each step stands where the
 * oracle, asked on both sides of it, has it. */
START_TEST(law5_exhaustive) {
    static const int chosen[] = {4, 10, 12, 17, 23, 32};
    pq_codebook b = case_codebook(chosen[_i]);
    for (int negative = 0; negative < 2; negative++) {
        uint32_t sign = negative ? 0x80000000 : 0, first = to_bits(0.3f) | sign, last = to_bits(9.0f) | sign;
        float before = b.value[b.type->encode(&b, from_bits(first), 1)];
        int steps = 0;
        for (uint32_t bits = first; bits <= last; bits++) {
            float value = b.value[b.type->encode(&b, from_bits(bits), 1)];
            if (value == before) continue;
            REQUIRE(fabsf(value) > fabsf(before), "case %d: %a falls to %g", chosen[_i],
                    (double)from_bits(bits), (double)value);
            check_weight(&b, chosen[_i], from_bits(bits - 1), 1);
            check_weight(&b, chosen[_i], from_bits(bits), 1);
            before = value;
            steps++;
        }
        check_weight(&b, chosen[_i], from_bits(first), 1);
        check_weight(&b, chosen[_i], from_bits(last), 1);
        ck_assert_int_ge(steps, 1);
    }
}
END_TEST

static const uint32_t special_bits[] = {
    0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x007FFFFF, 0x807FFFFF, 0x00800000, 0x80800000,
    0x3F000000, 0xBF000000, 0x3EFFFFFF, 0x3FC00000, 0xBFC00000, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000,
    0xFF800000, 0x7FC00000, 0xFFC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0x3F800000, 0xBF800000};
enum { SPECIALS = sizeof special_bits / sizeof *special_bits };

/* Weights of all magnitudes around the codebook's levels, with special values among them. */
static void fill(float *w, size_t n, float scale, const pq_codebook *b, uint64_t seed) {
    double octaves = log2(b->range[1]) + 6;
    for (size_t i = 0; i < n; i++) {
        uint32_t r[4];
        pq_random4(seed, PQ_STREAM_INIT, 3, i, r);
        double magnitude = exp2(pq_random_unit(r[0], r[1]) * octaves - 3) * (double)scale;
        w[i] = (float)(r[2] & 1 ? -magnitude : magnitude);
        if (r[3] % 16 == 0) w[i] = from_bits(special_bits[r[2] / 2 % SPECIALS]);
        if (r[3] % 16 == 1) w[i] = from_bits(r[2]); /* any float at all */
    }
}

/* Law 1: the fast path equals decode(encode(x)), bit for bit, at each length and alignment of tails; and
 * nothing is written behind the end. */
START_TEST(law1_fast_path) {
    enum { MOST = 200 };
    pq_codebook b = case_codebook(_i);
    for (int s = 0; s < SCALES; s++)
        for (size_t n = 0; n <= MOST; n += n < 70 ? 1 : 13) {
            float *w = malloc((n + 1) * sizeof *w), *fast = malloc((n + 1) * sizeof *fast), slow[MOST];
            uint8_t codes[MOST];
            fill(w, n, scales[s], &b, n * 10 + (size_t)s);
            fast[n] = 42;
            pq_fake_quantize(&b, w, scales[s], fast, n);
            pq_encode(&b, w, scales[s], codes, n);
            pq_decode(&b, codes, scales[s], slow, n);
            for (size_t i = 0; i < n; i++)
                REQUIRE(to_bits(fast[i]) == to_bits(slow[i]), "case %d, %a / %a: fast %a, code %d is %a", _i,
                        (double)w[i], (double)scales[s], (double)fast[i], codes[i], (double)slow[i]);
            ck_assert(fast[n] == 42);
            pq_fake_quantize(&b, w, scales[s], w, n); /* in place */
            for (size_t i = 0; i < n; i++)
                REQUIRE(to_bits(w[i]) == to_bits(slow[i]), "case %d: in place, element %zu differs", _i, i);
            free(w), free(fast);
        }
}
END_TEST

/* Law 2: encode(decode(code)) gives every canonical code back; the others are NaN; zeros of both signs are
 * one. */
START_TEST(law2_codes) {
    pq_codebook b = case_codebook(_i);
    int canonical = 0, zeros = 0;
    for (int code = 0; code < 256; code++) {
        if (isnan(b.value[code])) continue;
        canonical++;
        zeros += b.value[code] == 0;
        ck_assert_int_lt(code, 1 << b.bits);
        ck_assert((double)b.value[code] >= b.range[0] && (double)b.value[code] <= b.range[1]);
        for (int s = 0; s < SCALES; s++)
            REQUIRE(b.type->encode(&b, b.value[code] * scales[s], scales[s]) == code,
                    "case %d: code %d does not come back at scale %a", _i, code, (double)scales[s]);
    }
    ck_assert_int_eq(canonical, b.levels);
    ck_assert_int_eq(b.levels, cases[_i].levels);
    ck_assert_int_eq(b.bits, cases[_i].bits);
    ck_assert(1 << b.bits >= b.levels && 1 << (b.bits - 1) < b.levels);
    bool zero_free = strcmp(b.type->name, "pot-zero-free") == 0;
    ck_assert_int_eq(zeros, zero_free ? 0 : 1);
    ck_assert_int_eq(b.type->encode(&b, -0.0f, 1), b.type->encode(&b, 0.0f, 1));
    float least_positive = zero_free ? 1 : 0;
    ck_assert(b.value[b.type->encode(&b, -0.0f, 0.25f)] == least_positive);
    /* the ends exist, and the table starts with 0 or +1 where there are exponents */
    ck_assert((double)b.value[b.type->encode(&b, INFINITY, 1)] == b.range[1]);
    ck_assert((double)b.value[b.type->encode(&b, -INFINITY, 1)] == b.range[0]);
    if (b.exponents) ck_assert(b.value[0] == least_positive);
}
END_TEST

/* Law 3: a power-of-two value is exactly 0 or +-s 2^k, k below the number of exponents; with a scale of 8
 * bits each value of any codebook of at most 128 levels is exact in 16 + 8 bits, and a power-of-two one in
 * bf16. */
START_TEST(law3_powers) {
    pq_codebook b = case_codebook(_i);
    if (strncmp(b.type->name, "pot", 3) != 0) return;
    for (int code = 0; code < 256; code++) {
        if (isnan(b.value[code]) || b.value[code] == 0) continue;
        uint8_t one = (uint8_t)code;
        for (int s = 0; s < SCALES; s++) {
            float decoded;
            int exponent;
            pq_decode(&b, &one, scales[s], &decoded, 1);
            double ratio = (double)decoded / (double)scales[s];
            ck_assert_double_eq(frexp(fabs(ratio), &exponent), 0.5);
            ck_assert(exponent >= 1 && exponent <= b.exponents);
            float on_grid = pq_scale_to_grid(scales[s], PQ_GRID_BF16);
            pq_decode(&b, &one, on_grid, &decoded, 1);
            ck_assert_uint_eq(to_bits(decoded) & 0xFFFF, 0);
        }
    }
}
END_TEST

/* Law 3 for apot: the magnitudes are all sums of one power (or 0) of each of two sets. */
START_TEST(law3_sums) {
    static const struct {
        int levels, first[8], second[8]; /* 0 and what else there is */
    } sets[] = {{5, {0, 1, 2}, {0}},
                {7, {0, 1, 2, 4}, {0}},
                {15, {0, 1, 4, 8}, {0, 2}},
                {31, {0, 2, 8, 32}, {0, 1, 4, 16}},
                {63, {0, 1, 2, 4, 16, 64, 256, 512}, {0, 8, 32, 128}}};
    pq_codebook b;
    for (size_t k = 0; k < sizeof sets / sizeof *sets; k++) {
        int sums = 0;
        ck_assert_int_eq(pq_codebook_init(&b, "apot", sets[k].levels, NULL, PQ_ROUND_NEAREST, NULL), PQ_OK);
        for (int i = 0; i < 8 && (i == 0 || sets[k].first[i]); i++)
            for (int j = 0; j < 8 && (j == 0 || sets[k].second[j]); j++) {
                float sum = (float)(sets[k].first[i] + sets[k].second[j]);
                ck_assert(b.value[b.type->encode(&b, sum, 1)] == sum);
                ck_assert(b.value[b.type->encode(&b, -sum, 1)] == -sum);
                sums += sum == 0 ? 1 : 2;
            }
        ck_assert_int_eq(sums, b.levels);
    }
    static const int refused[] = {3, 4, 6, 9, 16, 17, 64, 127};
    for (size_t k = 0; k < sizeof refused / sizeof *refused; k++)
        ck_assert_int_eq(pq_codebook_init(&b, "apot", refused[k], NULL, PQ_ROUND_NEAREST, NULL),
                         PQ_ERR_USAGE);
    ck_assert_int_eq(pq_codebook_init(&b, "apot", 15, NULL, PQ_ROUND_LOG, NULL), PQ_ERR_USAGE);
}
END_TEST

/* Law 4: codes come back from a packed row of any length. (The layout itself is checked in tests/quant.) */
START_TEST(law4_packing) {
    enum { MOST = 700 };
    pq_codebook b = case_codebook(_i);
    uint8_t codes[MOST], back[MOST + 1];
    float w[MOST];
    fill(w, MOST, 1, &b, 9);
    pq_encode(&b, w, 1, codes, MOST);
    for (size_t n = 0; n <= MOST; n += n < 300 ? 1 : 37) {
        size_t bytes = pq_packed_row_bytes(b.bits, n);
        uint8_t *packed = malloc(bytes + 1);
        back[n] = 77;
        pq_pack_row(b.bits, codes, n, packed);
        pq_unpack_row(b.bits, packed, n, back);
        ck_assert_mem_eq(back, codes, n);
        ck_assert_int_eq(back[n], 77);
        free(packed);
    }
}
END_TEST

/* Law 5: what a fit gives for zeros, subnormals, the largest floats; what it refuses. */
START_TEST(law5_fit_edges) {
    pq_codebook b = case_codebook(_i);
    double largest = fmax(b.range[1], -b.range[0]);
    static const pq_scale_method methods[] = {PQ_SCALE_ABSMAX, PQ_SCALE_MSE};
    static const pq_scale_grid grids[] = {PQ_GRID_BF16, PQ_GRID_FP32, PQ_GRID_POT};
    for (int i = 0; i < 6; i++) {
        pq_scale_options options = {.method = methods[i % 2], .grid = grids[i / 2]};
        pq_error err;
        float scale = 0, w[40] = {0};
        ck_assert_int_eq(pq_scale_fit(&b, &options, w, 40, &scale, &err), PQ_OK);
        ck_assert(scale == 0x1p-126f);
        options.least = 0.7f; /* which both bf16 and the powers of two have to round up */
        ck_assert_int_eq(pq_scale_fit(&b, &options, w, 40, &scale, &err), PQ_OK);
        ck_assert(scale >= 0.7f && pq_scale_to_grid(scale, options.grid) == scale);
        ck_assert(scale <= (options.grid == PQ_GRID_POT ? 1.0f : 0.705f));
        w[3] = 0x1p-140f; /* too small for any scale above the least */
        ck_assert_int_eq(pq_scale_fit(&b, &options, w, 40, &scale, &err), PQ_OK);
        ck_assert(scale >= 0.7f && scale <= 1.0f);
        options.least = 0;
        ck_assert_int_eq(pq_scale_fit(&b, &options, w, 40, &scale, &err), PQ_OK);
        ck_assert(scale >= 0x1p-126f && scale <= 0x1p-124f);
        for (size_t k = 0; k < 40; k++) w[k] = k % 3 ? FLT_MAX : -FLT_MAX;
        ck_assert_int_eq(pq_scale_fit(&b, &options, w, 40, &scale, &err), PQ_OK);
        ck_assert(isfinite((float)((double)scale * largest)) &&
                  (double)scale * largest > 0.3 * (double)FLT_MAX);
        ck_assert(pq_scale_to_grid(scale, options.grid) == scale);
        static const float refused[] = {NAN, -NAN, INFINITY, -INFINITY};
        for (int k = 0; k < 4; k++) {
            float saved = w[37];
            w[37] = refused[k];
            ck_assert_int_eq(pq_scale_fit(&b, &options, w, 40, &scale, &err), PQ_ERR_USAGE);
            ck_assert_ptr_nonnull(strstr(err.message, "37"));
            float row_scales[4];
            ck_assert_int_eq(pq_matrix_fit(&b, &options, w, 4, 10, 10, row_scales, &err), PQ_ERR_USAGE);
            ck_assert_ptr_nonnull(strstr(err.message, "row 3"));
            w[37] = saved;
        }
        options.least = FLT_MAX;
        ck_assert(pq_scale_fit(&b, &options, w, 40, &scale, &err) == (largest > 1 ? PQ_ERR_USAGE : PQ_OK) ||
                  options.grid != PQ_GRID_FP32);
    }
}
END_TEST

/* As far beyond the largest level as the switch point before it is below. */
static double last_cell_end(const pq_codebook *b) {
    double before = 0;
    for (int code = 0; code < 256; code++)
        if ((double)b->value[code] > before && (double)b->value[code] < b->range[1])
            before = (double)b->value[code];
    return b->range[1] + (b->range[1] - before) / 2;
}

/* Law 7: the gradient is 0 beyond the last cell and untouched inside it. */
START_TEST(law7_surrogate) {
    enum { N = 333 };
    pq_codebook b = case_codebook(_i);
    const char *name = b.type->name;
    for (int s = 0; s < SCALES; s++) {
        float w[N], gradient[N], before[N];
        fill(w, N, scales[s], &b, 77);
        double ends[2];
        for (int side = 0; side < 2; side++) {
            double end = strcmp(name, "uniform") == 0        ? fabs(b.range[side]) + 0.5
                         : strcmp(name, "pot-released") == 0 ? (double)INFINITY
                         : strcmp(name, "apot") == 0         ? last_cell_end(&b)
                                                             : 1.5 * fabs(b.range[side]);
            ends[side] = (double)(float)(end * (double)scales[s]);
            if (isinf(ends[side])) continue;
            float end_float = side ? (float)ends[side] : -(float)ends[side];
            w[10 + 3 * side] = end_float;
            w[11 + 3 * side] = nextafterf(end_float, side ? INFINITY : -INFINITY);
            w[12 + 3 * side] = nextafterf(end_float, 0);
        }
        for (size_t i = 0; i < N; i++) before[i] = gradient[i] = (float)(i + 1);
        pq_surrogate(&b, PQ_GRADIENT_STE, w, scales[s], gradient, N);
        ck_assert_mem_eq(gradient, before, sizeof gradient);
        pq_surrogate(&b, PQ_GRADIENT_CLIP, w, scales[s], gradient, N);
        for (size_t i = 0; i < N; i++) {
            bool beyond = (double)w[i] > ends[1] || (double)w[i] < -ends[0];
            REQUIRE(gradient[i] == (beyond ? 0 : before[i]), "case %d: gradient of %a at scale %a is %g", _i,
                    (double)w[i], (double)scales[s], (double)gradient[i]);
        }
    }
}
END_TEST

/* Matrices: every granularity is the loop over its groups, whatever the number of threads. */
START_TEST(granularities) {
    enum { R = 100, C = 384, N = R * C };
    pq_codebook b = case_codebook(_i);
    static const size_t groups[] = {32, 64, 128, C, N};
    float *w = malloc(N * sizeof *w), *out = malloc(N * sizeof *out), *row = malloc(N * sizeof *row);
    float *gradient = malloc(N * sizeof *gradient), *fitted = malloc(N / 32 * sizeof *fitted);
    float *again = malloc(N / 32 * sizeof *again);
    uint8_t *codes = malloc(N), *row_codes = malloc(N);
    for (size_t i = 0; i < N; i += 2) {
        double pair[2];
        pq_random_normal2(5, PQ_STREAM_INIT, 0, i, pair);
        w[i] = (float)pair[0], w[i + 1] = (float)(pair[1] * (double)(i % 7));
    }
    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
        size_t group = groups[g], count = N / group;
        pq_scale_options options = {.method = g % 2 ? PQ_SCALE_MSE : PQ_SCALE_ABSMAX, .grid = PQ_GRID_BF16};
        ck_assert_uint_eq(pq_scale_count(R, C, group), count);
        pq_threads_set(2);
        ck_assert_int_eq(pq_matrix_fit(&b, &options, w, R, C, group, fitted, NULL), PQ_OK);
        pq_threads_set(1);
        ck_assert_int_eq(pq_matrix_fit(&b, &options, w, R, C, group, again, NULL), PQ_OK);
        ck_assert_mem_eq(fitted, again, count * sizeof *fitted);
        pq_threads_set(2);
        pq_matrix_fake_quantize(&b, w, R, C, group, fitted, out);
        pq_matrix_encode(&b, w, R, C, group, fitted, codes);
        for (size_t i = 0; i < N; i++) gradient[i] = 1;
        pq_matrix_surrogate(&b, PQ_GRADIENT_CLIP, w, R, C, group, fitted, gradient);
        for (size_t i = 0; i < count; i++) {
            float one;
            if (i % 37 == 0) {
                ck_assert_int_eq(pq_scale_fit(&b, &options, w + i * group, group, &one, NULL), PQ_OK);
                ck_assert(one == fitted[i]);
            }
            pq_fake_quantize(&b, w + i * group, fitted[i], row, group);
            ck_assert_mem_eq(row, out + i * group, group * sizeof *row);
            pq_encode(&b, w + i * group, fitted[i], row_codes, group);
            ck_assert_mem_eq(row_codes, codes + i * group, group);
            for (size_t k = 0; k < group; k++) row[k] = 1;
            pq_surrogate(&b, PQ_GRADIENT_CLIP, w + i * group, fitted[i], row, group);
            ck_assert_mem_eq(row, gradient + i * group, group * sizeof *row);
        }
    }
    free(w), free(out), free(row), free(gradient), free(fitted), free(again), free(codes), free(row_codes);
}
END_TEST

/* One codebook in every granularity, by each method and on each grid: scales lie on the grid, the matrix is
 * what its codes say, and the least squared error is no worse than absmax and than leaving all at 0. */
static void check_everywhere(const pq_codebook *b, const float *w) {
    enum { R = 8, C = 128, N = R * C };
    static const size_t groups[] = {32, 64, C, 4 * C, N};
    float scale[N / 32], out[N], decoded;
    uint8_t codes[N];
    for (size_t k = 0; k < sizeof groups / sizeof *groups * 3; k++) {
        size_t group = groups[k / 3];
        double errors[2] = {0}, power = 0;
        for (int mse = 0; mse < 2; mse++) {
            pq_scale_options options = {.method = mse ? PQ_SCALE_MSE : PQ_SCALE_ABSMAX,
                                        .grid = (pq_scale_grid)(k % 3)};
            ck_assert_int_eq(pq_matrix_fit(b, &options, w, R, C, group, scale, NULL), PQ_OK);
            pq_matrix_fake_quantize(b, w, R, C, group, scale, out);
            pq_matrix_encode(b, w, R, C, group, scale, codes);
            power = 0;
            for (size_t i = 0; i < N; i++) {
                pq_decode(b, &codes[i], scale[i / group], &decoded, 1);
                REQUIRE(to_bits(decoded) == to_bits(out[i]), "%s %d, groups of %zu: weight %zu",
                        b->type->name, b->levels, group, i);
                errors[mse] += ((double)w[i] - (double)out[i]) * ((double)w[i] - (double)out[i]);
                power += (double)w[i] * (double)w[i];
            }
            for (size_t i = 0; i < pq_scale_count(R, C, group); i++)
                ck_assert(pq_scale_to_grid(scale[i], options.grid) == scale[i]);
        }
        REQUIRE(errors[1] <= errors[0] * 1.00001 && errors[1] < power / 2, "%s %d, groups of %zu: error %g",
                b->type->name, b->levels, group, errors[1] / power);
    }
}

/* Every number of levels up to 128 that a quantizer takes, and ranges of those that take them. */
START_TEST(every_level_count) {
    static const int expected[] = {31, 5, 63, 0, 5}; /* in the order of the table */
    float w[8 * 128];
    for (size_t i = 0; i < 8 * 128; i += 2) {
        double pair[2];
        pq_random_normal2(6, PQ_STREAM_INIT, 0, i, pair);
        w[i] = (float)(pair[0] * 0.02), w[i + 1] = (float)(pair[1] * 0.02);
    }
    const pq_quantizer *type = pq_quantizer_at((size_t)_i);
    pq_codebook b;
    int made = 0;
    for (int levels = -1; levels <= 300; levels++) {
        if (pq_codebook_init(&b, type->name, levels, NULL, PQ_ROUND_NEAREST, NULL) != PQ_OK) continue;
        ck_assert_int_eq(b.levels, levels);
        check_everywhere(&b, w);
        made++;
    }
    ck_assert_int_eq(made, expected[_i]);
    for (int low = 1; low <= 64; low *= 2)
        for (int high = 1; high <= 64; high *= 2) {
            const double range[] = {-low, high};
            if (low > 4 * high || high > 4 * low) continue; /* far from symmetric weights do not fit */
            if (pq_codebook_init(&b, type->name, 0, range, PQ_ROUND_NEAREST, NULL) == PQ_OK &&
                low + high < 128)
                check_everywhere(&b, w);
        }
}
END_TEST

/* The table itself: fixed ids, each name and id once, each quantizer under the laws. */
START_TEST(table) {
    static const struct {
        const char *name;
        uint32_t id;
    } fixed[] = {{"pot", 1}, {"pot-zero-free", 2}, {"uniform", 3}, {"pot-released", 4}, {"apot", 5}};
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
        ck_assert_ptr_nonnull(pq_quantizer_find(fixed[i].name));
        ck_assert_ptr_eq(pq_quantizer_find(fixed[i].name), pq_quantizer_find_id(fixed[i].id));
    }
    for (size_t i = 0; pq_quantizer_at(i); i++) {
        const pq_quantizer *q = pq_quantizer_at(i);
        int used = 0;
        ck_assert_ptr_eq(pq_quantizer_find(q->name), q);
        ck_assert_ptr_eq(pq_quantizer_find_id(q->wire_id), q);
        for (int c = 0; c < CASES; c++) used += strcmp(cases[c].quantizer, q->name) == 0;
        REQUIRE(used > 0, "%s is not under the laws: add it to cases.h", q->name);
    }
    ck_assert_ptr_null(pq_quantizer_find("none"));
    ck_assert_ptr_null(pq_quantizer_find_id(0));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("laws");
    TCase *laws = tcase_create("laws");
    tcase_set_timeout(laws, 0);
    tcase_add_test(laws, table);
    tcase_add_loop_test(laws, law1_fast_path, 0, CASES);
    tcase_add_loop_test(laws, law2_codes, 0, CASES);
    tcase_add_loop_test(laws, law3_powers, 0, CASES);
    tcase_add_test(laws, law3_sums);
    tcase_add_loop_test(laws, law4_packing, 0, CASES);
    tcase_add_loop_test(laws, law5_switch_points, 0, CASES);
    tcase_add_loop_test(laws, law5_exhaustive, 0, 6);
    tcase_add_loop_test(laws, law5_fit_edges, 0, CASES);
    tcase_add_loop_test(laws, law7_surrogate, 0, CASES);
    tcase_add_loop_test(laws, granularities, 0, CASES);
    size_t quantizers = 0;
    while (pq_quantizer_at(quantizers)) quantizers++;
    tcase_add_loop_test(laws, every_level_count, 0, (int)quantizers);
    suite_add_tcase(suite, laws);
    printf("kernels: %s\n", pq_kernels_get()->name);
    return run_suite(suite);
}
