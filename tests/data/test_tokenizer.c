/* Tokenizers: round trips, strict UTF-8 against another checker, canonical JSON, hostile JSON. */
#include <jansson.h>
#include <potqat/tokenizer.h>

#include "base/file.h"
#include "base/random.h"
#include "tests/data/scratch.h"

static pq_error err;

static pq_tokenizer *make(const char *kind, const char *text, size_t bytes) {
    pq_tokenizer *tokenizer;
    assert_ok(pq_tokenizer_create(kind, text, bytes, &tokenizer, &err), &err);
    return tokenizer;
}

static void assert_round_trip(const pq_tokenizer *tokenizer, const char *text, size_t bytes) {
    uint16_t *tokens;
    size_t count, back_bytes;
    char *back;
    assert_ok(pq_tokenizer_encode(tokenizer, text, bytes, &tokens, &count, &err), &err);
    assert_ok(pq_tokenizer_decode(tokenizer, tokens, count, &back, &back_bytes, &err), &err);
    ck_assert_uint_eq(back_bytes, bytes);
    ck_assert_int_eq(memcmp(back, text, bytes), 0);
    ck_assert_int_eq(back[bytes], 0);
    free(back);
    free(tokens);
}

START_TEST(characters_are_numbered_in_code_point_order) {
    const char text[] = "b\xC3\xA9"
                        "a\xF0\x9F\x98\x80\xE2\x82\xAC\nab"; /* b é a 😀 € newline a b */
    const uint16_t expected[] = {2, 3, 1, 5, 4, 0, 1, 2};
    pq_tokenizer *tokenizer = make("char", text, sizeof text - 1);
    uint16_t *tokens;
    size_t count;
    ck_assert_uint_eq(pq_tokenizer_vocab(tokenizer), 6);
    ck_assert_str_eq(pq_tokenizer_kind(tokenizer), "char");
    assert_ok(pq_tokenizer_encode(tokenizer, text, sizeof text - 1, &tokens, &count, &err), &err);
    ck_assert_uint_eq(count, 8);
    ck_assert_int_eq(memcmp(tokens, expected, sizeof expected), 0);
    free(tokens);
    assert_round_trip(tokenizer, text, sizeof text - 1);
    assert_round_trip(tokenizer, "", 0);
    pq_tokenizer_destroy(tokenizer);
}
END_TEST

START_TEST(bytes_are_their_own_ids) {
    char text[512];
    for (int i = 0; i < 512; i++) text[i] = (char)(i * 7);
    pq_tokenizer *tokenizer = make("byte", NULL, 0);
    uint16_t *tokens;
    size_t count;
    ck_assert_uint_eq(pq_tokenizer_vocab(tokenizer), 256);
    assert_ok(pq_tokenizer_encode(tokenizer, text, sizeof text, &tokens, &count, &err), &err);
    for (size_t i = 0; i < count; i++) ck_assert_uint_eq(tokens[i], (unsigned char)text[i]);
    free(tokens);
    assert_round_trip(tokenizer, text, sizeof text);
    assert_round_trip(tokenizer, "", 0);
    pq_tokenizer_destroy(tokenizer);
}
END_TEST

/* Every character of Unicode makes the round trip, through JSON as well. jansson writes the reference text.
 */
START_TEST(all_of_unicode_round_trips) {
    enum { CHUNK = 60000 };
    for (uint32_t from = 0; from < 0x110000; from += CHUNK) {
        static char text[4 * CHUNK], escaped[14 * CHUNK];
        size_t bytes = 0, length = 1, count = 0;
        escaped[0] = '"';
        for (uint32_t c = from; c < from + CHUNK && c < 0x110000; c++) {
            if (c >= 0xD800 && c < 0xE000) continue;
            uint32_t low = c - 0x10000;
            length += (size_t)(c < 0x10000 ? sprintf(escaped + length, "\\u%04X", c)
                                           : sprintf(escaped + length, "\\u%04X\\u%04X", 0xD800 + (low >> 10),
                                                     0xDC00 + (low & 0x3FF)));
            count++;
        }
        escaped[length++] = '"';
        json_t *json = json_loadb(escaped, length, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        ck_assert_ptr_nonnull(json);
        bytes = json_string_length(json);
        memcpy(text, json_string_value(json), bytes);
        json_decref(json);
        pq_tokenizer *tokenizer = make("char", text, bytes), *again;
        ck_assert_uint_eq(pq_tokenizer_vocab(tokenizer), count);
        assert_round_trip(tokenizer, text, bytes);
        char *first = pq_tokenizer_to_json(tokenizer);
        assert_ok(pq_tokenizer_from_json(first, strlen(first), &again, &err), &err);
        char *second = pq_tokenizer_to_json(again);
        ck_assert_str_eq(first, second);
        ck_assert_uint_eq(pq_tokenizer_hash(tokenizer), pq_tokenizer_hash(again));
        ck_assert_uint_eq(pq_tokenizer_hash(tokenizer), pq_hash(first, strlen(first)));
        ck_assert_int_eq(pq_tokenizer_end_of_text(tokenizer), -1);
        assert_round_trip(again, text, bytes);
        free(first);
        free(second);
        pq_tokenizer_destroy(tokenizer);
        pq_tokenizer_destroy(again);
    }
}
END_TEST

/* Random strings of bytes that lie at the edges of UTF-8, judged by jansson's checker. */
START_TEST(invalid_utf8_is_refused_as_elsewhere) {
    static const unsigned char edges[] = {0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF,
                                          0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xED, 0xEE, 0xEF,
                                          0xF0, 0xF1, 0xF4, 0xF5, 0xF8, 0xFC, 0xFE, 0xFF};
    int good = 0, total = 20000;
    for (int i = 0; i < total; i++) {
        char text[5];
        uint32_t random[4];
        pq_random4(1, PQ_STREAM_SAMPLE, 0, (uint64_t)i, random);
        size_t bytes = 1 + random[0] % 5;
        for (size_t j = 0; j < bytes; j++) {
            text[j] = (char)edges[random[1] % sizeof edges];
            random[1] /= sizeof edges;
        }
        json_t *judge = json_stringn(text, bytes);
        pq_tokenizer *tokenizer;
        pq_status status = pq_tokenizer_create("char", text, bytes, &tokenizer, &err);
        ck_assert_msg((status == PQ_OK) == (judge != NULL), "%02X %02X %02X", (unsigned char)text[0],
                      (unsigned char)text[1], (unsigned char)text[2]);
        if (status == PQ_OK) {
            assert_round_trip(tokenizer, text, bytes);
            good++;
        } else {
            ck_assert_int_eq(status, PQ_ERR_FORMAT);
        }
        pq_tokenizer_destroy(tokenizer);
        json_decref(judge);
    }
    ck_assert_int_gt(good, total / 50);
    ck_assert_int_lt(good, total / 2);
}
END_TEST

START_TEST(errors_name_character_and_offset) {
    pq_tokenizer *tokenizer = make("char", "abc \n", 5), *other;
    uint16_t *tokens, ids[] = {0, 5};
    size_t count;
    char *text;
    assert_refused(pq_tokenizer_encode(tokenizer, "ab\xC3\xA9", 4, &tokens, &count, &err), PQ_ERR_USAGE, &err,
                   "'\xC3\xA9' (U+00E9)", "offset 2");
    assert_refused(pq_tokenizer_encode(tokenizer, "ab\t", 3, &tokens, &count, &err), PQ_ERR_USAGE, &err,
                   "character (U+0009)", "5 characters");
    assert_refused(pq_tokenizer_encode(tokenizer, "abc\xFF", 4, &tokens, &count, &err), PQ_ERR_FORMAT, &err,
                   "0xFF", "offset 3");
    assert_refused(pq_tokenizer_encode(tokenizer, "abc\xE2\x82", 5, &tokens, &count, &err), PQ_ERR_FORMAT,
                   &err, "0xE2", "offset 3");
    ck_assert_ptr_null(tokens);
    assert_refused(pq_tokenizer_decode(tokenizer, ids, 2, &text, &count, &err), PQ_ERR_USAGE, &err, "token 1",
                   "end at 4");
    assert_refused(pq_tokenizer_create("char", "ab\x80", 3, &other, &err), PQ_ERR_FORMAT, &err, "0x80",
                   "offset 2");
    assert_refused(pq_tokenizer_create("char", "", 0, &other, &err), PQ_ERR_USAGE, &err, "empty", NULL);
    assert_refused(pq_tokenizer_create("wordpiece", "a", 1, &other, &err), PQ_ERR_USAGE, &err,
                   "\"wordpiece\"", "char, byte and bpe");
    assert_refused(pq_tokenizer_create("bpe", "a", 1, &other, &err), PQ_ERR_USAGE, &err, "opened", "learned");
    ck_assert_ptr_null(other);
    pq_tokenizer_destroy(tokenizer);
}
END_TEST

START_TEST(more_than_65536_characters_are_refused) {
    enum { MOST = 65536 };
    static char text[4 * (MOST + 1)];
    size_t bytes = 0;
    pq_tokenizer *tokenizer;
    for (uint32_t c = 0x10000; c < 0x10000 + MOST + 1; c++) {
        text[bytes++] = (char)(0xF0 | c >> 18);
        text[bytes++] = (char)(0x80 | (c >> 12 & 63));
        text[bytes++] = (char)(0x80 | (c >> 6 & 63));
        text[bytes++] = (char)(0x80 | (c & 63));
    }
    assert_refused(pq_tokenizer_create("char", text, bytes, &tokenizer, &err), PQ_ERR_USAGE, &err, "65537",
                   "65536");
    tokenizer = make("char", text, bytes - 4);
    ck_assert_uint_eq(pq_tokenizer_vocab(tokenizer), MOST);
    assert_round_trip(tokenizer, text, bytes - 4);
    pq_tokenizer_destroy(tokenizer);
}
END_TEST

START_TEST(json_is_canonical_and_strict) {
    pq_tokenizer *a = make("char", "hello", 5), *b = make("char", "olleh", 5), *byte = make("byte", NULL, 0),
                 *c;
    char *json = pq_tokenizer_to_json(a), *same = pq_tokenizer_to_json(b);
    ck_assert_str_eq(
        json, "{\"format\":\"potqat-tokenizer\",\"version\":1,\"kind\":\"char\",\"characters\":\"ehlo\"}");
    ck_assert_str_eq(json, same);
    ck_assert_uint_eq(pq_tokenizer_hash(a), pq_tokenizer_hash(b));
    ck_assert_uint_ne(pq_tokenizer_hash(a), pq_tokenizer_hash(byte));
    const char spaced[] = " { \"kind\":\"char\", \"characters\" : "
                          "\"eh\\u006Co\",\n\"version\":1,\"format\":\"potqat-tokenizer\"}";
    assert_ok(pq_tokenizer_from_json(spaced, sizeof spaced - 1, &c, &err), &err);
    ck_assert_uint_eq(pq_tokenizer_hash(a), pq_tokenizer_hash(c));
    free(json);
    free(same);
    pq_tokenizer_destroy(a);
    pq_tokenizer_destroy(b);
    pq_tokenizer_destroy(c);
    pq_tokenizer_destroy(byte);
}
END_TEST

#define ENVELOPE "\"format\":\"potqat-tokenizer\",\"version\":1,"
static const char *const bad_json[] = {
    "",
    "{",
    "[]",
    "null",
    "{}",
    "{\"format\":\"other\",\"version\":1,\"kind\":\"byte\"}",
    "{\"format\":\"potqat-tokenizer\",\"version\":2,\"kind\":\"byte\"}",
    "{\"format\":\"potqat-tokenizer\",\"version\":\"1\",\"kind\":\"byte\"}",
    "{\"format\":\"potqat-tokenizer\",\"version\":1.0,\"kind\":\"byte\"}",
    "{" ENVELOPE "\"kind\":\"bpe\"}",
    "{" ENVELOPE "\"kind\":7}",
    "{" ENVELOPE "\"kind\":\"char\"}",
    "{" ENVELOPE "\"kind\":\"char\",\"characters\":\"\"}",
    "{" ENVELOPE "\"kind\":\"char\",\"characters\":[\"a\"]}",
    "{" ENVELOPE "\"kind\":\"char\",\"characters\":\"ba\"}",
    "{" ENVELOPE "\"kind\":\"char\",\"characters\":\"aa\"}",
    "{" ENVELOPE "\"kind\":\"char\",\"characters\":\"\\ud800\"}",
    "{" ENVELOPE "\"kind\":\"char\",\"characters\":\"ab\",\"merges\":[]}",
    "{" ENVELOPE "\"kind\":\"byte\",\"characters\":\"ab\"}",
    "{" ENVELOPE "\"kind\":\"byte\",\"kind\":\"byte\"}",
    "{" ENVELOPE "\"kind\":\"byte\"} x",
};

START_TEST(bad_json_is_refused) {
    for (size_t i = 0; i < sizeof bad_json / sizeof *bad_json; i++) {
        pq_tokenizer *tokenizer;
        pq_status status = pq_tokenizer_from_json(bad_json[i], strlen(bad_json[i]), &tokenizer, &err);
        ck_assert_msg(status == PQ_ERR_FORMAT, "accepted: %s", bad_json[i]);
        ck_assert_ptr_null(tokenizer);
    }
}
END_TEST

START_TEST(tiny_shakespeare_has_65_characters) {
    char *path = given_shakespeare();
    if (!path) return;
    pq_file_view view;
    assert_ok(pq_file_read(path, &view, &err), &err);
    pq_tokenizer *tokenizer = make("char", view.data, view.size);
    ck_assert_uint_eq(pq_tokenizer_vocab(tokenizer), 65);
    assert_round_trip(tokenizer, view.data, view.size);
    pq_tokenizer_destroy(tokenizer);
    pq_file_view_close(&view);
    free(path);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("tokenizer");
    tcase_add_test(tests, characters_are_numbered_in_code_point_order);
    tcase_add_test(tests, bytes_are_their_own_ids);
    tcase_add_test(tests, all_of_unicode_round_trips);
    tcase_add_test(tests, invalid_utf8_is_refused_as_elsewhere);
    tcase_add_test(tests, errors_name_character_and_offset);
    tcase_add_test(tests, more_than_65536_characters_are_refused);
    tcase_add_test(tests, json_is_canonical_and_strict);
    tcase_add_test(tests, bad_json_is_refused);
    tcase_add_test(tests, tiny_shakespeare_has_65_characters);
    return run_suite(tests);
}
