/* Random numbers against published vectors; the parallel loop: each tile once, thread numbers in range, also
 * inside a host program's own parallel region. */
#include <check.h>
#include <math.h>
#include <sched.h>
#include <string.h>
#include <time.h>

#include "base/random.h"
#include "base/threads.h"
#include "tests/harness/suite.h"

/* Philox4x32-10 vectors of Random123 (Salmon et al.). */
START_TEST(philox) {
    uint32_t out[4];
    pq_random4(0, (pq_stream)0, 0, 0, out);
    ck_assert(out[0] == 0x6627e8d5 && out[1] == 0xe169c58d && out[2] == 0xbc57ac4c && out[3] == 0x9b00dbd8);
    pq_random4(UINT64_MAX, (pq_stream)0, UINT64_MAX, UINT64_MAX, out);
    ck_assert(out[0] == 0x408f276d && out[1] == 0x41c83b0e && out[2] == 0xa20bc7c6 && out[3] == 0x6d5451fd);
    uint32_t other[4];
    pq_random4(1, PQ_STREAM_BATCH, 5, 6, out);
    pq_random4(1, PQ_STREAM_DROPOUT, 5, 6, other);
    ck_assert_mem_ne(out, other, sizeof out);
}
END_TEST

START_TEST(numbers) {
    enum { N = 20000 };
    double sum = 0, squares = 0;
    for (uint64_t i = 0; i < N / 2; i++) {
        double pair[2];
        pq_random_normal2(7, PQ_STREAM_INIT, 3, i, pair);
        sum += pair[0] + pair[1];
        squares += pair[0] * pair[0] + pair[1] * pair[1];
    }
    ck_assert_double_le(fabs(sum / N), 5 / sqrt(N));
    ck_assert_double_le(fabs(squares / N - 1), 5 * sqrt(2.0 / N));
    ck_assert_uint_eq(pq_random_below(UINT32_MAX, UINT32_MAX, 10), 9);
    ck_assert_uint_eq(pq_random_below(0, UINT32_MAX, 10), 0);
    ck_assert_double_lt(pq_random_unit(UINT32_MAX, UINT32_MAX), 1);
}
END_TEST

typedef struct tally {
    int times[1000], worst;
    size_t inner;
} tally;

static void count_inner(void *context, size_t i) {
    tally *t = context;
    __atomic_add_fetch(&t->inner, i + 1, __ATOMIC_RELAXED);
}

static void count(void *context, size_t i) {
    tally *t = context;
    __atomic_add_fetch(&t->times[i], 1, __ATOMIC_RELAXED);
    if (pq_thread_index() < 0 || pq_thread_index() >= pq_threads_get())
        __atomic_store_n(&t->worst, pq_thread_index() + 1, __ATOMIC_RELAXED);
    if (i % 100 == 0) pq_parallel_for(3, count_inner, t); /* nested: serial */
}

START_TEST(loops) {
    const size_t counts[] = {0, 1, 2, 3, 7, 999, 1000};
    for (int threads = 1; threads <= 5; threads++)
        for (size_t c = 0; c < 7; c++) {
            tally t = {0};
            pq_threads_set(threads);
            pq_parallel_for(counts[c], count, &t);
            for (size_t i = 0; i < 1000; i++) ck_assert_int_eq(t.times[i], i < counts[c]);
            ck_assert_int_eq(t.worst, 0);
            ck_assert_uint_eq(t.inner, 6 * ((counts[c] + 99) / 100));
        }
    pq_threads_set(0);
    ck_assert_int_ge(pq_threads_get(), 1);
}
END_TEST

/* Task 0 ends when all the others have: those of its own share are done by other threads. */
typedef struct waiting {
    size_t done, seen;
} waiting;

static void wait_for_others(void *context, size_t i) {
    waiting *w = context;
    time_t began = time(NULL);
    if (i > 0) {
        __atomic_add_fetch(&w->done, 1, __ATOMIC_RELAXED);
        return;
    }
    do {
        sched_yield();
        w->seen = __atomic_load_n(&w->done, __ATOMIC_RELAXED);
    } while (w->seen < 99 && time(NULL) - began < 60);
}

START_TEST(shares) {
    for (int threads = 2; threads <= 80; threads += 26) {
        waiting w = {0};
        pq_threads_set(threads);
        pq_parallel_for(100, wait_for_others, &w);
        ck_assert_uint_eq(w.seen, 99);
    }
}
END_TEST

/* A host's threads call in: each loop runs serially in its thread, as thread 0. */
START_TEST(inside_a_host_region) {
    int wrong = 0;
#pragma omp parallel num_threads(4) reduction(+ : wrong)
    {
        tally t = {0};
        pq_parallel_for(1000, count, &t);
        for (size_t i = 0; i < 1000; i++) wrong += t.times[i] != 1;
        wrong += t.worst != 0 || pq_thread_index() != 0;
    }
    ck_assert_int_eq(wrong, 0);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("base");
    TCase *tc = tcase_create("base");
    tcase_add_test(tc, philox);
    tcase_add_test(tc, numbers);
    tcase_add_test(tc, loops);
    tcase_add_test(tc, shares);
    tcase_add_test(tc, inside_a_host_region);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
