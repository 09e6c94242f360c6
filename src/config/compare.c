/* Owns the comparison of two configs, key by key, as text. */
#include <stdlib.h>
#include <string.h>

#include "config/help.h"
#include "config/key.h"

/* The two values of a key; released by free_texts. */
typedef struct texts {
    char *a, *b;
} texts;

static void free_texts(texts t) {
    free(t.a);
    free(t.b);
}

static pq_status texts_of(const pq_key *key, const pq_config *a, const pq_config *b, pq_flavour flavour,
                          texts *out, pq_error *err) {
    pq_numbers numbers = pq_numbers_begin();
    *out = (texts){pq_key_text(key, a, flavour), pq_key_text(key, b, flavour)};
    pq_numbers_end(numbers);
    if (out->a && out->b) return PQ_OK;
    free_texts(*out);
    return PQ_FAIL(err, PQ_ERR_MEMORY, "%s.%s does not fit in memory", key->section, key->name);
}

pq_status pq_config_diff(const pq_config *a, const pq_config *b, bool json, FILE *out, pq_error *err) {
    bool first = true;
    if (json) fputc('{', out);
    for (size_t i = 0; i < pq_key_count; i++) {
        const pq_key *key = &pq_keys[i];
        texts t;
        PQ_TRY(texts_of(key, a, b, json ? PQ_FLAVOUR_JSON : PQ_FLAVOUR_YAML, &t, err));
        if (strcmp(t.a, t.b) != 0) {
            fprintf(out, json ? "%s\"%s.%s\": [%s, %s]" : "%s%s.%s: %s | %s\n", json && !first ? ", " : "",
                    key->section, key->name, t.a, t.b);
            first = false;
        }
        free_texts(t);
    }
    if (json) fputs("}\n", out);
    return PQ_OK;
}

pq_status pq_config_check_resume(const pq_config *a, const pq_config *b, pq_error *err) {
    for (size_t i = 0; i < pq_key_count; i++) {
        const pq_key *key = &pq_keys[i];
        texts t;
        if (key->resume) continue;
        PQ_TRY(texts_of(key, a, b, PQ_FLAVOUR_YAML, &t, err));
        pq_status status = PQ_OK;
        if (strcmp(t.a, t.b) != 0)
            status = PQ_FAIL(
                err, PQ_ERR_USAGE,
                "%s.%s: the run has %.100s, found %.100s; this key may not change on --resume (potqat "
                "config --help says which may)",
                key->section, key->name, t.a, t.b);
        free_texts(t);
        PQ_TRY(status);
    }
    return PQ_OK;
}

/* Null before training, known after it. */
static bool filled_in(const pq_key *key, const char *text) {
    return strcmp(text, "null") == 0 &&
           (strcmp(key->section, "model") == 0 ||
            (strcmp(key->section, "train") == 0 && strcmp(key->name, "context") == 0));
}

pq_status pq_config_check_same(const pq_config *run, const pq_config *config, pq_error *err) {
    for (size_t i = 0; i < pq_key_count; i++) {
        const pq_key *key = &pq_keys[i];
        texts t;
        if (strcmp(key->section, "run") == 0) continue;
        PQ_TRY(texts_of(key, run, config, PQ_FLAVOUR_YAML, &t, err));
        pq_status status = PQ_OK;
        if (strcmp(t.a, t.b) != 0 && !filled_in(key, t.b))
            status = PQ_FAIL(err, PQ_ERR_USAGE, "%s.%s: the run was trained with %.100s, found %.100s",
                             key->section, key->name, t.a, t.b);
        free_texts(t);
        PQ_TRY(status);
    }
    return PQ_OK;
}
