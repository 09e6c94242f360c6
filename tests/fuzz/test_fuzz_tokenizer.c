/* 10,000 damaged tokenizer files: potqat's JSON, tokenizer.json, vocab.json and merges.txt, cut, with bytes
 * changed, lines doubled, dropped or swapped. Each is refused with a sentence, or is a tokenizer whose text
 * comes back. */
#include <potqat/tokenizer.h>

#include "base/random.h"
#include "tests/data/scratch.h"

enum { COPIES = 10000 };

static const char *const names[] = {"tokenizer.json", "vocab.json", "merges.txt", "potqat.json"};
enum { FILES = sizeof names / sizeof *names };

static pq_error err;
static char *original[FILES];
static uint64_t draws;

static size_t below(size_t n) {
    uint32_t words[4];
    pq_random4(9, PQ_STREAM_SAMPLE, 3, draws++, words);
    return words[0] % n;
}

/* A copy of the text (heap) with one to three changes. */
static char *damage(const char *text, size_t *bytes) {
    size_t n = strlen(text);
    char *out = malloc(2 * n + 1);
    memcpy(out, text, n + 1);
    for (size_t changes = 1 + below(3); changes && n; changes--) {
        const size_t at = below(n), length = 1 + below(n - at < 40 ? n - at : 40);
        switch (below(6)) {
        case 0:
            n = at;
            break;
        case 1:
            out[at] = (char)below(256);
            break;
        case 2: /* digits and letters stay such, so that more than the JSON is damaged */
            out[at] = "0123456789abcdefAZ\"[]{},: \n"[below(27)];
            break;
        case 3: /* a piece is lost */
            memmove(out + at, out + at + length, n - at - length);
            n -= length;
            break;
        case 4: /* a piece is there twice */
            if (n + length > 2 * strlen(text)) break;
            memmove(out + at + length, out + at, n - at);
            n += length;
            break;
        default: { /* a piece of elsewhere */
            const size_t from = below(n - length + 1);
            memmove(out + at, out + from, length);
        }
        }
    }
    *bytes = n;
    return out;
}

static void assert_works(const pq_tokenizer *tokenizer) {
    static const char text[] = "the cat's hat <|endoftext|> 10\xFF aaaa \xE4\xB8\xAD";
    uint16_t *ids;
    size_t count, bytes;
    char *back;
    ck_assert_int_eq(pq_tokenizer_encode_documents(tokenizer, text, sizeof text - 1, &ids, &count, &err),
                     PQ_OK);
    for (size_t i = 0; i < count; i++) ck_assert_uint_lt(ids[i], pq_tokenizer_vocab(tokenizer));
    ck_assert_int_eq(pq_tokenizer_decode(tokenizer, ids, count, &back, &bytes, &err), PQ_OK);
    ck_assert_uint_eq(bytes, sizeof text - 1);
    ck_assert_int_eq(memcmp(back, text, bytes), 0);
    free(ids);
    free(back);
}

START_TEST(damaged_files_are_refused_or_work) {
    size_t refused = 0;
    for (size_t copy = 0; copy < COPIES; copy++) {
        const size_t victim = copy % FILES;
        pq_tokenizer *tokenizer;
        size_t bytes;
        char *text = damage(original[victim], &bytes);
        scratch_write(names[victim], text, bytes);
        const bool pair = victim == 1 || victim == 2;
        if (pair) remove(scratch_path("tokenizer.json"));
        err.message[0] = 0;
        pq_status status = pq_tokenizer_open(pair ? scratch : scratch_path(names[victim]), &tokenizer, &err);
        if (status == PQ_OK) {
            assert_works(tokenizer);
        } else {
            ck_assert_ptr_null(tokenizer);
            ck_assert_msg(strstr(err.message, scratch), "no file in: %s", err.message);
            refused++;
        }
        pq_tokenizer_destroy(tokenizer);
        scratch_write(names[victim], original[victim], strlen(original[victim]));
        free(text);
    }
    printf("%zu of %d refused\n", refused, COPIES);
    ck_assert_uint_gt(refused, COPIES / 2);
}
END_TEST

static void setup(void) {
    static const char from[] =
        "the cat and the hat, the cat's hat and that's that; aaaaaaaa aaaa 10 100 1000";
    pq_tokenizer *tokenizer;
    assert_ok(pq_tokenizer_learn(from, sizeof from - 1, 275, &tokenizer, &err), &err);
    for (size_t i = 0; i < FILES; i++) {
        if (i == 3)
            original[i] = pq_tokenizer_to_json(tokenizer);
        else
            assert_ok(pq_tokenizer_to_file(tokenizer, names[i], &original[i], &err), &err);
        scratch_write(names[i], original[i], strlen(original[i]));
    }
    pq_tokenizer_destroy(tokenizer);
}

static void teardown(void) {
    for (size_t i = 0; i < FILES; i++) free(original[i]);
}

int main(void) {
    TCase *tests = tcase_create("fuzz_tokenizer");
    tcase_add_unchecked_fixture(tests, setup, teardown);
    tcase_add_test(tests, damaged_files_are_refused_or_work);
    scratch_make();
    int failed = run_suite(tests);
    scratch_remove();
    return failed;
}
