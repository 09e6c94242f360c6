/* GPTQ against the textbook: columns leave an explicit inverse one by one, in double. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "base/threads.h"
#include "kernels/gemm.h"
#include "tests/harness/suite.h"
#include "train/ptq/gptq.h"

enum { ROWS = 70, MOST = 200 };

typedef struct problem {
    pq_gptq_problem p;
    pq_codebook codebook;
    float *W, *H, *scales, *latent, *Q;
    size_t count, scale_count;
} problem;

static double normal(uint64_t seed, uint64_t i) {
    double pair[2];
    pq_random_normal2(seed, PQ_STREAM_INIT, 7, i, pair);
    return pair[0];
}

/* Weights, and inputs whose columns go together and have different sizes; columns 3 and n - 1 are dead. */
static problem make(const char *quantizer, int levels, size_t columns, size_t group) {
    size_t samples = 3 * columns;
    problem x = {.count = ROWS * columns};
    const pq_scale_options options = {.method = PQ_SCALE_MSE};
    float *inputs = calloc(samples * columns, sizeof *inputs);
    x.W = calloc(x.count, sizeof(float)), x.latent = calloc(x.count, sizeof(float));
    x.Q = calloc(x.count, sizeof(float)), x.H = calloc(columns * columns, sizeof(float));
    for (size_t i = 0; i < x.count; i++) x.W[i] = x.latent[i] = (float)normal(1, i);
    for (size_t s = 0; s < samples; s++)
        for (size_t c = 0; c < columns; c++) {
            double own = normal(2, s * columns + c), shared = normal(3, s), size = 0.2 + (double)(c * 7 % 11);
            inputs[s * columns + c] = c == 3 || c == columns - 1 ? 0 : (float)(size * (own + shared));
        }
    pq_gemm_gram(samples, columns, inputs, columns, x.H, columns);
    free(inputs);
    pq_gptq_damp(columns, 0.01, x.H);
    ck_assert_int_eq(pq_codebook_init(&x.codebook, quantizer, levels, NULL, PQ_ROUND_NEAREST, NULL), PQ_OK);
    x.scale_count = pq_scale_count(ROWS, columns, group);
    x.scales = calloc(x.scale_count, sizeof(float));
    ck_assert_int_eq(pq_matrix_fit(&x.codebook, &options, x.W, ROWS, columns, group, x.scales, NULL), PQ_OK);
    x.p = (pq_gptq_problem){.rows = ROWS, .columns = columns, .group = group, .H = x.H};
    return x;
}

static void discard(problem *x) {
    free(x->W), free(x->H), free(x->scales), free(x->latent), free(x->Q);
}

static void run(problem *x, bool refined) {
    const pq_scale_grid grid = PQ_GRID_BF16;
    pq_error err = {0};
    x->p.codebook = &x->codebook;
    memcpy(x->latent, x->W, x->count * sizeof(float));
    pq_status status = refined ? pq_gptq_refined(&x->p, &grid, x->scales, x->latent, &err)
                               : pq_gptq(&x->p, x->scales, x->latent, &err);
    ck_assert_msg(status == PQ_OK, "%s", err.message);
    pq_matrix_fake_quantize(&x->codebook, x->latent, ROWS, x->p.columns, x->p.group, x->scales, x->Q);
}

static float rounded(const problem *x, double w, size_t place) {
    float in = (float)w, out;
    pq_fake_quantize(&x->codebook, &in, x->scales[place / x->p.group], &out, 1);
    return out;
}

static void invert(double *a, double *inverse, size_t n) {
    for (size_t i = 0; i < n * n; i++) inverse[i] = i % (n + 1) == 0;
    for (size_t c = 0; c < n; c++) {
        double pivot = a[c * n + c];
        for (size_t k = 0; k < n; k++) a[c * n + k] /= pivot, inverse[c * n + k] /= pivot;
        for (size_t r = 0; r < n; r++) {
            double f = a[r * n + c];
            for (size_t k = 0; r != c && k < n; k++)
                a[r * n + k] -= f * a[c * n + k], inverse[r * n + k] -= f * inverse[c * n + k];
        }
    }
}

/* Equations 2 and 3 of arXiv 2210.17323: the inverse over the columns that are left loses one a step. */
static void textbook(const problem *x, float *Q) {
    size_t n = x->p.columns;
    double *a = calloc(n * n, sizeof *a), *inverse = calloc(n * n, sizeof *inverse);
    double *W = calloc(x->count, sizeof *W);
    bool done[MOST] = {false};
    for (size_t i = 0; i < n * n; i++) a[i] = (double)x->H[i];
    invert(a, inverse, n);
    for (size_t i = 0; i < x->count; i++) W[i] = (double)x->W[i];
    for (size_t step = 0; step < n; step++) {
        size_t c = n;
        for (size_t k = 0; k < n; k++)
            if (!done[k] && (c == n || x->H[k * n + k] > x->H[c * n + c])) c = k;
        done[c] = true;
        for (size_t r = 0; r < ROWS; r++) {
            Q[r * n + c] = rounded(x, W[r * n + c], r * n + c);
            double e = (W[r * n + c] - (double)Q[r * n + c]) / inverse[c * n + c];
            for (size_t k = 0; k < n; k++)
                if (!done[k]) W[r * n + k] -= e * inverse[c * n + k];
        }
        for (size_t i = 0; i < n; i++)
            for (size_t k = 0; i != c && k < n; k++)
                if (k != c)
                    inverse[i * n + k] -= inverse[i * n + c] * inverse[c * n + k] / inverse[c * n + c];
    }
    free(a), free(inverse), free(W);
}

static const struct shape {
    const char *quantizer;
    int levels;
    size_t columns, group;
} shapes[] = {{"pot", 3, 200, 200},     {"pot", 7, 160, 32},         {"pot", 15, 33, 33},
              {"uniform", 7, 130, 130}, {"uniform", 5, 48, 48 * 70}, {"pot-zero-free", 8, 64, 64}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

START_TEST(against_the_textbook) {
    const struct shape *s = &shapes[_i];
    problem x = make(s->quantizer, s->levels, s->columns, s->group);
    float *Q = calloc(x.count, sizeof *Q);
    size_t rows = 0;
    run(&x, false);
    textbook(&x, Q);
    for (size_t r = 0; r < ROWS; r++)
        rows += memcmp(Q + r * s->columns, x.Q + r * s->columns, s->columns * sizeof *Q) == 0;
    /* A weight at a switch point may go the other way in float, and its row then goes on differently. */
    ck_assert_uint_ge(rows, ROWS - 4);
    double expected = pq_gptq_objective(&x.p, x.W, Q), found = pq_gptq_objective(&x.p, x.W, x.Q);
    ck_assert_double_le(fabs(found - expected), 1e-2 * expected);
    free(Q);
    discard(&x);
}
END_TEST

static void naive_objective(const problem *x, const float *Q, double *sum) {
    size_t n = x->p.columns;
    *sum = 0;
    for (size_t r = 0; r < ROWS; r++)
        for (size_t i = 0; i < n; i++)
            for (size_t k = 0; k < n; k++)
                *sum += ((double)x->W[r * n + i] - (double)Q[r * n + i]) * (double)x->H[i * n + k] *
                        ((double)x->W[r * n + k] - (double)Q[r * n + k]);
}

/* Rounding to nearest, GPTQ, and what follows it: each much better than the one before. */
START_TEST(objectives) {
    const struct shape *s = &shapes[_i];
    problem x = make(s->quantizer, s->levels, s->columns, s->group);
    float *nearest = calloc(x.count, sizeof *nearest);
    double rtn, gptq, refined, again;
    pq_matrix_fake_quantize(&x.codebook, x.W, ROWS, s->columns, s->group, x.scales, nearest);
    run(&x, false);
    naive_objective(&x, nearest, &rtn);
    naive_objective(&x, x.Q, &gptq);
    run(&x, true);
    naive_objective(&x, x.Q, &refined);
    again = pq_gptq_objective(&x.p, x.W, x.Q);
    ck_assert_double_le(fabs(again - refined), 1e-9 * refined);
    ck_assert_msg(gptq < 0.7 * rtn, "%g against %g", gptq, rtn);
    ck_assert_msg(refined < gptq, "%g against %g", refined, gptq);
    for (size_t i = 0; i < x.scale_count; i++)
        ck_assert(x.scales[i] == pq_scale_to_grid(x.scales[i], PQ_GRID_BF16));
    free(nearest);
    discard(&x);
}
END_TEST

/* The values that the stored weights round to are those that the last sweep left: hardly a weight has a
 * better level while all others stay (only rows that were not yet at rest). */
START_TEST(at_rest) {
    problem x = make("pot", 7, 64, 64);
    size_t n = 64, better = 0;
    run(&x, true);
    for (size_t r = 0; r < ROWS; r++)
        for (size_t c = 0; c < n; c++) {
            double R = 0, h = (double)x.H[c * n + c];
            for (size_t k = 0; k < n; k++)
                R += ((double)x.W[r * n + k] - (double)x.Q[r * n + k]) * (double)x.H[k * n + c];
            float q = rounded(&x, (double)x.Q[r * n + c] + R / h, r * n + c);
            double d = (double)q - (double)x.Q[r * n + c];
            better += d * d * h - 2 * d * R < -1e-4 * h * (double)(x.scales[r] * x.scales[r]);
        }
    ck_assert_msg(better < x.count / 100, "%zu of %zu", better, x.count);
    discard(&x);
}
END_TEST

START_TEST(threads) {
    const struct shape *s = &shapes[_i];
    problem one = make(s->quantizer, s->levels, s->columns, s->group);
    pq_threads_set(1);
    run(&one, true);
    for (int count = 2; count <= 3; count++) {
        problem more = make(s->quantizer, s->levels, s->columns, s->group);
        pq_threads_set(count);
        run(&more, true);
        ck_assert_mem_eq(one.latent, more.latent, one.count * sizeof(float));
        ck_assert_mem_eq(one.scales, more.scales, one.scale_count * sizeof(float));
        discard(&more);
    }
    pq_threads_set(0);
    discard(&one);
}
END_TEST

/* What reads nothing is rounded as it is, and nothing is made up for by it. */
START_TEST(dead_columns) {
    problem x = make("pot", 7, 64, 64);
    run(&x, false);
    for (size_t r = 0; r < ROWS; r++)
        for (size_t c = 0; c < 64; c++)
            if (c == 3 || c == 63) ck_assert(x.latent[r * 64 + c] == x.W[r * 64 + c]);
    /* All dead. */
    memset(x.H, 0, 64 * 64 * sizeof(float));
    pq_gptq_damp(64, 0.01, x.H);
    run(&x, false);
    ck_assert_mem_eq(x.latent, x.W, x.count * sizeof(float));
    discard(&x);
}
END_TEST

START_TEST(refusal) {
    problem x = make("pot", 7, 33, 33);
    pq_error err;
    x.p.codebook = &x.codebook;
    x.H[5 * 33 + 5] = -1;
    ck_assert_int_eq(pq_gptq(&x.p, x.scales, x.latent, &err), PQ_ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "not positive definite"));
    x.H[5 * 33 + 5] = NAN;
    ck_assert_int_eq(pq_gptq(&x.p, x.scales, x.latent, &err), PQ_ERR_USAGE);
    discard(&x);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("gptq");
    TCase *all = tcase_create("gptq");
    pq_gemm_threads_take();
    tcase_add_loop_test(all, against_the_textbook, 0, SHAPES);
    tcase_add_loop_test(all, objectives, 0, SHAPES);
    tcase_add_loop_test(all, threads, 0, SHAPES);
    tcase_add_test(all, at_rest);
    tcase_add_test(all, dead_columns);
    tcase_add_test(all, refusal);
    suite_add_tcase(suite, all);
    return run_suite(suite);
}
