/* metrics.jsonl and timing.jsonl: exact bytes, cutting on resume at every line and every byte of a torn tail,
 * damage, failed writes. */
#include <check.h>
#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "tests/harness/suite.h"
#include "train/metrics.h"

enum { ITERS = 6, EVERY = 3 };

static char dir[64];
static char lines_path[96], timing_path[96];

static void setup(void) {
    snprintf(dir, sizeof dir, "%s", "/tmp/potqat-metrics-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(lines_path, sizeof lines_path, "%s/metrics.jsonl", dir);
    snprintf(timing_path, sizeof timing_path, "%s/timing.jsonl", dir);
}

static void teardown(void) {
    unlink(lines_path);
    unlink(timing_path);
    ck_assert_int_eq(rmdir(dir), 0); /* fails where a temporary file was left behind */
}

static void put(const char *path, const char *data, size_t bytes) {
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(data, 1, bytes, file), bytes);
    ck_assert_int_eq(fclose(file), 0);
}

static void check_file(const char *path, const char *data, size_t bytes) {
    pq_file_view file;
    ck_assert_int_eq(pq_file_read(path, &file, NULL), PQ_OK);
    ck_assert_uint_eq(file.size, bytes);
    ck_assert_mem_eq(file.data, data, bytes);
    pq_file_view_close(&file);
}

static pq_metrics *open_metrics(int64_t resume_iter) {
    pq_metrics *metrics;
    pq_error err = {0};
    ck_assert_msg(pq_metrics_open(dir, resume_iter, &metrics, &err) == PQ_OK, "%s", err.message);
    return metrics;
}

static void write_ok(pq_metrics *metrics, json_t *object) {
    pq_error err = {0};
    ck_assert_msg(pq_metrics_write(metrics, object, &err) == PQ_OK, "%s", err.message);
}

/* What a run writes at one iteration; more than one line where it evaluates. */
static void write_iteration(pq_metrics *metrics, int iter) {
    if (iter)
        write_ok(metrics, json_pack("{s:i, s:s, s:f, s:i}", "iter", iter, "split", "train", "loss",
                                    4.0 / (1 + iter), "tokens", 768));
    if (iter % EVERY == 0)
        write_ok(metrics, json_pack("{s:i, s:s, s:s, s:f, s:f}", "iter", iter, "split", "val", "protocol",
                                    "all-tokens", "loss", 4.5 / (1 + iter), "loss_se", 0.01));
    ck_assert_int_eq(pq_metrics_write_timing(
                         metrics, json_pack("{s:i, s:f}", "iter", iter, "elapsed_s", 0.5 * iter), NULL),
                     PQ_OK);
}

/* A whole undisturbed run; its files' contents. */
static void write_run(pq_file_view *lines, pq_file_view *timing) {
    pq_metrics *metrics = open_metrics(-1);
    for (int i = 0; i <= ITERS; i++) write_iteration(metrics, i);
    ck_assert_int_eq(pq_metrics_sync(metrics, NULL), PQ_OK);
    ck_assert_int_eq(pq_metrics_close(metrics, NULL), PQ_OK);
    ck_assert_int_eq(pq_file_read(lines_path, lines, NULL), PQ_OK);
    ck_assert_int_eq(pq_file_read(timing_path, timing, NULL), PQ_OK);
}

START_TEST(lines_have_exact_bytes) {
    pq_metrics *metrics = open_metrics(-1);
    write_ok(metrics, json_pack("{s:I, s:s, s:f, s:f, s:f, s:i}", "iter", (json_int_t)1 << 40, "split",
                                "train", "loss", 1.0 / 3, "lr", 1e-4, "grad_norm", 2.0, "tokens", 768));
    write_ok(metrics, json_pack("{s:i, s:s}", "iter", 2, "event", "a \"b\"\n\xC3\xBC"));
    pq_metrics_close(metrics, NULL);
    static const char expected[] =
        "{\"iter\":1099511627776,\"split\":\"train\",\"loss\":0.333333333,\"lr\":0.0001,\"grad_norm\":2.0,"
        "\"tokens\":768}\n{\"iter\":2,\"event\":\"a \\\"b\\\"\\n\xC3\xBC\"}\n";
    check_file(lines_path, expected, sizeof expected - 1);
    check_file(timing_path, "", 0);
}
END_TEST

START_TEST(new_files_replace_old_ones) {
    put(lines_path, "{\"iter\":5}\n", 11);
    pq_metrics_close(open_metrics(-1), NULL);
    check_file(lines_path, "", 0);
}
END_TEST

START_TEST(resumes_at_every_line) {
    pq_file_view lines, timing;
    write_run(&lines, &timing);
    for (int stop = 0; stop <= ITERS; stop++)
        for (int resume = 0; resume <= stop; resume++) {
            pq_metrics *metrics = open_metrics(-1);
            for (int i = 0; i <= stop; i++) write_iteration(metrics, i);
            pq_metrics_close(metrics, NULL);
            metrics = open_metrics(resume);
            for (int i = resume + 1; i <= ITERS; i++) write_iteration(metrics, i);
            pq_metrics_close(metrics, NULL);
            check_file(lines_path, lines.data, lines.size);
            check_file(timing_path, timing.data, timing.size);
        }
    pq_file_view_close(&lines);
    pq_file_view_close(&timing);
}
END_TEST

/* The last iteration whose lines all stand whole (with or without the last newline) in the first `bytes`. */
static int last_whole_iteration(const pq_file_view *lines, size_t bytes) {
    int whole = -1;
    for (int iter = 0; iter <= ITERS; iter++) {
        char mark[32];
        size_t end = 0;
        int length = snprintf(mark, sizeof mark, "{\"iter\":%d,", iter);
        for (size_t i = 0; i + (size_t)length <= lines->size; i++)
            if (memcmp(lines->data + i, mark, (size_t)length) == 0)
                end = i + (size_t)(strchr(lines->data + i, '\n') - (lines->data + i));
        if (end <= bytes) whole = iter;
    }
    return whole;
}

START_TEST(resumes_at_every_byte) {
    pq_file_view lines, timing;
    write_run(&lines, &timing);
    for (size_t bytes = 0; bytes <= lines.size; bytes++) {
        int resume = last_whole_iteration(&lines, bytes);
        if (resume < 0) continue;
        put(lines_path, lines.data, bytes);
        unlink(timing_path);
        pq_metrics *metrics = open_metrics(resume);
        for (int i = resume + 1; i <= ITERS; i++) write_iteration(metrics, i);
        pq_metrics_close(metrics, NULL);
        check_file(lines_path, lines.data, lines.size);
    }
    pq_file_view_close(&lines);
    pq_file_view_close(&timing);
}
END_TEST

START_TEST(resumes_without_old_files) {
    pq_metrics *metrics = open_metrics(4);
    write_ok(metrics, json_pack("{s:i}", "iter", 5));
    pq_metrics_close(metrics, NULL);
    check_file(lines_path, "{\"iter\":5}\n", 11);
}
END_TEST

START_TEST(reads_all_but_a_torn_line) {
    pq_file_view lines, timing;
    write_run(&lines, &timing);
    size_t whole = 0;
    for (size_t bytes = 0; bytes <= lines.size; bytes++) {
        json_t *array;
        pq_error err = {0};
        put(lines_path, lines.data, bytes);
        ck_assert_msg(pq_metrics_read(lines_path, &array, &err) == PQ_OK, "%zu bytes: %s", bytes,
                      err.message);
        if (bytes < lines.size && lines.data[bytes] == '\n') whole++;
        ck_assert_uint_eq(json_array_size(array), whole);
        json_decref(array);
    }
    pq_file_view_close(&lines);
    pq_file_view_close(&timing);
}
END_TEST

START_TEST(zeroes_at_the_end_are_a_torn_line) {
    json_t *array;
    put(lines_path, "{\"iter\":1}\n\0\0\0\0\0", 16); /* as a power loss can leave it */
    ck_assert_int_eq(pq_metrics_read(lines_path, &array, NULL), PQ_OK);
    ck_assert_uint_eq(json_array_size(array), 1);
    json_decref(array);
    pq_metrics_close(open_metrics(1), NULL);
    check_file(lines_path, "{\"iter\":1}\n", 11);
}
END_TEST

START_TEST(damage_in_the_middle_is_named) {
    static const char *const bad[] = {"garbage",
                                      "",
                                      "[1]",
                                      "{}",
                                      "{\"iter\":1.5}",
                                      "{\"iter\":\"1\"}",
                                      "{\"iter\":1",
                                      "{\"iter\":1,\"iter\":2}",
                                      "{\"iter\":1} {\"iter\":2}",
                                      "{\"iter\":1e400}",
                                      "{\"iter\":99999999999999999999}",
                                      "{\"iter\":1,\"x\":\"\xFF\"}",
                                      "null"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[256];
        json_t *array;
        pq_metrics *metrics;
        pq_error err = {0};
        int bytes = snprintf(text, sizeof text, "{\"iter\":0}\n{\"iter\":1}\n%s\n{\"iter\":2}\n", bad[i]);
        put(lines_path, text, (size_t)bytes);
        ck_assert_int_eq(pq_metrics_read(lines_path, &array, &err), PQ_ERR_FORMAT);
        ck_assert_ptr_null(array);
        ck_assert_ptr_nonnull(strstr(err.message, "metrics.jsonl, line 3"));
        ck_assert_ptr_null(strchr(err.message, '\n'));
        err = (pq_error){0};
        ck_assert_int_eq(pq_metrics_open(dir, 1, &metrics, &err), PQ_ERR_FORMAT);
        ck_assert_ptr_null(metrics);
        ck_assert_ptr_nonnull(strstr(err.message, "metrics.jsonl, line 3"));
        check_file(lines_path, text, (size_t)bytes); /* untouched */
    }
}
END_TEST

START_TEST(deep_nesting_is_refused) {
    enum { DEPTH = 100000 };
    char *text = malloc(DEPTH + 20);
    json_t *array;
    memset(text, '[', DEPTH);
    memcpy(text + DEPTH, "\n{\"iter\":1}\n", 13);
    put(lines_path, text, DEPTH + 12);
    ck_assert_int_eq(pq_metrics_read(lines_path, &array, NULL), PQ_ERR_FORMAT);
    free(text);
}
END_TEST

START_TEST(lines_without_iter_or_with_nan_are_refused) {
    pq_metrics *metrics = open_metrics(-1);
    pq_error err = {0};
    ck_assert_int_eq(pq_metrics_write(metrics, json_pack("{s:i, s:f}", "iter", 1, "loss", NAN), &err),
                     PQ_ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "NaN"));
    ck_assert_int_eq(pq_metrics_write(metrics, json_pack("{s:f}", "loss", 1.0), NULL), PQ_ERR_USAGE);
    ck_assert_int_eq(pq_metrics_write_timing(metrics, json_pack("[i]", 1), NULL), PQ_ERR_USAGE);
    pq_metrics_close(metrics, NULL);
    check_file(lines_path, "", 0);
}
END_TEST

START_TEST(a_full_disk_leaves_whole_lines) {
    struct rlimit old, tight;
    pq_error err = {0};
    pq_metrics *metrics = open_metrics(-1);
    write_ok(metrics, json_pack("{s:i}", "iter", 1));
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
    tight = old;
    tight.rlim_cur = 15; /* the next line begins, then does not fit */
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &tight), 0);
    pq_status status = pq_metrics_write(metrics, json_pack("{s:i}", "iter", 2), &err);
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, handler);
    ck_assert_int_eq(status, PQ_ERR_IO);
    ck_assert_ptr_nonnull(strstr(err.message, "metrics.jsonl could not be written"));
    write_ok(metrics, json_pack("{s:i}", "iter", 3));
    pq_metrics_close(metrics, NULL);
    check_file(lines_path, "{\"iter\":1}\n{\"iter\":3}\n", 22);
}
END_TEST

START_TEST(missing_places_are_named) {
    pq_metrics *metrics;
    json_t *array;
    pq_error err = {0};
    ck_assert_int_eq(pq_metrics_open("/nonexistent/run", -1, &metrics, &err), PQ_ERR_IO);
    ck_assert_ptr_null(metrics);
    ck_assert_ptr_nonnull(strstr(err.message, "/nonexistent/run/metrics.jsonl"));
    ck_assert_int_eq(pq_metrics_read(lines_path, &array, &err), PQ_ERR_IO);
    ck_assert_int_eq(pq_metrics_close(NULL, NULL), PQ_OK);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("metrics");
    TCase *tests = tcase_create("metrics");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 0);
    tcase_add_test(tests, lines_have_exact_bytes);
    tcase_add_test(tests, new_files_replace_old_ones);
    tcase_add_test(tests, resumes_at_every_line);
    tcase_add_test(tests, resumes_at_every_byte);
    tcase_add_test(tests, resumes_without_old_files);
    tcase_add_test(tests, reads_all_but_a_torn_line);
    tcase_add_test(tests, zeroes_at_the_end_are_a_torn_line);
    tcase_add_test(tests, damage_in_the_middle_is_named);
    tcase_add_test(tests, deep_nesting_is_refused);
    tcase_add_test(tests, lines_without_iter_or_with_nan_are_refused);
    tcase_add_test(tests, a_full_disk_leaves_whole_lines);
    tcase_add_test(tests, missing_places_are_named);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
