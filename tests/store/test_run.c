/* Run folders: making, overwriting, locking, pruning; and what a MODEL argument names. */
#include <check.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "store/run.h"
#include "testing.h"
#include "tests/harness/suite.h"

static char *folder, *run;
static pq_error err;

static void setup(void) {
    folder = testing_folder();
    run = testing_path(folder, "runs/a");
}

static void teardown(void) {
    free(run);
    testing_remove(folder);
}

static void touch(const char *dir, const char *name) {
    char *path = testing_path(dir, name);
    testing_write(path, "x", 1);
    free(path);
}

static bool has(const char *dir, const char *name) {
    char *path = testing_path(dir, name);
    bool found = pq_file_exists(path);
    free(path);
    return found;
}

#define expect(call, status, part)                                                                           \
    do {                                                                                                     \
        err.message[0] = 0;                                                                                  \
        ck_assert_int_eq(call, status);                                                                      \
        ck_assert_msg(strstr(err.message, part) != NULL, "expected \"%s\", found: %s", part, err.message);   \
    } while (0)

static const char *const made_by_runs[] = {
    "config.yaml", "run.json",   "metrics.jsonl", "timing.jsonl", "best.h5",
    "ckpt-5.h5",   "ckpt-10.h5", "report.html",   "lock",         "ckpt-9.h5.tmp-999999999"};
enum { MADE = sizeof made_by_runs / sizeof *made_by_runs };

START_TEST(creates_and_overwrites) {
    ck_assert_int_eq(pq_run_create(run, false, &err), PQ_OK);
    ck_assert(pq_folder_exists(run));
    ck_assert_int_eq(pq_run_create(run, false, &err), PQ_OK); /* empty */
    /* A run that was killed while it wrote its very first file. */
    char left[40];
    pid_t gone = fork();
    if (gone == 0) _exit(0);
    waitpid(gone, NULL, 0);
    snprintf(left, sizeof left, "config.yaml.tmp-%ld", (long)gone);
    touch(run, "lock");
    touch(run, left);
    ck_assert_msg(pq_run_create(run, false, &err) == PQ_OK, "%s", err.message);
    touch(run, "config.yaml");
    touch(run, "run.json");
    expect(pq_run_create(run, false, &err), PQ_ERR_USAGE, "without a checkpoint; --overwrite starts anew");
    for (int i = 0; i < MADE; i++) touch(run, made_by_runs[i]);
    touch(run, "notes.txt");
    touch(run, "ckpt-x.h5");
    touch(run, "ckpt-007.h5");
    expect(pq_run_create(run, false, &err), PQ_ERR_USAGE, "saved at iter 10; --resume continues it");
    ck_assert_uint_eq(testing_entries(run, ""), MADE + 4); /* the left-over file, too */
    ck_assert_msg(pq_run_create(run, true, &err) == PQ_OK, "%s", err.message);
    for (int i = 0; i < MADE; i++)
        if (strcmp(made_by_runs[i], "lock") != 0)
            ck_assert_msg(!has(run, made_by_runs[i]), "%s", made_by_runs[i]);
    ck_assert(!has(run, left));
    ck_assert(has(run, "notes.txt") && has(run, "ckpt-x.h5") && has(run, "ckpt-007.h5"));
}
END_TEST

START_TEST(never_touches_other_folders) {
    touch(folder, "best.h5");
    touch(folder, "thesis.tex");
    expect(pq_run_create(folder, true, &err), PQ_ERR_USAGE, "no run (no config.yaml)");
    ck_assert_uint_eq(testing_entries(folder, ""), 2);
    char *project = testing_path(folder, "project");
    ck_assert_int_eq(pq_folder_create(project, NULL), PQ_OK);
    touch(project, "config.yaml");
    touch(project, "main.c");
    expect(pq_run_create(project, true, &err), PQ_ERR_USAGE, "nothing else of a run");
    ck_assert_uint_eq(testing_entries(project, ""), 2);
    free(project);
    char *file = testing_path(folder, "thesis.tex");
    expect(pq_run_create(file, true, &err), PQ_ERR_USAGE, "is a file");
    expect(pq_run_check(file, &err), PQ_ERR_USAGE, "is a file");
    free(file);
    expect(pq_run_check(folder, &err), PQ_ERR_USAGE, "has no config.yaml");
    expect(pq_run_check(run, &err), PQ_ERR_USAGE, "does not exist");
    ck_assert_int_eq(pq_run_create(run, false, &err), PQ_OK);
    touch(run, "config.yaml");
    ck_assert_int_eq(pq_run_check(run, &err), PQ_OK);
}
END_TEST

START_TEST(one_process_at_a_time) {
    int lock, second, ready[2];
    char byte;
    ck_assert_int_eq(pq_run_create(run, false, &err), PQ_OK);
    touch(run, "config.yaml");
    ck_assert_int_eq(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        if (pq_run_lock(run, &lock, NULL) != PQ_OK || write(ready[1], "x", 1) != 1) _exit(1);
        pause();
    }
    ck_assert_int_eq((int)read(ready[0], &byte, 1), 1);
    char number[24];
    snprintf(number, sizeof number, "(%ld)", (long)child);
    expect(pq_run_lock(run, &second, &err), PQ_ERR_USAGE, number);
    ck_assert_int_eq(second, -1);
    expect(pq_run_create(run, true, &err), PQ_ERR_USAGE, "in use by another process");
    ck_assert(has(run, "config.yaml"));
    kill(child, SIGKILL); /* the lock dies with its process */
    waitpid(child, NULL, 0);
    ck_assert_msg(pq_run_lock(run, &lock, &err) == PQ_OK, "%s", err.message);
    expect(pq_run_lock(run, &second, &err), PQ_ERR_USAGE, "in use");
    close(lock);
    ck_assert_int_eq(pq_run_lock(run, &lock, &err), PQ_OK);
    close(lock);
    close(ready[0]);
    close(ready[1]);
    expect(pq_run_lock("/nowhere/at/all", &lock, &err), PQ_ERR_IO, "could not be opened");
}
END_TEST

static void expect_iters(const char *dir, size_t count, const int64_t *expected) {
    int64_t *iters;
    size_t found;
    ck_assert_int_eq(pq_run_checkpoints(dir, &iters, &found, &err), PQ_OK);
    ck_assert_uint_eq(found, count);
    for (size_t i = 0; i < count; i++) ck_assert_int_eq(iters[i], expected[i]);
    free(iters);
}

START_TEST(lists_and_prunes) {
    static const char *const files[] = {"ckpt-1000.h5",  "ckpt-90.h5", "ckpt-0.h5",
                                        "ckpt-200.h5",   "ckpt-.h5",   "ckpt--1.h5",
                                        "ckpt-1.h5.bak", "ckpt-01.h5", "ckpt-99999999999999999999.h5",
                                        "best.h5"};
    ck_assert_int_eq(pq_run_create(run, false, &err), PQ_OK);
    expect_iters(run, 0, NULL);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) touch(run, files[i]);
    expect_iters(run, 4, (int64_t[]){0, 90, 200, 1000});
    ck_assert_int_eq(pq_run_prune(run, 9, &err), PQ_OK);
    expect_iters(run, 4, (int64_t[]){0, 90, 200, 1000});
    ck_assert_int_eq(pq_run_prune(run, 2, &err), PQ_OK);
    expect_iters(run, 2, (int64_t[]){200, 1000});
    ck_assert_int_eq(pq_run_prune(run, 0, &err), PQ_OK);
    expect_iters(run, 0, NULL);
    ck_assert(has(run, "best.h5") && has(run, "ckpt-01.h5") && has(run, "ckpt-1.h5.bak"));
    int64_t *iters;
    size_t count;
    expect(pq_run_checkpoints("/nowhere/at/all", &iters, &count, &err), PQ_ERR_IO, "could not be read");
}
END_TEST

START_TEST(sweeps_up_after_the_dead) {
    char alive[64], own[64];
    ck_assert_int_eq(pq_run_create(run, false, &err), PQ_OK);
    snprintf(alive, sizeof alive, "best.h5.tmp-%ld", (long)getppid());
    snprintf(own, sizeof own, "ckpt-3.h5.tmp-%ld", (long)getpid());
    pid_t dead = fork();
    if (dead == 0) _exit(0);
    waitpid(dead, NULL, 0);
    char left[64];
    snprintf(left, sizeof left, "metrics.jsonl.tmp-%ld", (long)dead);
    static const char *const others[] = {"ckpt-3.h5.tmp-", "ckpt-3.h5.tmp-1x", "mine.tmp-999999999",
                                         "a.tmp-"};
    touch(run, alive);
    touch(run, own);
    touch(run, left);
    for (size_t i = 0; i < 4; i++) touch(run, others[i]);
    expect_iters(run, 0, NULL);
    ck_assert(has(run, alive) && !has(run, own) && !has(run, left));
    for (size_t i = 0; i < 4; i++) ck_assert(has(run, others[i]));
}
END_TEST

static void expect_model(const char *spec, const char *dir, const char *name, pq_model_kind kind) {
    char *path, *expected = testing_path(dir, name);
    pq_model_kind found;
    ck_assert_msg(pq_model_locate(spec, &path, &found, &err) == PQ_OK, "%s", err.message);
    ck_assert_str_eq(path, expected);
    ck_assert_int_eq(found, kind);
    free(path);
    free(expected);
}

static void refuse_model(const char *spec, pq_status status, const char *part) {
    char *path;
    pq_model_kind kind;
    expect(pq_model_locate(spec, &path, &kind, &err), status, part);
    ck_assert_ptr_null(path);
}

static const char *with(const char *path, const char *tail) {
    static char spec[512];
    snprintf(spec, sizeof spec, "%s%s", path, tail);
    return spec;
}

START_TEST(locates_models) {
    refuse_model(run, PQ_ERR_IO, "no file or run folder");
    refuse_model(with(run, "@best"), PQ_ERR_IO, "no run folder");
    refuse_model("@best", PQ_ERR_IO, "no file or run folder @best");
    ck_assert_int_eq(pq_run_create(run, false, &err), PQ_OK);
    refuse_model(run, PQ_ERR_USAGE, "is not a run");
    touch(run, "config.yaml");
    refuse_model(run, PQ_ERR_IO, "no checkpoint best; it has no checkpoint at all");
    touch(run, "ckpt-500.h5");
    touch(run, "ckpt-1000.h5");
    refuse_model(run, PQ_ERR_IO, "no checkpoint best; it has 500, 1000");
    expect_model(with(run, "@last"), run, "ckpt-1000.h5", PQ_MODEL_CHECKPOINT);
    touch(run, "best.h5");
    expect_model(run, run, "best.h5", PQ_MODEL_CHECKPOINT);
    expect_model(with(run, "/"), run, "best.h5", PQ_MODEL_CHECKPOINT);
    expect_model(with(run, "@best"), run, "best.h5", PQ_MODEL_CHECKPOINT);
    expect_model(with(run, "@500"), run, "ckpt-500.h5", PQ_MODEL_CHECKPOINT);
    refuse_model(with(run, "@600"), PQ_ERR_IO, "no checkpoint 600; it has best, 500, 1000");
    refuse_model(with(run, "@0500"), PQ_ERR_USAGE, "expected @best, @last or @ITER");
    refuse_model(with(run, "@"), PQ_ERR_USAGE, "expected @best, @last or @ITER");
    refuse_model(with(run, "@first"), PQ_ERR_USAGE, "expected @best, @last or @ITER");
    expect_model(with(run, "/ckpt-500.h5"), run, "ckpt-500.h5", PQ_MODEL_CHECKPOINT);
    touch(run, "x.safetensors");
    expect_model(with(run, "/x.safetensors"), run, "x.safetensors", PQ_MODEL_PACKED);
    refuse_model(with(run, "/config.yaml"), PQ_ERR_USAGE, "is no MODEL");
    /* A name with an @ that exists as it stands means itself. */
    char *odd = testing_path(folder, "runs/a@last");
    ck_assert_int_eq(pq_run_create(odd, false, &err), PQ_OK);
    touch(odd, "config.yaml");
    touch(odd, "best.h5");
    touch(odd, "ckpt-7.h5");
    expect_model(odd, odd, "best.h5", PQ_MODEL_CHECKPOINT);
    expect_model(with(odd, "@7"), odd, "ckpt-7.h5", PQ_MODEL_CHECKPOINT);
    free(odd);
    for (int i = 0; i < 50; i++) {
        char name[32];
        snprintf(name, sizeof name, "ckpt-%d.h5", 2000 + i);
        touch(run, name);
    }
    refuse_model(with(run, "@3"), PQ_ERR_IO, "it has best, 44 older checkpoints, 2042, 2043");
}
END_TEST

int main(void) {
    Suite *suite = suite_create("run");
    TCase *tests = tcase_create("run");
    tcase_set_timeout(tests, 0);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, creates_and_overwrites);
    tcase_add_test(tests, never_touches_other_folders);
    tcase_add_test(tests, one_process_at_a_time);
    tcase_add_test(tests, lists_and_prunes);
    tcase_add_test(tests, sweeps_up_after_the_dead);
    tcase_add_test(tests, locates_models);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
