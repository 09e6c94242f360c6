/* Owns the types of keys: what a YAML value becomes in struct pq_config, one function a type. printer.c goes
 * the other way. */
#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "config/key.h"

pq_numbers pq_numbers_begin(void) {
    pq_numbers numbers = {.own = newlocale(LC_NUMERIC_MASK, "C", (locale_t)0)};
    if (numbers.own) numbers.host = uselocale((locale_t)numbers.own);
    return numbers;
}

void pq_numbers_end(pq_numbers numbers) {
    if (!numbers.own) return;
    uselocale((locale_t)numbers.host);
    freelocale((locale_t)numbers.own);
}

/* What a value is read for, and where its texts go. */
typedef struct reading {
    const pq_key *key;
    const char *where;
    pq_config *config;
} reading;

static pq_status expected(const reading *r, const pq_yaml *value, pq_error *err) {
    char allowed[400], shown[80];
    pq_key_allowed(r->key, allowed, sizeof allowed);
    pq_yaml_show(value, shown);
    return PQ_FAIL(err, PQ_ERR_USAGE, "%s: %s.%s: expected %s, found %s", r->where, r->key->section,
                   r->key->name, allowed, shown);
}

static pq_status no_memory(const reading *r, pq_error *err) {
    return PQ_FAIL(err, PQ_ERR_MEMORY, "%s: %s.%s does not fit in memory", r->where, r->key->section,
                   r->key->name);
}

static bool in_bounds(const pq_key *key, double number) {
    return (key->above ? number > key->least : number >= key->least) &&
           (key->below ? number < key->most : number <= key->most);
}

/* A whole number as YAML's core schema spells it in decimal; bounds are far inside 64 bits. */
static bool parse_int(const pq_yaml *value, int64_t *out) {
    if (value->kind != PQ_YAML_SCALAR || !value->plain) return false;
    const char *digits = value->text + (*value->text == '-' || *value->text == '+');
    size_t length = strspn(digits, "0123456789");
    if (length == 0 || digits[length]) return false;
    errno = 0;
    *out = strtoll(value->text, NULL, 10);
    return errno == 0;
}

/* A finite number as YAML's core schema spells it; hexadecimal, nan and words are none. */
static bool parse_real(const pq_yaml *value, double *out) {
    if (value->kind != PQ_YAML_SCALAR || !value->plain) return false;
    const char *at = value->text + (*value->text == '-' || *value->text == '+');
    size_t whole = strspn(at, "0123456789"), part = 0;
    at += whole;
    if (*at == '.') {
        part = strspn(at + 1, "0123456789");
        at += 1 + part;
    }
    if (whole + part == 0) return false;
    if (*at == 'e' || *at == 'E') {
        at += 1 + (at[1] == '-' || at[1] == '+');
        size_t exponent = strspn(at, "0123456789");
        if (exponent == 0) return false;
        at += exponent;
    }
    *out = strtod(value->text, NULL);
    return *at == 0 && isfinite(*out);
}

static bool parse_bool(const pq_yaml *value, bool *out) {
    static const char *const words[2][3] = {{"false", "False", "FALSE"}, {"true", "True", "TRUE"}};
    if (value->kind != PQ_YAML_SCALAR || !value->plain) return false;
    for (int truth = 0; truth < 2; truth++) {
        for (int i = 0; i < 3; i++) {
            if (strcmp(value->text, words[truth][i]) != 0) continue;
            *out = truth;
            return true;
        }
    }
    return false;
}

static bool is_text(const pq_yaml *value) {
    return value->kind == PQ_YAML_SCALAR && !pq_yaml_is_null(value);
}

static bool in_words(const char *words, const char *word) {
    size_t length = strlen(word);
    while (words && *words) {
        size_t next = strcspn(words, "|");
        if (next == length && memcmp(words, word, length) == 0) return true;
        words += next + (words[next] == '|');
    }
    return false;
}

static pq_status copy_text(const reading *r, const char *text, const char **out, pq_error *err) {
    char *copy = pq_blocks_take(&r->config->memory, strlen(text) + 1);
    if (!copy) return no_memory(r, err);
    *out = strcpy(copy, text);
    return PQ_OK;
}

static pq_status read_int(const reading *r, const pq_yaml *value, void *field, pq_error *err) {
    int64_t number;
    if (!parse_int(value, &number) || !in_bounds(r->key, (double)number)) return expected(r, value, err);
    *(int64_t *)field = number;
    return PQ_OK;
}

static pq_status read_real(const reading *r, const pq_yaml *value, void *field, pq_error *err) {
    double number;
    if (!parse_real(value, &number) || !in_bounds(r->key, number)) return expected(r, value, err);
    *(double *)field = number;
    return PQ_OK;
}

static pq_status read_bool(const reading *r, const pq_yaml *value, void *field, pq_error *err) {
    return parse_bool(value, field) ? PQ_OK : expected(r, value, err);
}

static pq_status read_maybe(const reading *r, const pq_yaml *value, void *field, pq_error *err) {
    bool truth;
    if (!parse_bool(value, &truth)) return expected(r, value, err);
    *(int64_t *)field = truth;
    return PQ_OK;
}

static pq_status read_text(const reading *r, const pq_yaml *value, void *field, pq_error *err) {
    if (!is_text(value) || !*value->text) return expected(r, value, err);
    return copy_text(r, value->text, field, err);
}

static pq_status read_choice(const reading *r, const pq_yaml *value, void *field, pq_error *err) {
    const pq_key *key = r->key;
    char shown[80], allowed[400];
    if (!is_text(value)) return expected(r, value, err);
    if (*value->text && (key->beyond || in_words(key->choices, value->text)))
        return copy_text(r, value->text, field, err);
    if (!in_words(key->later, value->text)) return expected(r, value, err);
    pq_key_allowed(key, allowed, sizeof allowed);
    pq_yaml_show(value, shown);
    return PQ_FAIL(err, PQ_ERR_USAGE, "%s: %s.%s: %s is not in this build; allowed here: %s", r->where,
                   key->section, key->name, shown, allowed);
}

static pq_status read_every(const reading *r, const pq_yaml *value, void *field, pq_error *err) {
    int64_t number = 0;
    if (is_text(value) && strcmp(value->text, "step") == 0)
        number = 1;
    else if (!is_text(value) || strcmp(value->text, "never") != 0) {
        if (!parse_int(value, &number) || number < 1 || !in_bounds(r->key, (double)number))
            return expected(r, value, err);
    }
    *(int64_t *)field = number;
    return PQ_OK;
}

static pq_status read_reals(const reading *r, const pq_yaml *value, void *field, pq_error *err) {
    pq_reals list = {.count = r->key->count};
    if (value->kind != PQ_YAML_LIST || value->count != list.count) return expected(r, value, err);
    for (size_t i = 0; i < list.count; i++)
        if (!parse_real(&value->items[i], &list.items[i]) || !in_bounds(r->key, list.items[i]))
            return expected(r, &value->items[i], err);
    *(pq_reals *)field = list;
    return PQ_OK;
}

static pq_status read_texts(const reading *r, const pq_yaml *value, void *field, pq_error *err) {
    pq_texts list = {.count = value->count};
    if (value->kind != PQ_YAML_LIST) return expected(r, value, err);
    list.items = pq_blocks_take(&r->config->memory, list.count * sizeof *list.items);
    if (!list.items) return no_memory(r, err);
    for (size_t i = 0; i < list.count; i++) PQ_TRY(read_text(r, &value->items[i], &list.items[i], err));
    *(pq_texts *)field = list;
    return PQ_OK;
}

static pq_status read_pairs(const reading *r, const pq_yaml *value, void *field, pq_error *err) {
    pq_pairs list = {.count = value->count};
    if (value->kind != PQ_YAML_LIST) return expected(r, value, err);
    list.items = pq_blocks_take(&r->config->memory, list.count * sizeof *list.items);
    if (!list.items) return no_memory(r, err);
    for (size_t i = 0; i < list.count; i++) {
        const pq_yaml *pair = &value->items[i];
        if (pair->kind != PQ_YAML_LIST || pair->count != 2 ||
            !parse_int(&pair->items[0], &list.items[i].iter) || list.items[i].iter < 0 ||
            !parse_real(&pair->items[1], &list.items[i].value) || !in_bounds(r->key, list.items[i].value))
            return expected(r, pair, err);
        if (i > 0 && list.items[i].iter <= list.items[i - 1].iter)
            return PQ_FAIL(err, PQ_ERR_USAGE, "%s: %s.%s: iters must rise from pair to pair", r->where,
                           r->key->section, r->key->name);
    }
    *(pq_pairs *)field = list;
    return PQ_OK;
}

static pq_status read_override(const reading *r, const pq_yaml *map, struct pq_override *out, pq_error *err) {
    bool levels = false;
    if (map->kind != PQ_YAML_MAP || map->count != 2) return expected(r, map, err);
    for (size_t i = 0; i < 2; i++) {
        const pq_yaml *key = &map->items[2 * i], *value = key + 1;
        if (strcmp(key->text, "match") == 0 && is_text(value) && !out->match)
            PQ_TRY(copy_text(r, value->text, &out->match, err));
        else if (strcmp(key->text, "levels") == 0 && parse_int(value, &out->levels) &&
                 in_bounds(r->key, (double)out->levels))
            levels = true;
        else
            return expected(r, value, err);
    }
    return out->match && levels ? PQ_OK : expected(r, map, err);
}

static pq_status read_overrides(const reading *r, const pq_yaml *value, void *field, pq_error *err) {
    pq_overrides list = {.count = value->count};
    if (value->kind != PQ_YAML_LIST) return expected(r, value, err);
    list.items = pq_blocks_take(&r->config->memory, list.count * sizeof *list.items);
    if (!list.items) return no_memory(r, err);
    for (size_t i = 0; i < list.count; i++) PQ_TRY(read_override(r, &value->items[i], &list.items[i], err));
    *(pq_overrides *)field = list;
    return PQ_OK;
}

static pq_status (*const readers[])(const reading *r, const pq_yaml *value, void *field, pq_error *err) = {
    [PQ_KEY_INT] = read_int,     [PQ_KEY_REAL] = read_real,           [PQ_KEY_BOOL] = read_bool,
    [PQ_KEY_MAYBE] = read_maybe, [PQ_KEY_TEXT] = read_text,           [PQ_KEY_CHOICE] = read_choice,
    [PQ_KEY_EVERY] = read_every, [PQ_KEY_REALS] = read_reals,         [PQ_KEY_TEXTS] = read_texts,
    [PQ_KEY_PAIRS] = read_pairs, [PQ_KEY_OVERRIDES] = read_overrides,
};

static void set_null(const pq_key *key, void *field) {
    switch (key->type) {
    case PQ_KEY_INT:
    case PQ_KEY_MAYBE:
        *(int64_t *)field = PQ_UNSET;
        break;
    case PQ_KEY_REAL:
        *(double *)field = NAN;
        break;
    case PQ_KEY_TEXT:
    case PQ_KEY_CHOICE:
        *(const char **)field = NULL;
        break;
    case PQ_KEY_REALS:
        *(pq_reals *)field = (pq_reals){0};
        break;
    case PQ_KEY_BOOL:
    case PQ_KEY_EVERY:
    case PQ_KEY_TEXTS:
    case PQ_KEY_PAIRS:
    case PQ_KEY_OVERRIDES:
        break; /* never nullable */
    }
}

pq_status pq_key_read(const pq_key *key, const pq_yaml *value, const char *where, pq_config *config,
                      pq_error *err) {
    const reading r = {.key = key, .where = where, .config = config};
    void *field = (char *)config + key->offset;
    if (key->nullable && pq_yaml_is_null(value)) {
        set_null(key, field);
        return PQ_OK;
    }
    return readers[key->type](&r, value, field, err);
}
