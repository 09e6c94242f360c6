/* Owns the way from a file and the command line to a checked struct pq_config. Defaults are read from the
 * table by the same path as a file. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "config/key.h"

/* Or the line of the file. Setting i of another file is FROM_SETTING - i. */
enum { FROM_DEFAULT = 0, FROM_COMMAND_LINE = -1, FROM_SETTING = -2 };

typedef struct loader {
    const char *name; /* of the file, for errors */
    bool defaults;    /* reading the table's own defaults */
    const pq_setting *settings;
    pq_config *config;
    pq_blocks *tree; /* YAML trees, until loading ends */
    int *place;      /* [pq_key_count]: where each key's value came from */
} loader;

typedef struct where {
    char text[300];
} where;

static where where_of(const loader *l, int place) {
    where w;
    if (place <= FROM_SETTING) {
        const pq_setting *s = &l->settings[FROM_SETTING - place];
        snprintf(w.text, sizeof w.text, "%.280s:%d", s->file, s->key->line);
    } else if (place == FROM_COMMAND_LINE)
        snprintf(w.text, sizeof w.text, "command line");
    else if (place == FROM_DEFAULT)
        snprintf(w.text, sizeof w.text, "%.280s", l->name);
    else
        snprintf(w.text, sizeof w.text, "%.280s:%d", l->name, place);
    return w;
}

/* Set one key; refuse what only a later build can do. */
static pq_status set_key(loader *l, const pq_key *key, const pq_yaml *value, int place, pq_error *err) {
    where w = where_of(l, place);
    bool guarded = key->absent && !l->defaults;
    char *before = guarded ? pq_key_text(key, l->config, PQ_FLAVOUR_YAML) : NULL, *after = NULL;
    pq_status status = pq_key_read(key, value, w.text, l->config, err);
    if (status == PQ_OK && guarded) {
        after = pq_key_text(key, l->config, PQ_FLAVOUR_YAML);
        if (!before || !after)
            status = PQ_FAIL(err, PQ_ERR_MEMORY, "%s: %s.%s does not fit in memory", w.text, key->section,
                             key->name);
        else if (strcmp(before, after) != 0)
            status = PQ_FAIL(err, PQ_ERR_USAGE, "%s: %s.%s: %.60s is not in this build; allowed here: %s",
                             w.text, key->section, key->name, after, before);
    }
    free(before);
    free(after);
    if (status == PQ_OK) l->place[key - pq_keys] = place;
    return status;
}

static pq_status unknown(const loader *l, int place, const char *section, const char *name, pq_error *err) {
    char suggestion[512], word[80];
    snprintf(word, sizeof word, "%.38s%s%.38s", section, name ? "." : "", name ? name : "");
    for (char *at = word; *at; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7F) *at = ' ';
    pq_key_suggest(section, name, suggestion, sizeof suggestion);
    return PQ_FAIL(err, PQ_ERR_USAGE, "%s: %s: unknown %s%s", where_of(l, place).text, word,
                   name && pq_section_exists(section) ? "key" : "section", suggestion);
}

static pq_status read_section(loader *l, const pq_yaml *name, const pq_yaml *keys, pq_error *err) {
    if (!pq_section_exists(name->text)) return unknown(l, name->line, name->text, NULL, err);
    if (pq_yaml_is_null(keys)) return PQ_OK;
    if (keys->kind != PQ_YAML_MAP) {
        char shown[80];
        pq_yaml_show(keys, shown);
        return PQ_FAIL(err, PQ_ERR_USAGE, "%s: %s: expected the section's keys, found %s",
                       where_of(l, keys->line).text, name->text, shown);
    }
    for (size_t i = 0; i < keys->count; i++) {
        const pq_yaml *word = &keys->items[2 * i];
        const pq_key *key = pq_key_find(name->text, word->text);
        if (!key) return unknown(l, word->line, name->text, word->text, err);
        for (size_t j = 0; j < i; j++) /* short: a name that is no key ends the loop above */
            if (strcmp(keys->items[2 * j].text, word->text) == 0)
                return PQ_FAIL(err, PQ_ERR_USAGE, "%s: %s.%s: given already on line %d",
                               where_of(l, word->line).text, name->text, word->text, keys->items[2 * j].line);
        PQ_TRY(set_key(l, key, word + 1, word->line, err));
    }
    return PQ_OK;
}

static pq_status read_text(loader *l, const char *text, size_t bytes, pq_error *err) {
    pq_yaml *root;
    PQ_TRY(pq_yaml_parse(text, bytes, l->name, true, &l->tree, &root, err));
    if (!root || pq_yaml_is_null(root)) return PQ_OK;
    if (root->kind != PQ_YAML_MAP)
        return PQ_FAIL(err, PQ_ERR_USAGE, "%s: expected sections (train:, quant:, ...), found %s",
                       where_of(l, root->line).text,
                       root->kind == PQ_YAML_LIST ? "a list" : "a single value");
    for (size_t i = 0; i < root->count; i++) {
        const pq_yaml *name = &root->items[2 * i];
        for (size_t j = 0; j < i; j++)
            if (strcmp(root->items[2 * j].text, name->text) == 0)
                return PQ_FAIL(err, PQ_ERR_USAGE, "%s: section %.60s: given already on line %d",
                               where_of(l, name->line).text, name->text, root->items[2 * j].line);
        PQ_TRY(read_section(l, name, name + 1, err));
    }
    return PQ_OK;
}

/* The key that word[length], "section.key", names. */
static pq_status find_key(const loader *l, const char *word, size_t length, int place, const pq_key **key,
                          pq_error *err) {
    char section[64], *dot;
    snprintf(section, sizeof section, "%.*s", (int)(length < sizeof section ? length : sizeof section - 1),
             word);
    dot = strchr(section, '.');
    if (dot) *dot = 0;
    *key = dot ? pq_key_find(section, dot + 1) : NULL;
    return *key ? PQ_OK : unknown(l, place, section, dot ? dot + 1 : NULL, err);
}

static pq_status read_setting(loader *l, size_t index, pq_error *err) {
    const pq_yaml *name = l->settings[index].key;
    const pq_key *key;
    const int place = FROM_SETTING - (int)index;
    PQ_TRY(find_key(l, name->text, strlen(name->text), place, &key, err));
    return set_key(l, key, l->settings[index].value, place, err);
}

/* Split "section.key=value" at the first "=". */
static pq_status read_override(loader *l, const char *word, pq_error *err) {
    const pq_key *key;
    const char *equals = strchr(word, '=');
    size_t length = equals ? (size_t)(equals - word) : 0;
    if (length == 0)
        return PQ_FAIL(err, PQ_ERR_USAGE, "command line: %.80s: expected section.key=value", word);
    PQ_TRY(find_key(l, word, length, FROM_COMMAND_LINE, &key, err));
    static const pq_yaml null = {.kind = PQ_YAML_SCALAR, .text = "", .plain = true};
    pq_yaml *value;
    char name[160];
    snprintf(name, sizeof name, "command line: %s.%s", key->section, key->name);
    PQ_TRY(pq_yaml_parse(equals + 1, strlen(equals + 1), name, false, &l->tree, &value, err));
    return set_key(l, key, value ? value : &null, FROM_COMMAND_LINE, err);
}

static pq_status read_defaults(loader *l, pq_error *err) {
    char *text = NULL;
    size_t bytes;
    FILE *stream = open_memstream(&text, &bytes);
    if (!stream) return PQ_FAIL(err, PQ_ERR_MEMORY, "the config's defaults do not fit in memory");
    for (size_t i = 0; i < pq_key_count; i++) {
        const pq_key *key = &pq_keys[i];
        if (i == 0 || strcmp(key->section, pq_keys[i - 1].section) != 0)
            fprintf(stream, "%s:\n", key->section);
        fprintf(stream, "  %s: %s\n", key->name, key->initial);
    }
    pq_status status = PQ_OK;
    if (fclose(stream) != 0)
        status = PQ_FAIL(err, PQ_ERR_MEMORY, "the config's defaults do not fit in memory");
    else
        status = read_text(l, text, bytes, err);
    free(text);
    return status;
}

static pq_status read_all(loader *l, const char *yaml, size_t bytes, size_t setting_count,
                          const char *const *overrides, size_t count, pq_error *err) {
    const pq_key *key = NULL;
    loader defaults = {.name = "schema.def", .defaults = true, .config = l->config, .place = l->place};
    pq_status status = read_defaults(&defaults, err);
    pq_blocks_free(defaults.tree);
    if (status != PQ_OK) return status;
    memset(l->place, 0, pq_key_count * sizeof *l->place);
    PQ_TRY(read_text(l, yaml, bytes, err));
    for (size_t i = 0; i < setting_count; i++) PQ_TRY(read_setting(l, i, err));
    for (size_t i = 0; i < count; i++) PQ_TRY(read_override(l, overrides[i], err));
    pq_config_resolve(l->config);
    status = pq_config_check(l->config, &key, err);
    return status == PQ_OK ? PQ_OK : pq_prefix(err, status, "%s", where_of(l, l->place[key - pq_keys]).text);
}

static pq_status load_text(const char *yaml, size_t bytes, const char *name, const pq_setting *settings,
                           size_t setting_count, const char *const *overrides, size_t count, pq_config **out,
                           pq_error *err) {
    loader l = {.name = name, .settings = settings};
    pq_status status;
    *out = NULL;
    pq_numbers numbers = pq_numbers_begin();
    PQ_TRY_TO(status, done, pq_calloc(1, sizeof *l.config, "config", &l.config, err));
    PQ_TRY_TO(status, done, pq_calloc(pq_key_count, sizeof *l.place, "config", &l.place, err));
    PQ_TRY_TO(status, done, read_all(&l, yaml, bytes, setting_count, overrides, count, err));
    *out = l.config;
    l.config = NULL;
done:
    pq_numbers_end(numbers);
    pq_config_destroy(l.config);
    pq_blocks_free(l.tree);
    free(l.place);
    return status;
}

pq_status pq_config_from_text(const char *yaml, size_t bytes, const char *name, const char *const *overrides,
                              size_t count, pq_config **out, pq_error *err) {
    return load_text(yaml, bytes, name, NULL, 0, overrides, count, out, err);
}

pq_status pq_config_load_settings(const char *path, const pq_setting *settings, size_t setting_count,
                                  const char *const *overrides, size_t count, pq_config **out,
                                  pq_error *err) {
    pq_file_view file = {0};
    *out = NULL;
    if (!path) return load_text("", 0, "defaults", settings, setting_count, overrides, count, out, err);
    PQ_TRY(pq_file_map(path, &file, err));
    pq_status status =
        load_text(file.data, file.size, path, settings, setting_count, overrides, count, out, err);
    pq_file_view_close(&file);
    return status;
}

pq_status pq_config_load(const char *path, const char *const *overrides, size_t count, pq_config **out,
                         pq_error *err) {
    return pq_config_load_settings(path, NULL, 0, overrides, count, out, err);
}

void pq_config_destroy(pq_config *config) {
    if (!config) return;
    pq_blocks_free(config->memory);
    free(config);
}
