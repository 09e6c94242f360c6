/* Stochastic rounding: one of the two neighbours, unbiased, the same however a matrix is cut. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "base/threads.h"
#include "quant/quantizer.h"
#include "tests/harness/suite.h"

static const struct {
    const char *quantizer;
    int64_t levels;
    double range[2];
} books[] = {{"pot", 7, {0}},     {"pot", 15, {0}},        {"pot-zero-free", 8, {0}},
             {"uniform", 7, {0}}, {"uniform", 0, {-8, 7}}, {"pot-released", 0, {-8, 4}},
             {"apot", 31, {0}}};
enum { BOOKS = sizeof books / sizeof *books };

static pq_codebook book(int i) {
    pq_codebook b;
    ck_assert_int_eq(pq_codebook_init(&b, books[i].quantizer, books[i].levels,
                                      books[i].range[0] < 0 ? books[i].range : NULL, PQ_ROUND_NEAREST, NULL),
                     PQ_OK);
    return b;
}

/* The nearest value at or below a (side 0), at or above it (side 1); the ends beyond them. */
static double neighbour(const pq_codebook *b, double a, int side) {
    double best = side ? INFINITY : -INFINITY;
    for (int code = 0; code < 256; code++) {
        double v = (double)b->value[code];
        if (side ? v >= a && v < best : v <= a && v > best) best = v;
    }
    return isinf(best) ? b->range[side] : best;
}

/* Means over many draws of one weight: five standard errors. Every draw is a neighbour. */
START_TEST(unbiased) {
    enum { N = 20000 };
    static float w[N], out[N];
    const float scale = 0.375f;
    pq_codebook b = book(_i);
    pq_draws draws = {.seed = 9, .iter = 3, .tensor = (uint32_t)_i};
    for (int k = 0; k < 40; k++) {
        double a = b.range[0] * 1.2 + (b.range[1] - b.range[0]) * 1.2 * k / 37, sum = 0;
        for (int i = 0; i < N; i++) w[i] = (float)(a * (double)scale);
        a = (double)(w[0] / scale);
        double low = neighbour(&b, a, 0), high = neighbour(&b, a, 1);
        draws.iter = (uint64_t)k;
        pq_fake_quantize_stochastic(&b, w, scale, &draws, 0, out, N);
        for (int i = 0; i < N; i++) {
            double v = (double)(out[i] / scale);
            if (v != low && v != high) ck_abort_msg("%g became %g", a, v);
            sum += v;
        }
        double inside = fmin(fmax(a, b.range[0]), b.range[1]),
               p = high > low ? (inside - low) / (high - low) : 0;
        double error = 5 * (high - low) * sqrt(p * (1 - p) / N) + 1e-6 * (fabs(a) + 1);
        ck_assert_msg(fabs(sum / N - inside) <= error, "%s: mean of %g is %g", b.type->name, a, sum / N);
    }
}
END_TEST

/* Values stay; special weights; zeros are +0. */
START_TEST(exact) {
    pq_codebook b = book(_i);
    pq_draws draws = {.seed = 1};
    for (int code = 0; code < 256; code++) {
        if (isnan(b.value[code])) continue;
        float w[64], out[64], value = b.value[code] * 0.1f;
        for (int i = 0; i < 64; i++) w[i] = value;
        pq_fake_quantize_stochastic(&b, w, 0.1f, &draws, 0, out, 64);
        if (w[0] / 0.1f == b.value[code]) ck_assert_mem_eq(out, w, sizeof w);
    }
    float odd[] = {NAN, INFINITY, -INFINITY, -0.0f}, out[4];
    pq_fake_quantize_stochastic(&b, odd, 1, &draws, 0, out, 4);
    ck_assert((double)out[0] == b.range[1] && (double)out[1] == b.range[1] && (double)out[2] == b.range[0]);
    ck_assert(!(out[3] == 0 && signbit(out[3])));
}
END_TEST

/* The draws of a weight depend on its place alone; other iterations and tensors draw otherwise. */
START_TEST(places) {
    enum { R = 300, C = 384, N = R * C };
    static float w[N], whole[N], part[N], scales[R];
    pq_codebook b = book(_i);
    for (size_t i = 0; i < N; i += 2) {
        double pair[2];
        pq_random_normal2(2, PQ_STREAM_INIT, 0, i, pair);
        w[i] = (float)pair[0], w[i + 1] = (float)pair[1];
    }
    for (size_t r = 0; r < R; r++) scales[r] = 0.25f;
    pq_draws draws = {.seed = 7, .iter = 11, .tensor = 5};
    pq_threads_set(2);
    pq_matrix_fake_quantize_part(&b, w, 0, N, C, scales, &draws, whole);
    pq_threads_set(1);
    pq_matrix_fake_quantize_part(&b, w, 0, N, N, scales, &draws, part);
    ck_assert_mem_eq(whole, part, sizeof whole);
    for (size_t first = 0, n; first < N; first += n) {
        n = 1 + first * 7 % 61;
        if (n > N - first) n = N - first;
        memcpy(part + first, w + first, n * sizeof *w); /* in place */
        pq_fake_quantize_stochastic(&b, part + first, 0.25f, &draws, first, part + first, n);
    }
    ck_assert_mem_eq(whole, part, sizeof whole);
    for (int k = 0; k < 3; k++) {
        pq_draws others[] = {{8, 11, 5}, {7, 12, 5}, {7, 11, 6}};
        size_t same = 0;
        pq_matrix_fake_quantize_part(&b, w, 0, N, N, scales, &others[k], part);
        for (size_t i = 0; i < N; i++) same += whole[i] == part[i];
        ck_assert(same < N - N / 20);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("stochastic");
    TCase *all = tcase_create("stochastic");
    tcase_set_timeout(all, 0);
    tcase_add_loop_test(all, unbiased, 0, BOOKS);
    tcase_add_loop_test(all, exact, 0, BOOKS);
    tcase_add_loop_test(all, places, 0, BOOKS);
    suite_add_tcase(suite, all);
    return run_suite(suite);
}
