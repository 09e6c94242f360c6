/* Quantizing activations to 8 bits: each kernel set against the recipe written down in double, one rounding
 * to fp32 a step, bit for bit; rows and numbers at the edges. */
#include <check.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "kernels/kernels.h"
#include "tests/harness/suite.h"

static const char *const sets[] = {"ref", "avx2", "avx512"};
enum { MOST = 600 };

/* One row as docs/quantizers.md has it. A double holds the exact sum or product of two floats, and the
 * quotient so well that rounding it again gives the right float. */
static void expect_row(const float *x, size_t n, float *out) {
    double low = 0, high = 0;
    for (size_t i = 0; i < n; i++) {
        low = fmin(low, (double)x[i]);
        high = fmax(high, (double)x[i]);
        if (!isfinite(x[i])) low = NAN, high = NAN, n = i + 1;
    }
    float span = (float)(high - low), scale = (float)((double)span / 255);
    if (scale < 0x1p-126f) scale = 0x1p-126f;
    float inverse = (float)(1 / (double)scale),
          zero = (float)nearbyint((double)(float)(-low / (double)scale));
    for (size_t i = 0; isfinite(span) && i < n; i++) {
        double q = nearbyint((double)(float)((double)x[i] * (double)inverse)) + (double)zero;
        ck_assert(q >= -1 && q <= 256); /* beyond the ends by a tie at most */
        q = q < 0 ? 0 : q > 255 ? 255 : q;
        out[i] = (float)((q - (double)zero) * (double)scale) + 0.0f;
        ck_assert_double_le(fabs((double)out[i] - (double)x[i]), 0.50002 * (double)scale);
    }
}

static bool finite_row(const float *x, size_t n) {
    float low = 0, high = 0;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(x[i])) return false;
        low = fminf(low, x[i]), high = fmaxf(high, x[i]);
    }
    return isfinite(high - low);
}

static void check_row(const pq_kernels *k, const float *x, size_t n, const char *what) {
    float out[MOST], place[MOST], expected[MOST];
    expect_row(x, n, expected);
    k->int8_rows(x, out, 1, n);
    memcpy(place, x, n * sizeof *x);
    k->int8_rows(place, place, 1, n);
    for (size_t i = 0; i < n; i++) {
        if (finite_row(x, n))
            ck_assert_msg(memcmp(&out[i], &expected[i], 4) == 0, "%s, %s: %a became %a, expected %a", k->name,
                          what, (double)x[i], (double)out[i], (double)expected[i]);
        else
            ck_assert_msg(isnan(out[i]), "%s, %s: %a became %a, expected NaN", k->name, what, (double)x[i],
                          (double)out[i]);
        ck_assert(memcmp(&out[i], &place[i], 4) == 0 || isnan(out[i]));
    }
}

START_TEST(random_rows) {
    const pq_kernels *k = pq_kernels_of(sets[_i]);
    if (!k) return;
    float x[MOST];
    for (size_t n = 1; n < 300; n += n < 70 ? 1 : 23)
        for (int e = -140; e <= 124; e += 6) {
            for (size_t i = 0; i < n; i++) {
                double pair[2];
                pq_random_normal2(n, PQ_STREAM_INIT, (uint64_t)(e + 200), i, pair);
                x[i] = (float)(ldexp(pair[0] + (e % 5), e) * (e % 7 ? 1 : fabs(pair[1])));
            }
            check_row(k, x, n, "random");
        }
}
END_TEST

START_TEST(edge_rows) {
    const pq_kernels *k = pq_kernels_of(sets[_i]);
    if (!k) return;
    const float values[] = {0,         -0.0f,      1,         -1,        0.1f,      255,   -255,
                            0x1p-149f, -0x1p-149f, 0x1p-126f, 0x1p-119f, 1e-40f,    3e38f, FLT_MAX,
                            -FLT_MAX,  1.7e38f,    -1.7e38f,  INFINITY,  -INFINITY, NAN};
    enum { VALUES = sizeof values / sizeof *values };
    float x[MOST];
    for (size_t n = 1; n < 70; n += 3)
        for (int a = 0; a < VALUES; a++)
            for (int b = 0; b < VALUES; b++) {
                for (size_t i = 0; i < n; i++) x[i] = values[a]; /* all equal, but for one place */
                x[(n * 7 + (size_t)b) % n] = values[b];
                check_row(k, x, n, "edge");
            }
    /* Halves go to the even number: with 255 and 0 in the row, the scale is 1. */
    const float halves[] = {255, 0, 0.5f, 1.5f, 2.5f, 253.5f, 254.5f}, even[] = {255, 0, 0, 2, 2, 254, 254};
    k->int8_rows(halves, x, 1, 7);
    for (int i = 0; i < 7; i++) ck_assert_float_eq(x[i], even[i]);
    /* Rows do not touch each other. */
    const float rows[] = {1, 2, NAN, 4, 5, 6};
    k->int8_rows(rows, x, 3, 2);
    ck_assert(!isnan(x[0]) && !isnan(x[1]) && isnan(x[2]) && isnan(x[3]) && !isnan(x[4]) && !isnan(x[5]));
}
END_TEST

START_TEST(affine_grid) {
    const pq_kernels *k = pq_kernels_of(sets[_i]), *ref = pq_kernels_of("ref");
    if (!k) return;
    pq_affine grid = pq_affine_make(-1, 1.55f, -128, 127, FLT_EPSILON);
    ck_assert(grid.scale == 2.55f / 255 && grid.zero == -28);
    float x[MOST], d[MOST], out[2][MOST], dx[2][MOST], low, high, low2, high2;
    for (size_t n = 1; n < MOST; n += n < 70 ? 1 : 37) {
        for (size_t i = 0; i < n; i++) {
            double pair[2];
            pq_random_normal2(n, PQ_STREAM_INIT, 3, i, pair);
            x[i] = (float)pair[0], d[i] = (float)pair[1];
        }
        k->extremes(x, &low, &high, n), ref->extremes(x, &low2, &high2, n);
        ck_assert(low == low2 && high == high2);
        for (size_t i = 0; i < n; i++) ck_assert(low <= x[i] && x[i] <= high);
        x[n / 2] = n % 2 ? INFINITY : 1e30f;
        const pq_kernels *both[] = {k, ref};
        for (int t = 0; t < 2; t++) {
            both[t]->affine_round(x, &grid, out[t], n);
            memcpy(dx[t], d, n * sizeof *d);
            both[t]->affine_mask(x, &grid, dx[t], dx[t], n);
        }
        ck_assert_mem_eq(out[0], out[1], n * sizeof *d);
        ck_assert_mem_eq(dx[0], dx[1], n * sizeof *d);
        ck_assert(out[0][n / 2] == 155 * grid.scale && dx[0][n / 2] == 0);
        if (n % 2) k->extremes(x, &low, &high, n), ck_assert(isnan(low) && isnan(high));
        x[n - 1] = NAN;
        k->affine_round(x, &grid, out[0], n), k->extremes(x, &low, &high, n);
        ck_assert(isnan(out[0][n - 1]) && isnan(low) && isnan(high));
    }
    for (int i = 0; i < MOST; i++) x[i] = 3; /* 0 is no number of these */
    k->extremes(x, &low, &high, 5);
    ck_assert(low == 3 && high == 3);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("int8");
    TCase *tc = tcase_create("int8");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, random_rows, 0, 3);
    tcase_add_loop_test(tc, edge_rows, 0, 3);
    tcase_add_loop_test(tc, affine_grid, 0, 3);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
