/* Which codebooks can be, what the others are told, and the scale grids. */
#include <check.h>
#include <float.h>
#include <math.h>
#include <string.h>

#include "quant/quantizer.h"
#include "tests/harness/suite.h"

typedef struct refusal {
    const char *quantizer;
    int64_t levels;
    double range[2]; /* none: 0, 0 */
    pq_rounding rounding;
    const char *says;
} refusal;

static const refusal refusals[] = {
    {"pott", 15, {0}, PQ_ROUND_NEAREST, "pot-zero-free"},
    {"", 15, {0}, PQ_ROUND_NEAREST, "expected pot"},
    {"pot", 8, {0}, PQ_ROUND_NEAREST, "odd, 3 to 63; found 8"},
    {"pot", 1, {0}, PQ_ROUND_NEAREST, "found 1"},
    {"pot", 65, {0}, PQ_ROUND_NEAREST, "found 65"},
    {"pot", -15, {0}, PQ_ROUND_NEAREST, "found -15"},
    {"pot", INT64_MAX, {0}, PQ_ROUND_NEAREST, "odd"},
    {"pot", INT64_MIN, {0}, PQ_ROUND_NEAREST, "odd"},
    {"pot", 15, {-8, 8}, PQ_ROUND_NEAREST, "not a range"},
    {"pot-zero-free", 15, {0}, PQ_ROUND_NEAREST, "4, 8, 16, 32 or 64; found 15"},
    {"pot-zero-free", 2, {0}, PQ_ROUND_NEAREST, "found 2"},
    {"pot-zero-free", 128, {0}, PQ_ROUND_NEAREST, "found 128"},
    {"pot-zero-free", 16, {-8, 8}, PQ_ROUND_NEAREST, "not a range"},
    {"uniform", 16, {0}, PQ_ROUND_NEAREST, "odd, 3 to 127"},
    {"uniform", 129, {0}, PQ_ROUND_NEAREST, "found 129"},
    {"uniform", INT64_MIN, {0}, PQ_ROUND_NEAREST, "odd"},
    {"uniform", 15, {0}, PQ_ROUND_LOG, "expected rounding nearest, found log"},
    {"uniform", 0, {-64, 64}, PQ_ROUND_NEAREST, "at most 128 levels; found [-64, 64]"},
    {"uniform", 0, {-7.5, 7}, PQ_ROUND_NEAREST, "integers"},
    {"uniform", 0, {1, 7}, PQ_ROUND_NEAREST, "around 0"},
    {"uniform", 0, {7, -8}, PQ_ROUND_NEAREST, "around 0"},
    {"uniform", 0, {NAN, 8}, PQ_ROUND_NEAREST, "range"},
    {"uniform", 0, {-INFINITY, INFINITY}, PQ_ROUND_NEAREST, "range"},
    {"pot-released", 15, {0}, PQ_ROUND_NEAREST, "takes a range"},
    {"pot-released", 0, {-8, 5}, PQ_ROUND_NEAREST, "found [-8, 5]"},
    {"pot-released", 0, {-8, 0.5}, PQ_ROUND_NEAREST, "power of two"},
    {"pot-released", 0, {8, 8}, PQ_ROUND_NEAREST, "negative"},
    {"pot-released", 0, {-8, 0x1p40}, PQ_ROUND_NEAREST, "2^31"},
    {"pot-released", 0, {-8, NAN}, PQ_ROUND_NEAREST, "power of two"},
    {"pot-released", 0, {-8, 8}, PQ_ROUND_LOG, "own rounding"},
};

START_TEST(refused) {
    const refusal *r = &refusals[_i];
    pq_codebook b;
    pq_error err = {0};
    bool ranged = r->range[0] != 0 || r->range[1] != 0;
    pq_status status =
        pq_codebook_init(&b, r->quantizer, r->levels, ranged ? r->range : NULL, r->rounding, &err);
    ck_assert_int_eq(status, PQ_ERR_USAGE);
    ck_assert_msg(strstr(err.message, r->says) != NULL, "\"%s\" does not say \"%s\"", err.message, r->says);
    ck_assert_int_eq(
        pq_codebook_init(&b, r->quantizer, r->levels, ranged ? r->range : NULL, r->rounding, NULL),
        PQ_ERR_USAGE);
}
END_TEST

/* Codes are in files: these must never change. */
START_TEST(codes_are_fixed) {
    static const struct {
        const char *quantizer;
        int64_t levels;
        double range[2];
        int codes;
        float values[16];
    } fixed[] = {
        {"pot", 3, {0}, 4, {0, 1, NAN, -1}},
        {"pot", 7, {0}, 8, {0, 1, 2, 4, NAN, -1, -2, -4}},
        {"pot", 9, {0}, 16, {0, 1, 2, 4, 8, NAN, NAN, NAN, NAN, -1, -2, -4, -8, NAN, NAN, NAN}},
        {"pot", 15, {0}, 16, {0, 1, 2, 4, 8, 16, 32, 64, NAN, -1, -2, -4, -8, -16, -32, -64}},
        {"pot-zero-free", 8, {0}, 8, {1, 2, 4, 8, -1, -2, -4, -8}},
        {"uniform", 5, {0}, 8, {-2, -1, 0, 1, 2, NAN, NAN, NAN}},
        {"uniform", 0, {-2, 1}, 4, {-2, -1, 0, 1}},
        {"pot-released", 0, {-8, 4}, 8, {0, 1, 2, 4, -1, -2, -4, -8}},
        {"pot-released", 0, {-2, 2}, 8, {0, 1, 2, -1, -2, NAN, NAN, NAN}},
    };
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
        pq_codebook b;
        const double *range = fixed[i].range[0] < 0 ? fixed[i].range : NULL;
        ck_assert_int_eq(
            pq_codebook_init(&b, fixed[i].quantizer, fixed[i].levels, range, PQ_ROUND_NEAREST, NULL), PQ_OK);
        ck_assert_int_eq(1 << b.bits, fixed[i].codes);
        for (int code = 0; code < 256; code++) {
            float expected = code < fixed[i].codes ? fixed[i].values[code] : NAN;
            ck_assert_msg(isnan(expected) ? isnan(b.value[code]) : b.value[code] == expected,
                          "%s: code %d is %g", fixed[i].quantizer, code, (double)b.value[code]);
        }
    }
}
END_TEST

START_TEST(names) {
    pq_rounding rounding;
    pq_scale_method method;
    pq_scale_grid grid;
    pq_gradient gradient;
    ck_assert(pq_rounding_parse("nearest", &rounding) && rounding == PQ_ROUND_NEAREST);
    ck_assert(pq_rounding_parse("log", &rounding) && rounding == PQ_ROUND_LOG);
    ck_assert(!pq_rounding_parse("Log", &rounding) && !pq_rounding_parse("", &rounding));
    ck_assert(pq_scale_method_parse("absmax", &method) && method == PQ_SCALE_ABSMAX);
    ck_assert(pq_scale_method_parse("mse", &method) && method == PQ_SCALE_MSE);
    ck_assert(pq_scale_method_parse("ema-absmax", &method) && method == PQ_SCALE_EMA_ABSMAX);
    ck_assert(pq_scale_method_parse("percentile", &method) && method == PQ_SCALE_PERCENTILE);
    ck_assert(pq_scale_method_parse("learned", &method) && method == PQ_SCALE_LEARNED);
    ck_assert(!pq_scale_method_parse("largest", &method));
    ck_assert(pq_scale_grid_parse("bf16", &grid) && grid == PQ_GRID_BF16);
    ck_assert(pq_scale_grid_parse("fp32", &grid) && grid == PQ_GRID_FP32);
    ck_assert(pq_scale_grid_parse("pot", &grid) && grid == PQ_GRID_POT);
    ck_assert(pq_gradient_parse("ste", &gradient) && gradient == PQ_GRADIENT_STE);
    ck_assert(pq_gradient_parse("clip", &gradient) && gradient == PQ_GRADIENT_CLIP);
    ck_assert_str_eq(pq_rounding_name(PQ_ROUND_NEAREST), "nearest");
    ck_assert_str_eq(pq_rounding_name(PQ_ROUND_LOG), "log");
}
END_TEST

START_TEST(grids) {
    static const struct {
        float scale, bf16, pot;
    } rows[] = {
        {1.0f, 1.0f, 1.0f},
        {0x1.01p0f, 0x1.00p0f, 1.0f}, /* between two: to even */
        {0x1.03p0f, 0x1.04p0f, 1.0f},
        {0x1.010002p0f, 0x1.02p0f, 1.0f},
        {0x1.ffp0f, 2.0f, 2.0f},
        {0x1.6a09e6p0f, 0x1.6ap0f, 1.0f}, /* the last float below sqrt(2) */
        {0x1.6a09e8p0f, 0x1.6ap0f, 2.0f},
        {0x1.6a09e8p-5f, 0x1.6ap-5f, 0x1p-4f},
        {FLT_MAX, 0x1.fep127f, 0x1p127f},
        {0x1.8p127f, 0x1.8p127f, 0x1p127f},
        {0x1p-149f, 0x1p-133f, 0x1p-149f}, /* never 0 */
        {0x1.8p-148f, 0x1p-133f, 0x1p-147f},
        {0x1.8p-133f, 0x1p-132f, 0x1p-132f},
        {0x1p-126f, 0x1p-126f, 0x1p-126f},
        {0, 0, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        ck_assert_float_eq(pq_scale_to_grid(rows[i].scale, PQ_GRID_BF16), rows[i].bf16);
        ck_assert_float_eq(pq_scale_to_grid(rows[i].scale, PQ_GRID_POT), rows[i].pot);
        ck_assert_float_eq(pq_scale_to_grid(rows[i].scale, PQ_GRID_FP32), rows[i].scale);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("codebook");
    TCase *all = tcase_create("codebook");
    tcase_add_loop_test(all, refused, 0, sizeof refusals / sizeof *refusals);
    tcase_add_test(all, codes_are_fixed);
    tcase_add_test(all, names);
    tcase_add_test(all, grids);
    suite_add_tcase(suite, all);
    return run_suite(suite);
}
