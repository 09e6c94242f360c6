/* Documents and pieces against a simple reader of the whole text: markers, ends of files, JSONL, zstd, going
 * on at every piece, tokens of a tokenizer that marks ends; what is refused, and with which words. */
#include <sys/stat.h>

#include "base/random.h"
#include "data/encode.h"
#include "data/tokenizer_kinds.h"
#include "tests/data/packed_text.h"

static pq_error err;

/* Documents one after another, each ended by END (no byte of any text here). */
enum { END = 1 };
typedef struct gathered {
    char *text;
    size_t bytes, pieces, capacity;
} gathered;

static void put(gathered *g, const char *text, size_t bytes) {
    if (g->bytes + bytes + 1 > g->capacity) {
        g->capacity = 2 * (g->bytes + bytes + 1);
        g->text = realloc(g->text, g->capacity);
    }
    if (bytes) memcpy(g->text + g->bytes, text, bytes);
    g->bytes += bytes;
}

static void take(gathered *g, const pq_piece *piece) {
    put(g, piece->text, piece->bytes);
    if (piece->ends) put(g, (char[]){END}, 1);
    g->pieces++;
}

static gathered read_all(const char *path, const char *field, bool marked) {
    gathered g = {0};
    pq_documents *documents;
    pq_piece piece;
    uint64_t document = 0;
    assert_ok(pq_documents_open(path, field, &documents, &err), &err);
    pq_documents_restart(documents, marked);
    for (;;) {
        assert_ok(pq_documents_next(documents, &piece, &err), &err);
        if (!piece.text) break;
        if (piece.bytes > PQ_PIECE_MOST + 64 || piece.document != document)
            ck_abort_msg("piece of %zu bytes, of document %zu", piece.bytes, (size_t)piece.document);
        document += piece.ends;
        take(&g, &piece);
    }
    ck_assert_uint_eq(pq_documents_taken(documents), pq_documents_size(documents));
    pq_documents_close(documents);
    return g;
}

/* The same at once: line by line. */
static gathered expect_text(const char *text, size_t bytes, bool marked, bool close) {
    gathered g = {0};
    size_t open = 0; /* bytes of g before the open document */
    for (size_t at = 0; at < bytes;) {
        const char *end = memchr(text + at, '\n', bytes - at);
        size_t line = end ? (size_t)(end - text) - at : bytes - at, all = line + (end != NULL);
        size_t bare = line && text[at + line - 1] == '\r' ? line - 1 : line;
        if (bare == strlen(PQ_DOCUMENT_MARKER) && memcmp(text + at, PQ_DOCUMENT_MARKER, bare) == 0) {
            if (!marked) put(&g, text + at, all);
            if (marked && g.bytes > open && g.text[g.bytes - 1] == '\n') g.bytes--;
            if (marked && g.bytes > open && g.text[g.bytes - 1] == '\r' && text[at - 1] == '\n') g.bytes--;
            /* A document of a line break alone was not empty, but nothing is left of it. */
            if (g.bytes > open) put(&g, (char[]){END}, 1);
            open = g.bytes;
        } else {
            put(&g, text + at, all);
        }
        at += all;
    }
    if (g.bytes > open) {
        if (close && g.text[g.bytes - 1] != '\n') put(&g, "\n", 1);
        put(&g, (char[]){END}, 1);
    }
    return g;
}

static void assert_equal(const gathered *found, const gathered *expected, const char *what) {
    ck_assert_msg(found->bytes == expected->bytes, "%s: %zu bytes instead of %zu", what, found->bytes,
                  expected->bytes);
    size_t at = 0; /* one assertion for all: each writes to a file */
    while (at < found->bytes && found->text[at] == expected->text[at]) at++;
    ck_assert_msg(at == found->bytes, "%s: byte %zu differs", what, at);
}

/* A text of fragments in which markers, half markers and line breaks are frequent, from seed `seed`. */
static char *make_text(uint64_t seed, size_t bytes) {
    static const char *const fragments[] = {PQ_DOCUMENT_MARKER,
                                            "\n" PQ_DOCUMENT_MARKER "\n",
                                            "\n",
                                            "\r\n",
                                            " ",
                                            "word",
                                            "<|endoftext",
                                            "|>",
                                            "\xC2\xA0",
                                            "\xE3\x80\x82",
                                            "long-word",
                                            "\r\n" PQ_DOCUMENT_MARKER "\r\n",
                                            "\xF0\x9F\x98\x80"};
    char *text = malloc(bytes);
    for (uint64_t at = 0, i = 0; at < bytes; i++) {
        uint32_t random[4];
        pq_random4(seed, PQ_STREAM_SAMPLE, 5, i, random);
        const char *fragment = fragments[random[0] % 13];
        size_t length = strlen(fragment), n = bytes - at < length ? bytes - at : length;
        memcpy(text + at, fragment, n);
        at += n;
    }
    return text;
}

START_TEST(texts_give_the_documents_that_a_simple_reader_finds) {
    for (uint64_t seed = 0; seed < 160; seed += seed < 130 ? 3 : 5) {
        size_t bytes = seed < 130 ? seed : (seed - 129) * 12007;
        char *text = make_text(seed, bytes);
        scratch_write("one.txt", text, bytes);
        scratch_pack("one.txt.zst", text, bytes, 1 + seed * 37);
        for (int marked = 0; marked < 2; marked++) {
            gathered expected = expect_text(text, bytes, marked, false);
            gathered found = read_all(scratch_path("one.txt"), NULL, marked);
            gathered packed = read_all(scratch_path("one.txt.zst"), NULL, marked);
            assert_equal(&found, &expected, "text");
            assert_equal(&packed, &expected, "zstd");
            free(expected.text);
            free(found.text);
            free(packed.text);
        }
        free(text);
    }
}
END_TEST

/* Markers at every place around the end of a piece, and texts without any place for a cut. */
START_TEST(pieces_end_anywhere_around_a_marker) {
    size_t bytes = PQ_PIECE_MOST + 400;
    char *text = malloc(bytes);
    for (size_t shift = 0; shift < 160; shift += 3)
        for (int kind = 0; kind < (shift % 12 ? 1 : 3); kind++) {
            memset(text, 'x', bytes);
            if (kind == 1)
                for (size_t i = 3; i < bytes; i += 5) text[i] = ' ';
            memcpy(text + PQ_PIECE_MOST - 100 + shift, "\n" PQ_DOCUMENT_MARKER "\n", 15);
            if (kind == 2)
                for (size_t i = 0; i + 2 < PQ_PIECE_MOST - 100; i += 3) memcpy(text + i, "\xE3\x80\x82", 3);
            scratch_write("edge.txt", text, bytes);
            for (int marked = 0; marked < 2; marked++) {
                gathered expected = expect_text(text, bytes, marked, false);
                gathered found = read_all(scratch_path("edge.txt"), NULL, marked);
                assert_equal(&found, &expected, "edge");
                free(expected.text);
                free(found.text);
            }
        }
    free(text);
}
END_TEST

/* Where GPT-2's pattern begins a new word whatever comes before: at a space or line break behind a character
 * that is no white space. */
START_TEST(pieces_begin_where_words_do) {
    size_t bytes = 3 * PQ_PIECE_MOST;
    char *text = make_text(77, bytes);
    for (char *at = memmem(text, bytes, "<|", 2); at; at = memmem(at, bytes - (size_t)(at - text), "<|", 2))
        *at = '>';
    scratch_write("words.txt", text, bytes);
    pq_documents *documents;
    pq_piece piece;
    size_t at = 0, count = 0;
    assert_ok(pq_documents_open(scratch_path("words.txt"), NULL, &documents, &err), &err);
    for (;; count++) {
        assert_ok(pq_documents_next(documents, &piece, &err), &err);
        if (!piece.text) break;
        ck_assert_int_eq(memcmp(piece.text, text + at, piece.bytes), 0);
        if (at) ck_assert(text[at] == ' ' || text[at] == '\n');
        if (at) ck_assert(!strchr(" \n\r\xA0", text[at - 1]));
        at += piece.bytes;
    }
    ck_assert_uint_eq(at, bytes);
    ck_assert_uint_ge(count, 3);
    pq_documents_close(documents);
    free(text);
}
END_TEST

static const char lines[] = "{\"text\":\"one\",\"id\":1}\n\n{\"id\":2,\"text\":\"t\\u0000w\\u00f6\\n\"}\r\n"
                            "  {\"text\":\"\"} \n{\"other\":\"x\",\"text\":\"\\ud83d\\ude00\"}";

START_TEST(lines_of_json_are_documents) {
    static const char open[] = "one\1t\0w\xC3\xB6\n\1\xF0\x9F\x98\x80\1";
    static const char closed[] = "one\n\1t\0w\xC3\xB6\n\1\xF0\x9F\x98\x80\n\1";
    const gathered expected[2] = {{.text = (char *)closed, .bytes = sizeof closed - 1},
                                  {.text = (char *)open, .bytes = sizeof open - 1}};
    scratch_write("lines.jsonl", lines, sizeof lines - 1);
    scratch_pack("lines.jsonl.zst", lines, sizeof lines - 1, 11);
    for (int marked = 0; marked < 2; marked++) {
        gathered plain = read_all(scratch_path("lines.jsonl"), NULL, marked);
        gathered packed = read_all(scratch_path("lines.jsonl.zst"), "text", marked);
        assert_equal(&plain, &expected[marked], "JSONL");
        assert_equal(&packed, &expected[marked], "JSONL by zstd");
        free(plain.text);
        free(packed.text);
    }
}
END_TEST

/* Files in the order of their names, others left out, one document at least each. */
START_TEST(folders_are_read_in_order) {
    ck_assert_int_eq(mkdir(scratch_path("many"), 0777), 0);
    scratch_write("many/b.txt", "second\n", 7);
    scratch_write("many/a.txt", "first", 5);
    scratch_write("many/B.jsonl", "{\"text\":\"zeroth\"}\n", 18);
    scratch_write("many/README.md", "not this", 8);
    scratch_write("many/empty.txt", "", 0);
    scratch_pack("many/c.jsonl.zst", "{\"text\":\"third\"}", 16, 5);
    const gathered expected = {.text = (char *)"zeroth\n\1first\n\1second\n\1third\n\1", .bytes = 30};
    gathered found = read_all(scratch_path("many"), NULL, false);
    assert_equal(&found, &expected, "folder");
    free(found.text);
}
END_TEST

/* From each place to the end gives what reading through gave from there. */
START_TEST(reading_goes_on_at_every_piece) {
    size_t bytes = 5 * PQ_PIECE_MOST, length;
    char *text = make_text(3, bytes), *json = malloc(2 * bytes);
    ck_assert_int_eq(mkdir(scratch_path("seek"), 0777), 0);
    scratch_write("seek/a.txt", text, PQ_PIECE_MOST * 2 + 5);
    scratch_pack("seek/b.txt.zst", text, PQ_PIECE_MOST * 2 + 7, 50000);
    memset(text, 'y', bytes);
    text[200000] = ' ';
    length = (size_t)sprintf(json, "{\"text\":\"short\"}\n{\"text\":\"%.*s\"}\n{\"text\":\"end\"}\n",
                             (int)(3 * PQ_PIECE_MOST + 17), text);
    scratch_write("seek/c.jsonl", json, length);
    for (int marked = 0; marked < 2; marked++) {
        pq_documents *through, *other;
        pq_piece piece, again;
        assert_ok(pq_documents_open(scratch_path("seek"), NULL, &through, &err), &err);
        assert_ok(pq_documents_open(scratch_path("seek"), NULL, &other, &err), &err);
        pq_documents_restart(through, marked);
        pq_documents_restart(other, marked);
        for (size_t count = 0;; count++) {
            pq_place place = pq_documents_tell(through);
            assert_ok(pq_documents_next(through, &piece, &err), &err);
            if (piece.text && piece.bytes < 20 && count % 97) continue; /* not each of the many small ones */
            assert_ok(pq_documents_seek(other, &place, &err), &err);
            assert_ok(pq_documents_next(other, &again, &err), &err);
            if (!piece.text) break;
            if (piece.bytes != again.bytes || memcmp(piece.text, again.text, piece.bytes) != 0 ||
                piece.document != again.document || piece.ends != again.ends)
                ck_abort_msg("piece %zu differs", count);
        }
        ck_assert_ptr_null(again.text);
        pq_documents_close(through);
        pq_documents_close(other);
    }
    free(text);
    free(json);
}
END_TEST

static pq_status try_read(const char *path, const char *field) {
    pq_documents *documents;
    pq_piece piece = {.text = (char[]){0}};
    pq_status status = pq_documents_open(path, field, &documents, &err);
    while (status == PQ_OK && piece.text) status = pq_documents_next(documents, &piece, &err);
    pq_documents_close(documents);
    return status;
}

START_TEST(what_will_not_do_is_named) {
    static const struct {
        const char *text, *words;
    } bad[] = {
        {"{\"text\":\"a\"}\n{\"text\":\"b\"\n", "bad.jsonl, line 2: this is not JSON"},
        {"{\"text\":\"a\"}\n\n\nhello\n", "bad.jsonl, line 4: this is not JSON"},
        {"{\"text\":\"a\"}\n{\"body\":\"b\"}", "bad.jsonl, line 2: the object has no field \"text\""},
        {"{\"text\":7}", "bad.jsonl, line 1: the field \"text\" is not a text"},
        {"{\"text\":null}", "is not a text"},
        {"[\"text\"]", "should be a JSON object"},
        {"{\"text\":\"a\",\"text\":\"b\"}", "duplicate"},
        {"{\"text\":\"caf\xE9\"}", "line 1: this is not JSON"},
        {"{\"text\":\"\\ud83d\"}", "line 1: this is not JSON"},
        {"{\"text\":\"a\"} {\"text\":\"b\"}", "line 1: this is not JSON"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const char *path = scratch_write("bad.jsonl", bad[i].text, strlen(bad[i].text));
        assert_refused(try_read(path, NULL), PQ_ERR_FORMAT, &err, bad[i].words, "bad.jsonl");
    }
    scratch_write("bad.jsonl", lines, sizeof lines - 1);
    assert_refused(try_read(scratch_path("bad.jsonl"), "id"), PQ_ERR_FORMAT, &err, "line 1", "\"id\"");
    size_t bytes, size = PQ_JSON_LINE_MOST + 100;
    char *packed = pack_text(lines, sizeof lines - 1, 1000, &bytes), *large = malloc(size);
    for (size_t n = 0; n < bytes; n++)
        assert_refused(try_read(scratch_write("cut.jsonl.zst", packed, n), NULL), PQ_ERR_FORMAT, &err,
                       "cut.jsonl.zst", "cut short");
    packed[bytes / 2] ^= 8;
    assert_refused(try_read(scratch_write("bad.jsonl.zst", packed, bytes), NULL), PQ_ERR_FORMAT, &err,
                   "bad.jsonl.zst", "damaged");
    assert_refused(try_read(scratch_write("no.txt.zst", lines, 50), NULL), PQ_ERR_FORMAT, &err, "no.txt.zst",
                   "not zstd's");
    memset(large, ' ', size);
    assert_refused(try_read(scratch_write("large.jsonl", large, size), NULL), PQ_ERR_FORMAT, &err,
                   "large.jsonl, line 1", "longer than");
    free(large);
    free(packed);
}
END_TEST

/* A byte tokenizer with an id for the end of a document. */
static void make_marking(pq_tokenizer_row *row, pq_tokenizer *tokenizer) {
    *row = pq_tokenizer_byte;
    row->name = "marking";
    *tokenizer = (pq_tokenizer){.kind = row, .vocab = 257, .end = 256};
}

static pq_status append(void *context, uint64_t document, const uint16_t *tokens, size_t count, pq_error *e) {
    (void)e;
    gathered *g = context;
    for (size_t i = 0; i < count; i++) {
        char byte = tokens[i] == 256 ? END : (char)tokens[i];
        put(g, &byte, 1);
    }
    g->pieces = (size_t)document + 1;
    return PQ_OK;
}

START_TEST(documents_end_with_the_end_of_text) {
    size_t bytes = 3 << 19;
    char *text = make_text(9, bytes);
    scratch_write("marked.txt", text, bytes);
    pq_tokenizer_row row;
    pq_tokenizer tokenizer;
    pq_documents *documents;
    pq_encoder *encoder;
    gathered found = {0}, expected = expect_text(text, bytes, true, false);
    bool more = true;
    make_marking(&row, &tokenizer);
    assert_ok(pq_documents_open(scratch_path("marked.txt"), NULL, &documents, &err), &err);
    pq_documents_restart(documents, true);
    assert_ok(pq_encoder_create(documents, &tokenizer, &encoder, &err), &err);
    while (more) assert_ok(pq_encoder_next(encoder, append, &found, &more, &err), &err);
    assert_equal(&found, &expected, "tokens");
    ck_assert_uint_gt(found.pieces, 5000); /* more than the encoder gathers at once */
    pq_encoder_destroy(encoder);
    pq_documents_close(documents);
    free(found.text);
    free(expected.text);
    free(text);
}
END_TEST

/* The tokenizer's complaint names the file, and the place where it began to count. */
START_TEST(errors_of_the_tokenizer_name_the_place) {
    size_t bytes = PQ_PIECE_MOST + 1000;
    char *text = malloc(bytes);
    memset(text, 'a', bytes);
    for (size_t i = 9; i < bytes; i += 10) text[i] = ' ';
    text[bytes - 5] = 'Z';
    ck_assert_int_eq(mkdir(scratch_path("places"), 0777), 0);
    scratch_write("places/a.txt", "a a", 3);
    scratch_write("places/b.txt", text, bytes);
    pq_tokenizer *tokenizer;
    pq_data_options options = {.path = scratch_path("places"), .split = {1, 0, 0}};
    pq_dataset *dataset;
    char place[64];
    assert_ok(pq_tokenizer_create("char", "a \n", 3, &tokenizer, &err), &err);
    options.parent = tokenizer;
    snprintf(place, sizeof place, "counted from byte %zu: the character 'Z'", PQ_PIECE_MOST - 3);
    assert_refused(pq_dataset_open(&options, &dataset, &err), PQ_ERR_USAGE, &err, "places/b.txt", place);
    text[bytes - 5] = (char)0xFF;
    scratch_write("places/b.txt", text, bytes);
    options.parent = NULL;
    assert_refused(pq_dataset_open(&options, &dataset, &err), PQ_ERR_FORMAT, &err, "places/b.txt", "0xFF");
    pq_tokenizer_destroy(tokenizer);
    free(text);
}
END_TEST

/* Shares hold for every run of documents, and none is lost. */
START_TEST(documents_fall_evenly_into_splits) {
    static const double shares[][3] = {{0.8, 0.1, 0.1}, {0.9995, 0.0005, 0}, {1, 0, 0}, {0.5, 0.2, 0.1}};
    for (size_t k = 0; k < sizeof shares / sizeof *shares; k++) {
        size_t count[4] = {0};
        double left = 1 - shares[k][0] - shares[k][1] - shares[k][2];
        for (uint64_t i = 0; i < 20000; i++) {
            count[pq_split_of_document(shares[k], i)]++;
            for (int split = 0; split < 4; split++) {
                double share = split < 3 ? shares[k][split] : left,
                       off = (double)count[split] - share * (double)(i + 1);
                if (off >= 3 || off <= -3)
                    ck_abort_msg("shares %zu, split %d, document %zu: off by %g", k, split, (size_t)i, off);
            }
        }
    }
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("documents");
    scratch_make();
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, texts_give_the_documents_that_a_simple_reader_finds);
    tcase_add_test(tests, pieces_end_anywhere_around_a_marker);
    tcase_add_test(tests, pieces_begin_where_words_do);
    tcase_add_test(tests, lines_of_json_are_documents);
    tcase_add_test(tests, folders_are_read_in_order);
    tcase_add_test(tests, reading_goes_on_at_every_piece);
    tcase_add_test(tests, what_will_not_do_is_named);
    tcase_add_test(tests, documents_end_with_the_end_of_text);
    tcase_add_test(tests, errors_of_the_tokenizer_name_the_place);
    tcase_add_test(tests, documents_fall_evenly_into_splits);
    int failed = run_suite(tests);
    scratch_remove();
    return failed;
}
