/* What the section quant does to a model: which matrices, whose scales, and what is refused. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "tests/harness/suite.h"
#include "train/ptq/ptq.h"

static pq_config *read_config(const char *yaml) {
    pq_config *config = NULL;
    pq_error err = {0};
    ck_assert_msg(pq_config_from_text(yaml, strlen(yaml), "test", NULL, 0, &config, &err) == PQ_OK, "%s",
                  err.message);
    return config;
}

static pq_model *make_model(uint64_t seed) {
    const pq_gpt2_shape shape = {
        .layers = 2, .heads = 2, .width = 32, .context = 8, .vocab = 11, .bias = true};
    pq_model *model;
    ck_assert_int_eq(pq_model_create(&shape, &model, NULL), PQ_OK);
    for (size_t i = 0; i < model->params.elements; i++) {
        double pair[2];
        pq_random_normal2(seed, PQ_STREAM_INIT, 0, i, pair);
        model->weights[i] = (float)pair[0];
    }
    return model;
}

static bool quantized(const pq_model *model, const char *name) {
    return model->quant[pq_params_find(&model->params, name) - model->params.list].quantized;
}

/* Every matrix by default, by patterns where they are given; what no longer matches becomes fp32. */
START_TEST(patterns) {
    pq_config *all = read_config("quant: {quantizer: pot}"), *none = read_config("quant: {quantizer: none}");
    pq_config *some = read_config(
        "quant: {quantizer: uniform, levels: 7, granularity: tensor, params: [wte.weight, 'h.1.*']}");
    pq_model *model = make_model(1);
    float before[64];
    memcpy(before, model->weights, sizeof before);
    ck_assert_int_eq(pq_ptq_rtn(all, NULL, model, NULL), PQ_OK);
    for (size_t i = 0; i < model->params.count; i++) {
        const pq_param *p = &model->params.list[i];
        const pq_param_quant *q = &model->quant[i];
        ck_assert_int_eq(q->quantized, p->quantizable);
        if (!q->quantized) continue;
        ck_assert_uint_eq(q->scale_count, p->rows);
        for (size_t r = 0; r < p->rows; r++) {
            const pq_scale_options options = {.method = PQ_SCALE_MSE, .grid = PQ_GRID_BF16};
            float scale;
            ck_assert_int_eq(pq_scale_fit(&q->codebook, &options, model->weights + p->offset + r * p->columns,
                                          p->columns, &scale, NULL),
                             PQ_OK);
            ck_assert(scale == q->scales[r]);
        }
    }
    ck_assert_int_eq(pq_ptq_rtn(some, NULL, model, NULL), PQ_OK);
    ck_assert(quantized(model, "wte.weight") && quantized(model, "h.1.mlp.c_fc.weight"));
    ck_assert(!quantized(model, "wpe.weight") && !quantized(model, "h.0.mlp.c_fc.weight"));
    ck_assert(!quantized(model, "h.1.ln_1.weight") && !quantized(model, "h.1.mlp.c_fc.bias"));
    ck_assert_uint_eq(model->quant[0].scale_count, 1);
    ck_assert_int_eq(model->quant[0].codebook.levels, 7);
    ck_assert_int_eq(pq_ptq_rtn(none, NULL, model, NULL), PQ_OK);
    ck_assert(!quantized(model, "wte.weight") && !quantized(model, "h.1.mlp.c_fc.weight"));
    ck_assert_mem_eq(before, model->weights, sizeof before);
    pq_model_destroy(model);
    pq_config_destroy(all), pq_config_destroy(some), pq_config_destroy(none);
}
END_TEST

/* A parent's scales are kept where it is quantized the same way, and fitted where not. */
START_TEST(parents) {
    pq_config *nine = read_config("quant: {quantizer: pot, levels: 9}");
    pq_config *seven = read_config("quant: {quantizer: pot, levels: 7}");
    pq_config *wide = read_config("quant: {quantizer: uniform, range: [-8, 7]}");
    pq_config *narrow = read_config("quant: {quantizer: uniform, range: [-7, 8]}");
    pq_model *parent = make_model(1), *model = make_model(1);
    ck_assert_int_eq(pq_ptq_rtn(nine, NULL, parent, NULL), PQ_OK);
    float learned = parent->quant[0].scales[0] *= 1.25f;
    ck_assert_int_eq(pq_ptq_rtn(nine, parent, model, NULL), PQ_OK);
    ck_assert(model->quant[0].scales[0] == learned);
    ck_assert_int_eq(pq_ptq_rtn(seven, parent, model, NULL), PQ_OK);
    ck_assert(model->quant[0].scales[0] != learned);
    ck_assert_int_eq(pq_ptq_rtn(wide, NULL, parent, NULL), PQ_OK);
    learned = parent->quant[0].scales[0] *= 1.25f;
    ck_assert_int_eq(pq_ptq_rtn(narrow, parent, model, NULL), PQ_OK); /* as many levels, others */
    ck_assert(model->quant[0].scales[0] != learned);
    ck_assert_int_eq(pq_ptq_rtn(wide, parent, model, NULL), PQ_OK);
    ck_assert(model->quant[0].scales[0] == learned);
    pq_model_destroy(parent), pq_model_destroy(model);
    pq_config_destroy(nine), pq_config_destroy(seven), pq_config_destroy(wide), pq_config_destroy(narrow);
}
END_TEST

static const pq_param_quant *quant_of(const pq_model *model, const char *name) {
    return &model->quant[pq_params_find(&model->params, name) - model->params.list];
}

/* Levels by patterns, the last that matches; with split_qkv three scales a c_attn, those of its thirds. */
START_TEST(overrides_and_thirds) {
    pq_config *config = read_config(
        "quant: {quantizer: pot, levels: 7, granularity: tensor, split_qkv: true, params: ['*.weight'],"
        " overrides: [{match: 'h.*.attn.c_attn.weight', levels: 31}, {match: 'h.1.*', levels: 15}]}");
    pq_config *rows =
        read_config("quant: {quantizer: pot, split_qkv: true, scale: percentile, percentile: 50}");
    pq_config *strange =
        read_config("quant: {quantizer: pot, params: [wte.weight], overrides: [{match: 'h.*', "
                    "levels: 15}]}");
    pq_model *model = make_model(2);
    pq_error err;
    ck_assert_int_eq(pq_ptq_rtn(config, NULL, model, NULL), PQ_OK);
    ck_assert_int_eq(quant_of(model, "wte.weight")->codebook.levels, 7);
    ck_assert_int_eq(quant_of(model, "h.0.mlp.c_fc.weight")->codebook.levels, 7);
    ck_assert_int_eq(quant_of(model, "h.0.attn.c_attn.weight")->codebook.levels, 31);
    ck_assert_int_eq(quant_of(model, "h.1.attn.c_attn.weight")->codebook.levels, 15);
    ck_assert_int_eq(quant_of(model, "h.1.mlp.c_fc.weight")->codebook.levels, 15);
    ck_assert_uint_eq(quant_of(model, "h.0.mlp.c_fc.weight")->scale_count, 1);
    const pq_param *p = pq_params_find(&model->params, "h.1.attn.c_attn.weight");
    const pq_param_quant *q = quant_of(model, p->name);
    ck_assert_uint_eq(q->scale_count, 3);
    for (size_t i = 0; i < 3; i++) {
        const pq_scale_options options = {.method = PQ_SCALE_MSE, .grid = PQ_GRID_BF16};
        float scale;
        ck_assert_int_eq(pq_scale_fit(&q->codebook, &options, model->weights + p->offset + i * p->count / 3,
                                      p->count / 3, &scale, NULL),
                         PQ_OK);
        ck_assert(q->scales[i] == scale);
    }
    ck_assert_int_eq(pq_ptq_rtn(rows, NULL, model, NULL), PQ_OK);
    ck_assert_uint_eq(q->scale_count, p->rows);
    ck_assert_int_eq(pq_ptq_rtn(strange, NULL, model, &err), PQ_ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "quant.overrides: \"h.*\" matches no matrix"));
    pq_model_destroy(model);
    pq_config_destroy(config), pq_config_destroy(rows), pq_config_destroy(strange);
}
END_TEST

START_TEST(refusals) {
    pq_config *config = read_config("quant: {quantizer: pot}"),
              *nothing = read_config("quant: {quantizer: pot, params: [x]}");
    pq_model *model = make_model(1);
    pq_error err;
    ck_assert_int_eq(pq_ptq_rtn(nothing, NULL, model, &err), PQ_ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "no matrix matches"));
    const pq_param *p = pq_params_find(&model->params, "h.1.attn.c_proj.weight");
    model->weights[p->offset + 5 * p->columns + 3] = NAN;
    ck_assert_int_eq(pq_ptq_rtn(config, NULL, model, &err), PQ_ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "h.1.attn.c_proj.weight: row 5: "));
    pq_model_destroy(model);
    pq_config_destroy(config), pq_config_destroy(nothing);
}
END_TEST

START_TEST(measure) {
    pq_config *config =
        read_config("quant: {quantizer: uniform, levels: 3, granularity: tensor, scale: absmax}");
    pq_model *model = make_model(1);
    const pq_param *p = pq_params_find(&model->params, "wpe.weight");
    float *hard = calloc(model->params.elements, sizeof *hard);
    for (size_t i = 0; i < p->count; i++) model->weights[p->offset + i] = i == 0 ? 1 : i % 4 ? 0.25f : -0.75f;
    ck_assert_int_eq(pq_ptq_rtn(config, NULL, model, NULL), PQ_OK);
    pq_model_effective_weights(model, hard);
    pq_matrix_error e = pq_ptq_measure(model, (size_t)(p - model->params.list), hard + p->offset);
    size_t quarters = p->count / 4;
    ck_assert_uint_eq(e.zeros, 3 * quarters);
    ck_assert_double_eq(e.noise, 0.0625 * (double)(p->count - 1));
    ck_assert_double_eq(e.signal, 1 + 0.0625 * 3 * (double)quarters + 0.5625 * (double)(quarters - 1));
    free(hard);
    pq_model_destroy(model);
    pq_config_destroy(config);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("ptq");
    TCase *all = tcase_create("ptq");
    tcase_add_test(all, patterns);
    tcase_add_test(all, parents);
    tcase_add_test(all, overrides_and_thirds);
    tcase_add_test(all, refusals);
    tcase_add_test(all, measure);
    suite_add_tcase(suite, all);
    return run_suite(suite);
}
