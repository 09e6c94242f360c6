/* Whole trainings of tiny models: resuming, threads, micro-batches, divergence, patience, wrong input. Runs
 * are compared by the bytes of their files. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/threads.h"
#include "formats/packed.h"
#include "kernels/gemm_bf16.h"
#include "potqat/engine.h"
#include "potqat/trainer.h"
#include "store/checkpoint.h"
#include "store/run.h"
#include "tests/harness/suite.h"
#include "tests/train/runs.h"
#include "train/evaluate.h"
#include "train/metrics.h"

static const char *const plain[] = {NULL};
static const char *const micro[] = {"train.accumulate=2", "data.order=epoch", "train.recompute=true", NULL};
static const char *const qat[] = {"quant.quantizer=pot", "quant.levels=7", "quant.refit=step",
                                  "quant.scale=absmax", NULL};
static const char *const groups[] = {"quant.quantizer=uniform",
                                     "quant.range=[-8, 7]",
                                     "quant.granularity=tensor",
                                     "quant.refit=3",
                                     "train.loss=last-token",
                                     "eval.protocol=last-token",
                                     NULL};
static const char *const learned[] = {"quant.quantizer=pot", "quant.levels=7",
                                      "quant.scale=learned", "quant.granularity=row",
                                      "qat.scale_lr=1e-2",   "qat.progressive=[[0, 15], [5, 7]]",
                                      "qat.start_iter=2",    "qat.anneal_iters=4",
                                      "qat.ema=0.7",         NULL};
static const char *const frozen[] = {"quant.quantizer=pot", "quant.levels=7",
                                     "quant.scale=mse",     "qat.freeze=[[0, 0.5], [3, 0.75], [7, 1]]",
                                     "qat.dampen=5",        NULL};
static const char *const token[] = {"quant.quantizer=pot", "quant.levels=7", "quant.activations=int8-token",
                                    "train.recompute=true", NULL};
static const char *const affine[] = {"quant.quantizer=pot", "quant.levels=7", "quant.activations=int8-affine",
                                     "train.accumulate=2",  "qat.ema=0.7",    NULL};
static const char *const bf16[] = {"train.precision=bf16", "quant.quantizer=pot", "quant.levels=7",
                                   "quant.refit=step",     "quant.scale=absmax",  NULL};
static const char *const bf16_micro[] = {
    "train.precision=bf16", "quant.quantizer=pot",  "quant.levels=7",     "quant.scale=learned",
    "qat.dampen=5",         "train.recompute=true", "train.accumulate=2", NULL};
static const char *const *const variants[] = {plain,  micro, qat,    groups, learned,
                                              frozen, token, affine, bf16,   bf16_micro};
enum { VARIANTS = sizeof variants / sizeof *variants };

/* Said in main. */
static bool lacks_bf16(const char *const *more) {
    return more[0] && strcmp(more[0], bf16[0]) == 0 && pq_gemm_bf16_check(&err) != PQ_OK;
}

/* Stop after each iteration in turn, resume, and compare with the undisturbed run. */
START_TEST(resume_is_exact) {
    const char *const *more = variants[_i];
    if (lacks_bf16(more)) return;
    must(train("whole", more, false, -1, NULL));
    for (int stop = 0; stop < 9; stop++) {
        char name[16];
        snprintf(name, sizeof name, "part%d", stop);
        ck_assert_int_eq(train(name, more, false, stop, NULL), PQ_STOPPED);
        ck_assert_ptr_nonnull(strstr(err.message, "--resume"));
        must(train(name, more, true, -1, NULL));
        same_file("whole", name, "ckpt-9.h5");
        same_file("whole", name, "metrics.jsonl");
        same_file("whole", name, "best.h5");
        same_file("whole", name, "windows-last.csv");
    }
    /* Resuming what is finished changes nothing. */
    pq_file_view before, after;
    must(pq_file_read(path_of("whole/run.json"), &before, &err));
    must(train("whole", more, true, -1, NULL));
    must(pq_file_read(path_of("whole/run.json"), &after, &err));
    ck_assert_str_eq(before.data, after.data);
    pq_file_view_close(&before);
    pq_file_view_close(&after);
}
END_TEST

START_TEST(threads_do_not_matter) {
    const char *const *more = variants[_i];
    if (lacks_bf16(more)) return;
    for (int threads = 1; threads <= 3; threads++) {
        char name[16];
        snprintf(name, sizeof name, "threads%d", threads);
        pq_threads_set(threads);
        must(train(name, more, false, -1, NULL));
        if (threads > 1)
            same_file("threads1", name, "ckpt-9.h5"), same_file("threads1", name, "metrics.jsonl");
    }
    pq_threads_set(0);
}
END_TEST

/* The same sequences in other micro-batches: the same windows and masks, so only rounding differs. */
START_TEST(micro_batches_do_not_matter) {
    const char *const one[] = {"train.batch=4", "train.accumulate=1", NULL};
    const char *const four[] = {"train.batch=1", "train.accumulate=4", NULL};
    pq_train_result a, b;
    must(train("one", one, false, -1, &a));
    must(train("four", four, false, -1, &b));
    ck_assert_double_le(fabs(a.loss - b.loss), 1e-4);
    pq_model *x, *y;
    must(pq_checkpoint_read(path_of("one/ckpt-1.h5"), &x, NULL, &err));
    must(pq_checkpoint_read(path_of("four/ckpt-1.h5"), &y, NULL, &err));
    double difference = 0, norm = 0;
    for (size_t i = 0; i < x->params.elements; i++) {
        norm += (double)x->weights[i] * x->weights[i];
        difference += ((double)x->weights[i] - y->weights[i]) * ((double)x->weights[i] - y->weights[i]);
    }
    ck_assert_double_le(sqrt(difference / norm), 2e-4);
    pq_model_destroy(x);
    pq_model_destroy(y);
}
END_TEST

START_TEST(learns_and_reports) {
    const char *const more[] = {"train.max_iters=60", "eval.windows=0", "save.every=20",
                                "save.keep=2",        "eval.every=20",  NULL};
    pq_train_result r;
    json_t *lines;
    must(train("learn", more, false, -1, &r));
    ck_assert_double_lt(r.loss, 2.2); /* 16 characters: 2.77 by chance */
    must(pq_metrics_read(path_of("learn/metrics.jsonl"), &lines, &err));
    double first = NAN;
    for (size_t i = 0; i < json_array_size(lines); i++) {
        json_t *line = json_array_get(lines, i);
        const char *split = json_string_value(json_object_get(line, "split"));
        if (split && strcmp(split, "val") == 0 && isnan(first))
            first = json_real_value(json_object_get(line, "loss"));
    }
    ck_assert_double_gt(first, 2.5);
    json_decref(lines);
    static const char *const made[] = {"config.yaml", "run.json",   "timing.jsonl",    "best.h5",
                                       "ckpt-40.h5",  "ckpt-60.h5", "windows-best.csv"};
    for (size_t i = 0; i < sizeof made / sizeof *made; i++) {
        char name[64];
        snprintf(name, sizeof name, "learn/%s", made[i]);
        ck_assert_msg(pq_file_exists(path_of(name)), "%s is missing", name);
    }
    ck_assert(!pq_file_exists(path_of("learn/ckpt-20.h5")));               /* save.keep */
    ck_assert_int_eq(train("learn", more, false, -1, NULL), PQ_ERR_USAGE); /* exists */
    ck_assert(pq_file_exists(path_of("learn/ckpt-60.h5")));
}
END_TEST

/* The trainer's evaluation, a fresh one from the checkpoint, and the packed model in the engine. An engine
 * that left the activations as they are would be 3e-6 away from int8-token. */
START_TEST(evaluation_agrees_everywhere) {
    static const char *const activations[] = {"none", "int8-token", "int8-affine"};
    char kind[64];
    snprintf(kind, sizeof kind, "quant.activations=%s", activations[_i]);
    const char *const more[] = {
        "quant.quantizer=pot", "quant.levels=15", "train.max_iters=20", "eval.windows=0", kind, NULL};
    pq_train_result r;
    pq_model *model;
    pq_packed *packed;
    pq_engine *engine;
    pq_dataset *dataset;
    pq_evaluation e;
    must(train("law8", more, false, -1, &r));
    must(pq_checkpoint_read(path_of("law8/ckpt-20.h5"), &model, NULL, &err));
    pq_data_options data = {.path = path_of("text.txt"), .tokenizer = "char", .split = {0.8, 0.1, 0.1}};
    must(pq_dataset_open(&data, &dataset, &err));
    pq_evaluation_options options = {.split = PQ_VAL, .context = 12};
    must(pq_evaluate(model, dataset, &options, &e, &err));
    ck_assert_double_eq(e.loss, r.loss);
    ck_assert_double_eq(e.loss_se, r.loss_se);
    if (_i == 2) { /* on fixed ranges: not packed */
        ck_assert_int_eq(pq_packed_write(path_of("law8.safetensors"), false, model, &err), PQ_ERR_USAGE);
        ck_assert_ptr_nonnull(strstr(err.message, "int8-affine"));
        pq_evaluation_deinit(&e);
        pq_dataset_close(dataset);
        pq_model_destroy(model);
        return;
    }
    must(pq_packed_write(path_of("law8.safetensors"), false, model, &err));
    must(pq_packed_open(path_of("law8.safetensors"), &packed, &err));
    must(pq_engine_create(packed, 0, &engine, &err));
    double sum = 0;
    size_t V = (size_t)model->params.shape.vocab;
    float *logits = malloc(12 * V * sizeof *logits);
    for (size_t w = 0; w < e.windows; w++) {
        uint16_t window[13];
        pq_dataset_read(dataset, PQ_VAL, w * 12, 13, window);
        pq_engine_reset(engine);
        must(pq_engine_forward(engine, window, 12, false, logits, &err));
        for (size_t t = 0; t < 12; t++) {
            double total = 0;
            for (size_t v = 0; v < V; v++) total += exp((double)logits[t * V + v]);
            sum += log(total) - logits[t * V + window[t + 1]];
        }
    }
    ck_assert_double_le(fabs(sum / (double)e.tokens - e.loss), _i ? 1e-6 : 1e-5);
    free(logits);
    pq_evaluation_deinit(&e);
    pq_dataset_close(dataset);
    pq_engine_destroy(engine);
    pq_packed_close(packed);
    pq_model_destroy(model);
}
END_TEST

/* Finite weights whose logits are not: every iteration is skipped, nothing is best, the weights stay. */
START_TEST(divergence) {
    pq_model *model, *after;
    char from[300];
    must(train("seed", plain, false, -1, NULL));
    must(pq_checkpoint_read(path_of("seed/ckpt-9.h5"), &model, NULL, &err));
    const pq_param *gain = pq_params_find(&model->params, "ln_f.weight");
    for (size_t i = 0; i < gain->count; i++) model->weights[gain->offset + i] = 3e38f;
    must(pq_checkpoint_write(path_of("huge.h5"), false, model, NULL, &err));
    snprintf(from, sizeof from, "init.from=%s/huge.h5", folder);
    const char *const more[] = {from, "train.max_bad_iters=3", NULL};
    ck_assert_int_eq(train("diverged", more, false, -1, NULL), PQ_DIVERGED);
    ck_assert_ptr_nonnull(strstr(err.message, "diverged"));
    ck_assert(!pq_file_exists(path_of("diverged/best.h5")));
    must(pq_checkpoint_read(path_of("diverged/ckpt-4.h5"), &after, NULL, &err));
    ck_assert_mem_eq(after->weights, model->weights, model->params.elements * sizeof(float));
    json_t *lines;
    size_t skipped = 0;
    must(pq_metrics_read(path_of("diverged/metrics.jsonl"), &lines, &err));
    for (size_t i = 0; i < json_array_size(lines); i++)
        skipped += json_object_get(json_array_get(lines, i), "event") != NULL;
    ck_assert_uint_eq(skipped, 4);
    json_decref(lines);
    pq_model_destroy(model);
    pq_model_destroy(after);
}
END_TEST

/* A skipped iteration leaves the ranges as they were; ranges of a parent go on, and a fresh start has none.
 */
START_TEST(ranges_follow_updates_alone) {
    pq_model *before, *after;
    char from[300];
    must(train("ranged", affine, false, -1, NULL));
    must(pq_checkpoint_read(path_of("ranged/ckpt-9.h5"), &before, NULL, &err));
    const pq_param *p = pq_params_find(&before->params, "ln_f.bias");
    before->weights[p->offset] = 3e38f; /* finite, as are the sites but the last; the logits are not */
    must(pq_checkpoint_write(path_of("huge.h5"), false, before, NULL, &err));
    snprintf(from, sizeof from, "init.from=%s/huge.h5", folder);
    const char *const more[] = {from, "train.max_bad_iters=3", affine[0], affine[1], affine[2], NULL};
    ck_assert_int_eq(train("diverged", more, false, -1, NULL), PQ_DIVERGED);
    must(pq_checkpoint_read(path_of("diverged/ckpt-4.h5"), &after, NULL, &err));
    ck_assert_mem_eq(after->ranges, before->ranges, pq_model_sites(after) * sizeof *after->ranges);
    for (size_t i = 0; i < pq_model_sites(after); i++) ck_assert(after->ranges[i][0] < after->ranges[i][1]);
    pq_model_destroy(before);
    pq_model_destroy(after);
    must(pq_checkpoint_read(path_of("ranged/ckpt-1.h5"), &after, NULL, &err));
    must(pq_checkpoint_read(path_of("ranged/ckpt-2.h5"), &before, NULL, &err));
    for (size_t i = 0; i < pq_model_sites(after); i++)
        ck_assert_mem_ne(after->ranges[i], before->ranges[i], sizeof *after->ranges);
    pq_model_destroy(before);
    pq_model_destroy(after);
}
END_TEST

START_TEST(patience_and_keeping_on) {
    const char *const still[] = {"train.lr=1e-9",
                                 "train.min_lr=0",
                                 "train.patience=2",
                                 "eval.every=1",
                                 "train.max_iters=500",
                                 "train.dropout=0",
                                 NULL};
    pq_train_result r;
    must(train("patient", still, false, -1, &r));
    ck_assert_int_lt(r.iter, 500);
    const int64_t end = r.iter;
    must(train("patient", still, true, -1, &r)); /* it has no more of it when resumed */
    ck_assert_int_eq(r.iter, end);
    /* init.iter and init.optimizer: the count and the moments go on. */
    char from[300];
    must(train("parent", plain, false, -1, NULL));
    snprintf(from, sizeof from, "init.from=%s/parent@last", folder);
    const char *const keep[] = {from, "init.iter=keep", "init.optimizer=keep", "train.max_iters=12", NULL};
    must(train("kept", keep, false, -1, &r));
    ck_assert_int_eq(r.iter, 12);
    pq_training_state state;
    pq_model *model;
    must(pq_checkpoint_read(path_of("kept/ckpt-12.h5"), &model, &state, &err));
    ck_assert_ptr_nonnull(strstr(state.state, "\"adam_step\":12"));
    pq_model_destroy(model);
    pq_training_state_deinit(&state);
    snprintf(from, sizeof from, "init.from=%s/parent@best", folder);
    ck_assert_int_eq(train("none", keep, false, -1, NULL), PQ_ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "moments"));
}
END_TEST

/* Wrong input: one sentence with these words, nothing left behind. */
START_TEST(refusals) {
    char from[300], missing[300], empty[300], brief[300], foreign[300];
    must(train("good", plain, false, -1, NULL));
    make_text("empty.txt", cat_words, 0);
    make_text("brief.txt", cat_words, 30);
    FILE *file = fopen(path_of("foreign.txt"), "w");
    for (int i = 0; i < 400; i++) fputs("the cat \xC3\xA9t\xC3\xA9. ", file);
    fclose(file);
    snprintf(from, sizeof from, "init.from=%s/good", folder);
    snprintf(missing, sizeof missing, "data.path=%s/absent.txt", folder);
    snprintf(empty, sizeof empty, "data.path=%s/empty.txt", folder);
    snprintf(brief, sizeof brief, "data.path=%s/brief.txt", folder);
    snprintf(foreign, sizeof foreign, "data.path=%s/foreign.txt", folder);
    const struct {
        const char *more[4];
        pq_status status;
        const char *words;
    } refused[] = {
        {{missing}, PQ_ERR_IO, "absent.txt"},
        {{empty}, PQ_ERR_USAGE, "empty"},
        {{brief}, PQ_ERR_USAGE, "token"},
        {{from, foreign}, PQ_ERR_USAGE, "U+00E9"},
        {{"model.width=15"}, PQ_ERR_USAGE, "heads"},
        {{"quant.quantizer=pot", "quant.levels=8"}, PQ_ERR_USAGE, "levels"},
        {{"quant.quantizer=pot", "quant.granularity=group32"}, PQ_ERR_USAGE, "group32"},
        {{"quant.quantizer=pot", "quant.params=[\"nothing.*\"]"}, PQ_ERR_USAGE, "quant.params"},
        {{from, "model.layers=3"}, PQ_ERR_USAGE, "model.layers"},
        {{from, "data.tokenizer=byte"}, PQ_ERR_USAGE, "tokenizer"},
        {{from, "init.iter=keep"}, PQ_ERR_USAGE, "max_iters"},
        {{"train.context=13"}, PQ_ERR_USAGE, "context"},
        {{"train.lr=-1"}, PQ_ERR_USAGE, "train.lr"},
        {{"init.from=nowhere"}, PQ_ERR_IO, "nowhere"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        pq_status status = train("refused", refused[i].more, false, -1, NULL);
        ck_assert_msg(status != PQ_OK && strstr(err.message, refused[i].words), "case %zu: status %d, %s", i,
                      status, err.message);
        ck_assert_msg(pq_exit_code(status) == pq_exit_code(refused[i].status) ||
                          refused[i].status == PQ_ERR_IO,
                      "case %zu: status %d, %s", i, status, err.message);
        ck_assert_msg(!pq_file_exists(path_of("refused")), "case %zu left a folder", i);
    }
    /* A resumed run on other data. */
    make_text("text.txt", cat_words, 4100);
    ck_assert_int_eq(train("good", plain, true, -1, NULL), PQ_ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "other tokens"));
}
END_TEST

int main(void) {
    if (lacks_bf16(bf16)) printf("no runs in bf16: %s\n", err.message);
    Suite *suite = suite_create("trainer");
    TCase *tc = tcase_create("tiny models");
    tcase_set_timeout(tc, 900);
    tcase_add_checked_fixture(tc, make_folder, remove_folder);
    tcase_add_loop_test(tc, resume_is_exact, 0, VARIANTS);
    tcase_add_loop_test(tc, threads_do_not_matter, 0, VARIANTS);
    tcase_add_test(tc, micro_batches_do_not_matter);
    tcase_add_test(tc, learns_and_reports);
    tcase_add_loop_test(tc, evaluation_agrees_everywhere, 0, 3);
    tcase_add_test(tc, divergence);
    tcase_add_test(tc, ranges_follow_updates_alone);
    tcase_add_test(tc, patience_and_keeping_on);
    tcase_add_test(tc, refusals);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
