/* Preparing texts: the same files as from the text in memory; killed or stopped anywhere and resumed, the
 * same bytes; what is refused; nothing left. And tokens of nanoGPT and llm.c. */
#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/random.h"
#include "base/threads.h"
#include "data/prepare.h"
#include "data/shards.h"
#include "tests/data/packed_text.h"

enum { TEXT = 1500000, EVERY = 100000 };

static pq_error err;
static int left; /* calls until the end; -1: none */
static bool killed;

static bool count_down(void *context, const char *doing, uint64_t done, uint64_t total) {
    (void)context, (void)doing;
    if (done > total) ck_abort_msg("%s: %zu of %zu", doing, (size_t)done, (size_t)total);
    if (left < 0 || left-- > 0) return true;
    if (killed) raise(SIGKILL);
    return false;
}

static pq_prepare_options options_for(const char *source, const char *folder, bool by_document) {
    return (pq_prepare_options){
        .data = {.path = source, .tokenizer = "char", .split = {0.8, 0.1, 0.1}, .by_document = by_document},
        .folder = folder,
        .shard_tokens = 123457,
        .save_every = EVERY,
        .go_on = count_down};
}

static size_t entries(const char *folder) {
    size_t count = 0;
    DIR *open = opendir(folder);
    ck_assert_ptr_nonnull(open);
    while (readdir(open)) count++;
    closedir(open);
    return count - 2;
}

static void assert_same_folders(const char *a, const char *b) {
    DIR *open = opendir(a);
    ck_assert_ptr_nonnull(open);
    ck_assert_uint_eq(entries(a), entries(b));
    for (struct dirent *entry = readdir(open); entry; entry = readdir(open)) {
        pq_file_view x, y;
        if (entry->d_name[0] == '.') continue;
        char *first = pq_path_join(a, entry->d_name), *second = pq_path_join(b, entry->d_name);
        assert_ok(pq_file_read(first, &x, &err), &err);
        assert_ok(pq_file_read(second, &y, &err), &err);
        ck_assert_msg(x.size == y.size && memcmp(x.data, y.data, x.size) == 0, "%s differs", entry->d_name);
        pq_file_view_close(&x);
        pq_file_view_close(&y);
        free(first);
        free(second);
    }
    closedir(open);
}

/* A folder of a text with documents, a compressed one and lines of JSON, TEXT bytes each. */
START_TEST(make_source) {
    char *text = malloc(TEXT + 64), *json = malloc(TEXT + 4096);
    size_t at = 0, length = 0;
    for (uint64_t i = 0; at < TEXT; i++) {
        uint32_t random[4];
        pq_random4(8, PQ_STREAM_SAMPLE, 2, i, random);
        at += (size_t)sprintf(text + at, random[0] % 50 ? "%c%c " : "%c%c\n" PQ_DOCUMENT_MARKER "\n",
                              'a' + (int)(random[1] % 26), 'A' + (int)(random[2] % 26));
    }
    while (length < TEXT) length += (size_t)sprintf(json + length, "{\"text\": \"line %zu\"}\n", length);
    ck_assert_int_eq(mkdir(scratch_path("source"), 0777), 0);
    scratch_write("source/a.txt", text, at);
    scratch_pack("source/b.txt.zst", text, at, 200000);
    scratch_write("source/c.jsonl", json, length);
    free(text);
    free(json);
}
END_TEST

static pq_status prepare(const pq_prepare_options *options) {
    pq_prepared made;
    pq_status status = pq_prepare(options, &made, &err);
    pq_prepared_deinit(&made);
    return status;
}

START_TEST(shards_are_those_of_the_text_in_memory) {
    for (int by_document = 0; by_document < 2; by_document++) {
        const char *whole = scratch_path(by_document ? "whole-document" : "whole-token");
        pq_prepare_options options = options_for(scratch_path("source"), whole, by_document);
        pq_dataset *plain, *shards;
        pq_prepared made;
        left = -1;
        assert_ok(pq_prepare(&options, &made, &err), &err);
        assert_ok(pq_dataset_open(&options.data, &plain, &err), &err);
        options.data.path = whole;
        assert_ok(pq_dataset_open(&options.data, &shards, &err), &err);
        ck_assert_uint_eq(pq_dataset_hash(plain), pq_dataset_hash(shards));
        ck_assert_uint_eq(pq_dataset_hash(plain), made.hash);
        ck_assert_int_eq(pq_dataset_by_document(shards), by_document);
        for (pq_split split = PQ_TRAIN; split <= PQ_TEST; split++) {
            size_t n = pq_dataset_tokens(plain, split);
            uint16_t *x = malloc(2 * n), *y = malloc(2 * n);
            ck_assert_uint_eq(n, made.tokens[split]);
            pq_dataset_read(plain, split, 0, n, x);
            pq_dataset_prefetch(shards, split, n / 3, n - n / 3);
            pq_dataset_read(shards, split, 0, n, y);
            ck_assert_int_eq(memcmp(x, y, 2 * n), 0);
            free(x);
            free(y);
        }
        char *again = NULL;
        ck_assert_int_gt(asprintf(&again, "%s-again", whole), 0);
        assert_ok(pq_shards_write(plain, again, false, 123457, &err), &err);
        assert_same_folders(whole, again);
        free(again);
        ck_assert(!pq_file_exists(scratch_path("whole-token.part")));
        pq_dataset_close(plain);
        pq_dataset_close(shards);
        pq_prepared_deinit(&made);
    }
}
END_TEST

/* Stopped or killed in turn at the first, second, ... call since the last time, until it is done. */
START_TEST(cut_short_and_resumed_gives_the_same_bytes) {
    for (int by_document = 0; by_document < 2; by_document++)
        for (int first = 1; first < 40; first = 2 * first + 1) {
            char name[32];
            snprintf(name, sizeof name, "cut-%d-%d", by_document, first);
            const char *folder = scratch_path(name);
            pq_prepare_options options = options_for(scratch_path("source"), folder, by_document);
            options.resume = true;
            size_t stops = 0;
            for (int calls = first;; calls += 1 + calls / 4) {
                left = calls;
                killed = stops % 2;
                pid_t child = fork();
                if (child == 0) _exit(prepare(&options));
                int status;
                ck_assert_int_eq(waitpid(child, &status, 0), child);
                ck_assert(!pq_file_exists(folder) || (WIFEXITED(status) && WEXITSTATUS(status) == PQ_OK));
                if (WIFEXITED(status) && WEXITSTATUS(status) == PQ_OK) break;
                ck_assert(killed ? WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL
                                 : WIFEXITED(status) && WEXITSTATUS(status) == PQ_STOPPED);
                ck_assert_uint_lt(++stops, 200);
            }
            ck_assert_uint_gt(stops + (size_t)first, 5);
            assert_same_folders(folder, scratch_path(by_document ? "whole-document" : "whole-token"));
            snprintf(name, sizeof name, "cut-%d-%d.part", by_document, first);
            ck_assert(!pq_file_exists(scratch_path(name)));
            left = -1;
            assert_ok(prepare(&options), &err); /* done already */
            /* Killed while the last of it was put away. */
            ck_assert_int_eq(mkdir(scratch_path(name), 0777), 0);
            strcat(name, "/tokens-0");
            scratch_write(name, "x", 1);
            assert_ok(prepare(&options), &err);
            *strrchr(name, '/') = 0;
            ck_assert(!pq_file_exists(scratch_path(name)));
        }
}
END_TEST

START_TEST(an_older_folder_is_replaced_at_the_end) {
    const char *folder = scratch_path("older");
    pq_prepare_options options = options_for(scratch_path("source/c.jsonl"), folder, false);
    left = -1;
    assert_ok(prepare(&options), &err);
    scratch_write("older/notes.txt", "mine", 4);
    assert_refused(prepare(&options), PQ_ERR_USAGE, &err, "exists already", NULL);
    options.data.path = scratch_path("source");
    options.overwrite = true;
    killed = false;
    for (int calls = left = 3; prepare(&options) == PQ_STOPPED; left = calls += 4) {
        pq_dataset *dataset; /* the older ones are still whole */
        pq_data_options as_shards = {.path = folder, .split = {0.8, 0.1, 0.1}};
        assert_ok(pq_dataset_open(&as_shards, &dataset, &err), &err);
        pq_dataset_close(dataset);
        options.resume = true;
    }
    ck_assert(pq_file_exists(scratch_path("older/notes.txt")));
    ck_assert_int_eq(remove(scratch_path("older/notes.txt")), 0);
    assert_same_folders(folder, scratch_path("whole-token"));
}
END_TEST

START_TEST(only_the_same_work_is_resumed) {
    const char *folder = scratch_path("other");
    pq_prepare_options options = options_for(scratch_path("source"), folder, false), other;
    left = 6, killed = false;
    assert_refused(prepare(&options), PQ_STOPPED, &err, "--resume", "other.part");
    size_t before = entries(scratch_path("other.part"));
    left = -1;
    assert_refused(prepare(&options), PQ_ERR_USAGE, &err, "other.part is left", "--resume");
    options.resume = true;
    other = options;
    other.data.split[0] = 0.7;
    assert_refused(prepare(&other), PQ_ERR_USAGE, &err, "other settings", "other.part");
    other = options;
    other.shard_tokens++;
    assert_refused(prepare(&other), PQ_ERR_USAGE, &err, "other settings", NULL);
    other = options;
    other.data.path = scratch_path("source/a.txt");
    assert_refused(prepare(&other), PQ_ERR_USAGE, &err, "another text", NULL);
    ck_assert_uint_eq(entries(scratch_path("other.part")), before);
    scratch_write("other.part/tokens-0", "xx", 2);
    assert_refused(prepare(&options), PQ_ERR_FORMAT, &err, "fewer tokens", NULL);
    options.resume = false;
    options.overwrite = true;
    assert_ok(prepare(&options), &err);
    assert_same_folders(folder, scratch_path("whole-token"));
}
END_TEST

START_TEST(bad_texts_leave_nothing) {
    size_t before = entries(scratch);
    pq_prepare_options options = options_for(scratch_write("bad.jsonl", "{\"text\":\"abc\"}\n{\"te", 19),
                                             scratch_path("never"), false);
    left = -1;
    assert_refused(prepare(&options), PQ_ERR_FORMAT, &err, "bad.jsonl, line 2", NULL);
    options.data.tokenizer = "byte";
    assert_refused(prepare(&options), PQ_ERR_FORMAT, &err, "bad.jsonl, line 2", NULL);
    options.data.path = scratch_write("bad.jsonl", "", 0);
    assert_refused(prepare(&options), PQ_ERR_USAGE, &err, "bad.jsonl is empty", NULL);
    options.data.path = scratch_write("bad.jsonl", "{\"text\":\"abc\"}\n", 15);
    assert_refused(prepare(&options), PQ_ERR_USAGE, &err, "val split", NULL);
    options.data.path = scratch_path("nowhere.txt");
    assert_refused(prepare(&options), PQ_ERR_IO, &err, "nowhere.txt", NULL);
    ck_assert_uint_eq(entries(scratch), before + 1);
}
END_TEST

/* ---- nanoGPT, llm.c ---- */

static void write_llmc(const char *name, const int32_t head[3], const uint16_t *tokens, size_t count) {
    char *bytes = calloc(1, 1024 + 2 * count);
    memcpy(bytes, head, 3 * sizeof *head);
    memcpy(bytes + 1024, tokens, 2 * count);
    scratch_write(name, bytes, 1024 + 2 * count);
    free(bytes);
}

static pq_status open_bin(const char *path, const char *kind, pq_dataset **out) {
    pq_data_options options = {.path = path, .tokenizer = kind, .split = {0.8, 0.1, 0.1}};
    return pq_dataset_open(&options, out, &err);
}

static void assert_tokens(const pq_dataset *dataset, pq_split split, const uint16_t *tokens, size_t count) {
    uint16_t found[256];
    ck_assert_uint_eq(pq_dataset_tokens(dataset, split), count);
    pq_dataset_read(dataset, split, 0, count, found);
    ck_assert_int_eq(memcmp(found, tokens, 2 * count), 0);
}

START_TEST(tokens_of_other_programs_are_read_in_place) {
    uint16_t tokens[200];
    pq_dataset *dataset;
    for (size_t i = 0; i < 200; i++) tokens[i] = (uint16_t)(i * 7 % 256);
    ck_assert_int_eq(mkdir(scratch_path("nano"), 0777), 0);
    scratch_write("nano/train.bin", tokens, 300);
    assert_refused(open_bin(scratch_path("nano"), "byte", &dataset), PQ_ERR_IO, &err, "val.bin", NULL);
    scratch_write("nano/val.bin", tokens + 150, 100);
    assert_ok(open_bin(scratch_path("nano"), "byte", &dataset), &err);
    assert_tokens(dataset, PQ_TRAIN, tokens, 150);
    assert_tokens(dataset, PQ_VAL, tokens + 150, 50);
    ck_assert_uint_eq(pq_dataset_tokens(dataset, PQ_TEST), 0);
    assert_ok(pq_shards_write(dataset, scratch_path("nano-shards"), false, 64, &err), &err);
    pq_dataset_close(dataset);
    assert_ok(open_bin(scratch_path("nano/train.bin"), "byte", &dataset), &err);
    assert_tokens(dataset, PQ_TRAIN, tokens, 120);
    pq_dataset_close(dataset);
    write_llmc("llm.bin", (int32_t[]){20240520, 1, 200}, tokens, 200);
    assert_ok(open_bin(scratch_path("llm.bin"), "byte", &dataset), &err);
    assert_tokens(dataset, PQ_TRAIN, tokens, 160);
    assert_tokens(dataset, PQ_TEST, tokens + 180, 20);
    pq_dataset_close(dataset);
    assert_refused(open_bin(scratch_path("llm.bin"), NULL, &dataset), PQ_ERR_USAGE, &err, "llm.bin",
                   "tokens alone");
    write_llmc("llm.bin", (int32_t[]){20240520, 2, 200}, tokens, 200);
    assert_refused(open_bin(scratch_path("llm.bin"), "byte", &dataset), PQ_ERR_FORMAT, &err, "version 2",
                   NULL);
    write_llmc("llm.bin", (int32_t[]){20240520, 1, 201}, tokens, 200);
    assert_refused(open_bin(scratch_path("llm.bin"), "byte", &dataset), PQ_ERR_FORMAT, &err, "201 tokens",
                   "400 bytes");
    write_llmc("llm.bin", (int32_t[]){20240801, 7, 100}, tokens, 200);
    assert_refused(open_bin(scratch_path("llm.bin"), "byte", &dataset), PQ_ERR_FORMAT, &err, "32 bits", NULL);
    scratch_write("odd.bin", tokens, 99);
    assert_refused(open_bin(scratch_path("odd.bin"), "byte", &dataset), PQ_ERR_FORMAT, &err, "odd.bin", "99");
    tokens[77] = 256;
    scratch_write("out.bin", tokens, 400);
    assert_refused(open_bin(scratch_path("out.bin"), "byte", &dataset), PQ_ERR_FORMAT, &err,
                   "token 77 is 256", "256 ids");
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("prepare");
    scratch_make();
    pq_threads_set(1); /* a child of a process with a team of threads has none */
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, make_source);
    tcase_add_test(tests, shards_are_those_of_the_text_in_memory);
    tcase_add_test(tests, cut_short_and_resumed_gives_the_same_bytes);
    tcase_add_test(tests, an_older_folder_is_replaced_at_the_end);
    tcase_add_test(tests, only_the_same_work_is_resumed);
    tcase_add_test(tests, bad_texts_leave_nothing);
    tcase_add_test(tests, tokens_of_other_programs_are_read_in_place);
    int failed = run_suite(tests);
    scratch_remove();
    return failed;
}
