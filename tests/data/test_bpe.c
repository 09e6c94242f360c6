/* Byte-level BPE: ids that Hugging Face's tokenizers gave, a naive merge, any bytes back, threads, and its
 * forms. */
#include <potqat/tokenizer.h>

#include "base/random.h"
#include "base/threads.h"
#include "tests/data/scratch.h"

static pq_error err;
static uint64_t draws;

static size_t below(size_t n) {
    uint32_t words[4];
    pq_random4(5, PQ_STREAM_SAMPLE, 2, draws++, words);
    return words[0] % n;
}

static const char learned_from[] =
    "the cat and the hat, the cat's hat and that's that; they'll sit there. 10 100 1000 1001 <|endoftext|>"
    "aaaaaaaaaaaaaaaa aaaa aaa aa \xC3\xA9t\xC3\xA9 \xC3\xA9t\xC3\xA9s <|endoftext|>the end of the "
    "text\n\n\nthe end";

static pq_tokenizer *learn(void) {
    pq_tokenizer *tokenizer;
    assert_ok(pq_tokenizer_learn(learned_from, sizeof learned_from - 1, 280, &tokenizer, &err), &err);
    return tokenizer;
}

static size_t encode(const pq_tokenizer *tokenizer, bool documents, const void *text, size_t bytes,
                     uint16_t **ids) {
    size_t count;
    assert_ok(documents ? pq_tokenizer_encode_documents(tokenizer, text, bytes, ids, &count, &err)
                        : pq_tokenizer_encode(tokenizer, text, bytes, ids, &count, &err),
              &err);
    return count;
}

static void assert_comes_back(const pq_tokenizer *tokenizer, bool documents, const void *text, size_t bytes) {
    uint16_t *ids;
    char *back;
    size_t count = encode(tokenizer, documents, text, bytes, &ids), found;
    assert_ok(pq_tokenizer_decode(tokenizer, ids, count, &back, &found, &err), &err);
    ck_assert_uint_eq(found, bytes);
    ck_assert_int_eq(memcmp(back, text, bytes), 0);
    free(ids);
    free(back);
}

/* What tokenizers 0.23 gives with the learned tokenizer.json. */
static const struct {
    const char *text;
    size_t count;
    uint16_t ids[16];
} expected[] = {
    {"the cat", 2, {259, 278}},
    {"they'll end there", 10, {259, 88, 6, 75, 75, 220, 271, 261, 81, 68}},
    {"\303\251t\303\251 1000  \n\n the", 9, {264, 273, 267, 15, 220, 220, 198, 198, 261}},
    {"aaaaaaaaaaaaaaaaaaa", 4, {266, 266, 256, 64}},
    {"that's<|endoftext|>\n\344\270\255\346\226\207 hat",
     13,
     {257, 260, 268, 279, 198, 160, 116, 255, 162, 244, 229, 220, 272}},
    {" 'S 10001 \343\200\200x", 11, {220, 6, 50, 267, 15, 16, 220, 159, 222, 222, 87}},
};

START_TEST(ids_are_those_of_tokenizers) {
    pq_tokenizer *tokenizer = learn();
    ck_assert_uint_eq(pq_tokenizer_vocab(tokenizer), 280);
    ck_assert_int_eq(pq_tokenizer_end_of_text(tokenizer), 279);
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        uint16_t *ids;
        size_t count = encode(tokenizer, true, expected[i].text, strlen(expected[i].text), &ids);
        ck_assert_uint_eq(count, expected[i].count);
        ck_assert_int_eq(memcmp(ids, expected[i].ids, count * sizeof *ids), 0);
        free(ids);
    }
    pq_tokenizer_destroy(tokenizer);
}
END_TEST

/* The end of a document is one token where that was asked for, and plain text else. */
START_TEST(ends_of_documents_are_asked_for) {
    pq_tokenizer *tokenizer = learn(), *none;
    uint16_t *ids;
    ck_assert_uint_eq(encode(tokenizer, true, "<|endoftext|>", 13, &ids), 1);
    ck_assert_uint_eq(ids[0], 279);
    free(ids);
    const size_t count = encode(tokenizer, false, "<|endoftext|>", 13, &ids);
    ck_assert_uint_gt(count, 1);
    for (size_t i = 0; i < count; i++) ck_assert_uint_ne(ids[i], 279);
    free(ids);
    assert_ok(pq_tokenizer_create("byte", NULL, 0, &none, &err), &err);
    ck_assert_uint_eq(encode(none, true, "<|endoftext|>", 13, &ids), 13);
    ck_assert_int_eq(pq_tokenizer_end_of_text(none), -1);
    free(ids);
    pq_tokenizer_destroy(none);
    pq_tokenizer_destroy(tokenizer);
}
END_TEST

/* A word of n letters by the rule itself: each merge in the order of their strength, from left to right. The
 * merges are those of merges.txt, whose letters are ASCII here. */
static size_t naive(const char *merges, char tokens[][64], size_t n) {
    for (const char *line = strchr(merges, '\n') + 1; *line; line = strchr(line, '\n') + 1) {
        char left[64], right[64];
        if (sscanf(line, "%63s %63s", left, right) != 2) break;
        for (size_t i = 0; i + 1 < n; i++) {
            if (strcmp(tokens[i], left) != 0 || strcmp(tokens[i + 1], right) != 0) continue;
            strcat(tokens[i], right);
            memmove(tokens[i + 1], tokens[i + 2], (n-- - i - 2) * sizeof *tokens);
        }
    }
    return n;
}

START_TEST(short_and_long_words_merge_as_the_rule_says) {
    static char tokens[140][64];
    pq_tokenizer *tokenizer = learn();
    char *merges, word[140];
    assert_ok(pq_tokenizer_to_file(tokenizer, "merges.txt", &merges, &err), &err);
    for (int round = 0; round < 600; round++) {
        const size_t n = round < 260 ? 1 + (size_t)round % 130 : 40 + below(20);
        for (size_t i = 0; i < n; i++) {
            word[i] = round < 130 ? 'a' : "aaathent"[below(8)];
            snprintf(tokens[i], sizeof *tokens, "%c", word[i]);
        }
        uint16_t *ids;
        const size_t count = encode(tokenizer, false, word, n, &ids), wanted = naive(merges, tokens, n);
        ck_assert_uint_eq(count, wanted);
        for (size_t i = 0; i < count; i++) {
            char *text;
            size_t bytes;
            assert_ok(pq_tokenizer_decode(tokenizer, ids + i, 1, &text, &bytes, &err), &err);
            ck_assert_str_eq(text, tokens[i]);
            free(text);
        }
        free(ids);
    }
    free(merges);
    pq_tokenizer_destroy(tokenizer);
}
END_TEST

START_TEST(any_bytes_come_back) {
    static const char edges[] = " \n\tathe's10\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\xFF\xED\xA0\x80\xC0";
    pq_tokenizer *tokenizer = learn();
    for (int round = 0; round < 10000; round++) {
        char text[80];
        const size_t bytes = below(sizeof text + 1);
        for (size_t i = 0; i < bytes; i++)
            text[i] = (char)(round % 2 ? below(256) : (size_t)edges[below(sizeof edges)]);
        assert_comes_back(tokenizer, round % 3 == 0, text, bytes);
    }
    pq_tokenizer_destroy(tokenizer);
}
END_TEST

/* A long word without a gap, short words, and noise, with 1 to 5 threads. */
START_TEST(threads_do_not_change_ids) {
    enum { BYTES = 400001 };
    pq_tokenizer *tokenizer = learn();
    char *text = malloc(BYTES);
    const int before = pq_threads_get();
    for (int kind = 0; kind < 3; kind++) {
        for (size_t i = 0; i < BYTES; i++)
            text[i] = kind == 0   ? 'a'
                      : kind == 1 ? "the cat's  \n10\xC3\xA9<|>"[below(19)]
                                  : (char)below(256);
        uint16_t *first, *ids;
        pq_threads_set(1);
        const size_t count = encode(tokenizer, true, text, BYTES, &first);
        for (int threads = 2; threads <= 5; threads++) {
            pq_threads_set(threads);
            ck_assert_uint_eq(encode(tokenizer, true, text, BYTES, &ids), count);
            ck_assert_int_eq(memcmp(ids, first, count * sizeof *ids), 0);
            free(ids);
        }
        free(first);
        assert_comes_back(tokenizer, true, text, BYTES);
    }
    pq_threads_set(before);
    free(text);
    pq_tokenizer_destroy(tokenizer);
}
END_TEST

/* potqat's JSON, tokenizer.json, and vocab.json with merges.txt are the same tokenizer. */
START_TEST(each_form_reads_back_the_same) {
    static const char *const files[] = {"tokenizer.json", "vocab.json", "merges.txt"};
    pq_tokenizer *tokenizer = learn(), *again;
    char *json = pq_tokenizer_to_json(tokenizer), *text;
    assert_ok(pq_tokenizer_from_json(json, strlen(json), &again, &err), &err);
    ck_assert_uint_eq(pq_tokenizer_hash(again), pq_tokenizer_hash(tokenizer));
    pq_tokenizer_destroy(again);
    ck_assert(!pq_tokenizer_is_in(scratch));
    assert_refused(pq_tokenizer_open(scratch, &again, &err), PQ_ERR_IO, &err, "no tokenizer", "merges.txt");
    for (size_t i = 0; i < 3; i++) {
        assert_ok(pq_tokenizer_to_file(tokenizer, files[i], &text, &err), &err);
        scratch_write(files[i], text, strlen(text));
        free(text);
    }
    for (int turn = 0; turn < 2; turn++) { /* the second time from the pair */
        assert_ok(pq_tokenizer_open(scratch, &again, &err), &err);
        ck_assert_uint_eq(pq_tokenizer_hash(again), pq_tokenizer_hash(tokenizer));
        pq_tokenizer_destroy(again);
        remove(scratch_path("tokenizer.json"));
    }
    assert_refused(pq_tokenizer_to_file(tokenizer, "vocab.txt", &text, &err), PQ_ERR_USAGE, &err, "vocab.txt",
                   NULL);
    free(json);
    pq_tokenizer_destroy(tokenizer);
}
END_TEST

/* One change to merges.txt or tokenizer.json, and what the sentence says. */
static const struct {
    const char *file, *from, *to, *says, *too;
} lies[] = {
    {"merges.txt", "t h\n", "t h\nt h\n", "merges.txt", "same ids"},
    {"merges.txt", "t h\n", "t\n", "merges.txt: merge", "two tokens"},
    {"merges.txt", "t h\n", "t h e\n", "merges.txt: merge", "two tokens"},
    {"merges.txt", "t h\n", "t q\n", "does not have", "\"tq\""},
    {"merges.txt", "t h\n", "", "merges.txt", NULL},
    {"vocab.json", "\"th\":", "\"tx\":", "\"th\"", "does not have"},
    {"vocab.json", "\"!\":0", "\"!\":1", "same id 1", "vocab.json"},
    {"vocab.json", "\"!\":0", "\"!\":4000", "id from 0 to 279", "vocab.json"},
    {"vocab.json", "\"!\":0", "\"!\":\"0\"", "id from 0 to 279", "vocab.json"},
    {"vocab.json", "\"!\":0", "\"\\u4e2d\":0", "lacks", "byte 0x21"},
    {"vocab.json", "\"!\":0", "\"\\\"\":0", "not JSON", "duplicate"},
    {"tokenizer.json", "\"add_prefix_space\": false", "\"add_prefix_space\": true", "add_prefix_space",
     "false"},
    {"tokenizer.json", "\"BPE\"", "\"Unigram\"", "model.type", "Unigram"},
    {"tokenizer.json", "\"normalizer\": null", "\"normalizer\": {\"type\": \"NFC\"}", "normalizer", "NFC"},
    {"tokenizer.json", "\"ignore_merges\": false", "\"ignore_merges\": true", "ignore_merges", NULL},
    {"tokenizer.json", "\"<|endoftext|>\",", "\"<pad>\",", "<pad>", "added_tokens"},
    {"tokenizer.json", "\"id\": 279", "\"id\": 278", "278", "279"},
    {"tokenizer.json", "\"t h\"", "7", "merge", "two tokens"},
};

START_TEST(lies_are_named) {
    pq_tokenizer *tokenizer = learn(), *other;
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        static const char *const files[] = {"vocab.json", "merges.txt", "tokenizer.json"};
        const size_t count = strcmp(lies[i].file, "tokenizer.json") == 0 ? 3 : 2;
        remove(scratch_path("tokenizer.json"));
        for (size_t f = 0; f < count; f++) {
            char *text;
            assert_ok(pq_tokenizer_to_file(tokenizer, files[f], &text, &err), &err);
            char *found = strcmp(files[f], lies[i].file) == 0 ? strstr(text, lies[i].from) : NULL;
            ck_assert(found || strcmp(files[f], lies[i].file) != 0);
            const size_t head = found ? (size_t)(found - text) : strlen(text);
            char *changed;
            ck_assert_int_ge(asprintf(&changed, "%.*s%s%s", (int)head, text, found ? lies[i].to : "",
                                      found ? found + strlen(lies[i].from) : ""),
                             0);
            scratch_write(files[f], changed, strlen(changed));
            free(changed);
            free(text);
        }
        pq_status status = pq_tokenizer_open(scratch, &other, &err);
        ck_assert_msg(status == PQ_ERR_FORMAT || status == PQ_ERR_USAGE, "lie %zu was believed", i);
        ck_assert_msg(strstr(err.message, lies[i].says) && (!lies[i].too || strstr(err.message, lies[i].too)),
                      "lie %zu: %s", i, err.message);
        ck_assert_ptr_null(other);
    }
    pq_tokenizer_destroy(tokenizer);
}
END_TEST

START_TEST(learning_has_bounds) {
    pq_tokenizer *tokenizer;
    assert_refused(pq_tokenizer_learn("a", 1, 256, &tokenizer, &err), PQ_ERR_USAGE, &err, "257", "256");
    assert_refused(pq_tokenizer_learn("a", 1, 65537, &tokenizer, &err), PQ_ERR_USAGE, &err, "65536", "65537");
    assert_ok(pq_tokenizer_learn("ab ab", 5, 1000, &tokenizer, &err), &err);
    ck_assert_uint_eq(pq_tokenizer_vocab(tokenizer), 258); /* ab; nothing else occurs twice */
    pq_tokenizer_destroy(tokenizer);
    assert_ok(pq_tokenizer_learn("", 0, 1000, &tokenizer, &err), &err);
    ck_assert_uint_eq(pq_tokenizer_vocab(tokenizer), 257);
    pq_tokenizer_destroy(tokenizer);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("bpe");
    tcase_add_test(tests, ids_are_those_of_tokenizers);
    tcase_add_test(tests, ends_of_documents_are_asked_for);
    tcase_add_test(tests, short_and_long_words_merge_as_the_rule_says);
    tcase_add_test(tests, any_bytes_come_back);
    tcase_add_test(tests, threads_do_not_change_ids);
    tcase_add_test(tests, each_form_reads_back_the_same);
    tcase_add_test(tests, lies_are_named);
    tcase_add_test(tests, learning_has_bounds);
    tcase_set_timeout(tests, 120);
    scratch_make();
    int failed = run_suite(tests);
    scratch_remove();
    return failed;
}
