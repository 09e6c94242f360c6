/* The table of keys, and the way from values to text and back for every type. */
#include <check.h>
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "config/help.h"
#include "config/key.h"
#include "tests/harness/suite.h"

/* The keys as the manual lists them, written down a second time on purpose. */
static const char *const manual[] = {
    "run.dir threads max_minutes",
    "data.path field tokenizer split split_by order",
    "model.preset layers heads width context bias gelu",
    "init.from optimizer iter",
    "quant.quantizer levels range rounding granularity split_qkv scale refit percentile scale_eps scale_grid "
    "gradient "
    "activations "
    "params overrides",
    "ptq.method calib_sequences calib_context",
    "qat.start_iter progressive freeze anneal_iters dampen ema scale_lr",
    "distill.from weight temperature",
    "train.seed max_iters batch accumulate context dropout loss precision recompute lr min_lr schedule "
    "warmup_iters "
    "decay_iters beta1 beta2 adam_eps weight_decay grad_clip patience max_bad_iters",
    "eval.every split protocol precision context stride windows",
    "save.every every_minutes keep",
    "log.every matrices tensorboard"};

START_TEST(every_key_of_the_manual_stands_once) {
    size_t count = 0;
    for (size_t i = 0; i < sizeof manual / sizeof *manual; i++) {
        char words[512], *rest = words;
        strcpy(words, manual[i]);
        const char *section = strsep(&rest, ".");
        ck_assert(pq_section_exists(section));
        for (const char *name; (name = strsep(&rest, " ")); count++) {
            size_t found = 0;
            for (size_t k = 0; k < pq_key_count; k++)
                found += strcmp(pq_keys[k].section, section) == 0 && strcmp(pq_keys[k].name, name) == 0;
            ck_assert_msg(found == 1, "%s.%s stands %zu times", section, name, found);
        }
    }
    ck_assert_uint_eq(count, pq_key_count);
    ck_assert_uint_eq(pq_section_count, sizeof manual / sizeof *manual);
}
END_TEST

static uint64_t counter;

static uint64_t random_bits(void) {
    uint32_t words[4];
    pq_random4(7, PQ_STREAM_SAMPLE, 1, counter++, words);
    return (uint64_t)words[0] << 32 | words[1];
}

static double random_real(const pq_key *key) {
    for (int tries = 0; tries < 1000; tries++) {
        uint64_t bits = random_bits();
        double number = key->least + (key->most - key->least) * (double)(bits >> 11) * 0x1p-53;
        if (bits % 3 == 0)
            memcpy(&number, &(uint64_t){random_bits()}, sizeof number); /* any pattern of bits */
        if (bits % 5 == 0) number = round(number);
        if (isfinite(number) && (key->above ? number > key->least : number >= key->least) &&
            (key->below ? number < key->most : number <= key->most))
            return number;
    }
    return key->most;
}

/* Valid UTF-8 of any characters but NUL. */
static const char *random_text(pq_config *config) {
    static const uint32_t hard[] = {
        '"',    '\\',   '\n',   '\r',   '\t',    ' ',      '#', ':', '-', '\'', '*',   '&',  '!',
        '%',    '@',    '`',    '{',    '[',     ',',      '~', '.', '/', 0x7F, 0x85,  0xA0, 0x2028,
        0x2029, 0xFEFF, 0xFFFE, 0xFFFF, 0x1F600, 0x10FFFF, 'n', 'y', '1', 'e',  '\x1b'};
    size_t count = 1 + random_bits() % 12, at = 0;
    char *text = pq_blocks_take(&config->memory, 4 * count + 1);
    if (random_bits() % 8 == 0) {
        static const char *const words[] = {"null", "~",   "True", "no",   "12",   "1e-3",  ".inf", "-",
                                            "---",  "...", "<<",   "a: b", "a #b", "# a",   " a",   "a ",
                                            ".5",   "..",  "../x", "./x",  "/x",   "x.yaml"};
        return words[random_bits() % (sizeof words / sizeof *words)];
    }
    while (count-- > 0) {
        uint64_t bits = random_bits();
        uint32_t point = bits % 2   ? hard[(bits >> 8) % (sizeof hard / sizeof *hard)]
                         : bits % 3 ? 1 + (uint32_t)(bits >> 8) % 0x7E
                                    : 1 + (uint32_t)(bits >> 8) % 0x10FFFF;
        if (point >= 0xD800 && point < 0xE000) point = 'x';
        if (point < 0x80) {
            text[at++] = (char)point;
        } else if (point < 0x800) {
            text[at++] = (char)(0xC0 | point >> 6);
            text[at++] = (char)(0x80 | (point & 0x3F));
        } else if (point < 0x10000) {
            text[at++] = (char)(0xE0 | point >> 12);
            text[at++] = (char)(0x80 | (point >> 6 & 0x3F));
            text[at++] = (char)(0x80 | (point & 0x3F));
        } else {
            text[at++] = (char)(0xF0 | point >> 18);
            text[at++] = (char)(0x80 | (point >> 12 & 0x3F));
            text[at++] = (char)(0x80 | (point >> 6 & 0x3F));
            text[at++] = (char)(0x80 | (point & 0x3F));
        }
    }
    return text;
}

static const char *random_choice(const pq_key *key, pq_config *config) {
    size_t count = 1, pick;
    for (const char *at = key->choices; *at; at++) count += *at == '|';
    const char *word = key->choices;
    for (pick = random_bits() % count; pick > 0; pick--) word = strchr(word, '|') + 1;
    size_t length = strcspn(word, "|");
    return memcpy(pq_blocks_take(&config->memory, length + 1), word, length);
}

static void set_random(const pq_key *key, pq_config *config) {
    void *field = (char *)config + key->offset;
    bool null = key->nullable && random_bits() % 4 == 0;
    size_t count = random_bits() % 4;
    switch (key->type) {
    case PQ_KEY_INT:
        *(int64_t *)field = null ? PQ_UNSET : (int64_t)floor(random_real(key));
        break;
    case PQ_KEY_MAYBE:
        *(int64_t *)field = null ? PQ_UNSET : (int64_t)(random_bits() % 2);
        break;
    case PQ_KEY_EVERY:
        *(int64_t *)field = (int64_t)(random_bits() % 4);
        break;
    case PQ_KEY_REAL:
        *(double *)field = null ? NAN : random_real(key);
        break;
    case PQ_KEY_BOOL:
        *(bool *)field = random_bits() % 2;
        break;
    case PQ_KEY_TEXT:
        *(const char **)field = null ? NULL : random_text(config);
        break;
    case PQ_KEY_CHOICE:
        *(const char **)field = null ? NULL : random_choice(key, config);
        break;
    case PQ_KEY_REALS: {
        pq_reals list = {.count = null ? 0 : key->count};
        for (size_t i = 0; i < list.count; i++) list.items[i] = random_real(key);
        *(pq_reals *)field = list;
        break;
    }
    case PQ_KEY_TEXTS: {
        pq_texts list = {count, pq_blocks_take(&config->memory, 4 * sizeof *list.items)};
        for (size_t i = 0; i < count; i++) list.items[i] = random_text(config);
        *(pq_texts *)field = list;
        break;
    }
    case PQ_KEY_PAIRS: {
        pq_pairs list = {count, pq_blocks_take(&config->memory, 4 * sizeof *list.items)};
        for (size_t i = 0; i < count; i++)
            list.items[i] = (struct pq_pair){(int64_t)(1000 * i + random_bits() % 1000), random_real(key)};
        *(pq_pairs *)field = list;
        break;
    }
    case PQ_KEY_OVERRIDES: {
        pq_overrides list = {count, pq_blocks_take(&config->memory, 4 * sizeof *list.items)};
        for (size_t i = 0; i < count; i++)
            list.items[i] = (struct pq_override){random_text(config), (int64_t)floor(random_real(key))};
        *(pq_overrides *)field = list;
        break;
    }
    }
}

/* Numbers and texts must come back the same; compared as values, not as the printer shows them. */
static void compare(const pq_key *key, const pq_config *a, const pq_config *b, const char *text) {
    const void *x = (const char *)a + key->offset, *y = (const char *)b + key->offset;
    const char *s, *t;
    if (key->type == PQ_KEY_REAL && !isnan(*(const double *)x))
        ck_assert_msg(memcmp(x, y, sizeof(double)) == 0, "%s", text);
    if (key->type == PQ_KEY_REAL && isnan(*(const double *)x)) ck_assert_double_nan(*(const double *)y);
    if (key->type == PQ_KEY_INT || key->type == PQ_KEY_MAYBE || key->type == PQ_KEY_EVERY)
        ck_assert_int_eq(*(const int64_t *)x, *(const int64_t *)y);
    if (key->type == PQ_KEY_BOOL) ck_assert_int_eq(*(const bool *)x, *(const bool *)y);
    if (key->type == PQ_KEY_TEXT || key->type == PQ_KEY_CHOICE) {
        s = *(const char *const *)x, t = *(const char *const *)y;
        ck_assert_msg((s == NULL) == (t == NULL) && (!s || strcmp(s, t) == 0), "%s", text);
    }
    if (key->type == PQ_KEY_TEXTS) {
        const pq_texts *p = x, *q = y;
        ck_assert_uint_eq(p->count, q->count);
        for (size_t i = 0; i < p->count; i++)
            ck_assert_msg(strcmp(p->items[i], q->items[i]) == 0, "%s", text);
    }
}

START_TEST(what_is_printed_reads_back_the_same) {
    for (size_t k = 0; k < pq_key_count; k++) {
        const pq_key *key = &pq_keys[k];
        for (int round = 0; round < 300; round++) {
            pq_config a = {0}, b = {0};
            pq_blocks *tree = NULL;
            pq_yaml *value;
            pq_error err = {0};
            set_random(key, &a);
            char *text = pq_key_text(key, &a, round % 2 ? PQ_FLAVOUR_YAML : PQ_FLAVOUR_JSON);
            pq_status status = pq_yaml_parse(text, strlen(text), "x", false, &tree, &value, &err);
            ck_assert_msg(status == PQ_OK && value, "%s.%s: %s: %s", key->section, key->name, text,
                          err.message);
            status = pq_key_read(key, value, "x", &b, &err);
            ck_assert_msg(status == PQ_OK, "%s.%s: %s: %s", key->section, key->name, text, err.message);
            compare(key, &a, &b, text);
            char *again = pq_key_text(key, &b, round % 2 ? PQ_FLAVOUR_YAML : PQ_FLAVOUR_JSON);
            ck_assert_str_eq(text, again);
            free(text);
            free(again);
            pq_blocks_free(tree);
            pq_blocks_free(a.memory);
            pq_blocks_free(b.memory);
        }
    }
}
END_TEST

START_TEST(numbers_are_printed_short) {
    static const struct {
        const char *written, *printed;
    } cases[] = {{"1e-3", "0.001"}, {"1.0e-8", "1.0e-8"},
                 {"0.1", "0.1"},    {"0.30000000000000004", "0.30000000000000004"},
                 {"5", "5.0"},      {"1.25e-5", "1.25e-5"},
                 {"+2.", "2.0"},    {"0.000244140625", "0.000244140625"}};
    const pq_key *key = pq_key_find("train", "lr");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pq_config config = {0};
        pq_error err = {0};
        pq_yaml value = {.text = cases[i].written, .plain = true};
        ck_assert_msg(pq_key_read(key, &value, "x", &config, &err) == PQ_OK, "%s", err.message);
        char *text = pq_key_text(key, &config, PQ_FLAVOUR_YAML);
        ck_assert_str_eq(text, cases[i].printed);
        free(text);
    }
}
END_TEST

START_TEST(texts_are_quoted_where_any_reader_needs_it) {
    static const struct {
        const char *text, *printed;
    } cases[] = {{"runs/x@last", "runs/x@last"},
                 {"../a.yaml", "../a.yaml"},
                 {"NO", "\"NO\""},
                 {"12", "\"12\""},
                 {"a b", "\"a b\""},
                 {"\"\\", "\"\\\"\\\\\""},
                 {"\x01\n\x1f\x7f", "\"\\u0001\\u000a\\u001f\\u007f\""},
                 {"\xc2\x85\xc2\xa0", "\"\\u0085\xc2\xa0\""},
                 {"\xe2\x80\xa8\xe2\x80\xa9", "\"\\u2028\\u2029\""},
                 {"\xef\xbb\xbf\xef\xbf\xbe\xef\xbf\xbf", "\"\\ufeff\\ufffe\\uffff\""},
                 {"\xd1\x8f", "\"\xd1\x8f\""}};
    const pq_key *key = pq_key_find("run", "dir");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pq_config config = {0};
        config.run.dir = cases[i].text;
        char *text = pq_key_text(key, &config, PQ_FLAVOUR_YAML);
        ck_assert_str_eq(text, cases[i].printed);
        free(text);
    }
}
END_TEST

START_TEST(whole_configs_read_back_and_hash) {
    static const char *const overrides[] = {"quant.quantizer=pot", "quant.levels=7", "quant.scale_eps=1e-7",
                                            "run.dir=\"\\u2028 a\"", "init.from=runs/x@last"};
    pq_config *a, *b, *c;
    pq_error err = {0};
    ck_assert_int_eq(pq_config_load(NULL, overrides, 5, &a, &err), PQ_OK);
    char *text = pq_config_to_yaml(a, false), *kept = pq_config_to_yaml(a, true);
    ck_assert_msg(pq_config_from_text(text, strlen(text), "x", NULL, 0, &b, &err) == PQ_OK, "%s",
                  err.message);
    char *again = pq_config_to_yaml(b, false);
    ck_assert_str_eq(text, again);
    ck_assert_ptr_null(strstr(kept, "run:"));
    ck_assert_msg(pq_config_from_text(kept, strlen(kept), "x", NULL, 0, &c, &err) == PQ_OK, "%s",
                  err.message);
    ck_assert(pq_config_hash(a) == pq_config_hash(b) &&
              pq_config_hash(a) == pq_config_hash(c)); /* run does not count */
    pq_config_destroy(c);
    ck_assert_int_eq(pq_config_load(NULL, overrides, 4, &c, &err), PQ_OK);
    ck_assert(pq_config_hash(a) != pq_config_hash(c));
    free(text);
    free(kept);
    free(again);
    pq_config_destroy(a);
    pq_config_destroy(b);
    pq_config_destroy(c);
}
END_TEST

START_TEST(differences_are_listed) {
    char text[256] = "";
    pq_config *a, *b;
    pq_error err = {0};
    ck_assert_int_eq(pq_config_load(NULL, NULL, 0, &a, &err), PQ_OK);
    ck_assert_int_eq(
        pq_config_load(NULL, (const char *[]){"train.lr=0.5", "data.tokenizer=byte"}, 2, &b, &err), PQ_OK);
    for (int json = 0; json < 2; json++) {
        FILE *out = fmemopen(text, sizeof text, "w");
        ck_assert_int_eq(pq_config_diff(a, b, json, out, &err), PQ_OK);
        fclose(out);
        ck_assert_str_eq(text, json ? "{\"data.tokenizer\": [null, \"byte\"], \"train.lr\": [0.001, 0.5]}\n"
                                    : "data.tokenizer: null | byte\ntrain.lr: 0.001 | 0.5\n");
    }
    pq_config_destroy(a);
    pq_config_destroy(b);
}
END_TEST

START_TEST(patterns_match_as_in_the_shell) {
    static const char *const letters = "ab.*?";
    for (int round = 0; round < 200000; round++) {
        char pattern[9] = "", name[9] = "";
        uint64_t bits = random_bits();
        for (uint64_t i = 0; i < bits % 9; i++) pattern[i] = letters[(bits >> (8 + 5 * i)) % 5];
        bits = random_bits();
        for (uint64_t i = 0; i < bits % 9; i++) name[i] = letters[(bits >> (8 + 5 * i)) % 3];
        ck_assert_msg(pq_pattern_match(pattern, name) == (fnmatch(pattern, name, 0) == 0), "%s %s", pattern,
                      name);
    }
    char many[2001]; /* no exponential search */
    for (size_t i = 0; i < 2000; i++) many[i] = i % 2 ? '*' : 'a';
    many[2000] = 0;
    ck_assert(!pq_pattern_match(many, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab"));
    ck_assert(pq_pattern_match("h.*.attn.c_attn.weight", "h.11.attn.c_attn.weight"));
    ck_assert(!pq_pattern_match("*.weight", "h.11.attn.c_attn.bias"));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("config keys");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, every_key_of_the_manual_stands_once);
    tcase_add_test(tests, what_is_printed_reads_back_the_same);
    tcase_add_test(tests, numbers_are_printed_short);
    tcase_add_test(tests, texts_are_quoted_where_any_reader_needs_it);
    tcase_add_test(tests, whole_configs_read_back_and_hash);
    tcase_add_test(tests, differences_are_listed);
    tcase_add_test(tests, patterns_match_as_in_the_shell);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
