/* The engine against a naive double-precision GPT-2, the cache against reading all at once, the packed
 * product against decode-then-multiply, and its refusals. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/random.h"
#include "base/threads.h"
#include "formats/packed.h"
#include "infer/parts.h"
#include "kernels/gemm.h"
#include "naive_gpt2.h"
#include "random_model.h"
#include "tests/harness/suite.h"

static const double int4[] = {-8, 7};
static const struct {
    pq_gpt2_shape shape;
    coding how;
} cases[] = {
    {{2, 2, 16, 9, 11, true, true}, {NULL, 0, NULL, NULL, PQ_GRID_BF16, PQ_ROUND_NEAREST}},
    {{1, 1, 8, 70, 65, false, false}, {"pot", 7, NULL, "row", PQ_GRID_BF16, PQ_ROUND_NEAREST}},
    {{2, 3, 24, 12, 30, true, false}, {"pot", 9, NULL, "tensor", PQ_GRID_FP32, PQ_ROUND_NEAREST}},
    {{3, 4, 32, 80, 17, false, true}, {"pot", 15, NULL, "row", PQ_GRID_BF16, PQ_ROUND_NEAREST}},
    {{1, 2, 64, 6, 200, true, true}, {"pot", 31, NULL, "group32", PQ_GRID_BF16, PQ_ROUND_NEAREST}},
    {{2, 2, 128, 7, 3, false, false}, {"pot", 63, NULL, "group64", PQ_GRID_FP32, PQ_ROUND_NEAREST}},
    {{1, 18, 18, 5, 5, true, false}, {"pot-zero-free", 16, NULL, "row", PQ_GRID_BF16, PQ_ROUND_NEAREST}},
    {{1, 1, 136, 4, 9, true, true}, {"uniform", 0, int4, "row", PQ_GRID_FP32, PQ_ROUND_NEAREST}},
    /* For threads: smaller ones are not worth them. */
    {{2, 4, 256, 40, 300, true, false}, {"pot", 15, NULL, "row", PQ_GRID_BF16, PQ_ROUND_NEAREST}},
};
enum { CASES = sizeof cases / sizeof *cases - 1 };

typedef struct rig {
    pq_model *model;
    pq_packed *packed;
    pq_engine *engine;
    uint16_t *tokens; /* [count]: the model's whole context */
    size_t count, vocab;
    float *logits; /* [count][vocab], as the engine gives them all at once */
} rig;

static rig set_up(int index) {
    rig r = {.model = random_model(&cases[index].shape, &cases[index].how, 77 + (uint64_t)index)};
    pq_error err = {0};
    r.count = (size_t)cases[index].shape.context;
    r.vocab = (size_t)cases[index].shape.vocab;
    ck_assert_msg(pq_packed_from_model(r.model, &r.packed, &err) == PQ_OK, "%s", err.message);
    ck_assert_msg(pq_engine_create(r.packed, 0, &r.engine, &err) == PQ_OK, "%s", err.message);
    ck_assert_int_eq(pq_calloc(r.count, sizeof *r.tokens, "", &r.tokens, NULL), PQ_OK);
    ck_assert_int_eq(pq_calloc(r.count * r.vocab, sizeof *r.logits, "", &r.logits, NULL), PQ_OK);
    for (size_t i = 0; i < r.count; i++) {
        uint32_t random[4];
        pq_random4(1, PQ_STREAM_BATCH, (uint64_t)index, i, random);
        r.tokens[i] = (uint16_t)pq_random_below(random[0], random[1], r.vocab);
    }
    ck_assert_msg(pq_engine_forward(r.engine, r.tokens, r.count, false, r.logits, &err) == PQ_OK, "%s",
                  err.message);
    ck_assert_int_eq(pq_engine_position(r.engine), (int64_t)r.count);
    return r;
}

static void tear_down(rig *r) {
    pq_engine_destroy(r->engine);
    pq_packed_close(r->packed);
    pq_model_destroy(r->model);
    free(r->tokens);
    free(r->logits);
}

/* Largest distance, relative to the largest logit. */
static double distance(const float *a, const double *b, size_t n) {
    double worst = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        ck_assert(isfinite(a[i]));
        worst = fmax(worst, fabs(a[i] - b[i]));
        size = fmax(size, fabs(b[i]));
    }
    return worst / size;
}

START_TEST(agrees_with_the_naive_model) {
    rig r = set_up(_i);
    double *expected = calloc(r.count * r.vocab, sizeof *expected);
    naive_gpt2(r.model, r.tokens, r.count, expected);
    double found = distance(r.logits, expected, r.count * r.vocab);
    ck_assert_msg(found < 5e-6, "case %d: %g", _i, found);
    free(expected);
    tear_down(&r);
}
END_TEST

/* Any way of cutting the sequence gives the same logits, up to the order of sums. */
START_TEST(the_cache_is_the_whole_prompt) {
    rig r = set_up(_i);
    double *whole = calloc(r.count * r.vocab, sizeof *whole);
    float *pieces = calloc(r.count * r.vocab, sizeof *pieces), *last = calloc(r.vocab, sizeof *last);
    for (size_t i = 0; i < r.count * r.vocab; i++) whole[i] = r.logits[i];
    for (size_t step = 1; step <= 3; step++) {
        pq_engine_reset(r.engine);
        ck_assert_int_eq(pq_engine_position(r.engine), 0);
        for (size_t first = 0; first < r.count; first += step) {
            size_t n = r.count - first < step ? r.count - first : step;
            ck_assert_int_eq(
                pq_engine_forward(r.engine, r.tokens + first, n, false, pieces + first * r.vocab, NULL),
                PQ_OK);
        }
        ck_assert_double_lt(distance(pieces, whole, r.count * r.vocab), 2e-6);
    }
    /* The last logits alone; a forward without logits; a reset forgets. */
    pq_engine_reset(r.engine);
    ck_assert_int_eq(pq_engine_forward(r.engine, r.tokens, r.count - 1, false, NULL, NULL), PQ_OK);
    ck_assert_int_eq(pq_engine_forward(r.engine, r.tokens + r.count - 1, 1, true, last, NULL), PQ_OK);
    ck_assert_double_lt(distance(last, whole + (r.count - 1) * r.vocab, r.vocab), 5e-6);
    pq_engine_reset(r.engine);
    ck_assert_int_eq(pq_engine_forward(r.engine, r.tokens, r.count, true, last, NULL), PQ_OK);
    ck_assert_double_lt(distance(last, whole + (r.count - 1) * r.vocab, r.vocab), 5e-6);
    free(whole);
    free(pieces);
    free(last);
    tear_down(&r);
}
END_TEST

START_TEST(threads_do_not_change_bits) {
    const int before = pq_threads_get();
    const pq_gemm_threads host = pq_gemm_threads_take();
    pq_gemm_threads_restore((pq_gemm_threads){.blas = 2, .openmp = 5});
    pq_threads_set(1);
    rig one = set_up(CASES);
    pq_threads_set(3);
    rig three = set_up(CASES);
    pq_threads_set(before);
    ck_assert_mem_eq(one.logits, three.logits, one.count * one.vocab * sizeof(float));
    const pq_gemm_threads given_back = pq_gemm_threads_take();
    ck_assert_int_eq(given_back.blas, 2);
    ck_assert_int_eq(given_back.openmp, 5);
    pq_gemm_threads_restore(host);
    tear_down(&one);
    tear_down(&three);
}
END_TEST

/* Two engines share one model without meeting. */
START_TEST(engines_are_independent) {
    rig r = set_up(3);
    pq_engine *other;
    float *logits = calloc(r.vocab, sizeof *logits);
    ck_assert_int_eq(pq_engine_create(r.packed, 5, &other, NULL), PQ_OK);
    for (size_t i = 0; i < 5; i++) {
        pq_engine_reset(r.engine);
        ck_assert_int_eq(pq_engine_forward(r.engine, r.tokens + i, 7, false, NULL, NULL), PQ_OK);
        ck_assert_int_eq(pq_engine_forward(other, r.tokens + i, 1, true, logits, NULL), PQ_OK);
    }
    double *expected = calloc(5 * r.vocab, sizeof *expected);
    naive_gpt2(r.model, r.tokens, 5, expected);
    ck_assert_double_lt(distance(logits, expected + 4 * r.vocab, r.vocab), 5e-6);
    pq_error err = {0};
    ck_assert_int_eq(pq_engine_forward(other, r.tokens, 1, true, logits, &err), PQ_ERR_USAGE);
    free(expected);
    free(logits);
    pq_engine_destroy(other);
    tear_down(&r);
}
END_TEST

START_TEST(refuses_and_stays_as_it_was) {
    rig r = set_up(0);
    pq_error err = {0};
    pq_engine *none;
    float *logits = calloc(r.count * r.vocab, sizeof *logits);
    uint16_t bad[] = {1, 2, 11};
    pq_engine_reset(r.engine);
    ck_assert_int_eq(pq_engine_forward(r.engine, r.tokens, 4, false, logits, &err), PQ_OK);
    ck_assert_int_eq(pq_engine_forward(r.engine, r.tokens, 6, false, logits, &err), PQ_ERR_USAGE);
    ck_assert_msg(strstr(err.message, "6 tokens after 4") && strstr(err.message, "context of 9"), "%s",
                  err.message);
    ck_assert_int_eq(pq_engine_forward(r.engine, r.tokens, SIZE_MAX, false, logits, &err), PQ_ERR_USAGE);
    ck_assert_int_eq(pq_engine_forward(r.engine, bad, 3, false, logits, &err), PQ_ERR_USAGE);
    ck_assert_msg(strstr(err.message, "token 2 has id 11"), "%s", err.message);
    ck_assert_int_eq(pq_engine_forward(r.engine, r.tokens, 0, false, logits, &err), PQ_ERR_USAGE);
    ck_assert_int_eq(pq_engine_position(r.engine), 4);
    ck_assert_int_eq(pq_engine_forward(r.engine, r.tokens + 4, 5, false, logits + 4 * r.vocab, &err), PQ_OK);
    for (size_t i = 0; i < r.count * r.vocab; i++) ck_assert(fabsf(logits[i] - r.logits[i]) < 1e-5f);
    ck_assert_int_eq(pq_engine_create(r.packed, 10, &none, &err), PQ_ERR_USAGE);
    ck_assert_msg(strstr(err.message, "10") && strstr(err.message, "9"), "%s", err.message);
    ck_assert_int_eq(pq_engine_create(r.packed, -1, &none, &err), PQ_ERR_USAGE);
    ck_assert_ptr_null(none);
    free(logits);
    tear_down(&r);
}
END_TEST

/* Law 6: the packed product equals decode, then a plain product: exactly where all numbers are small integers
 * (no scale), within a bound otherwise. */
START_TEST(packed_product_is_decode_then_multiply) {
    const pq_gpt2_shape shape = {
        .layers = 1, .heads = 1, .width = 32 * (1 + _i % 5), .context = 1, .vocab = 150};
    const coding how = {"pot",        (int64_t[]){3, 7, 15, 31}[_i % 4],
                        NULL,         _i % 2 ? "row" : "group32",
                        PQ_GRID_BF16, PQ_ROUND_NEAREST};
    const size_t n = (size_t[]){1, 2, 7, 64}[_i % 4];
    pq_model *model = random_model(&shape, &how, (uint64_t)_i);
    pq_packed *packed;
    pq_error err = {0};
    for (int exact = 0; exact < 2; exact++) {
        for (size_t i = 0; exact && i < model->params.count; i++)
            for (size_t k = 0; k < model->quant[i].scale_count; k++) model->quant[i].scales[k] = 1;
        for (size_t i = 0; exact && i < model->params.elements; i++) model->weights[i] *= 20;
        ck_assert_msg(pq_packed_from_model(model, &packed, &err) == PQ_OK, "%s", err.message);
        for (size_t i = 0; i < packed->params.count; i++) {
            const pq_param *p = &packed->params.list[i];
            if (!packed->tensors[i].codebook) continue;
            float *x, *out, *scratch, *decoded, *bias;
            const size_t stride = p->rows + 3;
            ck_assert_int_eq(pq_calloc(n * p->columns, sizeof *x, "", &x, NULL), PQ_OK);
            ck_assert_int_eq(pq_calloc(n * stride, sizeof *out, "", &out, NULL), PQ_OK);
            ck_assert_int_eq(pq_calloc(p->count, sizeof *decoded, "", &decoded, NULL), PQ_OK);
            ck_assert_int_eq(pq_calloc(p->rows, sizeof *bias, "", &bias, NULL), PQ_OK);
            ck_assert_int_eq(pq_calloc(PQ_ENGINE_LANES * pq_tile_rows(p->columns) * p->columns,
                                       sizeof *scratch, "", &scratch, NULL),
                             PQ_OK);
            for (size_t k = 0; k < n * p->columns; k++) x[k] = (float)((k * 7 + k / 5) % 11) - 5;
            for (size_t k = 0; k < p->rows; k++) bias[k] = (float)(k % 5);
            for (size_t k = 0; k < n * stride; k++) out[k] = 99;
            pq_packed_decode_rows(&packed->tensors[i], 0, p->rows, decoded);
            pq_packed_matmul(&packed->tensors[i], exact ? bias : NULL, x, n, out, stride, scratch);
            for (size_t t = 0; t < n; t++) {
                for (size_t row = 0; row < p->rows; row++) {
                    double sum = exact ? (double)bias[row] : 0, size = 0;
                    for (size_t c = 0; c < p->columns; c++) {
                        double product =
                            (double)x[t * p->columns + c] * (double)decoded[row * p->columns + c];
                        sum += product;
                        size += fabs(product);
                    }
                    double off = fabs(sum - (double)out[t * stride + row]);
                    ck_assert(exact ? off == 0 : off <= 1e-6 * size);
                }
                for (size_t k = p->rows; k < stride; k++) ck_assert(out[t * stride + k] == 99);
            }
            free(x), free(out), free(scratch), free(decoded), free(bias);
        }
        pq_packed_close(packed);
    }
    pq_model_destroy(model);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("engine");
    TCase *tests = tcase_create("engine");
    tcase_set_timeout(tests, 0);
    tcase_add_loop_test(tests, agrees_with_the_naive_model, 0, CASES);
    tcase_add_loop_test(tests, the_cache_is_the_whole_prompt, 0, CASES);
    tcase_add_test(tests, threads_do_not_change_bits);
    tcase_add_test(tests, engines_are_independent);
    tcase_add_test(tests, refuses_and_stays_as_it_was);
    tcase_add_loop_test(tests, packed_product_is_decode_then_multiply, 0, 8);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
