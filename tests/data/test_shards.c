/* Token shards: the same tokens, splits and windows as from the text; what is refused; nothing half-written.
 */
#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/random.h"
#include "data/shards.h"
#include "tests/data/scratch.h"

enum { TEXT = 5000 };

static pq_error err;
static char text[TEXT];

static pq_dataset *open_with(const char *path, const char *tokenizer) {
    pq_data_options options = {.path = path, .tokenizer = tokenizer, .split = {0.8, 0.1, 0.1}};
    pq_dataset *dataset;
    assert_ok(pq_dataset_open(&options, &dataset, &err), &err);
    return dataset;
}

static pq_status try_open(const char *path, const char *tokenizer, const pq_tokenizer *parent) {
    pq_data_options options = {
        .path = path, .tokenizer = tokenizer, .parent = parent, .split = {0.8, 0.1, 0.1}};
    pq_dataset *dataset;
    pq_status status = pq_dataset_open(&options, &dataset, &err);
    pq_dataset_close(dataset);
    return status;
}

static size_t entries(const char *folder) {
    size_t count = 0;
    DIR *open = opendir(folder);
    ck_assert_ptr_nonnull(open);
    while (readdir(open)) count++;
    closedir(open);
    return count - 2;
}

static void assert_same(const pq_dataset *a, const pq_dataset *b) {
    static uint16_t x[TEXT], y[TEXT];
    ck_assert_uint_eq(pq_dataset_hash(a), pq_dataset_hash(b));
    ck_assert_uint_eq(pq_tokenizer_hash(pq_dataset_tokenizer(a)), pq_tokenizer_hash(pq_dataset_tokenizer(b)));
    for (pq_split split = PQ_TRAIN; split <= PQ_TEST; split++) {
        size_t n = pq_dataset_tokens(a, split);
        ck_assert_uint_eq(pq_dataset_tokens(b, split), n);
        for (size_t width = 1; width <= n; width = 2 * width + 1) /* across and within shards */
            for (size_t at = 0; at + width <= n; at += width / 3 + 7) {
                pq_dataset_read(a, split, at, width, x);
                pq_dataset_read(b, split, at, width, y);
                ck_assert_int_eq(memcmp(x, y, 2 * width), 0);
            }
    }
    for (uint64_t i = 0; i < 200; i++)
        for (pq_order order = PQ_ORDER_RANDOM; order <= PQ_ORDER_EPOCH; order++)
            ck_assert_uint_eq(pq_dataset_window(a, order, 1, i, 4, i % 4, 16),
                              pq_dataset_window(b, order, 1, i, 4, i % 4, 16));
}

START_TEST(shards_give_what_the_text_gives) {
    static const char *const kinds[] = {"char", "byte"};
    static const size_t sizes[] = {411, 500, 3999, 4000, PQ_SHARD_TOKENS};
    const char *source = scratch_write("text.txt", text, sizeof text);
    for (size_t kind = 0; kind < 2; kind++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            char name[32];
            snprintf(name, sizeof name, "%s-%zu", kinds[kind], sizes[i]);
            const char *folder = scratch_path(name);
            pq_dataset *plain = open_with(source, kinds[kind]), *shards, *again;
            assert_ok(pq_shards_write(plain, folder, false, sizes[i], &err), &err);
            shards = open_with(folder, NULL);
            assert_same(plain, shards);
            ck_assert_uint_eq(entries(folder),
                              2 + (4000 + sizes[i] - 1) / sizes[i] + 2 * ((500 + sizes[i] - 1) / sizes[i]));
            snprintf(name, sizeof name, "again-%zu-%zu", kind, i); /* shards of shards */
            assert_ok(pq_shards_write(shards, scratch_path(name), false, 1234, &err), &err);
            again = open_with(scratch_path(name), kinds[kind]);
            assert_same(plain, again);
            ck_assert_ptr_nonnull(strstr(pq_dataset_source(shards), "text.txt"));
            pq_dataset_close(plain);
            pq_dataset_close(shards);
            pq_dataset_close(again);
        }
}
END_TEST

START_TEST(one_shard_is_cut_like_a_text) {
    pq_data_options all = {.path = scratch_path("text.txt"), .split = {1, 0, 0}};
    pq_dataset *whole, *shard, *plain = open_with(scratch_path("text.txt"), NULL);
    assert_ok(pq_dataset_open(&all, &whole, &err), &err);
    assert_ok(pq_shards_write(whole, scratch_path("whole"), false, PQ_SHARD_TOKENS, &err), &err);
    shard = open_with(scratch_path("whole/train-00000.shard"), NULL);
    assert_same(plain, shard);
    pq_dataset_close(whole);
    pq_dataset_close(shard);
    pq_dataset_close(plain);
}
END_TEST

START_TEST(header_is_as_documented) {
    pq_file_view view;
    pq_dataset *plain = open_with(scratch_path("text.txt"), "char");
    uint64_t words[8];
    assert_ok(pq_file_read(scratch_path("char-500/train-00000.shard"), &view, &err), &err);
    ck_assert_uint_eq(view.size, 64 + 2 * 500);
    memcpy(words, view.data, 64);
    ck_assert_int_eq(memcmp(view.data, "PQSHARD\n", 8), 0);
    ck_assert_uint_eq(words[1], 1 | (uint64_t)pq_tokenizer_vocab(pq_dataset_tokenizer(plain)) << 32);
    ck_assert_uint_eq(words[2], 500);
    ck_assert_uint_eq(words[3], pq_hash(view.data + 64, 1000));
    ck_assert_uint_eq(words[4], pq_tokenizer_hash(pq_dataset_tokenizer(plain)));
    ck_assert_uint_eq(words[5] | words[6] | words[7], 0);
    pq_file_view_close(&view);
    pq_dataset_close(plain);
}
END_TEST

START_TEST(floor_of_the_builtin_corpus_stays) {
    pq_dataset *plain = open_with("builtin", NULL), *shards;
    assert_ok(pq_shards_write(plain, scratch_path("builtin"), false, PQ_SHARD_TOKENS, &err), &err);
    shards = open_with(scratch_path("builtin"), NULL);
    ck_assert_double_eq(pq_dataset_floor(plain), pq_dataset_floor(shards));
    ck_assert_uint_eq(pq_dataset_hash(plain), pq_dataset_hash(shards));
    pq_dataset_close(plain);
    pq_dataset_close(shards);
}
END_TEST

START_TEST(nothing_is_replaced_unasked) {
    const char *folder = scratch_path("target");
    pq_dataset *plain = open_with(scratch_path("text.txt"), NULL), *shards;
    assert_ok(pq_shards_write(plain, folder, false, 300, &err), &err);
    scratch_write("target/notes.txt", "mine", 4);
    scratch_write("target/train-00099.shard", "kept: there is a gap before it", 30);
    size_t before = entries(folder);
    assert_refused(pq_shards_write(plain, folder, false, 300, &err), PQ_ERR_USAGE, &err, "target",
                   "exists already");
    ck_assert_uint_eq(entries(folder), before);
    assert_ok(pq_shards_write(plain, scratch_path("target//"), true, 2000, &err), &err);
    shards = open_with(folder, NULL);
    assert_same(plain, shards);
    ck_assert(pq_file_exists(scratch_path("target/notes.txt")));
    ck_assert_uint_eq(entries(folder), 2 + 2 + 1 + 1 + 2); /* index, tokenizer, shards, the two files above */
    ck_assert_int_eq(mkdir(scratch_path("other"), 0777), 0);
    assert_ok(pq_shards_write(plain, scratch_path("other"), true, 2000, &err), &err); /* was empty */
    ck_assert_int_eq(mkdir(scratch_path("foreign"), 0777), 0);
    scratch_write("foreign/tokenizer.json", "{}", 2);
    assert_refused(pq_shards_write(plain, scratch_path("foreign"), true, 300, &err), PQ_ERR_USAGE, &err,
                   "not a folder of shards", "left alone");
    ck_assert_uint_eq(entries(scratch_path("foreign")), 1);
    /* A folder of shards over itself: the old tokens are still mapped while it is written. */
    assert_ok(pq_shards_write(shards, folder, true, 700, &err), &err);
    assert_same(plain, shards);
    pq_dataset_close(shards);
    shards = open_with(folder, NULL);
    assert_same(plain, shards);
    pq_dataset_close(shards);
    pq_dataset_close(plain);
}
END_TEST

START_TEST(failed_writes_leave_nothing) {
    struct rlimit old, small;
    pq_dataset *plain = open_with(scratch_path("text.txt"), NULL);
    size_t before = entries(scratch);
    assert_refused(pq_shards_write(plain, scratch_path("text.txt/inside"), false, 300, &err), PQ_ERR_IO, &err,
                   "text.txt", NULL);
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 2000; /* as a full disk: the first shard ends beyond it */
    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
    pq_status fresh = pq_shards_write(plain, scratch_path("full"), false, 1500, &err);
    pq_status over = pq_shards_write(plain, scratch_path("target"), true, 1500, &err);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
    ck_assert_int_eq(fresh, PQ_ERR_IO);
    ck_assert_int_eq(over, PQ_ERR_IO);
    ck_assert_uint_eq(entries(scratch), before);
    pq_dataset *shards = open_with(scratch_path("target"), NULL); /* the older ones are as they were */
    assert_same(plain, shards);
    pq_dataset_close(shards);
    pq_dataset_close(plain);
}
END_TEST

START_TEST(shards_of_another_kind_or_place_are_refused) {
    const char *folder = scratch_path("char-500");
    pq_tokenizer *parent;
    pq_dataset *other;
    pq_file_view view, second;
    assert_refused(try_open(folder, "byte", NULL), PQ_ERR_USAGE, &err, "prepared with the tokenizer char",
                   "byte");
    assert_ok(pq_tokenizer_create("char", "xyz", 3, &parent, &err), &err);
    assert_refused(try_open(folder, NULL, parent), PQ_ERR_USAGE, &err, "another tokenizer", "3 ids");
    pq_tokenizer_destroy(parent);
    /* Two good shards that changed places, and one of another text. */
    assert_ok(pq_file_read(scratch_path("char-500/train-00000.shard"), &view, &err), &err);
    assert_ok(pq_file_read(scratch_path("char-500/train-00001.shard"), &second, &err), &err);
    scratch_write("char-500/train-00000.shard", second.data, second.size);
    scratch_write("char-500/train-00001.shard", view.data, view.size);
    assert_refused(try_open(folder, NULL, NULL), PQ_ERR_FORMAT, &err, "train-00000.shard", "it lists");
    scratch_write("char-500/train-00000.shard", view.data, view.size);
    scratch_write("char-500/train-00001.shard", second.data, second.size);
    ck_assert_int_eq(try_open(folder, NULL, NULL), PQ_OK);
    pq_file_view_close(&view);
    pq_file_view_close(&second);
    scratch_write("other.txt", "abcdefghijklmnopqrstuvwxyz0123456789", 36);
    other = open_with(scratch_path("other.txt"), NULL);
    assert_ok(pq_shards_write(other, scratch_path("others"), false, 500, &err), &err);
    pq_dataset_close(other);
    assert_ok(pq_file_read(scratch_path("others/train-00000.shard"), &view, &err), &err);
    scratch_write("char-500/train-00000.shard", view.data, view.size);
    pq_file_view_close(&view);
    assert_refused(try_open(folder, NULL, NULL), PQ_ERR_FORMAT, &err, "another tokenizer", "train-00000");
    ck_assert_int_eq(remove(scratch_path("char-500/train-00000.shard")), 0);
    assert_refused(try_open(folder, NULL, NULL), PQ_ERR_IO, &err, "train-00000.shard", NULL);
}
END_TEST

/* A well-hashed shard whose tokens lie outside the vocabulary must not reach an embedding table. */
START_TEST(tokens_outside_the_vocabulary_are_refused) {
    pq_tokenizer *tokenizer;
    pq_shard shard;
    struct {
        pq_shard_header header;
        uint16_t tokens[4];
    } file = {.tokens = {0, 2, 3, 1}};
    assert_ok(pq_tokenizer_create("char", "abc", 3, &tokenizer, &err), &err);
    memcpy(file.header.magic, PQ_SHARD_MAGIC, 8);
    file.header.version = PQ_SHARD_VERSION;
    file.header.vocab = 3;
    file.header.tokens = 4;
    file.header.tokenizer = pq_tokenizer_hash(tokenizer);
    file.header.hash = pq_hash(file.tokens, sizeof file.tokens);
    const char *path = scratch_write("outside.shard", &file, sizeof file);
    assert_refused(pq_shard_open(path, tokenizer, NULL, &shard, &err), PQ_ERR_FORMAT, &err, "token 3",
                   "ends at 2");
    file.tokens[2] = 2;
    file.header.hash = pq_hash(file.tokens, sizeof file.tokens);
    scratch_write("outside.shard", &file, sizeof file);
    assert_ok(pq_shard_open(path, tokenizer, NULL, &shard, &err), &err);
    ck_assert_uint_eq(shard.count, 4);
    pq_shard_close(&shard);
    file.header.version = 2;
    scratch_write("outside.shard", &file, sizeof file);
    assert_refused(pq_shard_open(path, tokenizer, NULL, &shard, &err), PQ_ERR_FORMAT, &err, "version 2",
                   "version 1");
    pq_tokenizer_destroy(tokenizer);
}
END_TEST

/* A shard by itself, without the index's hash: every single bit of it counts. */
START_TEST(each_flipped_bit_is_noticed) {
    pq_tokenizer *tokenizer;
    pq_shard shard;
    pq_file_view view;
    char bytes[64 + 2 * 36];
    assert_ok(pq_file_read(scratch_path("others/train-00000.shard"), &view, &err), &err);
    ck_assert_uint_eq(view.size, 64 + 2 * 28);
    memcpy(bytes, view.data, view.size);
    assert_ok(pq_shards_tokenizer(scratch_path("others"), &tokenizer, &err), &err);
    for (size_t bit = 0; bit < 8 * view.size; bit++) {
        bytes[bit / 8] ^= (char)(1 << bit % 8);
        const char *path = scratch_write("flipped.shard", bytes, view.size);
        ck_assert_msg(pq_shard_open(path, tokenizer, NULL, &shard, &err) == PQ_ERR_FORMAT, "bit %zu", bit);
        bytes[bit / 8] ^= (char)(1 << bit % 8);
    }
    for (size_t size = 0; size < view.size; size++)
        ck_assert_int_eq(
            pq_shard_open(scratch_write("flipped.shard", bytes, size), tokenizer, NULL, &shard, &err),
            PQ_ERR_FORMAT);
    pq_file_view_close(&view);
    pq_tokenizer_destroy(tokenizer);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("shards");
    scratch_make();
    for (uint64_t i = 0; i < TEXT; i++) {
        uint32_t random[4];
        pq_random4(21, PQ_STREAM_SAMPLE, 0, i, random);
        text[i] = (char)(' ' + random[0] % 90);
    }
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, shards_give_what_the_text_gives);
    tcase_add_test(tests, one_shard_is_cut_like_a_text);
    tcase_add_test(tests, header_is_as_documented);
    tcase_add_test(tests, floor_of_the_builtin_corpus_stays);
    tcase_add_test(tests, nothing_is_replaced_unasked);
    tcase_add_test(tests, failed_writes_leave_nothing);
    tcase_add_test(tests, shards_of_another_kind_or_place_are_refused);
    tcase_add_test(tests, tokens_outside_the_vocabulary_are_refused);
    tcase_add_test(tests, each_flipped_bit_is_noticed);
    int failed = run_suite(tests);
    scratch_remove();
    return failed;
}
