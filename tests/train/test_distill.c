/* Trainings that learn from a teacher: resuming, threads, micro-batches, a student that is its own teacher,
 * memory as planned, wrong teachers. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/threads.h"
#include "formats/packed.h"
#include "potqat/trainer.h"
#include "store/checkpoint.h"
#include "tests/harness/suite.h"
#include "tests/train/runs.h"
#include "train/job.h"
#include "train/metrics.h"

static const char *const base[] = {"data.tokenizer=char",
                                   "train.batch=2",
                                   "train.accumulate=2",
                                   "train.max_iters=7",
                                   "eval.every=4",
                                   "eval.windows=5",
                                   "save.every=1",
                                   "save.keep=100",
                                   "log.every=2",
                                   "train.lr=1e-2",
                                   "train.min_lr=1e-3",
                                   "train.warmup_iters=2",
                                   NULL};
static const char *const small[] = {"model.layers=1", "model.heads=2", "model.width=8", "model.context=12",
                                    NULL};
static const char *const large[] = {"model.layers=2",   "model.heads=2",    "model.width=16",
                                    "model.context=14", "train.context=12", NULL};
static pq_status train_student(const char *run, const char *const *shape, const char *const *more,
                               bool resume, int stop) {
    const char *const *const lists[] = {base, shape, more, NULL};
    return train_lists(run, lists, resume, stop, NULL);
}

static char from[300]; /* distill.from=FOLDER/teacher */

static void setup(void) {
    static const char *const quantized[] = {"quant.quantizer=pot", "quant.levels=7", NULL};
    make_folder();
    must(train_student("teacher", large, quantized, false, -1));
    snprintf(from, sizeof from, "distill.from=%s/teacher@last", folder);
}

static const char *const variants[][6] = {
    {from, "distill.weight=0.7", "distill.temperature=2"},
    {from, "quant.quantizer=pot", "quant.levels=3", "train.loss=last-token", "train.recompute=true"}};

/* "kl" of the training lines: how many, and the last. */
static size_t divergences(const char *run, double *last) {
    char path[64];
    json_t *lines;
    size_t count = 0;
    snprintf(path, sizeof path, "%s/metrics.jsonl", run);
    must(pq_metrics_read(path_of(path), &lines, &err));
    for (size_t i = 0; i < json_array_size(lines); i++) {
        const json_t *kl = json_object_get(json_array_get(lines, i), "kl");
        if (!kl) continue;
        *last = json_real_value(kl);
        count++;
    }
    json_decref(lines);
    return count;
}

START_TEST(resume_and_threads) {
    const char *const *more = variants[_i];
    double kl = 0;
    pq_threads_set(1);
    must(train_student("whole", small, more, false, -1));
    ck_assert_uint_eq(divergences("whole", &kl), 3);
    ck_assert_double_gt(kl, 0);
    ck_assert_uint_eq(divergences("teacher", &kl), 0);
    for (int stop = 0; stop < 7; stop += 3) {
        char name[16];
        snprintf(name, sizeof name, "part%d", stop);
        pq_threads_set(2 + stop % 2);
        ck_assert_int_eq(train_student(name, small, more, false, stop), PQ_STOPPED);
        must(train_student(name, small, more, true, -1));
        same_file("whole", name, "ckpt-7.h5");
        same_file("whole", name, "metrics.jsonl");
    }
    pq_threads_set(0);
}
END_TEST

static pq_job *prepare(const char *const *shape, const char *const *more, bool allocate, pq_config **config) {
    pq_job *job;
    const char *const *const lists[] = {base, shape, more, NULL};
    must(config_of("none", lists, config));
    must(pq_job_prepare(*config, NULL, allocate, &job, &err));
    return job;
}

static void finish(pq_job *job, pq_config *config) {
    pq_job_destroy(job);
    pq_config_destroy(config);
}

/* One iteration's gradients from four sequences, one at a time and all at once; weight 0 against no teacher.
 */
START_TEST(micro_batches_do_not_matter) {
    static const char *const
        one[] = {from, "train.batch=1", "train.accumulate=4", "distill.temperature=2", NULL},
        *const all[] = {from, "train.batch=4", "train.accumulate=1", "distill.temperature=2", NULL},
        *const idle[] = {from, "distill.weight=0", "distill.temperature=2", NULL}, *const none[] = {NULL};
    const char *const *const sides[] = {one, all, idle, none};
    float *gradients[4];
    pq_iteration done[4];
    size_t count = 0;
    for (int i = 0; i < 4; i++) {
        pq_config *config;
        pq_job *job = prepare(small, sides[i], true, &config);
        pq_job_draw(job, 0);
        done[i] = pq_session_iterate(job->session, 0, 1e-3);
        ck_assert(done[i].updated);
        count = job->model->params.elements;
        gradients[i] = malloc(count * sizeof **gradients);
        memcpy(gradients[i], job->session->gradients, count * sizeof **gradients);
        finish(job, config);
    }
    double difference = 0, norm = 0;
    for (size_t i = 0; i < count; i++) {
        norm += (double)gradients[0][i] * gradients[0][i];
        difference += pow((double)gradients[0][i] - gradients[1][i], 2);
    }
    ck_assert_double_le(sqrt(difference / norm), 1e-5);
    ck_assert_double_le(fabs(done[0].objective - done[1].objective), 1e-6);
    ck_assert_double_le(fabs(done[0].divergence - done[1].divergence), 1e-6);
    ck_assert_mem_eq(gradients[2], gradients[3], count * sizeof **gradients);
    ck_assert_double_eq(done[2].objective, done[3].loss);
    ck_assert_double_gt(done[2].divergence, 0);
    for (int i = 0; i < 4; i++) free(gradients[i]);
}
END_TEST

/* A student that begins as its teacher differs from it by nothing and has nothing to learn: exactly. */
START_TEST(its_own_teacher) {
    char init[300];
    snprintf(init, sizeof init, "init.from=%s/teacher@last", folder);
    const char *const more[] = {init,
                                from,
                                "distill.weight=1",
                                _i ? "distill.temperature=3" : "distill.temperature=1",
                                "train.dropout=0",
                                "quant.quantizer=pot",
                                "quant.levels=7",
                                NULL};
    const char *const context[] = {"train.context=12", NULL};
    pq_config *config;
    pq_job *job = prepare(context, more, true, &config);
    pq_job_draw(job, 0);
    pq_iteration done = pq_session_iterate(job->session, 0, 1e-3);
    ck_assert_double_eq(done.divergence, 0);
    ck_assert_double_eq(done.norm, 0);
    ck_assert_double_gt(done.loss, 0);
    finish(job, config);
}
END_TEST

/* The plan names what the teacher takes, and lends it the student's activations. */
START_TEST(memory_is_planned) {
    const char *const more[] = {from, NULL};
    pq_config *config[2];
    pq_job *with = prepare(small, more, false, &config[0]),
           *without = prepare(small, more + 1, false, &config[1]);
    const pq_session_memory *a = &with->session->memory, *b = &without->session->memory;
    pq_model *model;
    must(pq_checkpoint_read(path_of("teacher/ckpt-7.h5"), &model, NULL, &err));
    size_t tokens = 2 * 12, vocab = (size_t)model->params.shape.vocab;
    ck_assert_uint_eq(b->teacher, 0);
    ck_assert_uint_eq(a->teacher, (model->params.elements + tokens * 16 + tokens * vocab) * sizeof(float));
    ck_assert_uint_eq(a->total - b->total,
                      a->teacher + a->activations - b->activations + a->scratch - b->scratch);
    ck_assert_uint_ge(a->activations, with->teacher->plan.activations);
    ck_assert_uint_ge(a->scratch, with->teacher->plan.scratch);
    ck_assert_ptr_null(with->session->activations);
    pq_model_destroy(model);
    finish(with, config[0]);
    finish(without, config[1]);
}
END_TEST

/* One sentence, status 2, and nothing left behind. */
START_TEST(wrong_teachers) {
    static const char *const brief[] = {"model.layers=1", "model.heads=2", "model.width=8",
                                        "model.context=11", NULL};
    static const struct {
        const char *text, *run, *words;
    } cases[] = {{"the cat sat on a mat. ", "brief", "context of 11 is shorter than train.context, 12"},
                 {"the cat sat on a hat! ", "other", "the teacher has 11 tokens, the student 12"},
                 {"the cat sat on a mat, ", "third", "tokenizer is another one"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char teacher[300];
        const char *const more[] = {teacher, NULL};
        make_text("text.txt", cases[i].text, 4000);
        must(train_student(cases[i].run, i ? small : brief, NULL, false, -1));
        make_text("text.txt", cat_words, 4000);
        snprintf(teacher, sizeof teacher, "distill.from=%s/%s", folder, cases[i].run);
        pq_status status = train_student("refused", small, more, false, -1);
        ck_assert_msg(pq_exit_code(status) == 2 && strstr(err.message, cases[i].words) &&
                          strstr(err.message, "distill.from"),
                      "case %zu: status %d, %s", i, status, err.message);
        ck_assert(!pq_file_exists(path_of("refused")));
    }
    const char *const missing[] = {"distill.from=nowhere", NULL};
    ck_assert_int_ne(train_student("refused", small, missing, false, -1), PQ_OK);
    ck_assert_ptr_nonnull(strstr(err.message, "distill.from"));
}
END_TEST

/* The teacher may stand elsewhere, even packed, when a run goes on; it may not be another one, or none, or
 * new. */
START_TEST(teacher_on_resume) {
    char elsewhere[300], other[300], packed[300];
    pq_model *model;
    must(pq_checkpoint_read(path_of("teacher/ckpt-7.h5"), &model, NULL, &err));
    must(pq_packed_write(path_of("packed.safetensors"), false, model, &err));
    must(pq_checkpoint_write(path_of("elsewhere.h5"), false, model, NULL, &err));
    pq_model_destroy(model);
    snprintf(elsewhere, sizeof elsewhere, "distill.from=%s/elsewhere.h5", folder);
    snprintf(packed, sizeof packed, "distill.from=%s/packed.safetensors", folder);
    snprintf(other, sizeof other, "distill.from=%s/teacher@2", folder);
    const char *const own[] = {from, NULL}, *const moved[] = {elsewhere, NULL},
                      *const small_file[] = {packed, NULL}, *const foreign[] = {other, NULL};
    ck_assert_int_eq(train_student("run", small, own, false, 2), PQ_STOPPED);
    ck_assert_int_eq(train_student("run", small, foreign, true, -1), PQ_ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "another teacher"));
    ck_assert_int_eq(train_student("run", small, NULL, true, -1), PQ_ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "now it is null"));
    ck_assert_int_eq(train_student("run", small, moved, true, 2), PQ_STOPPED);
    must(train_student("run", small, small_file, true, -1));
    must(train_student("whole", small, own, false, -1));
    same_file("whole", "run", "metrics.jsonl");
    ck_assert_int_eq(train_student("alone", small, NULL, false, 2), PQ_STOPPED);
    ck_assert_int_eq(train_student("alone", small, own, true, -1), PQ_ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "without a teacher"));
}
END_TEST

/* A teacher whose logits are not finite: the cross-entropy is, the mixed loss is not, so nothing is updated.
 */
START_TEST(broken_teacher) {
    char broken[300];
    pq_model *model;
    pq_config *config;
    snprintf(broken, sizeof broken, "distill.from=%s/broken.h5", folder);
    const char *const more[] = {broken, "distill.weight=0.1", NULL};
    must(pq_checkpoint_read(path_of("teacher/ckpt-7.h5"), &model, NULL, &err));
    const pq_param *gain = pq_params_find(&model->params, "ln_f.weight");
    for (size_t i = 0; i < gain->count; i++) model->weights[gain->offset + i] = 3e38f;
    must(pq_checkpoint_write(path_of("broken.h5"), false, model, NULL, &err));
    pq_model_destroy(model);
    pq_job *job = prepare(small, more, true, &config);
    pq_job_draw(job, 0);
    pq_iteration done = pq_session_iterate(job->session, 0, 1e-3);
    ck_assert(isfinite(done.loss) && !isfinite(done.objective) && !done.updated);
    finish(job, config);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("distillation");
    TCase *tc = tcase_create("tiny models");
    tcase_set_timeout(tc, 600);
    tcase_add_checked_fixture(tc, setup, remove_folder);
    tcase_add_loop_test(tc, resume_and_threads, 0, 2);
    tcase_add_test(tc, micro_batches_do_not_matter);
    tcase_add_loop_test(tc, its_own_teacher, 0, 2);
    tcase_add_test(tc, broken_teacher);
    tcase_add_test(tc, memory_is_planned);
    tcase_add_test(tc, wrong_teachers);
    tcase_add_test(tc, teacher_on_resume);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
