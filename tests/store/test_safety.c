/* What saving survives: a full disk, a folder that cannot be written, kill -9 at any moment. */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "store/run.h"
#include "testing.h"
#include "tests/harness/suite.h"

static const pq_gpt2_shape shape = {
    .layers = 2, .heads = 4, .width = 64, .context = 5, .vocab = 65, .bias = true};
static char *folder, *path;
static pq_model *models[2];
static pq_training_state states[2];

static void setup(void) {
    folder = testing_folder();
    path = pq_run_checkpoint_path(folder, 5);
    for (int i = 0; i < 2; i++) testing_make((uint64_t)i, &shape, i ? 3 : 1, &models[i], &states[i]);
}

static void teardown(void) {
    for (int i = 0; i < 2; i++) {
        pq_model_destroy(models[i]);
        pq_training_state_deinit(&states[i]);
    }
    free(path);
    testing_remove(folder);
}

static void save(int which) {
    pq_error err;
    ck_assert_msg(pq_checkpoint_write(path, true, models[which], &states[which], &err) == PQ_OK, "%s",
                  err.message);
}

/* The checkpoint loads and is one of the states in `allowed` (a mask). */
static void expect(int allowed) {
    pq_model *model;
    pq_training_state state;
    pq_error err;
    bool found = false;
    ck_assert_msg(pq_checkpoint_read(path, &model, &state, &err) == PQ_OK, "%s", err.message);
    int which = model->iter == models[1]->iter;
    found = (allowed & (1 << which)) && testing_equal(models[which], &states[which], model, &state);
    pq_model_destroy(model);
    pq_training_state_deinit(&state);
    ck_assert(found);
}

static size_t file_bytes(void) {
    struct stat info;
    ck_assert_int_eq(stat(path, &info), 0);
    return (size_t)info.st_size;
}

/* A limit on the size of files fails writes as a full disk does, at any byte, and without privileges. */
START_TEST(full_disk) {
    struct rlimit old, limit;
    pq_error err;
    save(1);
    const size_t whole = file_bytes();
    save(0);
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, SIG_IGN);
    for (int step = 0; step <= 60; step++) {
        limit =
            (struct rlimit){.rlim_cur = whole * (size_t)step / 60 - (step == 60), .rlim_max = old.rlim_max};
        ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
        pq_status status = pq_checkpoint_write(path, true, models[1], &states[1], &err);
        ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
        ck_assert_int_eq(status, PQ_ERR_IO);
        ck_assert_msg(strstr(err.message, path) && strstr(err.message, "File too large"), "step %d: %s", step,
                      err.message);
        ck_assert_uint_eq(testing_entries(folder, ""), 1);
        expect(1);
    }
    /* With room again it works again: nothing in HDF5 is left broken. */
    save(1);
    expect(2);
}
END_TEST

START_TEST(unwritable_folder) {
    pq_error err;
    bool root = geteuid() == 0;
    save(0);
    ck_assert_int_eq(chmod(folder, 0555), 0);
    if (root) ck_assert_int_eq(seteuid(65534), 0);
    pq_status status = pq_checkpoint_write(path, true, models[1], &states[1], &err);
    if (root) ck_assert_int_eq(seteuid(0), 0);
    ck_assert_int_eq(chmod(folder, 0755), 0);
    ck_assert_int_eq(status, PQ_ERR_IO);
    ck_assert_msg(strstr(err.message, path) && strstr(err.message, "Permission denied"), "%s", err.message);
    expect(1);
    char *missing = testing_path(folder, "missing/x.h5");
    ck_assert_int_eq(pq_checkpoint_write(missing, true, models[1], &states[1], &err), PQ_ERR_IO);
    ck_assert_ptr_nonnull(strstr(err.message, "No such file"));
    free(missing);
    ck_assert_uint_eq(testing_entries(folder, ""), 1);
}
END_TEST

/* 100 writers, each killed somewhere in its first saves. */
START_TEST(killed_while_saving) {
    uint64_t random = 1;
    int left_over = 0;
    for (int round = 0; round < 100; round++) {
        const bool fresh = round % 4 == 3; /* nothing there before */
        if (fresh)
            unlink(path);
        else
            save(round % 2);
        pid_t child = fork();
        ck_assert_int_ge(child, 0);
        if (child == 0) {
            for (int i = 0;; i++) {
                int which = i % 2 ? round % 2 : 1 - round % 2;
                if (pq_checkpoint_write(path, true, models[which], &states[which], NULL) != PQ_OK) _exit(9);
            }
        }
        usleep((useconds_t)(testing_random(&random) % 12000));
        int result;
        ck_assert_int_eq(kill(child, SIGKILL), 0);
        ck_assert_int_eq(waitpid(child, &result, 0), child);
        ck_assert(WIFSIGNALED(result) && WTERMSIG(result) == SIGKILL);
        left_over += testing_entries(folder, ".tmp-") > 0;
        if (!fresh || pq_file_exists(path)) expect(3);
        int64_t *iters;
        size_t count;
        ck_assert_int_eq(pq_run_checkpoints(folder, &iters, &count, NULL), PQ_OK);
        ck_assert_uint_eq(count, pq_file_exists(path) ? 1 : 0);
        free(iters);
        ck_assert_uint_eq(testing_entries(folder, ".tmp-"), 0);
    }
    printf("%d of 100 writers were killed in the middle of a save\n", left_over);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("safety");
    TCase *tests = tcase_create("safety");
    tcase_set_timeout(tests, 0);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, full_disk);
    tcase_add_test(tests, unwritable_folder);
    tcase_add_test(tests, killed_while_saving);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
