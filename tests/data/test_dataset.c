/* Data sets from texts: splits, windows of both orders, tokenizers of parents, refusals. */
#include <math.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/random.h"
#include "tests/data/scratch.h"

static pq_error err;
static const pq_data_options usual = {.split = {0.8, 0.1, 0.1}};

static pq_status try_open(const char *path, const char *tokenizer, const pq_tokenizer *parent,
                          pq_dataset **out) {
    pq_data_options options = usual;
    options.path = path;
    options.tokenizer = tokenizer;
    options.parent = parent;
    return pq_dataset_open(&options, out, &err);
}

static pq_dataset *open_at(const char *path) {
    pq_dataset *dataset;
    assert_ok(try_open(path, NULL, NULL, &dataset), &err);
    return dataset;
}

/* A text of n characters drawn from 20 letters. */
static const char *write_letters(const char *name, size_t n) {
    char *text = malloc(n);
    uint32_t random[4];
    for (size_t i = 0; i < n; i++) {
        pq_random4(7, PQ_STREAM_SAMPLE, n, i, random);
        text[i] = (char)(i < 20 ? 'a' + (int)i : 'a' + (int)(random[0] % 20));
    }
    const char *path = scratch_write(name, text, n);
    free(text);
    return path;
}

START_TEST(splits_are_contiguous_and_end_where_python_ends_them) {
    for (size_t n = 20; n < 400; n++) {
        pq_dataset *dataset = open_at(write_letters("splits.txt", n));
        size_t first = (size_t)((double)n * .8), second = (size_t)((double)n * .9);
        ck_assert_uint_eq(pq_dataset_tokens(dataset, PQ_TRAIN), first);
        ck_assert_uint_eq(pq_dataset_tokens(dataset, PQ_VAL), second - first);
        ck_assert_uint_eq(pq_dataset_tokens(dataset, PQ_TEST), n - second);
        pq_file_view view;
        assert_ok(pq_file_read(scratch_path("splits.txt"), &view, &err), &err);
        size_t at = 0;
        for (pq_split split = PQ_TRAIN; split <= PQ_TEST; split++)
            for (size_t i = 0; i < pq_dataset_tokens(dataset, split); i++, at++) {
                uint16_t token;
                pq_dataset_read(dataset, split, i, 1, &token);
                ck_assert_int_eq(token, view.data[at] - 'a');
            }
        ck_assert_uint_eq(at, n);
        pq_file_view_close(&view);
        pq_dataset_close(dataset);
    }
}
END_TEST

/* Shares whose binary sums fall short of the decimal ones: 0.7 + 0.2 < 0.9, 0.1 + 0.7 < 0.8. */
START_TEST(sums_of_shares_are_those_that_were_meant) {
    static const struct {
        double split[3];
        size_t n, tokens[3];
    } cases[] = {
        {{0.7, 0.2, 0.1}, 100, {70, 20, 10}},  {{0.1, 0.7, 0.2}, 50, {5, 35, 10}},
        {{0.9, 0.1, 0}, 1003, {902, 101, 0}},  {{1, 0, 0}, 77, {77, 0, 0}},
        {{0.5, 0.1, 0.1}, 200, {100, 20, 20}}, {{1 / 3., 1 / 3., 1 / 3.}, 300, {100, 100, 100}},
        {{0.6, 0.1, 0.3}, 70, {42, 7, 21}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pq_data_options options = {.path = write_letters("shares.txt", cases[i].n)};
        memcpy(options.split, cases[i].split, sizeof options.split);
        pq_dataset *dataset;
        assert_ok(pq_dataset_open(&options, &dataset, &err), &err);
        for (pq_split split = PQ_TRAIN; split <= PQ_TEST; split++)
            ck_assert_msg(pq_dataset_tokens(dataset, split) == cases[i].tokens[split],
                          "case %zu, split %d: %zu", i, split, pq_dataset_tokens(dataset, split));
        pq_dataset_close(dataset);
    }
    for (int i = 0; i < 4; i++) {
        static const double bad[4][3] = {{0.8, 0.1, 0.2}, {-0.1, 0.5, 0.5}, {2, 0, 0}, {NAN, 0.5, 0.5}};
        pq_data_options options = {.path = scratch_path("shares.txt")};
        memcpy(options.split, bad[i], sizeof options.split);
        pq_dataset *dataset;
        assert_refused(pq_dataset_open(&options, &dataset, &err), PQ_ERR_USAGE, &err, "data.split", NULL);
    }
}
END_TEST

START_TEST(random_windows_cover_all_starts_evenly) {
    enum { CONTEXT = 7, DRAWS = 40000 };
    pq_dataset *dataset = open_at(write_letters("random.txt", 100));
    size_t starts = pq_dataset_tokens(dataset, PQ_TRAIN) - CONTEXT, seen[100] = {0};
    double expected = (double)DRAWS / (double)starts, chi = 0;
    for (uint64_t i = 0; i < DRAWS; i++) {
        size_t at = pq_dataset_window(dataset, PQ_ORDER_RANDOM, 5, i / 16, 16, i % 16, CONTEXT);
        ck_assert_uint_lt(at, starts);
        seen[at]++;
    }
    for (size_t i = 0; i < starts; i++)
        chi += ((double)seen[i] - expected) * ((double)seen[i] - expected) / expected;
    double freedom = (double)starts - 1;
    ck_assert(fabs(chi - freedom) < 5 * sqrt(2 * freedom));
    pq_dataset_close(dataset);
}
END_TEST

/* Over several epochs, whatever the batch size: each epoch visits each window once, in an order of its own.
 */
START_TEST(epochs_visit_each_window_once) {
    for (size_t n = 25; n < 900; n = n * 5 / 4 + 1)
        for (size_t context = 1; context <= 9; context += 4) {
            enum { EPOCHS = 3, SEQUENCES = 5 };
            pq_dataset *dataset = open_at(write_letters("epoch.txt", n));
            size_t tokens = pq_dataset_tokens(dataset, PQ_TRAIN), windows = (tokens - 1) / context, moved = 0;
            size_t *first = calloc(windows, sizeof *first);
            for (size_t epoch = 0; epoch < EPOCHS; epoch++) {
                unsigned char *seen = calloc(windows, 1);
                for (size_t i = 0; i < windows; i++) {
                    uint64_t at = epoch * windows + i;
                    size_t start = pq_dataset_window(dataset, PQ_ORDER_EPOCH, 11, at / SEQUENCES, SEQUENCES,
                                                     at % SEQUENCES, context);
                    ck_assert_uint_eq(start % context, 0);
                    ck_assert_uint_le(start + context + 1, tokens);
                    ck_assert_msg(!seen[start / context]++, "window %zu twice in epoch %zu of %zu",
                                  start / context, epoch, windows);
                    if (epoch == 0)
                        first[i] = start;
                    else
                        moved += first[i] != start;
                }
                free(seen);
            }
            if (windows > 8) ck_assert_uint_gt(moved, windows);
            free(first);
            pq_dataset_close(dataset);
        }
}
END_TEST

/* The same window whenever and in whatever order one asks; another seed, another order. */
START_TEST(windows_need_no_memory) {
    enum { ITERS = 50, SEQUENCES = 6, CONTEXT = 8 };
    pq_dataset *dataset = open_at(write_letters("memory.txt", 1000));
    for (pq_order order = PQ_ORDER_RANDOM; order <= PQ_ORDER_EPOCH; order++) {
        size_t starts[ITERS][SEQUENCES], same = 0;
        for (uint64_t i = 0; i < ITERS; i++)
            for (uint64_t s = 0; s < SEQUENCES; s++)
                starts[i][s] = pq_dataset_window(dataset, order, 3, i, SEQUENCES, s, CONTEXT);
        for (uint64_t s = SEQUENCES; s-- > 0;)
            for (uint64_t i = ITERS; i-- > 0;) {
                ck_assert_uint_eq(pq_dataset_window(dataset, order, 3, i, SEQUENCES, s, CONTEXT),
                                  starts[i][s]);
                same += pq_dataset_window(dataset, order, 4, i, SEQUENCES, s, CONTEXT) == starts[i][s];
            }
        ck_assert_uint_lt(same, ITERS * SEQUENCES / 10);
    }
    pq_dataset_close(dataset);
}
END_TEST

START_TEST(texts_that_will_not_do_are_refused) {
    pq_dataset *dataset;
    assert_refused(try_open(scratch_path("none.txt"), NULL, NULL, &dataset), PQ_ERR_IO, &err, "none.txt",
                   "builtin");
    assert_refused(try_open(scratch_write("empty.txt", "", 0), NULL, NULL, &dataset), PQ_ERR_USAGE, &err,
                   "empty.txt", "is empty");
    assert_refused(try_open(scratch_write("empty.txt", "", 0), "byte", NULL, &dataset), PQ_ERR_USAGE, &err,
                   "is empty", NULL);
    assert_refused(try_open(scratch_write("short.txt", "abcdefghij", 10), NULL, NULL, &dataset), PQ_ERR_USAGE,
                   &err, "has 10 tokens", "val split (share 0.1) gets 1");
    assert_refused(try_open(scratch_write("latin.txt", "caf\xE9 au lait\n", 13), NULL, NULL, &dataset),
                   PQ_ERR_FORMAT, &err, "latin.txt", "offset 3");
    assert_refused(try_open(scratch_write("x.parquet", "PAR1", 4), NULL, NULL, &dataset), PQ_ERR_USAGE, &err,
                   ".parquet", "JSONL");
    assert_refused(try_open(scratch_path("short.txt"), "words", NULL, &dataset), PQ_ERR_USAGE, &err,
                   "found words", NULL);
    ck_assert_int_eq(mkdir(scratch_path("empty"), 0777), 0);
    assert_refused(try_open(scratch_path("empty"), NULL, NULL, &dataset), PQ_ERR_IO, &err, "shards.json",
                   ".jsonl.zst");
    ck_assert_ptr_null(dataset);
    dataset = open_at(write_letters("window.txt", 100));
    assert_ok(pq_dataset_check(dataset, PQ_VAL, 9, &err), &err);
    assert_refused(pq_dataset_check(dataset, PQ_VAL, 10, &err), PQ_ERR_USAGE, &err, "val split has 10 tokens",
                   "takes 11");
    assert_ok(pq_dataset_check(dataset, PQ_TRAIN, 79, &err), &err);
    assert_refused(pq_dataset_check(dataset, PQ_TRAIN, 80, &err), PQ_ERR_USAGE, &err, "80", "81");
    pq_dataset_close(dataset);
}
END_TEST

START_TEST(parents_bring_their_tokenizer) {
    pq_tokenizer *parent;
    pq_dataset *dataset;
    uint16_t token;
    assert_ok(
        pq_tokenizer_create("char", "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrst", 46, &parent, &err),
        &err);
    const char *path = write_letters("parent.txt", 64);
    assert_ok(try_open(path, NULL, parent, &dataset), &err);
    ck_assert_uint_eq(pq_tokenizer_hash(pq_dataset_tokenizer(dataset)), pq_tokenizer_hash(parent));
    pq_dataset_read(dataset, PQ_TRAIN, 0, 1, &token);
    ck_assert_uint_eq(token, 26);
    pq_dataset_close(dataset);
    assert_ok(try_open(path, "char", parent, &dataset), &err);
    pq_dataset_close(dataset);
    assert_refused(try_open(path, "byte", parent, &dataset), PQ_ERR_USAGE, &err, "byte", "char");
    path = scratch_write("unknown.txt", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaz", 37);
    assert_refused(try_open(path, NULL, parent, &dataset), PQ_ERR_USAGE, &err, "'z' (U+007A)", "offset 36");
    pq_tokenizer_destroy(parent);
}
END_TEST

START_TEST(hashes_tell_texts_splits_and_tokenizers_apart) {
    pq_dataset *a = open_at(write_letters("a.txt", 200)), *same = open_at(scratch_path("a.txt")), *byte, *cut;
    pq_dataset *b = open_at(write_letters("b.txt", 201));
    pq_data_options options = {.path = scratch_path("a.txt"), .split = {0.7, 0.2, 0.1}};
    assert_ok(pq_dataset_open(&options, &cut, &err), &err);
    assert_ok(try_open(scratch_path("a.txt"), "byte", NULL, &byte), &err);
    ck_assert_uint_eq(pq_dataset_hash(a), pq_dataset_hash(same));
    ck_assert_uint_ne(pq_dataset_hash(a), pq_dataset_hash(b));
    ck_assert_uint_ne(pq_dataset_hash(a), pq_dataset_hash(cut));
    ck_assert_uint_ne(pq_dataset_hash(a), pq_dataset_hash(byte));
    ck_assert(isnan(pq_dataset_floor(a)));
    ck_assert_ptr_nonnull(strstr(pq_dataset_source(a), "a.txt"));
    pq_dataset_close(a);
    pq_dataset_close(b);
    pq_dataset_close(same);
    pq_dataset_close(byte);
    pq_dataset_close(cut);
}
END_TEST

START_TEST(builtin_knows_its_floor) {
    pq_dataset *chars = open_at("builtin"), *bytes;
    assert_ok(try_open("builtin", "byte", NULL, &bytes), &err);
    ck_assert_uint_eq(pq_dataset_tokens(chars, PQ_TRAIN), 800000);
    ck_assert_uint_eq(pq_dataset_tokens(chars, PQ_VAL), 100000);
    ck_assert_double_eq_tol(pq_dataset_floor(chars), 0.457228, 1e-6);
    ck_assert_double_eq(pq_dataset_floor(chars), pq_dataset_floor(bytes));
    ck_assert_ptr_nonnull(strstr(pq_dataset_source(chars), "built-in"));
    pq_dataset_close(chars);
    pq_dataset_close(bytes);
}
END_TEST

START_TEST(tiny_shakespeare_is_split_as_the_papers_do) {
    char *path = given_shakespeare();
    if (!path) return;
    pq_dataset *dataset = open_at("tinyshakespeare");
    ck_assert_uint_eq(pq_dataset_tokens(dataset, PQ_TRAIN), 892315);
    ck_assert_uint_eq(pq_dataset_tokens(dataset, PQ_VAL), 111539);
    ck_assert_uint_eq(pq_dataset_tokens(dataset, PQ_TEST), 111540);
    ck_assert_uint_eq(pq_tokenizer_vocab(pq_dataset_tokenizer(dataset)), 65);
    ck_assert_ptr_nonnull(strstr(pq_dataset_source(dataset), path));
    ck_assert(isnan(pq_dataset_floor(dataset)));
    pq_dataset_close(dataset);
    free(path);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("dataset");
    tcase_set_timeout(tests, 60);
    scratch_make();
    tcase_add_test(tests, splits_are_contiguous_and_end_where_python_ends_them);
    tcase_add_test(tests, sums_of_shares_are_those_that_were_meant);
    tcase_add_test(tests, random_windows_cover_all_starts_evenly);
    tcase_add_test(tests, epochs_visit_each_window_once);
    tcase_add_test(tests, windows_need_no_memory);
    tcase_add_test(tests, texts_that_will_not_do_are_refused);
    tcase_add_test(tests, parents_bring_their_tokenizer);
    tcase_add_test(tests, hashes_tell_texts_splits_and_tokenizers_apart);
    tcase_add_test(tests, builtin_knows_its_floor);
    tcase_add_test(tests, tiny_shakespeare_is_split_as_the_papers_do);
    int failed = run_suite(tests);
    scratch_remove();
    return failed;
}
