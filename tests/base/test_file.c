/* Files: whole reads, maps, hashes, and writes that appear complete or not at all. */
#include <check.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "tests/harness/suite.h"

static char folder[64];
static char path[128], other[128];

static void setup(void) {
    snprintf(folder, sizeof folder, "/tmp/potqat-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/file", folder);
    snprintf(other, sizeof other, "%s/other", folder);
}

static void teardown(void) {
    unlink(path);
    unlink(other);
    ck_assert_int_eq(rmdir(folder), 0); /* fails where a temporary file was left */
}

static void put(const char *name, const char *text) {
    pq_file_writer writer;
    pq_error err;
    ck_assert_msg(pq_file_create(name, true, &writer, &err) == PQ_OK, "%s", err.message);
    ck_assert_int_eq(pq_file_write(&writer, text, strlen(text), &err), PQ_OK);
    ck_assert_msg(pq_file_commit(&writer, &err) == PQ_OK, "%s", err.message);
}

static void expect(const char *name, const char *text) {
    pq_file_view view;
    ck_assert_int_eq(pq_file_read(name, &view, NULL), PQ_OK);
    ck_assert_uint_eq(view.size, strlen(text));
    ck_assert_str_eq(view.data, text);
    pq_file_view_close(&view);
}

START_TEST(writes_appear_whole) {
    pq_file_writer writer;
    pq_error err;
    put(path, "first");
    ck_assert_int_eq(pq_file_create(path, true, &writer, NULL), PQ_OK);
    ck_assert_int_eq(pq_file_write(&writer, "second", 6, NULL), PQ_OK);
    expect(path, "first");
    pq_file_abort(&writer);
    expect(path, "first");
    ck_assert_int_eq(pq_file_create(path, false, &writer, &err), PQ_ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "exists already"));
    put(path, "third");
    expect(path, "third");
}
END_TEST

/* A target that appears between open and commit is left alone, too. */
START_TEST(does_not_replace_a_newcomer) {
    pq_file_writer writer;
    pq_error err;
    ck_assert_int_eq(pq_file_create(path, false, &writer, NULL), PQ_OK);
    FILE *newcomer = fopen(path, "wb"); /* another program's */
    ck_assert_int_ge(fputs("newcomer", newcomer), 0);
    ck_assert_int_eq(fclose(newcomer), 0);
    ck_assert_int_eq(pq_file_commit(&writer, &err), PQ_ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, path));
    expect(path, "newcomer");
}
END_TEST

START_TEST(full_disk) {
    struct rlimit old, small = {.rlim_cur = 100};
    pq_file_writer writer;
    pq_error err;
    char *big = calloc(1, 100000);
    put(path, "good");
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
    small.rlim_max = old.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(pq_file_create(path, true, &writer, NULL), PQ_OK);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
    pq_status written = pq_file_write(&writer, big, 100000, &err);
    pq_file_abort(&writer);
    /* A short text is noticed when it is flushed. */
    ck_assert_int_eq(pq_file_create(path, true, &writer, NULL), PQ_OK);
    pq_status buffered = pq_file_write(&writer, big, 300, NULL);
    pq_status committed = pq_file_commit(&writer, &err);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
    free(big);
    ck_assert_int_eq(written, PQ_ERR_IO);
    ck_assert_int_eq(buffered, PQ_OK);
    ck_assert_int_eq(committed, PQ_ERR_IO);
    ck_assert_ptr_nonnull(strstr(err.message, "File too large"));
    ck_assert_ptr_nonnull(strstr(err.message, path));
    expect(path, "good");
}
END_TEST

START_TEST(reads_and_maps) {
    pq_file_view view;
    pq_error err;
    ck_assert_int_eq(pq_file_read(path, &view, &err), PQ_ERR_IO);
    ck_assert_ptr_nonnull(strstr(err.message, path));
    ck_assert_int_eq(pq_file_read(folder, &view, &err), PQ_ERR_IO);
    ck_assert_ptr_nonnull(strstr(err.message, "is not a file"));
    put(path, "");
    expect(path, "");
    ck_assert_int_eq(pq_file_map(path, &view, &err), PQ_ERR_FORMAT);
    put(path, "mapped");
    ck_assert_int_eq(pq_file_map(path, &view, NULL), PQ_OK);
    ck_assert(view.size == 6 && memcmp(view.data, "mapped", 6) == 0);
    pq_file_view_close(&view);
    /* A named pipe is refused at once instead of waiting for a writer. */
    ck_assert_int_eq(mkfifo(other, 0600), 0);
    ck_assert_int_eq(pq_file_read(other, &view, &err), PQ_ERR_IO);
    ck_assert_ptr_nonnull(strstr(err.message, "is not a file"));
}
END_TEST

START_TEST(hashes_in_pieces) {
    const size_t size = 3 * (1 << 20) + 77;
    uint64_t hash;
    size_t bytes;
    char *data = malloc(size);
    for (size_t i = 0; i < size; i++) data[i] = (char)(i * i >> 7);
    FILE *file = fopen(path, "wb");
    ck_assert_uint_eq(fwrite(data, 1, size, file), size);
    ck_assert_int_eq(fclose(file), 0);
    const size_t offsets[] = {0, 1, 512, 1 << 20, size - 1, size, size + 5};
    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        size_t rest = offsets[i] < size ? size - offsets[i] : 0;
        ck_assert_int_eq(pq_file_hash(path, offsets[i], &bytes, &hash, NULL), PQ_OK);
        ck_assert_uint_eq(bytes, rest);
        ck_assert_uint_eq(hash, pq_hash(data + size - rest, rest));
    }
    free(data);
    /* XXH3's own value of the empty input: the hash in old files must stay what it is. */
    ck_assert_uint_eq(pq_hash("", 0), 0x2d06800538d394c2u);
}
END_TEST

START_TEST(folders) {
    char deep[192];
    pq_error err;
    snprintf(deep, sizeof deep, "%s/a/b//c/", folder);
    ck_assert_msg(pq_folder_create(deep, &err) == PQ_OK, "%s", err.message);
    ck_assert(pq_folder_exists(deep));
    ck_assert_int_eq(pq_folder_create(deep, NULL), PQ_OK);
    ck_assert_int_eq(pq_folder_create("/", NULL), PQ_OK);
    ck_assert_int_eq(pq_folder_create("", &err), PQ_ERR_USAGE);
    put(path, "x");
    ck_assert_int_eq(pq_folder_create(path, &err), PQ_ERR_IO);
    ck_assert_ptr_nonnull(strstr(err.message, "not a folder"));
    snprintf(deep, sizeof deep, "%s/below", path);
    ck_assert_int_eq(pq_folder_create(deep, &err), PQ_ERR_IO);
    static const char *const made[] = {"a/b/c", "a/b", "a"};
    for (size_t i = 0; i < 3; i++) {
        snprintf(deep, sizeof deep, "%s/%s", folder, made[i]);
        ck_assert_int_eq(rmdir(deep), 0);
    }
    static const char *const joins[][3] = {{"a", "b", "a/b"}, {"a//", "b", "a/b"}, {"/", "b", "/b"}};
    for (size_t i = 0; i < 3; i++) {
        char *joined = pq_path_join(joins[i][0], joins[i][1]);
        ck_assert_str_eq(joined, joins[i][2]);
        free(joined);
    }
}
END_TEST

START_TEST(same_file) {
    put(path, "x");
    ck_assert(pq_file_same(path, path));
    ck_assert(!pq_file_same(path, other));
    ck_assert_int_eq(link(path, other), 0);
    ck_assert(pq_file_same(path, other));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("file");
    TCase *tests = tcase_create("file");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, writes_appear_whole);
    tcase_add_test(tests, does_not_replace_a_newcomer);
    tcase_add_test(tests, full_disk);
    tcase_add_test(tests, reads_and_maps);
    tcase_add_test(tests, hashes_in_pieces);
    tcase_add_test(tests, folders);
    tcase_add_test(tests, same_file);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
