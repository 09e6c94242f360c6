/* The floating-point steps of the integer recipe: the reference against formulas in double, and each kernel
 * set against the reference, bit for bit, at all tails. */
#include <check.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "kernels/kernels.h"
#include "tests/harness/suite.h"

static const char *const sets[] = {"ref", "avx2", "avx-vnni", "avx512", "avx512-vnni"};
enum { SETS = sizeof sets / sizeof *sets, MOST = 400 };

static void fill(float *x, size_t n, uint64_t seed, double size) {
    for (size_t i = 0; i < n; i++) {
        double pair[2];
        pq_random_normal2(seed, PQ_STREAM_INIT, 7, i, pair);
        x[i] = (float)(pair[0] * size);
    }
}

static bool same(const float *a, const float *b, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], sizeof *a) != 0 && !(isnan(a[i]) && isnan(b[i]))) return false;
    return true;
}

/* Numbers over the whole range of each function, and the odd ones. */
static size_t range(float *x, int part) {
    static const float odd[] = {0.0f,   -0.0f, 1.0f,      -87.33f,    -87.34f,  88.0f,   88.5f,
                                -1e30f, 1e30f, 0x1p-149f, -0x1p-126f, INFINITY, 1.4142f, 13.3f};
    size_t n = sizeof odd / sizeof *odd;
    if (part == 0) {
        memcpy(x, odd, sizeof odd);
        return n;
    }
    for (size_t i = 0; i < MOST; i++) x[i] = (float)(part - 120) + (float)i / MOST;
    return MOST - (size_t)part % 33;
}

START_TEST(functions) {
    const pq_kernels *k = pq_kernels_of(sets[_i]), *ref = pq_kernels_of("ref");
    if (!k) return; /* said in main */
    float x[MOST], a[MOST], b[MOST];
    for (int part = 0; part < 240; part++) {
        const size_t n = range(x, part);
        ref->recipe_exp(x, b, n), k->recipe_exp(x, a, n);
        ck_assert(same(a, b, n));
        for (size_t i = 0; part && i < n; i++)
            if (x[i] > -87 && x[i] < 88)
                ck_assert_double_le(fabs((double)b[i] / exp((double)x[i]) - 1), 6e-7);
        ref->recipe_gelu_erf(x, b, n), k->recipe_gelu_erf(x, a, n);
        ck_assert(same(a, b, n));
        for (size_t i = 0; part && i < n; i++) {
            double v = (double)x[i], exact = 0.5 * v * erfc(-v * 0.70710678118654752);
            ck_assert_double_le(fabs((double)b[i] - exact), 2e-7 + 4e-7 * fabs(v));
        }
        ref->recipe_gelu_tanh(x, b, n);
        memcpy(a, x, n * sizeof *x);
        k->recipe_gelu_tanh(a, a, n);
        ck_assert(same(a, b, n));
        for (size_t i = 0; part && i < n; i++) {
            double v = (double)x[i],
                   exact = 0.5 * v * (1 + tanh(0.79788456080286536 * (v + 0.044715 * v * v * v)));
            ck_assert_double_le(fabs((double)b[i] - exact), 2e-7 + 4e-7 * fabs(v));
        }
    }
    x[0] = NAN;
    k->recipe_exp(x, a, 1);
    ck_assert(isnan(a[0]));
}
END_TEST

START_TEST(norm) {
    const pq_kernels *k = pq_kernels_of(sets[_i]), *ref = pq_kernels_of("ref");
    if (!k) return;
    static float x[3 * MOST], a[3 * MOST], b[3 * MOST], gain[MOST], bias[MOST];
    for (size_t n = 1; n < MOST; n += n < 70 ? 1 : 37) {
        fill(x, 3 * n, n, 2), fill(gain, n, n + 1, 1), fill(bias, n, n + 2, 1);
        for (int with_bias = 0; with_bias < 2; with_bias++) {
            ref->recipe_norm(x, gain, with_bias ? bias : NULL, b, 3, n);
            k->recipe_norm(x, gain, with_bias ? bias : NULL, a, 3, n);
            ck_assert_msg(same(a, b, 3 * n), "%s: width %zu", k->name, n);
            double mean = 0, squares = 0;
            for (size_t i = 0; i < n; i++) mean += (double)x[i] / (double)n;
            for (size_t i = 0; i < n; i++) squares += ((double)x[i] - mean) * ((double)x[i] - mean);
            for (size_t i = 0; n > 3 && i < n; i++) {
                double y = ((double)x[i] - mean) / sqrt(squares / (double)n + 1e-5) * (double)gain[i];
                ck_assert_double_le(fabs(y + (with_bias ? (double)bias[i] : 0) - (double)b[i]), 1e-5);
            }
        }
    }
}
END_TEST

/* What training's int8_rows makes of a row is what the whole numbers stand for; the same kernel set or not.
 */
START_TEST(codes) {
    const pq_kernels *k = pq_kernels_of(sets[_i]), *ref = pq_kernels_of("ref");
    if (!k) return;
    float x[MOST], fake[MOST];
    uint8_t low[2][512], high[2][512];
    size_t wide = 0;
    for (size_t n = 1; n < MOST; n += n < 70 ? 1 : 23)
        for (int shape = 0; shape < 6; shape++) {
            pq_int8_row row[2];
            fill(x, n, n * 7 + (size_t)shape, 1);
            if (shape == 1) x[n / 2] *= 300;
            if (shape == 2)
                for (size_t i = 0; i < n; i++) x[i] = fabsf(x[i]);
            if (shape == 3) x[n - 1] = INFINITY;
            if (shape == 4) memset(x, 0, sizeof x);
            if (shape == 5) x[n / 3] = 1e4f;
            const bool may_widen = shape != 1;
            memset(low, 5, sizeof low), memset(high, 5, sizeof high);
            ref->recipe_codes(x, n, may_widen, low[0], high[0], &row[0]);
            k->recipe_codes(x, n, may_widen, low[1], high[1], &row[1]);
            ck_assert_mem_eq(low[0], low[1], 512);
            ck_assert_mem_eq(high[0], high[1], 512);
            ck_assert(row[0].zero == row[1].zero && row[0].wide == row[1].wide);
            ck_assert(same(&row[0].scale, &row[1].scale, 1));
            ck_assert(isnan(row[0].scale) == (shape == 3));
            for (size_t i = n; i < (n + 127) / 128 * 128; i++)
                ck_assert(low[1][i] == 0 && (!row[1].wide || high[1][i] == 0));
            for (size_t i = (n + 127) / 128 * 128; i < 512; i++) ck_assert(low[1][i] == 5 && high[1][i] == 5);
            if (shape == 3) continue;
            ref->int8_rows(x, fake, 1, n);
            for (size_t i = 0; i < n; i++) {
                int u = low[1][i] + (row[1].wide ? 256 * high[1][i] : 0);
                float value = (float)(u - row[1].zero) * row[1].scale;
                if (!row[1].wide) ck_assert(value == fake[i]);
                ck_assert_double_le(fabs((double)value - (double)x[i]), 0.501 * (double)row[1].scale);
            }
            wide += row[1].wide;
            if (shape < 3) ck_assert(!row[1].wide); /* without outliers, or where they may not widen */
            if (shape == 5 && n > 64) ck_assert(row[1].wide);
        }
    ck_assert_uint_gt(wide, 5);
}
END_TEST

START_TEST(halves) {
    const pq_kernels *k = pq_kernels_of(sets[_i]), *ref = pq_kernels_of("ref");
    if (!k) return;
    static const float points[] = {0,          1,          65504,      65519.9f,     65520,    1e30f,
                                   0x1p-24f,   0x1p-25f,   0x1.8p-25f, 0x1.ffcp-15f, 0x1p-14f, 0x1.002p0f,
                                   0x1.006p0f, 0x1.001p0f, 0x1.ffep3f, INFINITY};
    static const uint16_t expected[] = {0, 0x3C00, 0x7BFF, 0x7BFF, 0x7C00, 0x7C00, 1,      0,
                                        1, 0x0400, 0x0400, 0x3C00, 0x3C02, 0x3C00, 0x4C00, 0x7C00};
    uint16_t a[MOST], b[MOST];
    float x[MOST];
    k->to_half(points, a, sizeof points / sizeof *points);
    ck_assert_mem_eq(a, expected, sizeof expected);
    for (int e = -30; e < 18; e++) {
        const size_t n = (size_t)(MOST - 1 - (e + 30));
        fill(x, n, (uint64_t)(e + 100), ldexp(1, e));
        a[n] = b[n] = 77;
        ref->to_half(x, b, n), k->to_half(x, a, n);
        ck_assert_mem_eq(a, b, (n + 1) * sizeof *a);
    }
}
END_TEST

START_TEST(attention) {
    const pq_kernels *k = pq_kernels_of(sets[_i]), *ref = pq_kernels_of("ref");
    if (!k) return;
    const size_t heads[] = {1, 8, 16, 17, 32, 48, 64, 80, 96, 144}, lengths[] = {1, 2, 15, 16, 17, 33, 70};
    for (size_t h = 0; h < 10; h++)
        for (size_t l = 0; l < 7; l++)
            for (int half = 0; half < 2; half++) {
                const size_t D = heads[h], n = lengths[l], stride = D + 3, queries = 1 + (h + l) % 6;
                const size_t length = n + queries - 1, count = (length - 1) * stride + D, q_stride = D + 5;
                float *q = malloc(queries * q_stride * 4), *keys = malloc(count * 4),
                      *values = malloc(count * 4);
                static float a[6 * 150], b[6 * 150], scores[2][PQ_RECIPE_QUERIES * 96];
                uint16_t *k16 = malloc(count * 2), *v16 = malloc(count * 2);
                fill(q, queries * q_stride, D, 1), fill(keys, count, n, 1), fill(values, count, n + 1, 1);
                ref->to_half(keys, k16, count), ref->to_half(values, v16, count);
                const void *from[] = {half ? (void *)k16 : keys, half ? (void *)v16 : values};
                for (size_t i = 0; i < 6 * 150; i++) a[i] = b[i] = 99;
                ref->recipe_attention(q, q_stride, queries, from[0], from[1], half, stride, n, D, b, D + 1,
                                      scores[0]);
                k->recipe_attention(q, q_stride, queries, from[0], from[1], half, stride, n, D, a, D + 1,
                                    scores[1]);
                ck_assert_msg(same(a, b, 6 * 150), "%s: heads of %zu, %zu keys, %zu queries", k->name, D, n,
                              queries);
                for (size_t i = 0; i < queries; i++) {
                    double weight[80], total = 0, exact[144] = {0};
                    for (size_t j = 0; j < n + i; j++) {
                        double dot = 0;
                        for (size_t c = 0; c < D; c++)
                            dot += (double)q[i * q_stride + c] * (double)keys[j * stride + c];
                        total += weight[j] = exp(dot / sqrt((double)D));
                    }
                    for (size_t j = 0; j < n + i; j++)
                        for (size_t c = 0; c < D; c++)
                            exact[c] += weight[j] / total * (double)values[j * stride + c];
                    for (size_t c = 0; c < D; c++)
                        ck_assert_double_le(fabs(exact[c] - (double)b[i * (D + 1) + c]), half ? 1e-2 : 1e-5);
                }
                free(q), free(keys), free(values), free(k16), free(v16);
            }
}
END_TEST

int main(void) {
    for (int i = 0; i < SETS; i++)
        if (!pq_kernels_of(sets[i])) printf("not compared: this CPU lacks %s\n", sets[i]);
    Suite *suite = suite_create("recipe");
    TCase *tc = tcase_create("recipe");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, functions, 0, SETS);
    tcase_add_loop_test(tc, norm, 0, SETS);
    tcase_add_loop_test(tc, codes, 0, SETS);
    tcase_add_loop_test(tc, halves, 0, SETS);
    tcase_add_loop_test(tc, attention, 0, SETS);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
