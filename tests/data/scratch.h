/* A temporary folder for one test program, removed with all that is in it. */
#ifndef TESTS_DATA_SCRATCH_H
#define TESTS_DATA_SCRATCH_H

#include <check.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "data/dataset.h"

static char scratch[128] __attribute__((unused));

static inline void scratch_make(void) {
    const char *parent = getenv("TMPDIR");
    snprintf(scratch, sizeof scratch, "%.90s/potqat-test-XXXXXX", parent && *parent ? parent : "/tmp");
    if (!mkdtemp(scratch)) {
        perror(scratch);
        exit(1);
    }
}

static inline int scratch_remove_one(const char *path, const struct stat *info, int type, struct FTW *place) {
    (void)info, (void)type, (void)place;
    return remove(path);
}

static inline void scratch_remove(void) {
    if (nftw(scratch, scratch_remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0) perror(scratch);
}

/* The path of `name` in the folder, good for the next 63 calls. */
static inline const char *scratch_path(const char *name) {
    static char paths[64][256];
    static unsigned turn;
    char *path = paths[turn++ % 64];
    snprintf(path, sizeof paths[0], "%s/%s", scratch, name);
    return path;
}

static inline const char *scratch_write(const char *name, const void *data, size_t bytes) {
    const char *path = scratch_path(name);
    remove(path); /* a new file: some file systems flush one that is truncated and written again */
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(data, 1, bytes, file), bytes);
    ck_assert_int_eq(fclose(file), 0);
    return path;
}

static inline void assert_ok(pq_status status, const pq_error *err) {
    ck_assert_msg(status == PQ_OK, "%s", err->message);
}

/* `status` is `expected` and the sentence holds each of the words (up to NULL). */
static inline void assert_refused(pq_status status, pq_status expected, const pq_error *err, const char *a,
                                  const char *b) {
    ck_assert_msg(status == expected, "status %d instead of %d: %s", status, expected,
                  status == PQ_OK ? "no error" : err->message);
    ck_assert_msg(!a || strstr(err->message, a), "no \"%s\" in: %s", a, err->message);
    ck_assert_msg(!b || strstr(err->message, b), "no \"%s\" in: %s", b, err->message);
}

/* The path of tinyshakespeare.txt in the folder POTQAT_DATA (heap), or NULL, said. */
static inline char *given_shakespeare(void) {
    const char *folder = getenv("POTQAT_DATA");
    char *path = folder && *folder ? pq_path_join(folder, "tinyshakespeare.txt") : NULL;
    if (path && pq_file_exists(path)) return path;
    free(path);
    printf("skipped: POTQAT_DATA does not name a folder with tinyshakespeare.txt\n");
    return NULL;
}

static inline int run_suite(TCase *tests) {
    Suite *suite = suite_create("data");
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}

#endif
