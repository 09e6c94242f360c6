/* Named texts: the order of places, SHA-256, downloads through a curl of the test's own (no network). */
#include <potqat/log.h>
#include <sys/stat.h>

#include "base/file.h"
#include "data/fetch.h"
#include "tests/data/scratch.h"

static pq_error err;
static char said[1024], search_path[4096], *real_data;
static pq_log_level said_level;

static void listen(void *user, pq_log_level level, const char *line) {
    (void)user;
    said_level = level;
    snprintf(said, sizeof said, "%s", line);
}

/* A program `curl` that notes its call and copies SERVED to the file after --output, or fails without it. */
static const char fake_curl[] = "#!/bin/sh\n"
                                "echo \"$*\" >> \"$SCRATCH/calls\"\n"
                                "while [ $# -gt 0 ]; do [ \"$1\" = --output ] && out=$2; shift; done\n"
                                "[ -n \"$SERVED\" ] || { echo 'curl: (6) no such host'; exit 6; }\n"
                                "cp \"$SERVED\" \"$out\"\n";

static size_t calls(void) {
    size_t lines = 0;
    FILE *file = fopen(scratch_path("calls"), "r");
    if (!file) return 0;
    for (int c; (c = getc(file)) != EOF;) lines += c == '\n';
    fclose(file);
    return lines;
}

/* A fresh cache, no POTQAT_DATA, no download. */
static void reset(const char *cache) {
    unsetenv("POTQAT_DATA");
    unsetenv("SERVED");
    setenv("POTQAT_CACHE", scratch_path(cache), 1);
    said[0] = 0;
}

static pq_status try_named(pq_dataset **dataset) {
    pq_data_options options = {.path = "tinyshakespeare", .split = {0.8, 0.1, 0.1}};
    return pq_dataset_open(&options, dataset, &err);
}

static pq_dataset *open_named(void) {
    pq_dataset *dataset;
    assert_ok(try_named(&dataset), &err);
    return dataset;
}

START_TEST(cache_folder_follows_the_environment) {
    static const struct {
        const char *own, *xdg, *home, *expected;
    } cases[] = {{"/a", "/b", "/c", "/a"},
                 {"", "/b", "/c", "/b/potqat"},
                 {NULL, "relative", "/c", "/c/.cache/potqat"},
                 {NULL, NULL, "/c", "/c/.cache/potqat"},
                 {NULL, NULL, NULL, NULL}};
    char *home = getenv("HOME") ? strdup(getenv("HOME")) : NULL;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *const names[] = {"POTQAT_CACHE", "XDG_CACHE_HOME", "HOME"};
        const char *const values[] = {cases[i].own, cases[i].xdg, cases[i].home};
        char *folder;
        for (int j = 0; j < 3; j++) values[j] ? setenv(names[j], values[j], 1) : unsetenv(names[j]);
        if (cases[i].expected) {
            assert_ok(pq_cache_folder(&folder, &err), &err);
            ck_assert_str_eq(folder, cases[i].expected);
            free(folder);
        } else {
            assert_refused(pq_cache_folder(&folder, &err), PQ_ERR_IO, &err, "POTQAT_CACHE", "HOME");
        }
    }
    if (home) setenv("HOME", home, 1);
    free(home);
}
END_TEST

START_TEST(without_any_source_nothing_takes_its_place) {
    reset("cache-none");
    size_t before = calls();
    pq_dataset *dataset;
    assert_refused(try_named(&dataset), PQ_ERR_IO, &err, "builtin needs no download", "no such host");
    ck_assert_uint_eq(calls(), before + 1);
    /* No cache can be made: below a file. */
    scratch_write("file", "x", 1);
    setenv("POTQAT_CACHE", scratch_path("file/cache"), 1);
    assert_refused(try_named(&dataset), PQ_ERR_IO, &err, "builtin needs no download", "file/cache");
}
END_TEST

START_TEST(wrong_downloads_do_not_reach_the_cache) {
    reset("cache-wrong");
    setenv("SERVED", scratch_write("page.html", "<html>please log in</html>", 26), 1);
    pq_dataset *dataset;
    assert_refused(try_named(&dataset), PQ_ERR_FORMAT, &err, "tinyshakespeare", "SHA-256");
    ck_assert(pq_folder_exists(scratch_path("cache-wrong")));
    ck_assert_int_eq(rmdir(scratch_path("cache-wrong")), 0); /* it is empty */
}
END_TEST

START_TEST(missing_programs_are_a_sentence) {
    reset("cache-path");
    char *path = strdup(getenv("PATH"));
    setenv("PATH", scratch_path("nowhere"), 1);
    pq_dataset *dataset;
    assert_refused(try_named(&dataset), PQ_ERR_IO, &err, "tinyshakespeare", "curl could not be run");
    setenv("PATH", path, 1);
    free(path);
}
END_TEST

START_TEST(wrong_files_are_refused) {
    static const char *const variables[] = {"POTQAT_DATA", "POTQAT_CACHE"};
    for (int i = 0; i < 2; i++) {
        pq_data_options options = {.path = "tinyshakespeare", .split = {0.8, 0.1, 0.1}};
        pq_dataset *dataset;
        reset("cache-refused");
        mkdir(scratch_path("holds-wrong"), 0777);
        scratch_write("holds-wrong/tinyshakespeare.txt", "To be, or not to be", 19);
        setenv(variables[i], scratch_path("holds-wrong"), 1);
        assert_refused(pq_dataset_open(&options, &dataset, &err), PQ_ERR_FORMAT, &err,
                       "holds-wrong/tinyshakespeare.txt is not tinyshakespeare",
                       "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed");
    }
}
END_TEST

START_TEST(downloads_are_kept) {
    if (!real_data) return;
    reset("cache\\odd/deep"); /* sha256sum escapes a name with a backslash */
    setenv("SERVED", real_data, 1);
    size_t before = calls();
    pq_dataset *first = open_named();
    ck_assert_uint_eq(calls(), before + 1);
    ck_assert_int_eq(said_level, PQ_LOG_INFO);
    ck_assert_uint_eq(pq_dataset_tokens(first, PQ_TRAIN), 892315);
    unsetenv("SERVED");
    pq_dataset *second = open_named();
    ck_assert_uint_eq(calls(), before + 1);
    ck_assert_uint_eq(pq_dataset_hash(first), pq_dataset_hash(second));
    ck_assert_ptr_nonnull(strstr(pq_dataset_source(second), "cache\\odd"));
    /* A folder in POTQAT_DATA comes first, one without the file is passed over. */
    char *folder = strdup(real_data), *path;
    *strrchr(folder, '/') = 0;
    setenv("POTQAT_DATA", folder, 1);
    assert_ok(pq_source_locate(pq_source_find("tinyshakespeare"), &path, &err), &err);
    ck_assert_str_eq(path, real_data);
    free(path);
    setenv("POTQAT_DATA", scratch, 1);
    assert_ok(pq_source_locate(pq_source_find("tinyshakespeare"), &path, &err), &err);
    ck_assert_ptr_nonnull(strstr(path, "cache\\odd"));
    free(path);
    free(folder);
    pq_dataset_close(first);
    pq_dataset_close(second);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("fetch");
    const char *path = getenv("PATH");
    scratch_make();
    real_data = given_shakespeare();
    snprintf(search_path, sizeof search_path, "%s:%s", scratch_path("bin"), path ? path : "/usr/bin:/bin");
    setenv("PATH", search_path, 1);
    setenv("SCRATCH", scratch, 1);
    mkdir(scratch_path("bin"), 0777);
    FILE *curl = fopen(scratch_path("bin/curl"), "w");
    if (!curl || fputs(fake_curl, curl) < 0 || fclose(curl) != 0 ||
        chmod(scratch_path("bin/curl"), 0777) != 0)
        return 1;
    pq_log_set(listen, NULL);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, cache_folder_follows_the_environment);
    tcase_add_test(tests, without_any_source_nothing_takes_its_place);
    tcase_add_test(tests, wrong_downloads_do_not_reach_the_cache);
    tcase_add_test(tests, missing_programs_are_a_sentence);
    tcase_add_test(tests, wrong_files_are_refused);
    tcase_add_test(tests, downloads_are_kept);
    int failed = run_suite(tests);
    scratch_remove();
    free(real_data);
    return failed;
}
