/* Training in bf16: near fp32, refused where it can't be, methods that see what the graph saw, and weights in
 * the place of their gradients. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "kernels/gemm_bf16.h"
#include "store/checkpoint.h"
#include "tests/harness/suite.h"
#include "tests/train/runs.h"

/* Said in main. */
static bool lacks_bf16(void) {
    return pq_gemm_bf16_check(&err) != PQ_OK;
}

/* Close to fp32, yet not the same; or refused before anything is made, in words that say what is missing. */
START_TEST(bf16_follows_fp32) {
    const char *const fp32_run[] = {"train.max_iters=60", NULL};
    const char *const bf16_run[] = {"train.max_iters=60", "train.precision=bf16", NULL};
    pq_train_result a, b;
    if (lacks_bf16()) {
        char sentence[sizeof err.message];
        snprintf(sentence, sizeof sentence, "%s", err.message);
        ck_assert_int_eq(train("refused", bf16_run, false, -1, NULL), PQ_ERR_USAGE);
        ck_assert_ptr_nonnull(strstr(err.message, "train.precision: bf16 needs a "));
        ck_assert_ptr_nonnull(strstr(err.message, sentence));
        ck_assert(!pq_file_exists(path_of("refused")));
        return;
    }
    must(train("fp32", fp32_run, false, -1, &a));
    must(train("bf16", bf16_run, false, -1, &b));
    ck_assert_double_lt(b.loss, 2.0); /* it starts at ln 12 = 2.5 */
    ck_assert_double_le(fabs(a.loss - b.loss), 0.03);
    ck_assert(a.loss != b.loss);
}
END_TEST

/* The same training, evaluated in bf16: near, not the same, and told under another name. */
START_TEST(evaluation_in_bf16) {
    const char *const wide[] = {"quant.quantizer=pot", "quant.scale=absmax", NULL};
    const char *const narrow[] = {"quant.quantizer=pot", "quant.scale=absmax", "eval.precision=bf16", NULL};
    pq_train_result a, b;
    pq_file_view metrics;
    if (lacks_bf16()) return;
    must(train("wide", wide, false, -1, &a));
    must(train("narrow", narrow, false, -1, &b));
    ck_assert_double_le(fabs(a.loss - b.loss), 0.02);
    ck_assert(a.loss != b.loss);
    must(pq_file_read(path_of("narrow/metrics.jsonl"), &metrics, &err));
    ck_assert_ptr_nonnull(strstr(metrics.data, "\"all-tokens bf16\""));
    pq_file_view_close(&metrics);
}
END_TEST

static pq_model *last_of(const char *run) {
    char name[64];
    pq_model *model;
    snprintf(name, sizeof name, "%s/ckpt-9.h5", run);
    must(pq_checkpoint_read(path_of(name), &model, NULL, &err));
    return model;
}

/* Power-of-two levels times scales of 8 significant bits are bf16 numbers, for each count of levels. */
START_TEST(levels_are_exact) {
    static const char *const levels[] = {"quant.levels=3", "quant.levels=15", "quant.levels=63"};
    const char *const run[] = {"quant.quantizer=pot", "quant.scale=learned", levels[_i], NULL};
    must(train("quantized", run, false, -1, NULL));
    pq_model *model = last_of("quantized");
    float *weights;
    size_t zeros = 0, checked = 0;
    must(pq_calloc(model->params.elements, sizeof *weights, "weights", &weights, &err));
    pq_model_effective_weights(model, weights);
    for (size_t i = 0; i < model->params.count; i++)
        for (size_t k = 0; model->quant[i].quantized && k < model->params.list[i].count; k++) {
            float wide, w = weights[model->params.list[i].offset + k];
            pq_bf16 narrow;
            pq_narrow_ref(&w, &narrow, 1);
            pq_widen_ref(&narrow, &wide, 1);
            ck_assert_msg(wide == w, "%s: %a becomes %a", model->params.list[i].name, (double)w,
                          (double)wide);
            zeros += w == 0, checked++;
        }
    ck_assert_uint_gt(checked, 1000);
    ck_assert_uint_lt(zeros, checked);
    free(weights);
    pq_model_destroy(model);
}
END_TEST

/* Weights that are all fixed at the first iteration end at their levels, which bf16 holds exactly. */
START_TEST(fixed_weights_end_at_their_levels) {
    const char *const fp32_run[] = {"quant.quantizer=pot",   "quant.levels=7", "quant.scale=mse",
                                    "qat.freeze=[[0, 1.0]]", "qat.dampen=5",   NULL};
    const char *const bf16_run[] = {"quant.quantizer=pot",
                                    "quant.levels=7",
                                    "quant.scale=mse",
                                    "qat.freeze=[[0, 1.0]]",
                                    "qat.dampen=5",
                                    "train.precision=bf16",
                                    NULL};
    if (lacks_bf16()) return;
    must(train("wide", fp32_run, false, -1, NULL));
    must(train("narrow", bf16_run, false, -1, NULL));
    pq_model *a = last_of("wide"), *b = last_of("narrow");
    for (size_t i = 0; i < a->params.count; i++) {
        const pq_param *p = &a->params.list[i];
        if (!a->quant[i].quantized) continue;
        ck_assert_msg(memcmp(a->weights + p->offset, b->weights + p->offset, p->count * sizeof(float)) == 0,
                      "%s differs", p->name);
    }
    pq_model_destroy(a), pq_model_destroy(b);
}
END_TEST

/* Learned scales go where they go in fp32. */
START_TEST(scales_learn_as_in_fp32) {
    const char *const none[] = {"quant.quantizer=pot", "quant.levels=7", "quant.scale=learned",
                                "qat.scale_lr=0", NULL};
    const char *const fp32_run[] = {"quant.quantizer=pot", "quant.levels=7", "quant.scale=learned",
                                    "qat.scale_lr=5e-2", NULL};
    const char *const bf16_run[] = {"quant.quantizer=pot", "quant.levels=7",       "quant.scale=learned",
                                    "qat.scale_lr=5e-2",   "train.precision=bf16", NULL};
    double moved = 0, apart = 0;
    if (lacks_bf16()) return;
    must(train("still", none, false, -1, NULL));
    must(train("wide", fp32_run, false, -1, NULL));
    must(train("narrow", bf16_run, false, -1, NULL));
    pq_model *start = last_of("still"), *a = last_of("wide"), *b = last_of("narrow");
    for (size_t i = 0; i < a->params.count; i++)
        for (size_t k = 0; a->quant[i].quantized && k < a->quant[i].scale_count; k++) {
            double from = log((double)start->quant[i].scales[k]), to = log((double)a->quant[i].scales[k]);
            moved += pow(to - from, 2), apart += pow(log((double)b->quant[i].scales[k]) - to, 2);
        }
    ck_assert_double_gt(moved, 0);
    ck_assert_msg(sqrt(apart) < 0.3 * sqrt(moved), "moved by %g, %g apart", sqrt(moved), sqrt(apart));
    pq_model_destroy(start), pq_model_destroy(a), pq_model_destroy(b);
}
END_TEST

/* A method that would look at the weights later keeps them apart from their gradients; this one never does.
 */
START_TEST(place_of_weights_does_not_matter) {
    const char *precision = _i ? "train.precision=bf16" : "train.precision=fp32";
    const char *const shared[] = {
        precision, "quant.quantizer=pot", "quant.scale=mse", "train.recompute=true", "train.weight_decay=0",
        NULL};
    const char *const apart[] = {precision,
                                 "quant.quantizer=pot",
                                 "quant.scale=mse",
                                 "train.recompute=true",
                                 "train.weight_decay=0",
                                 "qat.freeze=[[1000, 0.5]]",
                                 NULL};
    if (_i && lacks_bf16()) return;
    must(train("shared", shared, false, -1, NULL));
    must(train("apart", apart, false, -1, NULL));
    pq_model *a = last_of("shared"), *b = last_of("apart");
    ck_assert_int_eq(memcmp(a->weights, b->weights, a->params.elements * sizeof(float)), 0);
    pq_model_destroy(a), pq_model_destroy(b);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("bf16");
    TCase *tc = tcase_create("bf16");
    if (lacks_bf16()) printf("no runs in bf16: %s\n", err.message);
    tcase_set_timeout(tc, 120);
    tcase_add_checked_fixture(tc, make_folder, remove_folder);
    tcase_add_test(tc, bf16_follows_fp32);
    tcase_add_test(tc, evaluation_in_bf16);
    tcase_add_loop_test(tc, levels_are_exact, 0, 3);
    tcase_add_test(tc, fixed_weights_end_at_their_levels);
    tcase_add_test(tc, scales_learn_as_in_fp32);
    tcase_add_loop_test(tc, place_of_weights_does_not_matter, 0, 2);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
