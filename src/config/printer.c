/* Owns the way from struct pq_config to text: values, the canonical YAML, JSON, the hash. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/file.h"
#include "config/help.h"
#include "config/key.h"

/* A number in the fewest digits that read back as the same double, always with a point: 0.1, 1.0e-8.
 * (YAML 1.1 readers take 1e-8 for a text.) */
static void print_real(double number, FILE *out) {
    char text[40];
    if (isnan(number)) {
        fputs("null", out);
        return;
    }
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, number);
        if (strtod(text, NULL) == number) break;
    }
    char *exponent = strchr(text, 'e');
    size_t mantissa = exponent ? (size_t)(exponent - text) : strlen(text);
    fprintf(out, "%.*s%s", (int)mantissa, text, memchr(text, '.', mantissa) ? "" : ".0");
    if (exponent) fprintf(out, "e%c%s", exponent[1], exponent + 2 + (exponent[2] == '0'));
}

static void print_int(int64_t number, FILE *out) {
    if (number == PQ_UNSET)
        fputs("null", out);
    else
        fprintf(out, "%lld", (long long)number);
}

/* Whether every YAML reader takes the bare word for a text, and the same one. */
static bool is_bare(const char *text) {
    static const char *const words[] = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"};
    size_t plain = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./@+-");
    bool letter = (*text >= 'a' && *text <= 'z') || (*text >= 'A' && *text <= 'Z') || *text == '/';
    bool relative = *text == '.' && (text[1] == '/' || text[1] == '.') && text[1 + (text[1] == '.')] == '/';
    if (text[plain] || !(letter || relative)) return false;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcasecmp(text, words[i]) == 0) return false;
    return true;
}

static void print_text(const char *text, pq_flavour flavour, FILE *out) {
    if (!text) {
        fputs("null", out);
        return;
    }
    if (flavour == PQ_FLAVOUR_YAML && is_bare(text)) {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    for (const unsigned char *at = (const unsigned char *)text; *at; at++) {
        if (*at == '"' || *at == '\\')
            fprintf(out, "\\%c", *at);
        else if (*at < 0x20 || *at == 0x7F)
            fprintf(out, "\\u%04x", *at);
        else if (*at == 0xC2 && at[1] < 0xA0) /* C1 controls, of which YAML takes U+0085 for a line's end */
            fprintf(out, "\\u%04x", *++at);
        else if (*at == 0xE2 && at[1] == 0x80 && (at[2] == 0xA8 || at[2] == 0xA9)) /* U+2028, U+2029 */
            fprintf(out, "\\u20%02x", at[2] - 0x80), at += 2;
        else if (*at == 0xEF && at[1] == 0xBB && at[2] == 0xBF) /* the byte order mark */
            fputs("\\ufeff", out), at += 2;
        else if (*at == 0xEF && at[1] == 0xBF && at[2] >= 0xBE) /* U+FFFE, U+FFFF */
            fprintf(out, "\\uff%02x", at[2] + 0x40), at += 2;
        else
            fputc(*at, out);
    }
    fputc('"', out);
}

static void print_numbers(const pq_reals *list, FILE *out) {
    for (size_t i = 0; i < list->count; i++) {
        fputs(i ? ", " : "", out);
        print_real(list->items[i], out);
    }
}

static void print_pairs(const pq_pairs *list, FILE *out) {
    for (size_t i = 0; i < list->count; i++) {
        fprintf(out, "%s[%lld, ", i ? ", " : "", (long long)list->items[i].iter);
        print_real(list->items[i].value, out);
        fputc(']', out);
    }
}

static void print_overrides(const pq_overrides *list, FILE *out) {
    for (size_t i = 0; i < list->count; i++) {
        fputs(i ? ", {\"match\": " : "{\"match\": ", out);
        print_text(list->items[i].match, PQ_FLAVOUR_JSON, out);
        fprintf(out, ", \"levels\": %lld}", (long long)list->items[i].levels);
    }
}

static void print_texts(const pq_texts *list, FILE *out) {
    for (size_t i = 0; i < list->count; i++) {
        fputs(i ? ", " : "", out);
        print_text(list->items[i], PQ_FLAVOUR_JSON, out);
    }
}

void pq_key_print(const pq_key *key, const pq_config *config, pq_flavour flavour, FILE *out) {
    const void *field = (const char *)config + key->offset;
    int64_t number;
    switch (key->type) {
    case PQ_KEY_INT:
        print_int(*(const int64_t *)field, out);
        break;
    case PQ_KEY_REAL:
        print_real(*(const double *)field, out);
        break;
    case PQ_KEY_BOOL:
        fputs(*(const bool *)field ? "true" : "false", out);
        break;
    case PQ_KEY_MAYBE:
        number = *(const int64_t *)field;
        fputs(number == PQ_UNSET ? "null" : number ? "true" : "false", out);
        break;
    case PQ_KEY_TEXT:
    case PQ_KEY_CHOICE:
        print_text(*(const char *const *)field, flavour, out);
        break;
    case PQ_KEY_EVERY:
        number = *(const int64_t *)field;
        if (number > 1)
            print_int(number, out);
        else
            print_text(number ? "step" : "never", flavour, out);
        break;
    case PQ_KEY_REALS:
        if (key->nullable && ((const pq_reals *)field)->count == 0) {
            fputs("null", out);
            break;
        }
        fputc('[', out);
        print_numbers(field, out);
        fputc(']', out);
        break;
    case PQ_KEY_TEXTS:
        fputc('[', out);
        print_texts(field, out);
        fputc(']', out);
        break;
    case PQ_KEY_PAIRS:
        fputc('[', out);
        print_pairs(field, out);
        fputc(']', out);
        break;
    case PQ_KEY_OVERRIDES:
        fputc('[', out);
        print_overrides(field, out);
        fputc(']', out);
        break;
    }
}

char *pq_key_text(const pq_key *key, const pq_config *config, pq_flavour flavour) {
    char *text = NULL;
    size_t bytes;
    FILE *stream = open_memstream(&text, &bytes);
    if (!stream) return NULL;
    pq_key_print(key, config, flavour, stream);
    if (fclose(stream) == 0) return text;
    free(text);
    return NULL;
}

char *pq_config_value(const pq_config *config, const char *key) {
    for (size_t i = 0; i < pq_key_count; i++) {
        const size_t length = strlen(pq_keys[i].section);
        if (strncmp(key, pq_keys[i].section, length) != 0 || key[length] != '.' ||
            strcmp(key + length + 1, pq_keys[i].name) != 0)
            continue;
        pq_numbers numbers = pq_numbers_begin();
        char *text = pq_key_text(&pq_keys[i], config, PQ_FLAVOUR_YAML);
        pq_numbers_end(numbers);
        return text;
    }
    return NULL;
}

static void print_yaml(const pq_config *config, bool without_run, FILE *out) {
    for (size_t i = 0; i < pq_key_count; i++) {
        const pq_key *key = &pq_keys[i];
        if (without_run && strcmp(key->section, "run") == 0) continue;
        if (i == 0 || strcmp(key->section, pq_keys[i - 1].section) != 0) fprintf(out, "%s:\n", key->section);
        fprintf(out, "  %s: ", key->name);
        pq_key_print(key, config, PQ_FLAVOUR_YAML, out);
        fputc('\n', out);
    }
}

char *pq_config_to_yaml(const pq_config *config, bool without_run) {
    char *text = NULL;
    size_t bytes;
    FILE *stream = open_memstream(&text, &bytes);
    if (!stream) return NULL;
    pq_numbers numbers = pq_numbers_begin();
    print_yaml(config, without_run, stream);
    pq_numbers_end(numbers);
    if (fclose(stream) == 0) return text;
    free(text);
    return NULL;
}

void pq_config_print_json(const pq_config *config, FILE *out) {
    pq_numbers numbers = pq_numbers_begin();
    for (size_t i = 0; i < pq_key_count; i++) {
        const pq_key *key = &pq_keys[i];
        bool first = i == 0 || strcmp(key->section, pq_keys[i - 1].section) != 0;
        if (first) fprintf(out, "%s\"%s\": {", i ? "}, " : "{", key->section);
        fprintf(out, "%s\"%s\": ", first ? "" : ", ", key->name);
        pq_key_print(key, config, PQ_FLAVOUR_JSON, out);
    }
    fputs("}}\n", out);
    pq_numbers_end(numbers);
}

uint64_t pq_config_hash(const pq_config *config) {
    char *text = pq_config_to_yaml(config, true);
    uint64_t hash = text ? pq_hash(text, strlen(text)) : 0;
    free(text);
    return hash;
}
