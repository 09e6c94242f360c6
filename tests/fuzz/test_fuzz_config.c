/* Damaged configs: whatever the bytes, the reader gives a config that prints and reads back the same, or one
 * clear sentence; it never crashes, hangs or leaks. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/random.h"
#include "config/config.h"
#include "tests/harness/suite.h"

enum { COPIES = 12000, LONGEST = 1 << 16 };

static uint64_t counter;

static size_t below(size_t n) {
    uint32_t words[4];
    pq_random4(11, PQ_STREAM_SAMPLE, 2, counter++, words);
    return (size_t)pq_random_below(words[0], words[1], n);
}

/* Tokens that mean something to YAML or to the schema. */
static const char *const tokens[] = {"\n",
                                     "  ",
                                     ": ",
                                     "- ",
                                     "[",
                                     "]",
                                     "{",
                                     "}",
                                     ",",
                                     "&a ",
                                     "*a",
                                     "!!str ",
                                     "? ",
                                     "|\n",
                                     ">-\n",
                                     "\"",
                                     "'",
                                     "#",
                                     "---\n",
                                     "...\n",
                                     "%YAML 1.2\n",
                                     "null",
                                     "~",
                                     "true",
                                     "1e-3",
                                     "-1",
                                     "0",
                                     "1e999",
                                     ".nan",
                                     ".inf",
                                     "9223372036854775808",
                                     "64.0",
                                     "pot",
                                     "pot-released",
                                     "uniform",
                                     "learned",
                                     "train:\n",
                                     "quant:\n",
                                     "lr",
                                     "levels",
                                     "\xff",
                                     "\xe2\x80\xa8",
                                     "\xef\xbb\xbf",
                                     "\t",
                                     "\r",
                                     "\\x00",
                                     "<<: ",
                                     "[0.8, 0.1, 0.1]",
                                     "[[0, 15]]",
                                     "{match: a, levels: 3}"};

static void insert(char *text, size_t *bytes, size_t at, const char *piece, size_t length) {
    if (*bytes + length > LONGEST) return;
    memmove(text + at + length, text + at, *bytes - at);
    memcpy(text + at, piece, length);
    *bytes += length;
}

static void mutate(char *text, size_t *bytes) {
    size_t at = below(*bytes + 1), length;
    char piece[256];
    switch (below(7)) {
    case 0: /* cut */
        *bytes = at;
        break;
    case 1: /* flip a bit */
        if (at < *bytes) text[at] ^= (char)(1 << below(8));
        break;
    case 2: /* a random byte */
        if (at < *bytes) text[at] = (char)below(256);
        break;
    case 3: /* a token somewhere */
    case 4: {
        const char *token = tokens[below(sizeof tokens / sizeof *tokens)];
        insert(text, bytes, at, token, strlen(token));
        break;
    }
    case 5: /* a piece taken out */
        length = below(40);
        if (at + length > *bytes) break;
        memmove(text + at, text + at + length, *bytes - at - length);
        *bytes -= length;
        break;
    default: /* a piece copied elsewhere */
        length = below(sizeof piece);
        if (at + length > *bytes) break;
        memcpy(piece, text + at, length);
        insert(text, bytes, below(*bytes + 1), piece, length);
    }
}

static void check_accepted(const pq_config *config) {
    pq_config *again;
    pq_error err = {0};
    char *text = pq_config_to_yaml(config, false);
    pq_status status = pq_config_from_text(text, strlen(text), "printed", NULL, 0, &again, &err);
    ck_assert_msg(status == PQ_OK, "%s\n%s", err.message, text);
    char *second = pq_config_to_yaml(again, false);
    ck_assert_str_eq(text, second);
    free(text);
    free(second);
    pq_config_destroy(again);
}

static void check_refused(const pq_error *err, const char *text, size_t bytes) {
    bool clean = err->message[0] != 0 && strncmp(err->message, "x.yaml", 6) == 0;
    for (const char *at = err->message; *at; at++) clean = clean && (unsigned char)*at >= 0x20;
    ck_assert_msg(clean, "not one clear sentence: %s\n%.*s", err->message, (int)bytes, text);
}

static void damage(const char *seed, size_t seed_bytes, size_t copies, size_t count[2]) {
    char *text = malloc(LONGEST);
    for (size_t copy = 0; copy < copies; copy++) {
        size_t bytes = seed_bytes;
        memcpy(text, seed, bytes);
        for (size_t changes = 1 + below(copy % 4 == 0 ? 12 : 2); changes > 0; changes--) mutate(text, &bytes);
        char *exact = malloc(bytes ? bytes : 1); /* so that a sanitizer sees the end */
        pq_config *config;
        pq_error err = {0};
        memcpy(exact, text, bytes);
        pq_status status = pq_config_from_text(exact, bytes, "x.yaml", NULL, 0, &config, &err);
        ck_assert(status == PQ_OK || status == PQ_ERR_USAGE);
        if (status == PQ_OK)
            check_accepted(config);
        else
            check_refused(&err, exact, bytes);
        count[status != PQ_OK]++;
        pq_config_destroy(config);
        free(exact);
    }
    free(text);
}

START_TEST(damaged_configs_are_refused_or_right) {
    static const char *const files[] = {"quickstart.yaml", "quickstart-qat.yaml", "char-qat-released.yaml"};
    size_t count[2] = {0, 0};
    pq_config *config;
    pq_error err = {0};
    ck_assert_int_eq(pq_config_load(NULL, NULL, 0, &config, &err), PQ_OK);
    char *all = pq_config_to_yaml(config, false);
    damage(all, strlen(all), COPIES / 2, count);
    for (size_t i = 0; i < 3; i++) {
        char path[1024];
        pq_file_view file;
        snprintf(path, sizeof path, PQ_SOURCE_ROOT "/configs/%s", files[i]);
        ck_assert_msg(pq_file_read(path, &file, &err) == PQ_OK, "%s", err.message);
        damage(file.data, file.size, COPIES / 6, count);
        pq_file_view_close(&file);
    }
    printf("%zu accepted, %zu refused\n", count[0], count[1]);
    ck_assert_uint_ge(count[0], COPIES / 20);
    ck_assert_uint_ge(count[1], COPIES / 20);
    free(all);
    pq_config_destroy(config);
}
END_TEST

START_TEST(damaged_overrides_are_refused_or_right) {
    static const char *const seeds[] = {
        "train.lr=1e-3",       "data.split=[0.8, 0.1, 0.1]", "quant.params=[\"*.weight\"]",
        "quant.quantizer=pot", "model.preset=gpt2-124m",     "run.dir=runs/x"};
    for (size_t copy = 0; copy < COPIES / 2; copy++) {
        char text[LONGEST];
        const char *seed = seeds[copy % 6];
        size_t bytes = strlen(seed);
        pq_config *config;
        pq_error err = {0};
        memcpy(text, seed, bytes);
        for (size_t changes = 1 + below(3); changes > 0; changes--) mutate(text, &bytes);
        text[bytes] = 0;
        const char *override = text;
        pq_status status = pq_config_from_text("", 0, "x.yaml", &override, 1, &config, &err);
        ck_assert(status == PQ_OK || status == PQ_ERR_USAGE);
        if (status == PQ_OK)
            check_accepted(config);
        else
            ck_assert_msg(strncmp(err.message, "command line", 12) == 0 ||
                              strncmp(err.message, "x.yaml", 6) == 0,
                          "%s: %s", text, err.message);
        pq_config_destroy(config);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("damaged configs");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, damaged_configs_are_refused_or_right);
    tcase_add_test(tests, damaged_overrides_are_refused_or_right);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
