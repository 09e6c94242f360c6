/* Fitted scales against a plain search of 1,000 points, and against the errors known for Gaussian weights. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "base/threads.h"
#include "quant/quantizer.h"
#include "tests/harness/suite.h"

/* Squared error by the meaning alone: encode, look up, subtract, in double. */
static double squared_error(const pq_codebook *b, const float *w, size_t n, float scale) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)w[i] - (double)b->value[b->type->encode(b, w[i], scale)] * (double)scale;
        sum += d * d;
    }
    return sum;
}

enum { GAUSS, LAPLACE, HEAVY, CONSTANT, OUTLIER, SPARSE, WIDE, KINDS };
static const char *const kinds[KINDS] = {"Gaussian",    "Laplace", "heavy-tailed", "constant",
                                         "one outlier", "sparse",  "log-normal"};

static void fill(float *w, size_t n, int kind, uint64_t seed) {
    for (size_t i = 0; i < n; i++) {
        double z[2];
        uint32_t r[4];
        pq_random_normal2(seed, PQ_STREAM_INIT, 1, i, z);
        pq_random4(seed, PQ_STREAM_INIT, 2, i, r);
        double u = pq_random_unit(r[0], r[1]), x = z[0];
        if (kind == LAPLACE) x = -copysign(log(1 - u), x);
        if (kind == HEAVY) x /= fabs(z[1]) + 1e-3;
        if (kind == CONSTANT) x = 18.5;
        if (kind == OUTLIER && i == n / 2) x = 250;
        if (kind == SPARSE && u > 0.3) x = 0;
        if (kind == WIDE) x *= exp(2 * z[1]);
        w[i] = (float)(0.02 * x);
    }
}

static float fit(const pq_codebook *b, pq_scale_method method, pq_scale_grid grid, const float *w, size_t n) {
    pq_scale_options options = {.method = method, .grid = grid};
    pq_error err = {0};
    float scale = NAN;
    ck_assert_msg(pq_scale_fit(b, &options, w, n, &scale, &err) == PQ_OK, "%s", err.message);
    return scale;
}

/* Every nearest-rounding power-of-two codebook: within 0.1 % of the best of 1,000 scales on the same grid, up
 * to twice absmax. Uniform codebooks with many levels have ragged errors on few weights, so their bound is
 * for rows. */
static const struct {
    const char *quantizer;
    int64_t levels;
    double range[2];
    size_t least_n;
    double slack; /* of the NMSE: what the bf16 grid leaves where the error is next to nothing */
} searched[] = {{"pot", 3, {0}, 1, 0},
                {"pot", 5, {0}, 1, 0},
                {"pot", 7, {0}, 1, 0},
                {"pot", 9, {0}, 1, 0},
                {"pot", 15, {0}, 1, 0},
                {"pot", 31, {0}, 1, 0},
                {"pot", 63, {0}, 1, 0},
                {"pot-zero-free", 4, {0}, 1, 0},
                {"pot-zero-free", 16, {0}, 1, 0},
                {"apot", 7, {0}, 1, 0},
                {"apot", 15, {0}, 64, 1e-5},
                {"apot", 31, {0}, 64, 1e-5},
                {"apot", 63, {0}, 64, 1e-5},
                {"uniform", 3, {0}, 1, 0},
                {"uniform", 15, {0}, 64, 1e-5},
                {"uniform", 0, {-8, 7}, 64, 1e-5}};

START_TEST(thousand_points) {
    static const size_t sizes[] = {1, 2, 3, 5, 8, 17, 32, 64, 128, 200, 768};
    static const pq_scale_grid grids[] = {PQ_GRID_BF16, PQ_GRID_FP32, PQ_GRID_POT};
    pq_codebook b;
    const double *range = searched[_i].range[0] < 0 ? searched[_i].range : NULL;
    float w[768];
    ck_assert_int_eq(
        pq_codebook_init(&b, searched[_i].quantizer, searched[_i].levels, range, PQ_ROUND_NEAREST, NULL),
        PQ_OK);
    double largest = fmax(b.range[1], -b.range[0]);
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            size_t n = sizes[s];
            double absmax = 0, power = 0;
            pq_scale_grid grid = grids[(s + (size_t)kind) % 3];
            fill(w, n, kind, s);
            for (size_t i = 0; i < n; i++) {
                absmax = fmax(absmax, fabs((double)w[i]));
                power += (double)w[i] * (double)w[i];
            }
            if (n < searched[_i].least_n || absmax == 0) continue;
            double best = INFINITY;
            for (int point = 1; point <= 1000; point++) {
                float scale = pq_scale_to_grid((float)(absmax / largest * point / 500), grid);
                best = fmin(best, squared_error(&b, w, n, scale));
            }
            float scale = fit(&b, PQ_SCALE_MSE, grid, w, n);
            double error = squared_error(&b, w, n, scale);
            ck_assert(pq_scale_to_grid(scale, grid) == scale);
            ck_assert_msg(error <= 1.001 * best + (searched[_i].slack + 1e-12) * power,
                          "%s %lld, grid %d, %zu %s weights: NMSE %.9g, the search has %.9g",
                          searched[_i].quantizer, (long long)searched[_i].levels, (int)grid, n, kinds[kind],
                          error / power, best / power);
        }
}
END_TEST

/* Within 0.1 % of the best of 1,000 scales up to twice absmax? */
static void search(const pq_codebook *b, const float *w, size_t n, pq_scale_grid grid, const char *what) {
    double absmax = 0, power = 0, best = INFINITY, largest = fmax(b->range[1], -b->range[0]);
    for (size_t i = 0; i < n; i++) {
        absmax = fmax(absmax, fabs((double)w[i]));
        power += (double)w[i] * (double)w[i];
    }
    if (absmax == 0) return;
    for (int point = 1; point <= 1000; point++)
        best = fmin(best,
                    squared_error(b, w, n, pq_scale_to_grid((float)(absmax / largest * point / 500), grid)));
    double error = squared_error(b, w, n, fit(b, PQ_SCALE_MSE, grid, w, n));
    double plain = squared_error(b, w, n, fit(b, PQ_SCALE_ABSMAX, grid, w, n));
    ck_assert_msg(error <= 1.001 * best + 1e-12 * power,
                  "%s %d, grid %d, %zu %s weights: %g, the search has %g", b->type->name, b->levels,
                  (int)grid, n, what, error / power, best / power);
    ck_assert_double_le(error, plain * (1 + 1e-6));
}

/* Roundings that are not to the nearest level jump: the fit stays as close. */
START_TEST(jumping_roundings) {
    static const struct {
        const char *quantizer;
        int64_t levels;
        double range[2];
    } books[] = {{"pot", 3, {0}},
                 {"pot", 7, {0}},
                 {"pot", 15, {0}},
                 {"pot-zero-free", 8, {0}},
                 {"pot-released", 0, {-8, 4}},
                 {"pot-released", 0, {-16, 16}}};
    static const size_t sizes[] = {8, 32, 128, 768};
    pq_codebook b;
    float w[768];
    bool released = books[_i].range[0] < 0;
    ck_assert_int_eq(pq_codebook_init(&b, books[_i].quantizer, books[_i].levels,
                                      released ? books[_i].range : NULL,
                                      released ? PQ_ROUND_NEAREST : PQ_ROUND_LOG, NULL),
                     PQ_OK);
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            fill(w, sizes[s], kind, s + 3);
            search(&b, w, sizes[s], (kind + (int)s) % 2 ? PQ_GRID_FP32 : PQ_GRID_BF16, kinds[kind]);
        }
}
END_TEST

/* One scale for a matrix of 16,384. */
START_TEST(tensors) {
    static const int64_t levels[] = {3, 7, 15, 31, 63};
    enum { N = 16384 };
    static float w[N];
    pq_codebook b;
    ck_assert_int_eq(pq_codebook_init(&b, "pot", levels[_i], NULL, PQ_ROUND_NEAREST, NULL), PQ_OK);
    fill(w, N, GAUSS, 5);
    search(&b, w, N, PQ_GRID_BF16, kinds[GAUSS]);
    fill(w, N, HEAVY, 6);
    search(&b, w, N, PQ_GRID_FP32, kinds[HEAVY]);
}
END_TEST

static double weighted_error(const pq_codebook *b, const float *w, const float *m, size_t n, size_t period,
                             float scale) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)m[i % period] * squared_error(b, w + i, 1, scale);
    return sum;
}

/* With an importance: against the search again, for groups in a row, rows, and several rows. */
START_TEST(importance) {
    enum { R = 6, C = 96, N = R * C };
    static const struct {
        const char *quantizer;
        int64_t levels;
    } books[] = {{"pot", 7}, {"pot", 15}, {"pot-zero-free", 8}, {"uniform", 7}};
    static const size_t groups[] = {32, C, 2 * C, N};
    float w[N], m[C], scales[N / 32], alike[N / 32];
    for (size_t i = 0; i < C; i++) m[i] = i % 5 == 0 ? 0 : expf((float)(i * 37 % 19) - 9);
    fill(w, N, LAPLACE, 8);
    for (size_t k = 0; k < sizeof books / sizeof *books; k++)
        for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
            pq_codebook b;
            size_t group = groups[g], period = group < C ? group : C;
            pq_scale_options options = {.method = PQ_SCALE_MSE, .grid = PQ_GRID_BF16, .importance = m};
            ck_assert_int_eq(
                pq_codebook_init(&b, books[k].quantizer, books[k].levels, NULL, PQ_ROUND_NEAREST, NULL),
                PQ_OK);
            ck_assert_uint_eq(pq_scale_count(R, C, group), N / group);
            ck_assert_int_eq(pq_matrix_fit(&b, &options, w, R, C, group, scales, NULL), PQ_OK);
            options.importance = NULL;
            ck_assert_int_eq(pq_matrix_fit(&b, &options, w, R, C, group, alike, NULL), PQ_OK);
            for (size_t i = 0; i < N / group; i++) {
                const float *row = w + i * group, *own = m + i * group % C;
                double absmax = 0, best = INFINITY;
                for (size_t j = 0; j < group; j++) absmax = fmax(absmax, fabs((double)row[j]));
                for (int point = 1; point <= 1000; point++)
                    best =
                        fmin(best, weighted_error(&b, row, own, group, period,
                                                  pq_scale_to_grid((float)(absmax / b.range[1] * point / 500),
                                                                   PQ_GRID_BF16)));
                double error = weighted_error(&b, row, own, group, period, scales[i]);
                ck_assert_msg(error <= 1.002 * best, "%s %lld, group of %zu: %g, the search has %g",
                              books[k].quantizer, (long long)books[k].levels, group, error, best);
                ck_assert(error <= weighted_error(&b, row, own, group, period, alike[i]) * 1.00001);
            }
        }
}
END_TEST

/* Alike, or nothing but zeros: as without. What is no importance is refused. */
START_TEST(importance_edges) {
    enum { N = 256 };
    float w[N], m[N], plain, scale;
    pq_codebook b;
    ck_assert_int_eq(pq_codebook_init(&b, "pot", 15, NULL, PQ_ROUND_NEAREST, NULL), PQ_OK);
    fill(w, N, GAUSS, 3);
    plain = fit(&b, PQ_SCALE_MSE, PQ_GRID_BF16, w, N);
    pq_scale_options options = {.method = PQ_SCALE_MSE, .grid = PQ_GRID_BF16, .importance = m};
    static const float same[] = {0, 1, 3e10f, 2e-10f};
    for (size_t k = 0; k < 4; k++) {
        for (size_t i = 0; i < N; i++) m[i] = same[k];
        ck_assert_int_eq(pq_scale_fit(&b, &options, w, N, &scale, NULL), PQ_OK);
        ck_assert_float_eq(scale, plain);
    }
    static const float refused[] = {-1, NAN, INFINITY};
    for (size_t k = 0; k < 3; k++) {
        pq_error err = {0};
        m[7] = refused[k];
        ck_assert_int_eq(pq_scale_fit(&b, &options, w, N, &scale, &err), PQ_ERR_USAGE);
        ck_assert_ptr_nonnull(strstr(err.message, "importance 7"));
    }
}
END_TEST

/* The known errors of Gaussian weights at the best scale (sampling error of 200,000 weights: below 1 %). */
START_TEST(gaussian) {
    enum { N = 200000 };
    static const struct {
        int64_t levels;
        double nmse;
    } known[] = {{5, .082}, {7, .0476}, {9, .0399}, {15, .0377}, {31, .0377}};
    float *w = malloc(N * sizeof *w);
    double power = 0;
    fill(w, N, GAUSS, 42);
    for (size_t i = 0; i < N; i++) power += (double)w[i] * (double)w[i];
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        pq_codebook b;
        ck_assert_int_eq(pq_codebook_init(&b, "pot", known[i].levels, NULL, PQ_ROUND_NEAREST, NULL), PQ_OK);
        pq_threads_set(2);
        float scale = fit(&b, PQ_SCALE_MSE, PQ_GRID_BF16, w, N);
        pq_threads_set(1);
        ck_assert(scale == fit(&b, PQ_SCALE_MSE, PQ_GRID_BF16, w, N));
        double nmse = squared_error(&b, w, N, scale) / power;
        ck_assert_msg(fabs(nmse - known[i].nmse) < 0.012 * known[i].nmse,
                      "%lld levels: NMSE %.5f, expected %.4f", (long long)known[i].levels, nmse,
                      known[i].nmse);
    }
    /* Log rounding costs 8 to 9 % at many levels; uniform with 15 levels has .013. */
    pq_codebook b;
    ck_assert_int_eq(pq_codebook_init(&b, "pot", 15, NULL, PQ_ROUND_LOG, NULL), PQ_OK);
    double nmse = squared_error(&b, w, N, fit(&b, PQ_SCALE_MSE, PQ_GRID_BF16, w, N)) / power;
    ck_assert_msg(nmse > 1.07 * .0377 && nmse < 1.10 * .0377, "log rounding: NMSE %.5f", nmse);
    ck_assert_int_eq(pq_codebook_init(&b, "uniform", 15, NULL, PQ_ROUND_NEAREST, NULL), PQ_OK);
    nmse = squared_error(&b, w, N, fit(&b, PQ_SCALE_MSE, PQ_GRID_BF16, w, N)) / power;
    ck_assert_msg(fabs(nmse - .013) < .0005, "uniform: NMSE %.5f", nmse);
    free(w);
}
END_TEST

/* absmax scales: the largest weight gets the largest level. */
START_TEST(absmax) {
    static const struct {
        const char *quantizer;
        int64_t levels;
        double range[2];
        float scale; /* for the largest weight 12, fp32 grid */
    } rows[] = {
        {"pot", 7, {0}, 3.0f},           {"pot", 15, {0}, 0.1875f},     {"pot-zero-free", 16, {0}, 0.09375f},
        {"uniform", 15, {0}, 12.0f / 7}, {"uniform", 0, {-8, 7}, 1.6f}, {"pot-released", 0, {-8, 4}, 2.0f}};
    float w[] = {1, -12, 0.5f, 11};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pq_codebook b;
        ck_assert_int_eq(pq_codebook_init(&b, rows[i].quantizer, rows[i].levels,
                                          rows[i].range[0] < 0 ? rows[i].range : NULL, PQ_ROUND_NEAREST,
                                          NULL),
                         PQ_OK);
        ck_assert_float_eq(fit(&b, PQ_SCALE_ABSMAX, PQ_GRID_FP32, w, 4), rows[i].scale);
        ck_assert_float_eq(fit(&b, PQ_SCALE_ABSMAX, PQ_GRID_BF16, w, 4),
                           pq_scale_to_grid(rows[i].scale, PQ_GRID_BF16));
    }
}
END_TEST

static int by_size(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* A percentile against sorting; at 100 and for few weights it is the largest, and never 0. */
START_TEST(percentile) {
    static const size_t sizes[] = {1, 2, 10, 32, 999, 1000, 1001, 40000};
    static const double percents[] = {100, 99.9, 99, 50, 10, 1e-3};
    static float w[40000], sorted[40000];
    pq_codebook b;
    ck_assert_int_eq(pq_codebook_init(&b, "pot", 7, NULL, PQ_ROUND_NEAREST, NULL), PQ_OK);
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (size_t k = 0; k < sizeof percents / sizeof *percents; k++) {
            size_t n = sizes[s], rank = 1;
            pq_scale_options options = {
                .method = PQ_SCALE_PERCENTILE, .grid = PQ_GRID_FP32, .percentile = percents[k]};
            float scale;
            fill(w, n, s % 2 ? SPARSE : LAPLACE, s);
            if (s % 2) w[0] = -3;
            for (size_t i = 0; i < n; i++) sorted[i] = fabsf(w[i]);
            qsort(sorted, n, sizeof *sorted, by_size);
            while (rank < n && (double)rank * 1e5 < round(percents[k] * 1e3) * (double)n) rank++;
            float expected = sorted[rank - 1] > 0 ? sorted[rank - 1] : sorted[n - 1];
            ck_assert_int_eq(pq_scale_fit(&b, &options, w, n, &scale, NULL), PQ_OK);
            ck_assert_msg(scale == (float)((double)expected / 4), "percentile %g of %zu: %g, expected %g",
                          percents[k], n, (double)scale, (double)expected / 4);
        }
}
END_TEST

/* The moving average of absmax: the first fit sets it; a refused one leaves it; a matrix has one a group. */
START_TEST(moving_average) {
    enum { N = 64 };
    float w[N] = {0}, running = NAN, scale, each[2] = {NAN, NAN}, scales[2];
    double expected = 8;
    pq_codebook b;
    pq_scale_options options = {.method = PQ_SCALE_EMA_ABSMAX, .grid = PQ_GRID_FP32};
    pq_scale_limits limits;
    ck_assert_int_eq(pq_codebook_init(&b, "pot", 7, NULL, PQ_ROUND_NEAREST, NULL), PQ_OK);
    ck_assert_int_eq(pq_scale_limits_of(&b, &options, &limits, NULL), PQ_OK);
    for (int i = 0; i < 50; i++) {
        w[5] = i == 0 ? -8.0f : 2.0f, w[40] = 1;
        if (i > 0) expected += 0.01 * (2 - expected);
        ck_assert_int_eq(pq_scale_follow(&b, &options, &limits, w, N, &running, &scale, NULL), PQ_OK);
        ck_assert(fabs((double)running - expected) < 1e-5 && (double)scale == (double)running / 4);
        pq_threads_set(1 + i % 2);
        ck_assert_int_eq(pq_matrix_fit_part(&b, &options, w, 0, N, 32, 32, each, scales, NULL), PQ_OK);
        ck_assert(each[0] == running && scales[0] == scale && each[1] == 1 && scales[1] == 0.25f);
    }
    float before = running;
    ck_assert_int_eq(pq_scale_fit(&b, &options, w, N, &scale, NULL), PQ_OK);
    ck_assert_float_eq(scale, 0.5f); /* alone: as absmax */
    w[7] = NAN;
    ck_assert_int_eq(pq_scale_follow(&b, &options, &limits, w, N, &running, &scale, NULL), PQ_ERR_USAGE);
    ck_assert_float_eq(running, before);
}
END_TEST

/* Parts of a matrix, fitted one after the other, get what the whole gets, and leave all other scales alone.
 */
START_TEST(parts) {
    enum { ROWS = 6, COLUMNS = 48, ALL = ROWS * COLUMNS };
    static const size_t groups[] = {8, 16, 48, 96}; /* in a row, a row, two rows */
    static const pq_scale_method methods[] = {PQ_SCALE_ABSMAX, PQ_SCALE_MSE};
    float w[ALL], weight[COLUMNS], whole[ALL], part[ALL];
    pq_codebook b;
    ck_assert_int_eq(pq_codebook_init(&b, "pot", 7, NULL, PQ_ROUND_NEAREST, NULL), PQ_OK);
    for (int i = 0; i < ALL; i++) w[i] = (float)(sin(0.9 * i) * (1 + i % 11));
    for (int i = 0; i < COLUMNS; i++) weight[i] = (float)(i % 5);
    for (size_t k = 0; k < 4; k++)
        for (size_t m = 0; m < 2; m++) {
            pq_scale_options options = {.method = methods[m], .importance = weight};
            const size_t group = groups[k], scales = ALL / group, first = ALL / 3 / group * group;
            for (size_t i = 0; i < scales; i++) part[i] = -7;
            ck_assert_int_eq(pq_matrix_fit(&b, &options, w, ROWS, COLUMNS, group, whole, NULL), PQ_OK);
            ck_assert_int_eq(
                pq_matrix_fit_part(&b, &options, w, first, ALL - first, COLUMNS, group, NULL, part, NULL),
                PQ_OK);
            for (size_t i = 0; i < scales; i++)
                ck_assert_float_eq(part[i], i < first / group ? -7 : whole[i]);
            ck_assert_int_eq(pq_matrix_fit_part(&b, &options, w, 0, first, COLUMNS, group, NULL, part, NULL),
                             PQ_OK);
            ck_assert_mem_eq(part, whole, scales * sizeof *part);
        }
}
END_TEST

/* Groups that can't be fitted keep their scales; the error names the row of the first one, on any number of
 * threads. */
START_TEST(failing_groups) {
    enum { ROWS = 2000, COLUMNS = 24, GROUP = 8, SCALES = ROWS * COLUMNS / GROUP };
    static float w[ROWS * COLUMNS], scales[SCALES];
    pq_codebook b;
    pq_error err;
    pq_scale_options options = {.method = PQ_SCALE_ABSMAX};
    ck_assert_int_eq(pq_codebook_init(&b, "pot", 7, NULL, PQ_ROUND_NEAREST, NULL), PQ_OK);
    for (size_t threads = 1; threads <= 3; threads++) {
        pq_threads_set((int)threads);
        for (int i = 0; i < ROWS * COLUMNS; i++) w[i] = 4;
        for (int i = 0; i < SCALES; i++) scales[i] = -7;
        w[1999 * COLUMNS] = INFINITY, w[733 * COLUMNS + GROUP] = NAN, w[1200 * COLUMNS] = NAN;
        ck_assert_int_eq(pq_matrix_fit(&b, &options, w, ROWS, COLUMNS, GROUP, scales, &err), PQ_ERR_USAGE);
        ck_assert_msg(strncmp(err.message, "row 733: weights must be finite", 31) == 0, "%s", err.message);
        for (size_t i = 0; i < SCALES; i++) {
            bool fits = i != 1999 * 3 && i != 733 * 3 + 1 && i != 1200 * 3;
            ck_assert_float_eq(scales[i], fits ? 1.0f : -7.0f);
        }
    }
}
END_TEST

/* Learned scales start at the least squared error. */
START_TEST(learned_start) {
    float w[100];
    pq_codebook b;
    ck_assert_int_eq(pq_codebook_init(&b, "pot", 15, NULL, PQ_ROUND_NEAREST, NULL), PQ_OK);
    fill(w, 100, LAPLACE, 4);
    ck_assert_float_eq(fit(&b, PQ_SCALE_LEARNED, PQ_GRID_BF16, w, 100),
                       fit(&b, PQ_SCALE_MSE, PQ_GRID_BF16, w, 100));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("scale");
    TCase *all = tcase_create("scale");
    tcase_set_timeout(all, 0);
    tcase_add_loop_test(all, thousand_points, 0, sizeof searched / sizeof *searched);
    tcase_add_loop_test(all, jumping_roundings, 0, 6);
    tcase_add_loop_test(all, tensors, 0, 5);
    tcase_add_test(all, importance);
    tcase_add_test(all, importance_edges);
    tcase_add_test(all, gaussian);
    tcase_add_test(all, absmax);
    tcase_add_test(all, percentile);
    tcase_add_test(all, moving_average);
    tcase_add_test(all, parts);
    tcase_add_test(all, failing_groups);
    tcase_add_test(all, learned_start);
    suite_add_tcase(suite, all);
    return run_suite(suite);
}
