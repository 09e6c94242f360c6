/* Sampling: counts of draws against exact probabilities, ties, cuts by top-k and top-p, refusals. */
#include <check.h>
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "potqat/engine.h"
#include "tests/harness/suite.h"

enum { VOCAB = 6, DRAWS = 60000 };
/* Probabilities 0.4, 0.2, 0.2, 0.1, 0.06, 0.04 in another order. */
static const double probability[VOCAB] = {0.1, 0.4, 0.04, 0.2, 0.06, 0.2};

static void logits_of(float *logits) {
    for (size_t i = 0; i < VOCAB; i++) logits[i] = (float)log(probability[i]) + 3;
}

/* Draws agree with `expected` (sums to 1) within five standard deviations; what is 0 never comes. */
static void check_counts(const pq_sampling *sampling, const double expected[VOCAB]) {
    float logits[VOCAB];
    size_t counts[VOCAB] = {0};
    logits_of(logits);
    for (uint64_t draw = 0; draw < DRAWS; draw++) {
        uint16_t token;
        ck_assert_int_eq(pq_sample(sampling, logits, VOCAB, draw, &token, NULL), PQ_OK);
        ck_assert_uint_lt(token, VOCAB);
        counts[token]++;
    }
    for (size_t i = 0; i < VOCAB; i++) {
        double p = expected[i], off = fabs((double)counts[i] - DRAWS * p);
        ck_assert_msg(off <= 5 * sqrt(DRAWS * p * (1 - p)), "token %zu: %zu draws, expected %g", i, counts[i],
                      DRAWS * p);
    }
}

START_TEST(plain) {
    check_counts(&(pq_sampling){.temperature = 1, .top_p = 1, .seed = 42}, probability);
}
END_TEST

START_TEST(temperature) {
    double expected[VOCAB], sum = 0;
    for (size_t i = 0; i < VOCAB; i++) sum += expected[i] = pow(probability[i], 1 / 0.5);
    for (size_t i = 0; i < VOCAB; i++) expected[i] /= sum;
    check_counts(&(pq_sampling){.temperature = 0.5, .top_p = 1, .seed = 7}, expected);
}
END_TEST

START_TEST(top_k) {
    /* The second of the two tokens of 0.2 is cut: ties go to the lower id. */
    check_counts(&(pq_sampling){.temperature = 1, .top_k = 2, .top_p = 1, .seed = 1},
                 (double[VOCAB]){0, 0.4 / 0.6, 0, 0.2 / 0.6, 0, 0});
    check_counts(&(pq_sampling){.temperature = 1, .top_k = 100, .top_p = 1, .seed = 2}, probability);
    check_counts(&(pq_sampling){.temperature = 1, .top_k = 1, .top_p = 1, .seed = 2},
                 (double[VOCAB]){0, 1, 0, 0, 0, 0});
}
END_TEST

START_TEST(top_p) {
    /* 0.4 + 0.2 + 0.2 reach 0.7. */
    check_counts(&(pq_sampling){.temperature = 1, .top_p = 0.7, .seed = 3},
                 (double[VOCAB]){0, 0.5, 0, 0.25, 0, 0.25});
    check_counts(&(pq_sampling){.temperature = 1, .top_p = 1e-9, .seed = 3},
                 (double[VOCAB]){0, 1, 0, 0, 0, 0});
    /* After top-k, shares are of what is left: 0.4 / 0.6 reaches 0.65. */
    check_counts(&(pq_sampling){.temperature = 1, .top_k = 2, .top_p = 0.65, .seed = 3},
                 (double[VOCAB]){0, 1, 0, 0, 0, 0});
}
END_TEST

START_TEST(greedy_and_repeatable) {
    float logits[VOCAB] = {-1, 5, 5, 2, 5, 0};
    uint16_t token, again;
    ck_assert_int_eq(pq_sample(&(pq_sampling){.temperature = 0, .top_p = 1}, logits, VOCAB, 9, &token, NULL),
                     PQ_OK);
    ck_assert_uint_eq(token, 1);
    logits[0] = 6;
    ck_assert_int_eq(pq_sample(&(pq_sampling){.temperature = 0, .top_p = 1}, logits, VOCAB, 9, &token, NULL),
                     PQ_OK);
    ck_assert_uint_eq(token, 0);
    logits_of(logits);
    size_t changed = 0;
    for (uint64_t draw = 0; draw < 100; draw++) {
        const pq_sampling a = {.temperature = 1, .top_p = 1, .seed = 5},
                          b = {.temperature = 1, .top_p = 1, .seed = 6};
        ck_assert_int_eq(pq_sample(&a, logits, VOCAB, draw, &token, NULL), PQ_OK);
        ck_assert_int_eq(pq_sample(&a, logits, VOCAB, draw, &again, NULL), PQ_OK);
        ck_assert_uint_eq(token, again);
        ck_assert_int_eq(pq_sample(&b, logits, VOCAB, draw, &again, NULL), PQ_OK);
        changed += token != again;
    }
    ck_assert_uint_gt(changed, 30); /* another seed, other draws */
}
END_TEST

/* Extreme but finite logits and temperatures neither overflow nor lose the best token. */
START_TEST(extremes) {
    float logits[VOCAB] = {-3e38f, 3e38f, -3e38f, 0, 1, 2};
    uint16_t token;
    static const double temperatures[] = {1e-300, 1e-6, 1, 1e6};
    for (size_t i = 0; i < 4; i++) {
        ck_assert_int_eq(pq_sample(&(pq_sampling){.temperature = temperatures[i], .top_p = 0.9, .seed = 1},
                                   logits, VOCAB, i, &token, NULL),
                         PQ_OK);
        ck_assert_uint_eq(token, 1);
    }
    ck_assert_int_eq(pq_sample(&(pq_sampling){.temperature = 1, .top_p = 1}, logits, 1, 0, &token, NULL),
                     PQ_OK);
    ck_assert_uint_eq(token, 0);
}
END_TEST

START_TEST(refusals) {
    float logits[VOCAB];
    uint16_t token;
    pq_error err = {0};
    static const pq_sampling bad[] = {
        {.temperature = -1, .top_p = 1},       {.temperature = NAN, .top_p = 1},
        {.temperature = INFINITY, .top_p = 1}, {.temperature = 1, .top_k = -1, .top_p = 1},
        {.temperature = 1, .top_p = 0},        {.temperature = 1, .top_p = 1.1},
        {.temperature = 1, .top_p = NAN}};
    logits_of(logits);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ck_assert_int_eq(pq_sample(&bad[i], logits, VOCAB, 0, &token, &err), PQ_ERR_USAGE);
    const pq_sampling good = {.temperature = 0, .top_p = 1};
    ck_assert_int_eq(pq_sample(&good, logits, 0, 0, &token, &err), PQ_ERR_USAGE);
    ck_assert_int_eq(pq_sample(&good, logits, 65537, 0, &token, &err), PQ_ERR_USAGE);
    static const float odd[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < 3; i++) {
        logits_of(logits);
        logits[4] = odd[i];
        ck_assert_int_eq(pq_sample(&good, logits, VOCAB, 0, &token, &err), PQ_ERR_USAGE);
        ck_assert_msg(strstr(err.message, "logit 4"), "%s", err.message);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("sample");
    TCase *tests = tcase_create("sample");
    tcase_set_timeout(tests, 0);
    tcase_add_test(tests, plain);
    tcase_add_test(tests, temperature);
    tcase_add_test(tests, top_k);
    tcase_add_test(tests, top_p);
    tcase_add_test(tests, greedy_and_repeatable);
    tcase_add_test(tests, extremes);
    tcase_add_test(tests, refusals);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
