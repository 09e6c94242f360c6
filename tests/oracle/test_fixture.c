/* The fixture reader, checked against what the fixtures must say of themselves. */
#include "fixture.h"
#include "tests/harness/suite.h"

#include <check.h>
#include <math.h>

static const char *const NAMES[] = {"gpt2-bias-tanh", "gpt2-erf"};

START_TEST(losses_follow_from_logits) {
    fixture f = fixture_read(NAMES[_i]);
    size_t rows = (size_t)(f.batch * f.length), V = (size_t)f.vocab, valid = 0;
    const double *logits = fixture_get(&f, "logits", rows * V), *losses = fixture_get(&f, "losses", rows);
    const double *targets = fixture_get(&f, "targets", rows);
    double sum = 0;
    for (size_t r = 0; r < rows; r++) {
        if (targets[r] < 0) {
            ck_assert(losses[r] == 0);
            continue;
        }
        double total = 0;
        for (size_t v = 0; v < V; v++) total += exp(logits[r * V + v]);
        ck_assert_double_eq_tol(log(total) - logits[r * V + (size_t)targets[r]], losses[r], 1e-5);
        sum += losses[r];
        valid++;
    }
    ck_assert(valid > 0 && valid < rows); /* some targets are masked */
    ck_assert_double_eq_tol(sum / (double)valid, *fixture_get(&f, "loss", 1), 1e-12);
    fixture_free(&f);
}
END_TEST

START_TEST(gradients_have_their_norm) {
    fixture f = fixture_read(NAMES[_i]);
    double squares = 0;
    for (size_t i = 0; i < f.count; i++) {
        const fixture_array *a = &f.arrays[i];
        if (a->name[0] != 'g' || a->name[4] != '.') continue;
        for (size_t j = 0; j < a->count; j++) squares += a->values[j] * a->values[j];
    }
    ck_assert_double_eq_tol(sqrt(squares), *fixture_get(&f, "grad_norm", 1), 1e-6);
    fixture_free(&f);
}
END_TEST

START_TEST(distance_is_relative_to_the_expected) {
    const double expected[] = {3, 4};
    ck_assert_double_eq_tol(fixture_distance((float[]){3, 4.5F}, expected, 2), 0.1, 1e-12);
    ck_assert(fixture_distance((float[]){3, 4}, expected, 2) == 0);
    ck_assert(fixture_distance((float[]){1, 0}, (double[]){0, 0}, 2) == INFINITY);
    ck_assert(!(fixture_distance((float[]){NAN, 0}, expected, 2) <= 1));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("fixture");
    TCase *tests = tcase_create("fixture");
    tcase_add_loop_test(tests, losses_follow_from_logits, 0, 2);
    tcase_add_loop_test(tests, gradients_have_their_norm, 0, 2);
    tcase_add_test(tests, distance_is_relative_to_the_expected);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
