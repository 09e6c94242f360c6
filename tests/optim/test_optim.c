/* Schedules at their joints, the norm, decay groups. The update itself is compared with PyTorch in
 * tests/oracle. */
#include <check.h>
#include <math.h>
#include <stdlib.h>

#include "optim/optim.h"
#include "tests/harness/suite.h"

START_TEST(schedules) {
    pq_schedule s = {.cosine = true, .lr = 1e-3, .min_lr = 1e-4, .warmup_iters = 100, .decay_iters = 1100};
    ck_assert_double_eq_tol(pq_schedule_rate(&s, 0), 1e-5, 1e-15);
    ck_assert_double_eq_tol(pq_schedule_rate(&s, 99), 1e-3, 1e-15);
    ck_assert_double_eq_tol(pq_schedule_rate(&s, 100), 1e-3, 1e-15);
    ck_assert_double_eq_tol(pq_schedule_rate(&s, 600), 5.5e-4, 1e-15);
    ck_assert_double_eq_tol(pq_schedule_rate(&s, 1100), 1e-4, 1e-15);
    ck_assert_double_eq_tol(pq_schedule_rate(&s, 5000), 1e-4, 1e-15);
    for (int64_t i = 100; i < 1100; i++)
        ck_assert_double_ge(pq_schedule_rate(&s, i), pq_schedule_rate(&s, i + 1));
    s.cosine = false;
    ck_assert_double_eq(pq_schedule_rate(&s, 5000), 1e-3);
    s = (pq_schedule){.cosine = true, .lr = 1, .min_lr = 0.5, .warmup_iters = 0, .decay_iters = 1};
    ck_assert_double_eq(pq_schedule_rate(&s, 0), 1);
    ck_assert_double_eq(pq_schedule_rate(&s, 1), 0.5);
}
END_TEST

/* Spans around the sizes of tiles, with gaps that do not count. */
START_TEST(norm_and_spans) {
    enum { N = 70000 };
    static float g[N], w[N], m[N], v[N];
    const pq_span spans[] = {
        {0, 1, true}, {16, 16383, false}, {16400, 0, true}, {16416, 40000, true}, {60000, 1, false}};
    double expected = 0;
    for (int i = 0; i < N; i++) g[i] = 1e10f, w[i] = 1;
    for (int s = 0; s < 5; s++)
        for (size_t i = 0; i < spans[s].count; i++) {
            g[spans[s].offset + i] = (float)(i % 7) - 3;
            expected += ((i % 7) - 3.0) * ((i % 7) - 3.0);
        }
    ck_assert_double_eq_tol(pq_gradient_norm(g, spans, 5), sqrt(expected), 1e-5 * sqrt(expected));
    pq_adamw adamw = {.beta1 = 0.9, .beta2 = 0.99, .epsilon = 1e-8, .weight_decay = 0.5};
    for (int s = 0; s < 5; s++)
        for (size_t i = 0; i < spans[s].count; i++) g[spans[s].offset + i] = 0;
    pq_adamw_update(&adamw, w, g, m, v, spans, 5, 0.1, 1);
    ck_assert_int_eq(adamw.step, 1);
    for (int i = 0; i < N; i++) {
        float value = 1; /* outside the spans nothing moves; inside only decay does */
        for (int s = 0; s < 5; s++)
            if ((size_t)i >= spans[s].offset && (size_t)i < spans[s].offset + spans[s].count &&
                spans[s].decay)
                value = 0.95f;
        ck_assert_float_eq_tol(w[i], value, 1e-6f);
    }
    g[20000] = NAN;
    ck_assert(isnan(pq_gradient_norm(g, spans, 5)));
    g[20000] = INFINITY;
    ck_assert(isinf(pq_gradient_norm(g, spans, 5)));
    ck_assert_double_eq(pq_gradient_norm(g, spans, 0), 0);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("optim");
    TCase *tc = tcase_create("optim");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, schedules);
    tcase_add_test(tc, norm_and_spans);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
