/* 10,000 damaged copies for each reader of texts and bare tokens: JSONL, JSONL by zstd, nanoGPT's .bin,
 * llm.c's .bin. Each is refused with a sentence, or gives what a reader of a few lines, or the undamaged
 * text, says. usage: test_fuzz_texts [COPIES] */
#include <jansson.h>

#include "base/random.h"
#include "base/threads.h"
#include "tests/data/packed_text.h"

enum { LINES = 12, MOST = 4096, HEADER = 1024 };

static pq_error err;
static int copies = 10000;
static uint64_t draws;

static size_t below(size_t n) {
    uint32_t words[4];
    pq_random4(11, PQ_STREAM_SAMPLE, 4, draws++, words);
    return words[0] % n;
}

/* Damage data[size] (room for 64 more); returns the new size. */
static size_t damage(char *data, size_t size) {
    static const char marks[] = "{}[]\"\\:,\n \xFF\0u0tne";
    size_t from, n;
    switch (below(5)) {
    case 0:
        return below(size);
    case 1:
        for (n = 1 + below(64), from = size; from < size + n; from++) data[from] = (char)below(256);
        return size + n;
    case 2:
        for (n = 1 + below(3); n--;) data[below(size)] ^= (char)(1 << below(8));
        return size;
    case 3:
        for (n = 1 + below(4); n--;)
            data[below(below(2) && size > 16 ? 16 : size)] = marks[below(sizeof marks - 1)];
        return size;
    default:
        from = below(size), n = 1 + below(size - from);
        memmove(data + from, data + below(size - n + 1), n);
        return size;
    }
}

/* Open it as bytes; tokens of all splits in found[*count]. */
static pq_status open_all(const char *path, uint16_t *found, size_t *count) {
    pq_data_options options = {.path = path, .tokenizer = "byte", .split = {1, 0, 0}};
    pq_dataset *dataset;
    memset(&err, 0, sizeof err);
    pq_status status = pq_dataset_open(&options, &dataset, &err);
    *count = 0;
    if (status != PQ_OK) {
        if (!err.message[0] || err.code != status) ck_abort_msg("no sentence for %s", path);
        return status;
    }
    *count = pq_dataset_tokens(dataset, PQ_TRAIN);
    if (*count > MOST) ck_abort_msg("%zu tokens of %s", *count, path);
    pq_dataset_read(dataset, PQ_TRAIN, 0, *count, found);
    pq_dataset_close(dataset);
    return status;
}

static size_t make_lines(char *out) {
    size_t at = 0;
    for (size_t i = 0; i < LINES; i++)
        at += (size_t)sprintf(out + at,
                              "{\"id\": %zu, \"text\": \"line %zu \\u00e9\\n\\\"q\\\" \xC3\xB6\"}\n", i, i);
    return at;
}

/* What JSONL says, as bytes: each text and a line break where it has none; false: refuse. */
static bool expect_lines(const char *text, size_t size, uint16_t *out, size_t *count) {
    *count = 0;
    for (size_t at = 0, end; at < size; at = end + 1) {
        for (end = at; end < size && text[end] != '\n'; end++) {
        }
        size_t blank = at;
        while (blank < end && (text[blank] == ' ' || text[blank] == '\t' || text[blank] == '\r')) blank++;
        if (blank == end) continue;
        json_t *line = json_loadb(text + at, end - at, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
        const json_t *value = json_object_get(line, "text");
        size_t n = json_string_length(value);
        bool good = json_is_string(value);
        for (size_t i = 0; i < n; i++) out[(*count)++] = (unsigned char)json_string_value(value)[i];
        if (n && out[*count - 1] != '\n') out[(*count)++] = '\n';
        json_decref(line);
        if (!good) return false;
    }
    return *count >= 2;
}

static bool same(const uint16_t *a, size_t n, const uint16_t *b, size_t m) {
    return n == m && memcmp(a, b, 2 * n) == 0;
}

START_TEST(lines_of_json) {
    char plain[MOST], damaged[MOST];
    uint16_t expected[MOST], found[MOST];
    size_t size = make_lines(plain), n, m, right = 0;
    for (int copy = 0; copy < copies; copy++) {
        memcpy(damaged, plain, size);
        size_t bytes = damage(damaged, size);
        bool good = expect_lines(damaged, bytes, expected, &n);
        pq_status status = open_all(scratch_write("lines.jsonl", damaged, bytes), found, &m);
        if (good != (status == PQ_OK) || (good && !same(expected, n, found, m)))
            ck_abort_msg("copy %d: %s", copy, status == PQ_OK ? "loaded otherwise" : err.message);
        right += good;
    }
    printf("JSONL: %zu of %d were right\n", right, copies);
    ck_assert_uint_lt(right, (size_t)copies / 2);
}
END_TEST

START_TEST(lines_by_zstd) {
    char plain[MOST], damaged[MOST];
    uint16_t expected[MOST], found[MOST];
    size_t bytes, size = make_lines(plain), n, m, right = 0;
    char *packed = pack_text(plain, size, 150, &bytes);
    ck_assert(expect_lines(plain, size, expected, &n));
    for (int copy = 0; copy < copies; copy++) {
        memcpy(damaged, packed, bytes);
        size_t now = damage(damaged, bytes);
        pq_status status = open_all(scratch_write("lines.jsonl.zst", damaged, now), found, &m);
        if (status != PQ_OK) continue;
        /* Whole frames may be lost or moved without harm to any check sum, but no byte within them. */
        right += same(expected, n, found, m);
        if (now == bytes && memcmp(damaged, packed, bytes) == 0 && !same(expected, n, found, m))
            ck_abort_msg("copy %d loaded otherwise", copy);
        if (m == n && !same(expected, n, found, m)) ck_abort_msg("copy %d: another text", copy);
    }
    printf("zstd: %zu of %d were right\n", right, copies);
    ck_assert_uint_lt(right, (size_t)copies / 2);
    free(packed);
}
END_TEST

START_TEST(bare_tokens) {
    char plain[MOST] = {0}, damaged[MOST];
    uint16_t found[MOST];
    const size_t tokens = 300;
    for (int kind = 0; kind < 2; kind++) {
        size_t head = kind ? HEADER : 0, right = 0, m;
        const int32_t header[3] = {20240520, 1, (int32_t)tokens};
        memset(plain, 0, sizeof plain);
        if (kind) memcpy(plain, header, sizeof header);
        for (size_t i = 0; i < tokens; i++) plain[head + 2 * i] = (char)below(256);
        for (int copy = 0; copy < copies; copy++) {
            memcpy(damaged, plain, head + 2 * tokens);
            size_t bytes = damage(damaged, head + 2 * tokens), start = 0;
            int32_t claim[3] = {0};
            memcpy(claim, damaged, bytes < 12 ? bytes : 12);
            bool good = bytes >= 4 && bytes % 2 == 0 && claim[0] != 20240801;
            if (bytes >= 4 && claim[0] == 20240520) {
                start = HEADER;
                good = bytes > HEADER + 2 && claim[1] == 1 && (uint64_t)claim[2] * 2 == bytes - HEADER;
            }
            for (size_t i = start; good && i < bytes; i += 2) good = damaged[i + 1] == 0;
            pq_status status = open_all(scratch_write("tokens.bin", damaged, bytes), found, &m);
            if (good != (status == PQ_OK) ||
                (good && (2 * m != bytes - start || memcmp(found, damaged + start, 2 * m) != 0)))
                ck_abort_msg("kind %d, copy %d: %s", kind, copy, good ? err.message : "loaded");
            right += good;
        }
        printf("%s: %zu of %d were right\n", kind ? "llm.c" : "nanoGPT", right, copies);
    }
}
END_TEST

int main(int count, char **arguments) {
    TCase *tests = tcase_create("fuzz texts");
    if (count > 1) copies = atoi(arguments[1]);
    pq_threads_set(1); /* small texts, many times */
    scratch_make();
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, lines_of_json);
    tcase_add_test(tests, lines_by_zstd);
    tcase_add_test(tests, bare_tokens);
    int failed = run_suite(tests);
    scratch_remove();
    return failed;
}
