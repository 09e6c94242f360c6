/* Each training method against its formula, on a tiny model: what it shows, the gradient it gives, what it
 * keeps. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/gpt2.h"
#include "tests/harness/suite.h"
#include "tests/train/places.h"
#include "train/method.h"
#include "train/ptq/ptq.h"

static pq_error err;
static pq_config *config;
static pq_model *model;
static pq_qat *qat;
static float *shown, *gradients;

static void must(pq_status status) {
    ck_assert_msg(status == PQ_OK, "%s", err.message);
}

/* A model of one layer with weights drawn anew and the methods that `overrides` (ended by NULL) ask for. */
static void begin(const char *const *overrides) {
    pq_scale_options scale;
    pq_gpt2_shape shape = {.layers = 1, .heads = 2, .width = 8, .context = 5, .vocab = 11};
    size_t count = 0;
    while (overrides[count]) count++;
    must(pq_config_load(NULL, overrides, count, &config, &err));
    must(pq_model_create(&shape, &model, &err));
    pq_gpt2_initialise(model, 7);
    must(pq_ptq_scale_options(config, &scale, &err));
    must(pq_ptq_rtn(config, NULL, model, &err));
    must(pq_qat_create(model, config, &scale, 0, &qat, &err));
    shown = calloc(model->params.elements, sizeof *shown);
    gradients = calloc(model->params.elements, sizeof *gradients);
}

static void end(void) {
    pq_qat_destroy(qat);
    pq_model_destroy(model);
    pq_config_destroy(config);
    free(shown);
    free(gradients);
}

static float *array(const char *name) {
    for (size_t i = 0; i < qat->array_count; i++)
        if (strcmp(qat->arrays[i].name, name) == 0) return qat->arrays[i].data;
    ck_abort_msg("no array %s", name);
    return NULL;
}

static float noise(size_t i) {
    return (float)((double)(i * 2654435761u % 1000) / 500 - 1);
}

static size_t find(const char *name) {
    return (size_t)(pq_params_find(&model->params, name) - model->params.list);
}

/* The hard values by the codebook, weight by weight. */
static float hard(size_t index, size_t i) {
    const pq_param_quant *q = &model->quant[index];
    float s = q->scales[i / q->group], out;
    uint8_t code;
    pq_encode(&q->codebook, model->weights + model->params.list[index].offset + i, s, &code, 1);
    pq_decode(&q->codebook, &code, s, &out, 1);
    return out;
}

START_TEST(soft_blends_from_latent_to_hard) {
    begin((const char *[]){"quant.quantizer=pot", "quant.levels=7", "qat.start_iter=4", "qat.anneal_iters=8",
                           NULL});
    static const struct {
        int64_t iter;
        double hardness;
    } cases[] = {{0, 0}, {3, 0}, {4, 0}, {6, 0.25}, {8, 0.5}, {12, 1}, {100, 1}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        pq_qat_show(qat, cases[k].iter, 1e-3, &(pq_shown){.places = places_of(qat->model, shown)});
        ck_assert_double_eq(qat->hardness, cases[k].hardness);
        for (size_t m = 0; m < model->params.count; m++) {
            const pq_param *p = &model->params.list[m];
            for (size_t i = 0; model->quant[m].quantized && i < p->count; i++) {
                double w = (double)model->weights[p->offset + i], h = (double)hard(m, i);
                ck_assert_double_eq_tol((double)shown[p->offset + i], w + cases[k].hardness * (h - w), 1e-8);
            }
        }
    }
    end();
}
END_TEST

/* dL/d log s = sum g s dq/ds, in double, by the definition; weights beyond the range included. */
START_TEST(learned_scales_follow_their_gradient) {
    static const char *const granularities[] = {"quant.granularity=row", "quant.granularity=tensor"};
    begin((const char *[]){"quant.quantizer=pot", "quant.levels=3", "quant.scale=learned",
                           "qat.scale_lr=0.01", granularities[_i], "train.lr=1e-3", NULL});
    for (size_t i = 0; i < model->params.elements; i += 7) model->weights[i] *= 9; /* beyond the last cell */
    pq_qat_show(qat, 0, 1e-3, &(pq_shown){.places = places_of(qat->model, shown)});
    for (size_t i = 0; i < model->params.elements; i++) gradients[i] = noise(i);
    pq_qat_gradient(qat, gradients);
    float before = model->quant[0].scales[0];
    pq_qat_updated(qat);
    size_t at = 0, beyond = 0;
    for (size_t m = 0; m < model->params.count; m++) {
        const pq_param *p = &model->params.list[m];
        const pq_param_quant *q = &model->quant[m];
        for (size_t k = 0; q->quantized && k < q->scale_count; k++, at++) {
            double sum = 0, s = exp((double)array("learned.log_scale")[at]), old;
            for (size_t i = k * q->group; i < (k + 1) * q->group; i++) {
                double w = (double)model->weights[p->offset + i], h = (double)shown[p->offset + i];
                /* 3 levels: the cell of s ends at 1.5 s; h is 0 or +-s */
                old = h != 0 ? fabs(h) : NAN;
                bool outside = !isnan(old) && fabs(w) > 1.5 * old;
                beyond += outside;
                sum += (double)noise(p->offset + i) * (outside ? h : h - w);
                if (outside) ck_assert_float_eq(gradients[p->offset + i], 0); /* the clip mask */
            }
            ck_assert_double_eq_tol((double)array("learned.m")[at], 0.1 * sum, 1e-5 + 1e-5 * fabs(sum));
            /* The first step of Adam is the whole rate, against the gradient. */
            if (fabs(sum) > 1e-6 && k == 0 && m == 0)
                ck_assert_double_eq_tol(log(s / (double)before), sum > 0 ? -0.01 : 0.01, 1e-5);
            ck_assert_float_gt(q->scales[k], 0);
            ck_assert_float_eq(q->scales[k], pq_scale_to_grid(q->scales[k], PQ_GRID_BF16));
        }
    }
    ck_assert_uint_gt(beyond, 20);
    ck_assert_double_eq(config->train.weight_decay, 0);
    end();
}
END_TEST

START_TEST(frozen_weights_stay) {
    begin((const char *[]){"quant.quantizer=pot", "quant.levels=7", "quant.gradient=ste",
                           "qat.freeze=[[2, 0.5], [4, 1]]", NULL});
    size_t m = find("h.0.mlp.c_fc.weight");
    const pq_param *p = &model->params.list[m];
    float *w = model->weights + p->offset, *first = malloc(p->count * sizeof *first);
    for (int64_t iter = 0; iter < 6; iter++) {
        pq_qat_show(qat, iter, 1e-3, &(pq_shown){.places = places_of(qat->model, shown)});
        const unsigned char *fixed = (const unsigned char *)array("freeze.fixed") + p->offset;
        size_t count = 0;
        float least = INFINITY, most = 0;
        for (size_t i = 0; i < p->count; i++) {
            count += fixed[i];
            if (fixed[i] && iter == 2) first[i] = w[i];
            if (fixed[i]) ck_assert_float_eq(w[i], hard(m, i));
            if (fixed[i] && fabsf(w[i]) < least) least = fabsf(w[i]);
            if (!fixed[i] && fabsf(w[i]) > most) most = fabsf(w[i]);
        }
        ck_assert_uint_eq(count, iter < 2 ? 0 : iter < 4 ? p->count / 2 : p->count);
        if (iter == 2)
            ck_assert_float_gt(1.5f * least, most); /* the larger half, rounded by less than a half */
        for (size_t i = 0; i < model->params.elements; i++) gradients[i] = 1;
        pq_qat_gradient(qat, gradients);
        for (size_t i = 0; i < p->count; i++) ck_assert_float_eq(gradients[p->offset + i], fixed[i] ? 0 : 1);
        for (size_t i = 0; i < model->params.elements; i++)
            model->weights[i] += 0.01f * noise(i); /* an update */
        float moved = 0;
        pq_qat_updated(qat);
        for (size_t i = 0; i < p->count; i++) {
            if (fixed[i] && iter == 3) ck_assert_float_eq(w[i], first[i]);
            moved += !fixed[i] && w[i] != shown[p->offset + i];
        }
        if (iter == 3) ck_assert_float_gt(moved, 0);
    }
    free(first);
    end();
}
END_TEST

START_TEST(levels_fall_in_stages) {
    begin((const char *[]){"quant.quantizer=pot", "quant.levels=3", "quant.scale=learned",
                           "qat.progressive=[[0, 15], [2, 7], [5, 3]]", NULL});
    static const int levels[] = {15, 15, 7, 7, 7, 3, 3};
    for (int64_t iter = 0; iter < 7; iter++) {
        ck_assert_int_eq(pq_qat_levels_change(config, iter), iter == 0 || iter == 2 || iter == 5);
        pq_qat_show(qat, iter, 1e-3, &(pq_shown){.places = places_of(qat->model, shown)});
        for (size_t m = 0; m < model->params.count; m++)
            if (model->quant[m].quantized) ck_assert_int_eq(model->quant[m].codebook.levels, levels[iter]);
        if (iter == 2 || iter == 5) /* scales fitted to the new codebook, and learned on from there */
            ck_assert_double_eq_tol(exp((double)array("learned.log_scale")[0]),
                                    (double)model->quant[0].scales[0], 1e-6);
        for (size_t i = 0; i < model->params.elements; i++) gradients[i] = noise(i);
        pq_qat_gradient(qat, gradients);
        pq_qat_updated(qat);
    }
    end();
}
END_TEST

START_TEST(dampening_pulls_towards_levels) {
    begin((const char *[]){"quant.quantizer=pot", "quant.levels=7", "qat.dampen=20", NULL});
    size_t m = find("wte.weight"), n = model->params.list[m].count, offset = model->params.list[m].offset;
    float *before = malloc(n * sizeof *before);
    memcpy(before, model->weights + offset, n * sizeof *before);
    pq_qat_show(qat, 0, 1e-2, &(pq_shown){.places = places_of(qat->model, shown)});
    pq_qat_updated(qat);
    for (size_t i = 0; i < n; i++) {
        double w = (double)before[i], level = (double)shown[offset + i];
        ck_assert_double_eq_tol((double)model->weights[offset + i], w - 1e-2 * 20 * (w - level), 1e-8);
    }
    size_t gain = find("ln_f.weight");
    ck_assert_float_eq(model->weights[model->params.list[gain].offset], 1);
    free(before);
    end();
}
END_TEST

START_TEST(averages_follow_weights_and_scales) {
    begin((const char *[]){"quant.quantizer=pot", "quant.levels=7", "quant.scale_grid=fp32",
                           "quant.scale=absmax", "quant.refit=step", "qat.ema=0.5", NULL});
    double weight = (double)model->weights[3], scale = (double)model->quant[0].scales[0];
    ck_assert_ptr_nonnull(qat->average);
    for (int update = 1; update <= 12; update++) {
        double decay = fmin(0.5, (1.0 + update) / (10.0 + update));
        for (size_t i = 0; i < model->params.elements; i++) model->weights[i] *= 1.1f;
        pq_qat_show(qat, update, 1e-3,
                    &(pq_shown){.places = places_of(qat->model, shown)}); /* fits the scales again */
        pq_qat_updated(qat);
        weight += (1 - decay) * ((double)model->weights[3] - weight);
        scale += (1 - decay) * ((double)model->quant[0].scales[0] - scale);
        ck_assert_double_eq_tol((double)qat->average->weights[3], weight, 1e-6 * fabs(weight));
        ck_assert_double_eq_tol((double)qat->average->quant[0].scales[0], scale, 1e-6 * scale);
    }
    end();
}
END_TEST

/* An fp32 model, too, can be averaged. */
START_TEST(averages_without_a_quantizer) {
    begin((const char *[]){"qat.ema=0.9", NULL});
    pq_qat_show(qat, 0, 1e-3, &(pq_shown){.places = places_of(qat->model, shown)});
    pq_qat_updated(qat);
    ck_assert_uint_eq(qat->array_count, 2);
    end();
}
END_TEST

START_TEST(scales_follow_the_largest_weight) {
    begin((const char *[]){"quant.quantizer=pot", "quant.levels=7", "quant.scale_grid=fp32",
                           "quant.scale=ema-absmax", "quant.granularity=tensor", "quant.refit=step", NULL});
    size_t m = find("wpe.weight");
    const pq_param *p = &model->params.list[m];
    double running = NAN;
    for (int64_t iter = 0; iter < 5; iter++) {
        double largest = 0;
        for (size_t i = 0; i < p->count; i++) {
            model->weights[p->offset + i] *= iter ? 2 : 1;
            largest = fmax(largest, fabs((double)model->weights[p->offset + i]));
        }
        pq_qat_show(qat, iter, 1e-3, &(pq_shown){.places = places_of(qat->model, shown)});
        running = iter ? running + 0.01 * (largest - running) : largest;
        ck_assert_double_eq_tol((double)model->quant[m].scales[0], running / 4, 1e-6 * running);
    }
    end();
}
END_TEST

/* Drawn levels are neighbours of the weight, others in each iteration, and right on average. */
START_TEST(chance_rounds_without_bias) {
    begin((const char *[]){"quant.quantizer=pot", "quant.levels=15", "quant.rounding=stochastic",
                           "quant.scale=absmax", NULL});
    size_t m = find("h.0.mlp.c_fc.weight");
    const pq_param *p = &model->params.list[m];
    double *mean = calloc(p->count, sizeof *mean);
    enum { DRAWS = 400 };
    size_t changes = 0;
    float *before = calloc(p->count, sizeof *before);
    for (int64_t iter = 0; iter < DRAWS; iter++) {
        pq_qat_show(qat, iter, 1e-3, &(pq_shown){.places = places_of(qat->model, shown)});
        for (size_t i = 0; i < p->count; i++) {
            mean[i] += (double)shown[p->offset + i] / DRAWS;
            changes += iter > 0 && shown[p->offset + i] != before[i];
            before[i] = shown[p->offset + i];
        }
    }
    double bias = 0, scale = 0;
    for (size_t i = 0; i < p->count; i++) {
        bias += mean[i] - (double)model->weights[p->offset + i];
        scale += fabs((double)model->weights[p->offset + i]);
    }
    ck_assert_double_le(fabs(bias), 0.02 * scale);
    ck_assert_uint_gt(changes, DRAWS * p->count / 10);
    ck_assert_int_eq(model->quant[m].codebook.rounding, PQ_ROUND_NEAREST);
    free(mean);
    free(before);
    end();
}
END_TEST

START_TEST(foreign_state_is_refused) {
    begin((const char *[]){"quant.quantizer=pot", "quant.scale=learned", NULL});
    pq_state_array arrays[4];
    pq_training_state state = {.arrays = arrays, .array_count = 3};
    ck_assert_int_eq(pq_qat_restore(qat, &state, &err), PQ_ERR_FORMAT);
    state.array_count = 4;
    memcpy(arrays, qat->arrays, sizeof arrays);
    must(pq_qat_restore(qat, &state, &err));
    arrays[1].count--;
    ck_assert_int_eq(pq_qat_restore(qat, &state, &err), PQ_ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(err.message, "learned.m"));
    end();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("methods");
    TCase *all = tcase_create("all");
    tcase_add_test(all, soft_blends_from_latent_to_hard);
    tcase_add_loop_test(all, learned_scales_follow_their_gradient, 0, 2);
    tcase_add_test(all, frozen_weights_stay);
    tcase_add_test(all, levels_fall_in_stages);
    tcase_add_test(all, dampening_pulls_towards_levels);
    tcase_add_test(all, averages_follow_weights_and_scales);
    tcase_add_test(all, averages_without_a_quantizer);
    tcase_add_test(all, scales_follow_the_largest_weight);
    tcase_add_test(all, chance_rounds_without_bias);
    tcase_add_test(all, foreign_state_is_refused);
    suite_add_tcase(suite, all);
    return run_suite(suite);
}
