/* Owns the reading of byte-level BPE tokenizers that other programs wrote: Hugging Face's tokenizer.json,
 * vocab.json with merges.txt, OpenAI's encoder.json with vocab.bpe. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "data/bpe_letters.h"
#include "data/tokenizer_bpe.h"

enum { FILE_BYTES = 256 << 20 };

/* One tokenizer being read. */
typedef struct source {
    const char *vocab_path, *merges_path; /* for sentences */
    const json_t *vocab;                  /* token -> id */
    pq_bpe_tables tables;
} source;

/* ---- tokens ---- */

/* Each id from 0 to the number of tokens - 1 once. */
static pq_status check_ids(const source *s, pq_error *err) {
    const char **names, *name;
    json_t *value;
    pq_status status = PQ_OK;
    const size_t vocab = s->tables.vocab;
    if (vocab < 256 || vocab > PQ_TOKENIZER_MOST)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "%s has %zu tokens; expected 256 to %d", s->vocab_path, vocab,
                       PQ_TOKENIZER_MOST);
    PQ_TRY(pq_calloc(vocab, sizeof *names, "the vocabulary", &names, err));
    if (s->tables.end >= 0 && (size_t)s->tables.end < vocab) names[s->tables.end] = PQ_END_OF_TEXT;
    json_object_foreach((json_t *)s->vocab, name, value) {
        const json_int_t id = json_integer_value(value);
        if (!json_is_integer(value) || id < 0 || id >= (json_int_t)vocab)
            status = PQ_FAIL(err, PQ_ERR_FORMAT,
                             "%s: the token \"%.60s\" should have an id from 0 to %zu (it has %zu tokens)",
                             s->vocab_path, name, vocab - 1, vocab);
        else if (names[id] && strcmp(names[id], name) != 0)
            status =
                PQ_FAIL(err, PQ_ERR_FORMAT, "%s: the tokens \"%.60s\" and \"%.60s\" have the same id %lld",
                        s->vocab_path, names[id], name, (long long)id);
        else
            names[id] = name;
        if (status != PQ_OK) break;
    }
    free(names);
    return status;
}

static const json_t *find_token(const source *s, const char *name, size_t length) {
    return json_object_getn(s->vocab, name, length);
}

static pq_status read_bytes(source *s, pq_error *err) {
    for (size_t byte = 0; byte < 256; byte++) {
        char letter[4];
        const size_t length = pq_bpe_letter((unsigned char)byte, letter);
        const json_t *id = find_token(s, letter, length);
        if (!id)
            return PQ_FAIL(err, PQ_ERR_FORMAT, "%s lacks the token \"%.*s\" of byte 0x%02zX", s->vocab_path,
                           (int)length, letter, byte);
        s->tables.byte_id[byte] = (uint16_t)json_integer_value(id);
    }
    return PQ_OK;
}

/* Which id no byte has and no merge makes, by its name. */
static pq_status check_origins(const source *s, pq_error *err) {
    uint8_t *known;
    const char *name;
    json_t *value;
    pq_status status = PQ_OK;
    PQ_TRY(pq_calloc(s->tables.vocab, 1, "the vocabulary", &known, err));
    for (size_t byte = 0; byte < 256; byte++) known[s->tables.byte_id[byte]] = 1;
    for (size_t i = 0; i < s->tables.merge_count; i++) known[s->tables.merges[i].made] = 1;
    json_object_foreach((json_t *)s->vocab, name, value) {
        const json_int_t id = json_integer_value(value);
        if (known[id] || id == s->tables.end) continue;
        status = PQ_FAIL(err, PQ_ERR_FORMAT,
                         "%s has the token \"%.60s\" (id %lld), which none of the %zu merges of %s makes",
                         s->vocab_path, name, (long long)id, s->tables.merge_count, s->merges_path);
        break;
    }
    free(known);
    return status;
}

/* ---- merges ---- */

static pq_status add_merge(source *s, const char *left, size_t left_length, const char *right,
                           size_t right_length, pq_error *err) {
    const size_t number = s->tables.merge_count + 1, length = left_length + right_length;
    char joined[4 * PQ_BPE_TOKEN_BYTES];
    if (number > PQ_BPE_MERGES || length > sizeof joined)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "%s: merge %zu is one too many, or too long", s->merges_path,
                       number);
    memcpy(joined, left, left_length);
    memcpy(joined + left_length, right, right_length);
    const struct {
        const char *name;
        size_t length;
    } wanted[] = {{left, left_length}, {right, right_length}, {joined, length}};
    uint16_t ids[3];
    for (size_t i = 0; i < 3; i++) {
        const json_t *id = wanted[i].length ? find_token(s, wanted[i].name, wanted[i].length) : NULL;
        if (!id)
            return PQ_FAIL(err, PQ_ERR_FORMAT,
                           "%s: merge %zu needs the token \"%.*s\", which %s does not have", s->merges_path,
                           number, (int)(wanted[i].length < 60 ? wanted[i].length : 60), wanted[i].name,
                           s->vocab_path);
        ids[i] = (uint16_t)json_integer_value(id);
    }
    if ((number & (number - 1)) == 0) { /* room for twice as many */
        pq_bpe_merge *grown = realloc(s->tables.merges, 2 * number * sizeof *grown);
        if (!grown) return PQ_FAIL(err, PQ_ERR_MEMORY, "%zu merges could not be allocated", 2 * number);
        s->tables.merges = grown;
    }
    s->tables.merges[s->tables.merge_count++] = (pq_bpe_merge){ids[0], ids[1], ids[2]};
    return PQ_OK;
}

/* "left right". */
static pq_status add_line(source *s, const char *line, size_t length, pq_error *err) {
    const char *space = memchr(line, ' ', length);
    const size_t left = space ? (size_t)(space - line) : 0;
    if (!space || memchr(space + 1, ' ', length - left - 1))
        return PQ_FAIL(err, PQ_ERR_FORMAT,
                       "%s: merge %zu should be two tokens with a space between; found \"%.*s\"",
                       s->merges_path, s->tables.merge_count + 1, (int)(length < 60 ? length : 60), line);
    return add_merge(s, line, left, space + 1, length - left - 1, err);
}

static pq_status read_merges_text(source *s, const char *text, size_t bytes, pq_error *err) {
    for (size_t at = 0, length; at < bytes; at += length + 1) {
        const char *line = text + at, *newline = memchr(line, '\n', bytes - at);
        length = newline ? (size_t)(newline - line) : bytes - at;
        const size_t content = length && line[length - 1] == '\r' ? length - 1 : length;
        const bool title = at == 0 && content >= 8 && memcmp(line, "#version", 8) == 0;
        if (!title && content) PQ_TRY(add_line(s, line, content, err));
    }
    return PQ_OK;
}

/* Merges in tokenizer.json: "left right" or, newer, ["left", "right"]. */
static pq_status read_merges_array(source *s, const json_t *merges, pq_error *err) {
    for (size_t i = 0; i < json_array_size(merges); i++) {
        const json_t *merge = json_array_get(merges, i), *left = json_array_get(merge, 0),
                     *right = json_array_get(merge, 1);
        if (json_is_string(merge))
            PQ_TRY(add_line(s, json_string_value(merge), json_string_length(merge), err));
        else if (json_array_size(merge) == 2 && json_is_string(left) && json_is_string(right))
            PQ_TRY(add_merge(s, json_string_value(left), json_string_length(left), json_string_value(right),
                             json_string_length(right), err));
        else
            return PQ_FAIL(err, PQ_ERR_FORMAT, "%s: merge %zu should be two tokens", s->merges_path, i + 1);
    }
    return PQ_OK;
}

/* ---- a tokenizer of both ---- */

/* The merges come from an array of JSON, or else from a text. */
static pq_status build(source *s, const json_t *array, const char *text, size_t bytes, pq_tokenizer **out,
                       pq_error *err) {
    const json_t *end = find_token(s, PQ_END_OF_TEXT, sizeof PQ_END_OF_TEXT - 1);
    pq_status status;
    if (json_is_integer(end) && s->tables.end < 0) {
        json_int_t id = json_integer_value(end);
        if (id >= 0 && id < PQ_TOKENIZER_MOST) s->tables.end = (int32_t)id;
    }
    s->tables.vocab = json_object_size(s->vocab) + (s->tables.end >= 0 && !end);
    PQ_TRY_TO(status, fail, check_ids(s, err));
    PQ_TRY_TO(status, fail, read_bytes(s, err));
    PQ_TRY_TO(status, fail, array ? read_merges_array(s, array, err) : read_merges_text(s, text, bytes, err));
    PQ_TRY_TO(status, fail, check_origins(s, err));
    status = pq_tokenizer_from_tables(&s->tables, out, err);
    return status == PQ_OK ? PQ_OK : pq_prefix(err, status, "%s", s->merges_path);
fail:
    free(s->tables.merges);
    return status;
}

/* The JSON object in a file. */
static pq_status read_json(const char *path, json_t **out, pq_error *err) {
    pq_file_view view;
    json_error_t where;
    *out = NULL;
    PQ_TRY(pq_file_map(path, &view, err));
    pq_status status = PQ_OK;
    if (view.size > FILE_BYTES)
        status = PQ_FAIL(err, PQ_ERR_FORMAT, "%s: %zu bytes are too many for a tokenizer", path, view.size);
    else if (!(*out = json_loadb(view.data, view.size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &where)))
        status = PQ_FAIL(err, PQ_ERR_FORMAT, "%s is not JSON: %s (line %d)", path, where.text, where.line);
    else if (!json_is_object(*out))
        status = PQ_FAIL(err, PQ_ERR_FORMAT, "%s: expected a JSON object", path);
    pq_file_view_close(&view);
    if (status == PQ_OK) return PQ_OK;
    json_decref(*out);
    *out = NULL;
    return status;
}

static pq_status open_pair(const char *vocab_path, const char *merges_path, pq_tokenizer **out,
                           pq_error *err) {
    source s = {.vocab_path = vocab_path, .merges_path = merges_path, .tables.end = -1};
    pq_file_view view;
    json_t *vocab;
    PQ_TRY(read_json(vocab_path, &vocab, err));
    pq_status status = pq_file_map(merges_path, &view, err);
    if (status == PQ_OK) {
        s.vocab = vocab;
        status = build(&s, NULL, view.data, view.size, out, err);
        pq_file_view_close(&view);
    }
    json_decref(vocab);
    return status;
}

/* ---- tokenizer.json ---- */

/* One setting that would change ids, and the values with which it does not. A key that is absent is fine. */
typedef struct setting {
    const char *object, *key; /* object "": the file's own */
    const char *allowed[3];   /* as JSON text; NULL: no more */
} setting;

static const setting settings[] = {
    {"", "normalizer", {"null"}},
    {"model", "type", {"\"BPE\""}},
    {"model", "dropout", {"null", "0.0"}},
    {"model", "continuing_subword_prefix", {"null", "\"\""}},
    {"model", "end_of_word_suffix", {"null", "\"\""}},
    {"model", "byte_fallback", {"false"}},
    {"model", "ignore_merges", {"false"}},
    {"pre_tokenizer", "type", {"\"ByteLevel\""}},
    {"pre_tokenizer", "add_prefix_space", {"false"}},
    {"pre_tokenizer", "use_regex", {"true"}},
    {"post_processor", "type", {"\"ByteLevel\""}},
    {"decoder", "type", {"\"ByteLevel\""}},
};

static pq_status check_setting(const json_t *file, const setting *s, const char *path, pq_error *err) {
    const json_t *value = json_object_get(*s->object ? json_object_get(file, s->object) : file, s->key);
    if (!value) return PQ_OK;
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    bool good = false;
    for (size_t i = 0; text && i < 3 && s->allowed[i]; i++) good |= strcmp(text, s->allowed[i]) == 0;
    pq_status status =
        good ? PQ_OK
             : PQ_FAIL(err, PQ_ERR_USAGE,
                       "%s: %s%s%s is %.80s, but only %s is read: a byte-level BPE as GPT-2's is", path,
                       s->object, *s->object ? "." : "", s->key, text ? text : "?", s->allowed[0]);
    free(text);
    return status;
}

/* The only token that is added to those of the model may be the end of text. */
static pq_status read_added(const json_t *file, const char *path, int32_t *end, pq_error *err) {
    static const char *const switches[] = {"lstrip", "rstrip", "single_word"};
    const json_t *added = json_object_get(file, "added_tokens");
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *token = json_array_get(added, i);
        const json_t *name = json_object_get(token, "content"), *id = json_object_get(token, "id");
        if (!json_is_string(name) || strcmp(json_string_value(name), PQ_END_OF_TEXT) != 0 || i > 0)
            return PQ_FAIL(err, PQ_ERR_USAGE,
                           "%s: added_tokens has \"%.60s\"; a tokenizer is read with no other added token "
                           "than one " PQ_END_OF_TEXT,
                           path, json_is_string(name) ? json_string_value(name) : "?");
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= PQ_TOKENIZER_MOST)
            return PQ_FAIL(err, PQ_ERR_FORMAT, "%s: the id of " PQ_END_OF_TEXT " should be from 0 to %d",
                           path, PQ_TOKENIZER_MOST - 1);
        for (size_t k = 0; k < sizeof switches / sizeof *switches; k++)
            if (json_is_true(json_object_get(token, switches[k])))
                return PQ_FAIL(err, PQ_ERR_USAGE, "%s: " PQ_END_OF_TEXT " has %s, which is not read", path,
                               switches[k]);
        *end = (int32_t)json_integer_value(id);
    }
    return PQ_OK;
}

static pq_status build_json(const json_t *file, const char *path, pq_tokenizer **out, pq_error *err) {
    const json_t *model = json_object_get(file, "model"), *vocab = json_object_get(model, "vocab"),
                 *merges = json_object_get(model, "merges");
    source s = {.vocab_path = path, .merges_path = path, .vocab = vocab, .tables.end = -1};
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        PQ_TRY(check_setting(file, &settings[i], path, err));
    if (!json_is_object(json_object_get(file, "pre_tokenizer")))
        return PQ_FAIL(err, PQ_ERR_USAGE, "%s has no pre_tokenizer; expected ByteLevel, as GPT-2's is", path);
    if (!json_is_object(vocab) || !json_is_array(merges))
        return PQ_FAIL(err, PQ_ERR_FORMAT, "%s: model should have an object vocab and an array merges", path);
    PQ_TRY(read_added(file, path, &s.tables.end, err));
    const json_t *end = find_token(&s, PQ_END_OF_TEXT, sizeof PQ_END_OF_TEXT - 1);
    if (end && s.tables.end >= 0 && json_integer_value(end) != s.tables.end)
        return PQ_FAIL(err, PQ_ERR_FORMAT,
                       "%s: " PQ_END_OF_TEXT " has the id %lld in vocab, %d in added_tokens", path,
                       (long long)json_integer_value(end), (int)s.tables.end);
    return build(&s, merges, NULL, 0, out, err);
}

static pq_status open_json(const char *path, pq_tokenizer **out, pq_error *err) {
    json_t *file;
    PQ_TRY(read_json(path, &file, err));
    if (json_object_get(file, "model")) {
        pq_status status = build_json(file, path, out, err);
        json_decref(file);
        return status;
    }
    json_decref(file);
    pq_file_view view;
    PQ_TRY(pq_file_map(path, &view, err));
    pq_status status = pq_tokenizer_from_json(view.data, view.size, out, err);
    pq_file_view_close(&view);
    return status == PQ_OK ? PQ_OK : pq_prefix(err, status, "%s", path);
}

/* ---- where the files are ---- */

static const char *const layouts[][2] = {
    {"tokenizer.json", NULL}, {"vocab.json", "merges.txt"}, {"encoder.json", "vocab.bpe"}};
enum { LAYOUTS = sizeof layouts / sizeof *layouts };

static bool has_file(const char *folder, const char *name) {
    char *path = name ? pq_path_join(folder, name) : NULL;
    bool found = !name || (path && pq_file_exists(path));
    free(path);
    return found;
}

/* The first row of layouts whose files are all there, or LAYOUTS. */
static size_t find_layout(const char *folder) {
    size_t i = 0;
    while (i < LAYOUTS && !(has_file(folder, layouts[i][0]) && has_file(folder, layouts[i][1]))) i++;
    return i;
}

bool pq_tokenizer_is_in(const char *folder) {
    return find_layout(folder) < LAYOUTS;
}

pq_status pq_tokenizer_open(const char *path, pq_tokenizer **out, pq_error *err) {
    *out = NULL;
    if (!pq_folder_exists(path)) return open_json(path, out, err);
    const size_t i = find_layout(path);
    if (i == LAYOUTS)
        return PQ_FAIL(
            err, PQ_ERR_IO,
            "folder %s has no tokenizer: expected tokenizer.json, or vocab.json and merges.txt, or "
            "encoder.json and vocab.bpe",
            path);
    char *first = pq_path_join(path, layouts[i][0]);
    char *second = layouts[i][1] ? pq_path_join(path, layouts[i][1]) : NULL;
    pq_status status;
    if (!first || (layouts[i][1] && !second))
        status = PQ_FAIL(err, PQ_ERR_MEMORY, "a file name could not be allocated");
    else
        status = second ? open_pair(first, second, out, err) : open_json(first, out, err);
    free(first);
    free(second);
    return status;
}
