/* The engine's whole numbers against the recipe written down plainly (sums of products in 64 bits, the
 * readable kernels for the rest), bit for bit: each codebook, each way of cutting a sequence, several
 * sequences, any number of threads, each kernel set (POTQAT_CPU, set by meson). */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/random.h"
#include "base/threads.h"
#include "infer/parts.h"
#include "kernels/kernels.h"
#include "random_model.h"
#include "tests/harness/suite.h"

static const double int4[] = {-8, 7}, released[] = {-128, 128};
static const struct {
    pq_gpt2_shape shape;
    coding how;
    bool outliers; /* a gain of each layer norm is large */
} cases[] = {
    {{2, 2, 16, 9, 11, true, true}, {"pot", 15, NULL, "row", PQ_GRID_BF16, PQ_ROUND_NEAREST}, false},
    {{1, 1, 8, 70, 65, false, false}, {"pot", 7, NULL, "row", PQ_GRID_BF16, PQ_ROUND_NEAREST}, false},
    {{2, 3, 24, 12, 30, true, false}, {"pot", 9, NULL, "tensor", PQ_GRID_FP32, PQ_ROUND_NEAREST}, false},
    {{3, 4, 32, 80, 17, false, true}, {"pot", 15, NULL, "row", PQ_GRID_BF16, PQ_ROUND_NEAREST}, true},
    {{1, 2, 64, 6, 200, true, true}, {"pot", 31, NULL, "group32", PQ_GRID_BF16, PQ_ROUND_NEAREST}, true},
    {{2, 2, 128, 7, 3, false, false}, {"pot", 63, NULL, "group64", PQ_GRID_FP32, PQ_ROUND_NEAREST}, false},
    {{1, 18, 18, 5, 5, true, false},
     {"pot-zero-free", 16, NULL, "row", PQ_GRID_BF16, PQ_ROUND_NEAREST},
     true},
    {{1, 1, 136, 4, 9, true, true}, {"uniform", 0, int4, "row", PQ_GRID_FP32, PQ_ROUND_NEAREST}, false},
    {{1, 5, 160, 4, 90, true, true}, {"pot", 15, NULL, "group32", PQ_GRID_BF16, PQ_ROUND_NEAREST}, false},
    {{1, 2, 256, 4, 9, false, false}, {"pot", 15, NULL, "group128", PQ_GRID_BF16, PQ_ROUND_NEAREST}, true},
    {{1, 2, 32, 5, 40, true, true}, {"uniform", 127, NULL, "row", PQ_GRID_BF16, PQ_ROUND_NEAREST}, false},
    {{1, 2, 32, 5, 40, true, true}, {"apot", 63, NULL, "row", PQ_GRID_BF16, PQ_ROUND_NEAREST}, true},
    {{1, 2, 40, 5, 9, true, true},
     {"pot-released", 0, released, "row", PQ_GRID_FP32, PQ_ROUND_NEAREST},
     false},
    /* For threads: smaller ones are not worth them. */
    {{1, 4, 256, 24, 300, true, true}, {"pot", 15, NULL, "row", PQ_GRID_BF16, PQ_ROUND_NEAREST}, true},
};
enum { CASES = sizeof cases / sizeof *cases - 1 };

/* ---- the recipe, plainly ---- */

typedef struct plain {
    const pq_packed *packed;
    bool half;
    size_t C, count;
} plain;

static const pq_packed_tensor *tensor_of(const plain *p, pq_param_id id, int layer) {
    const pq_param *param = pq_params_at(&p->packed->params, id, layer);
    return param ? &p->packed->tensors[param - p->packed->params.list] : NULL;
}

static const float *dense_of(const plain *p, pq_param_id id, int layer) {
    const pq_packed_tensor *tensor = tensor_of(p, id, layer);
    return tensor ? tensor->dense : NULL;
}

static float *room(size_t n) {
    float *x = calloc(n, sizeof *x);
    ck_assert_ptr_nonnull(x);
    return x;
}

/* Steps 3 and 4 for one token. */
static void product(const plain *p, pq_param_id id, pq_param_id bias_id, int layer, const float *x, bool norm,
                    float *out) {
    const pq_packed_tensor *w = tensor_of(p, id, layer);
    const float *bias = bias_id == PQ_PARAM_WTE ? NULL : dense_of(p, bias_id, layer);
    const size_t n = w->param->columns, padded = pq_round_up(n, 128);
    const size_t group = w->group < n ? w->group : n;
    uint8_t *low = calloc(3, padded), *high = low + padded, *codes = high + padded;
    pq_int8_row row;
    pq_recipe_codes_ref(x, n, norm && p->packed->activations != PQ_ACTIVATIONS_TOKEN, low, high, &row);
    for (size_t r = 0; r < w->param->rows; r++) {
        float total = 0;
        pq_unpack_row(w->codebook->bits, w->codes + r * pq_packed_row_bytes(w->codebook->bits, n), n, codes);
        for (size_t g = 0; g < n; g += group) {
            int64_t sum = 0;
            for (size_t i = g; i < g + group; i++) {
                const int64_t u = low[i] + (row.wide ? 256 * (int64_t)high[i] : 0);
                sum += (u - row.zero) * (int64_t)w->codebook->value[codes[i]];
            }
            total += (float)sum * pq_packed_scale(w, (r * n + g) / w->group);
        }
        out[r] = total * row.scale;
        if (bias) out[r] = out[r] + bias[r];
    }
    free(low);
}

/* One token through a block; the caches have [count][C] of this layer, as they are kept. */
static void block(const plain *p, int layer, size_t t, float *x, void *keys, void *values) {
    const pq_gpt2_shape *shape = &p->packed->params.shape;
    const size_t C = p->C, H = (size_t)shape->heads, D = C / H, bytes = p->half ? 2 : 4;
    float *norm = room(C), *wide = room(4 * C), *attended = room(C), *change = room(C);
    float *scores = room(pq_recipe_scores(p->count, 1));
    pq_recipe_norm_ref(x, dense_of(p, PQ_PARAM_LN_1_WEIGHT, layer), dense_of(p, PQ_PARAM_LN_1_BIAS, layer),
                       norm, 1, C);
    product(p, PQ_PARAM_C_ATTN_WEIGHT, PQ_PARAM_C_ATTN_BIAS, layer, norm, true, wide);
    for (int v = 0; v < 2; v++) {
        char *to = (char *)(v ? values : keys) + t * C * bytes;
        const float *from = wide + C + (size_t)v * C;
        if (p->half)
            pq_to_half_ref(from, (uint16_t *)to, C);
        else
            memcpy(to, from, C * sizeof *from);
    }
    for (size_t h = 0; h < H; h++)
        pq_recipe_attention_ref(wide + h * D, 0, 1, (char *)keys + h * D * bytes,
                                (char *)values + h * D * bytes, p->half, C, t + 1, D, attended + h * D, 0,
                                scores);
    product(p, PQ_PARAM_ATTN_C_PROJ_WEIGHT, PQ_PARAM_ATTN_C_PROJ_BIAS, layer, attended, false, change);
    for (size_t i = 0; i < C; i++) x[i] += change[i];
    pq_recipe_norm_ref(x, dense_of(p, PQ_PARAM_LN_2_WEIGHT, layer), dense_of(p, PQ_PARAM_LN_2_BIAS, layer),
                       norm, 1, C);
    product(p, PQ_PARAM_C_FC_WEIGHT, PQ_PARAM_C_FC_BIAS, layer, norm, true, wide);
    (shape->gelu_tanh ? pq_recipe_gelu_tanh_ref : pq_recipe_gelu_erf_ref)(wide, wide, 4 * C);
    product(p, PQ_PARAM_MLP_C_PROJ_WEIGHT, PQ_PARAM_MLP_C_PROJ_BIAS, layer, wide, false, change);
    for (size_t i = 0; i < C; i++) x[i] += change[i];
    free(norm), free(wide), free(attended), free(change), free(scores);
}

static float *plain_logits(const pq_packed *packed, bool half, const uint16_t *tokens, size_t count) {
    const pq_gpt2_shape *shape = &packed->params.shape;
    const plain p = {packed, half, (size_t)shape->width, count};
    const size_t C = p.C, V = (size_t)shape->vocab, L = (size_t)shape->layers;
    float *logits = room(count * V), *x = room(2 * C), *keys = room(L * count * C),
          *values = room(L * count * C);
    for (size_t t = 0; t < count; t++) {
        pq_packed_decode_rows(tensor_of(&p, PQ_PARAM_WTE, -1), tokens[t], 1, x);
        pq_packed_decode_rows(tensor_of(&p, PQ_PARAM_WPE, -1), t, 1, x + C);
        for (size_t i = 0; i < C; i++) x[i] += x[C + i];
        for (size_t l = 0; l < L; l++) block(&p, (int)l, t, x, keys + l * count * C, values + l * count * C);
        pq_recipe_norm_ref(x, dense_of(&p, PQ_PARAM_LN_F_WEIGHT, -1), dense_of(&p, PQ_PARAM_LN_F_BIAS, -1),
                           x + C, 1, C);
        product(&p, PQ_PARAM_WTE, PQ_PARAM_WTE, -1, x + C, true, logits + t * V);
    }
    free(x), free(keys), free(values);
    return logits;
}

/* ---- the rig ---- */

typedef struct rig {
    pq_model *model;
    pq_packed *packed;
    uint16_t *tokens;
    size_t count, vocab;
} rig;

static rig set_up(int index) {
    rig r = {.model = random_model(&cases[index].shape, &cases[index].how, 99 + (uint64_t)index)};
    pq_error err = {0};
    for (size_t i = 0; cases[index].outliers && i < r.model->params.count; i++) {
        const pq_param *p = &r.model->params.list[i];
        if (strstr(p->name, "ln_") && p->initial_value != 0)
            r.model->weights[p->offset + p->count / 2] *= 300;
    }
    if (index == 6) r.model->activations = PQ_ACTIVATIONS_TOKEN; /* outliers, but trained with 8 bits */
    ck_assert_msg(pq_packed_from_model(r.model, &r.packed, &err) == PQ_OK, "%s", err.message);
    r.count = (size_t)cases[index].shape.context;
    r.vocab = (size_t)cases[index].shape.vocab;
    ck_assert_int_eq(pq_calloc(r.count, sizeof *r.tokens, "", &r.tokens, NULL), PQ_OK);
    for (size_t i = 0; i < r.count; i++) {
        uint32_t random[4];
        pq_random4(1, PQ_STREAM_BATCH, (uint64_t)index, i, random);
        r.tokens[i] = (uint16_t)pq_random_below(random[0], random[1], r.vocab);
    }
    return r;
}

static void tear_down(rig *r) {
    pq_packed_close(r->packed);
    pq_model_destroy(r->model);
    free(r->tokens);
}

static pq_engine *engine_of(const rig *r, bool int8, bool half, int64_t sequences) {
    const pq_engine_options o = {.int8 = int8, .half_cache = half, .sequences = sequences};
    pq_engine *engine;
    pq_error err = {0};
    ck_assert_msg(pq_engine_create_with(r->packed, &o, &engine, &err) == PQ_OK, "%s", err.message);
    return engine;
}

/* The logits of all tokens, `step` a call. */
static float *read_all(const rig *r, pq_engine *engine, size_t step) {
    float *logits = room(r->count * r->vocab);
    pq_engine_reset(engine);
    for (size_t i = 0; i < r->count; i += step)
        ck_assert_int_eq(pq_engine_forward(engine, r->tokens + i, r->count - i < step ? r->count - i : step,
                                           false, logits + i * r->vocab, NULL),
                         PQ_OK);
    return logits;
}

START_TEST(follows_the_recipe) {
    rig r = set_up(_i);
    for (int half = 0; half < 2; half++) {
        pq_engine *engine = engine_of(&r, true, half, 0);
        float *expected = plain_logits(r.packed, half, r.tokens, r.count);
        for (size_t step = 1; step <= r.count; step += step < 4 ? 1 : r.count - 4) {
            float *logits = read_all(&r, engine, step);
            ck_assert_msg(memcmp(logits, expected, r.count * r.vocab * sizeof *logits) == 0,
                          "case %d, %s cache, %zu tokens a call", _i, half ? "fp16" : "fp32", step);
            free(logits);
            if (step == r.count) break;
        }
        free(expected);
        pq_engine_destroy(engine);
    }
    tear_down(&r);
}
END_TEST

/* What is rounded is small: near the exact engine's logits, also with outliers. */
START_TEST(stays_near_the_exact_engine) {
    rig r = set_up(_i);
    pq_engine *exact = engine_of(&r, false, false, 0), *int8 = engine_of(&r, true, true, 0),
              *half = engine_of(&r, false, true, 0);
    float *a = read_all(&r, exact, r.count), *b = read_all(&r, int8, r.count), *c = read_all(&r, half, 1);
    double size = 0, off = 0, off_half = 0;
    for (size_t i = 0; i < r.count * r.vocab; i++) {
        size += (double)a[i] * (double)a[i];
        off += pow((double)a[i] - (double)b[i], 2);
        off_half += pow((double)a[i] - (double)c[i], 2);
    }
    if (r.packed->activations != PQ_ACTIVATIONS_TOKEN) {
        ck_assert_msg(sqrt(off / size) < 0.06, "case %d: int8 %g", _i, sqrt(off / size));
        ck_assert_msg(sqrt(off_half / size) < 0.002, "case %d: half %g", _i, sqrt(off_half / size));
    }
    free(a), free(b), free(c);
    pq_engine_destroy(exact), pq_engine_destroy(int8), pq_engine_destroy(half);
    tear_down(&r);
}
END_TEST

START_TEST(threads_do_not_change_bits) {
    const int before = pq_threads_get();
    rig r = set_up(CASES);
    pq_threads_set(1);
    pq_engine *engine = engine_of(&r, true, true, 0);
    float *one = read_all(&r, engine, 13);
    pq_threads_set(3);
    float *three = read_all(&r, engine, 24);
    pq_threads_set(before);
    ck_assert_mem_eq(one, three, r.count * r.vocab * sizeof *one);
    free(one), free(three);
    pq_engine_destroy(engine);
    tear_down(&r);
}
END_TEST

/* 70 sequences of different lengths, continued together: each as if it were alone. */
START_TEST(sequences_do_not_meet) {
    enum { SEQUENCES = 70 };
    rig r = set_up(3);
    for (int int8 = 0; int8 < 2; int8++) {
        pq_engine *many = engine_of(&r, int8, int8, SEQUENCES), *one = engine_of(&r, int8, int8, 1);
        float *logits = room(SEQUENCES * r.vocab), *alone = room(r.vocab);
        pq_error err = {0};
        for (int64_t s = 0; s < SEQUENCES; s++)
            ck_assert_int_eq(
                pq_engine_forward_in(many, s, r.tokens + s / 2, 1 + (size_t)s % 9, false, NULL, NULL), PQ_OK);
        ck_assert_int_eq(pq_engine_step(many, r.tokens, SEQUENCES, logits, NULL), PQ_OK);
        ck_assert_int_eq(pq_engine_step(many, r.tokens + 1, SEQUENCES, logits, NULL), PQ_OK);
        for (size_t s = 0; s < SEQUENCES; s++) {
            pq_engine_reset(one);
            ck_assert_int_eq(pq_engine_forward(one, r.tokens + s / 2, 1 + s % 9, false, NULL, NULL), PQ_OK);
            ck_assert_int_eq(pq_engine_forward(one, r.tokens + s, 1, false, NULL, NULL), PQ_OK);
            ck_assert_int_eq(pq_engine_forward(one, r.tokens + 1 + s, 1, true, alone, NULL), PQ_OK);
            for (size_t v = 0; v < r.vocab; v++) {
                double off = fabs((double)alone[v] - (double)logits[s * r.vocab + v]);
                ck_assert(int8 ? off == 0 : off < 1e-4 * (10 + fabs((double)alone[v])));
            }
        }
        ck_assert_int_eq(pq_engine_forward_in(many, SEQUENCES, r.tokens, 1, true, NULL, &err), PQ_ERR_USAGE);
        ck_assert_msg(strstr(err.message, "sequence 70") != NULL, "%s", err.message);
        ck_assert_int_eq(pq_engine_forward_in(many, -1, r.tokens, 1, true, NULL, NULL), PQ_ERR_USAGE);
        ck_assert_int_eq(pq_engine_step(many, r.tokens, SEQUENCES + 1, NULL, NULL), PQ_ERR_USAGE);
        ck_assert_int_eq(pq_engine_step(many, r.tokens, 0, NULL, NULL), PQ_ERR_USAGE);
        /* One full sequence: no sequence moves. */
        ck_assert_int_eq(pq_engine_forward_in(many, 5, r.tokens, r.count - 8, true, NULL, NULL), PQ_OK);
        ck_assert_int_eq(pq_engine_step(many, r.tokens, SEQUENCES, NULL, &err), PQ_ERR_USAGE);
        ck_assert_int_eq(pq_engine_position(many), 3);
        free(logits), free(alone);
        pq_engine_destroy(many), pq_engine_destroy(one);
    }
    const pq_engine_options bad = {.sequences = -1};
    pq_engine *none;
    ck_assert_int_eq(pq_engine_create_with(r.packed, &bad, &none, NULL), PQ_ERR_USAGE);
    ck_assert_ptr_null(none);
    tear_down(&r);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("int8 engine");
    TCase *tests = tcase_create("int8 engine");
    tcase_set_timeout(tests, 0);
    tcase_add_loop_test(tests, follows_the_recipe, 0, CASES);
    tcase_add_loop_test(tests, stays_near_the_exact_engine, 0, CASES);
    tcase_add_test(tests, threads_do_not_change_bits);
    tcase_add_test(tests, sequences_do_not_meet);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
