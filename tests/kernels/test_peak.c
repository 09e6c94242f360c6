/* The loops that measure the machine do what they say, and what is measured is a positive number. No speed is
 * expected of any machine. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/threads.h"
#include "kernels/peak.h"
#include "tests/harness/suite.h"

static const struct {
    const char *name;
    int lanes;
} sets[] = {{"ref", 1}, {"avx2", 8}, {"avx512", 16}};
enum { SETS = sizeof sets / sizeof *sets };

/* Each multiply-add counts a b: the loop is not shortened. */
START_TEST(counts) {
    const pq_kernels *k = pq_kernels_of(sets[_i].name);
    if (!k) return; /* said in main */
    static const size_t rounds[] = {0, 1, 2, 7, 1000, 65537};
    for (size_t i = 0; i < sizeof rounds / sizeof *rounds; i++) {
        double sum = NAN, expected = 6.0 * (double)rounds[i] * PQ_PEAK_CHAINS * sets[_i].lanes;
        k->peak_multiply_add(2, 3, rounds[i], &sum);
        ck_assert_double_eq(sum, expected);
    }
}
END_TEST

START_TEST(reads) {
    const pq_kernels *k = pq_kernels_of(sets[_i].name);
    static float x[1000], y[1001];
    if (!k) return;
    for (size_t n = 0; n <= 1000; n++) { /* 1 + 2 + ...: every element once, exact in fp32 */
        double sum = NAN;
        if (n) x[n - 1] = (float)n;
        k->peak_read(x, n, &sum);
        ck_assert_double_eq(sum, (double)(n * (n + 1) / 2));
        memset(y, 0, sizeof y);
        k->peak_copy(x, y, n);
        ck_assert_mem_eq(y, x, n * sizeof *y);
        ck_assert(y[n] == 0);
        k->peak_update(y, n);
        for (size_t i = 0; i < n; i++) ck_assert(y[i] == -x[i]);
        ck_assert(y[n] == 0 && !signbit(y[n]));
    }
}
END_TEST

static bool sensible(double x) {
    return isfinite(x) && x > 0;
}

START_TEST(measures) {
    double rates[PQ_TRAFFICS];
    pq_error err;
    pq_threads_set(3);
    for (int threads = 1; threads <= 2; threads++) {
        ck_assert(sensible(pq_peak_flops(threads)));
        ck_assert(pq_kernels_have_bf16() ? sensible(pq_peak_bf16_flops(threads))
                                         : pq_peak_bf16_flops(threads) == 0);
        ck_assert_int_eq(pq_peak_bandwidth(threads, 1 << 20, rates, &err), PQ_OK);
        for (int i = 0; i < PQ_TRAFFICS; i++) ck_assert(sensible(rates[i]));
    }
    ck_assert_int_eq(pq_threads_get(), 3); /* given back */
    ck_assert_int_eq(pq_peak_bandwidth(2, 100, rates, &err), PQ_ERR_USAGE);
    ck_assert_int_eq(pq_peak_bandwidth(2, SIZE_MAX / 2, rates, &err), PQ_ERR_MEMORY);
    ck_assert(pq_peak_l2_bytes() > 0 && pq_peak_memory_bytes() > pq_peak_l2_bytes());
}
END_TEST

static size_t calls[2];

static void count_call(void *context, size_t i) {
    ck_assert_ptr_eq(context, calls);
    calls[i]++;
}

START_TEST(times) {
    double seconds = pq_peak_seconds(2, 2, count_call, calls);
    ck_assert(sensible(seconds));
    ck_assert(calls[0] > 1 && calls[0] == calls[1]); /* each thread as often */
}
END_TEST

int main(void) {
    for (int i = 0; i < SETS; i++)
        if (!pq_kernels_of(sets[i].name)) printf("not tried: this CPU lacks %s\n", sets[i].name);
    Suite *suite = suite_create("peak");
    TCase *tc = tcase_create("loops");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, counts, 0, SETS);
    tcase_add_loop_test(tc, reads, 0, SETS);
    tcase_add_test(tc, measures);
    tcase_add_test(tc, times);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
