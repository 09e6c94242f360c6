/* The vector kernels that quantizers use against their references: equal bits where values come out, close
 * sums. */
#include <check.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "kernels/kernels.h"
#include "tests/harness/suite.h"

static const char *const sets[] = {"avx2", "avx512"};
static const size_t sizes[] = {0, 1, 7, 8, 9, 15, 16, 17, 33, 100, 4095, 4096, 4097, 9000};
static const pq_pow2_grid grids[] = {
    {0x400000, 0x3F000000, {64, 64}, false}, {0x400000, 0, {8, 8}, false},
    {0x4AFB0C, 0x3F3504F4, {4, 4}, false},   {0x4AFB0C, 0x3F000000, {4, 8}, true},
    {0x400000, 0x3F000000, {1, 1}, false},   {0x4AFB0C, 0x3F000000, {0x1p31f, 1}, true}};
static const float nearest[] = {0, 1, 1, 1, 3, 3, 3}; /* of 0, 1 and 3 */
enum { SIZES = sizeof sizes / sizeof *sizes, GRIDS = sizeof grids / sizeof *grids };

static float *numbers(size_t n, bool any_bits) {
    float *x = malloc((n + 1) * sizeof *x);
    for (size_t i = 0; i < n; i++) {
        uint32_t r[4];
        pq_random4(n, PQ_STREAM_INIT, 4, i, r);
        x[i] = (float)(ldexp(pq_random_unit(r[0], r[1]) - 0.5, (int)(r[2] % 12)));
        if (any_bits) memcpy(&x[i], &r[3], sizeof *x);
    }
    return x;
}

static void close_sums(const double *fast, const double *ref, int count) {
    for (int k = 0; k < count; k++)
        ck_assert_msg(fabs(fast[k] - ref[k]) <= 1e-5 * (fabs(ref[k]) + fabs(ref[0]) + fabs(ref[2])),
                      "sum %d: %g, not %g", k, fast[k], ref[k]);
}

START_TEST(values) {
    const pq_kernels *fast = pq_kernels_of(sets[_i]), *ref = pq_kernels_of("ref");
    if (!fast) return; /* said in main */
    for (int s = 0; s < SIZES; s++)
        for (int any = 0; any < 2; any++) {
            size_t n = sizes[s], bytes = (n + 1) * sizeof(float);
            float *x = numbers(n, any), *a = malloc(bytes), *b = malloc(bytes);
            for (int g = 0; g < GRIDS; g++) {
                a[n] = 7;
                fast->pow2_round(x, &grids[g], 0.37f, a, n), ref->pow2_round(x, &grids[g], 0.37f, b, n);
                ck_assert_mem_eq(a, b, n * sizeof *a);
                ck_assert(a[n] == 7);
            }
            fast->integer_round(x, -8, 7, 0.37f, a, n), ref->integer_round(x, -8, 7, 0.37f, b, n);
            ck_assert_mem_eq(a, b, n * sizeof *a);
            fast->halves_round(x, nearest, 3, 0.37f, a, n), ref->halves_round(x, nearest, 3, 0.37f, b, n);
            ck_assert_mem_eq(a, b, n * sizeof *a);
            for (size_t i = 0; i < n; i++) a[i] = b[i] = (float)i + 1;
            fast->mask_range(x, -1.5f, 0.25f, a, n), ref->mask_range(x, -1.5f, 0.25f, b, n);
            ck_assert_mem_eq(a, b, n * sizeof *a);
            ck_assert(a[n] == 7);
            uint32_t largest, expected;
            double sum, expected_sum;
            fast->magnitudes(x, &largest, &sum, n), ref->magnitudes(x, &expected, &expected_sum, n);
            ck_assert_uint_eq(largest, expected);
            if (!any) ck_assert(fabs(sum - expected_sum) <= 1e-5 * expected_sum);
            fast->magnitudes(x, &largest, NULL, n), ref->magnitudes(x, &expected, NULL, n);
            ck_assert_uint_eq(largest, expected);
            free(x), free(a), free(b);
        }
}
END_TEST

/* Weights next to each switch point, under scales whose products and quotients are rounded, subnormal or
 * beyond every float. */
START_TEST(switch_points) {
    static const float odd[] = {1,           0x1.000002p0f,    0x1.fffffep0f, 0x1p-126f,
                                0x1.8p-126f, 0x1.fffffep-126f, 0x1p-149f,     0x1.555554p-127f,
                                1e30f,       0x1.fffffep121f,  0x1p122f,      0x1.fffffep127f};
    enum { ODD = sizeof odd / sizeof *odd, SCALES = ODD + 500, AROUND = 7, EXPONENTS = 36, POINTS = 4 };
    static const double points[POINTS] = {0.5, 1, 1.5, 1.41421356237309505};
    const pq_kernels *fast = pq_kernels_of(sets[_i]), *ref = pq_kernels_of("ref");
    if (!fast) return;
    for (int k = 0; k < SCALES; k++) {
        float x[POINTS * EXPONENTS * AROUND * 2], a[sizeof x / sizeof *x], b[sizeof x / sizeof *x], scale;
        size_t n = 0;
        uint32_t r[4];
        pq_random4(7, PQ_STREAM_INIT, 4, (uint64_t)k, r);
        scale = k < ODD ? odd[k] : (float)ldexp(1 + pq_random_unit(r[0], r[1]), (int)(r[2] % 250) - 126);
        for (int p = 0; p < POINTS; p++)
            for (int e = -2; e < EXPONENTS - 2; e++) {
                float at = (float)(ldexp(points[p], e) * (double)scale);
                for (int i = 0; i < AROUND / 2; i++) at = nextafterf(at, 0);
                for (int i = 0; i < AROUND; i++, at = nextafterf(at, INFINITY)) x[n++] = at, x[n++] = -at;
            }
        for (int g = 0; g < GRIDS; g++) {
            fast->pow2_round(x, &grids[g], scale, a, n), ref->pow2_round(x, &grids[g], scale, b, n);
            for (size_t i = 0; i < n; i++)
                ck_assert_msg(memcmp(&a[i], &b[i], sizeof *a) == 0, "grid %d, scale %a: %a gets %a, not %a",
                              g, (double)scale, (double)x[i], (double)a[i], (double)b[i]);
        }
    }
}
END_TEST

START_TEST(sums) {
    const pq_kernels *fast = pq_kernels_of(sets[_i]), *ref = pq_kernels_of("ref");
    if (!fast) return;
    for (int s = 0; s < SIZES; s++) {
        size_t n = sizes[s];
        float *x = numbers(n, false);
        double a[3], b[3];
        for (int g = 0; g < GRIDS; g++) {
            fast->pow2_error(x, &grids[g], 0.37f, a, n), ref->pow2_error(x, &grids[g], 0.37f, b, n);
            close_sums(a, b, 3);
        }
        fast->integer_error(x, -8, 7, 0.37f, a, n), ref->integer_error(x, -8, 7, 0.37f, b, n);
        close_sums(a, b, 3);
        fast->halves_error(x, nearest, 3, 0.37f, a, n), ref->halves_error(x, nearest, 3, 0.37f, b, n);
        close_sums(a, b, 3);
        float *value = numbers(n, false), *m = malloc((n + 1) * sizeof *m);
        for (size_t i = 0; i < n; i++) m[i] = (float)(i % 7), value[i] = x[i] + 0.1f * value[i];
        fast->weighted_error(x, value, m, 2.7f, a, n), ref->weighted_error(x, value, m, 2.7f, b, n);
        close_sums(a, b, 3);
        free(x), free(value), free(m);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("rounding");
    TCase *all = tcase_create("rounding");
    for (int i = 0; i < 2; i++)
        if (!pq_kernels_of(sets[i])) printf("%s: not on this machine, not tested\n", sets[i]);
    tcase_add_loop_test(all, values, 0, 2);
    tcase_add_loop_test(all, switch_points, 0, 2);
    tcase_add_loop_test(all, sums, 0, 2);
    suite_add_tcase(suite, all);
    return run_suite(suite);
}
