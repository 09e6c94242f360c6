/* Owns the table of tokenizer kinds, their common JSON envelope and its hash; what a kind does with text is
 * in its own file tokenizer_<kind>.c. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "data/tokenizer_kinds.h"

#define FORMAT  "potqat-tokenizer"
#define VERSION 1

static const pq_tokenizer_row *const kinds[] = {&pq_tokenizer_char, &pq_tokenizer_byte,
                                                &pq_tokenizer_bpe_row};

static const pq_tokenizer_row *find_kind(const char *name) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i]->name, name) == 0) return kinds[i];
    return NULL;
}

static json_t *to_object(const pq_tokenizer *tokenizer) {
    json_t *object =
        json_pack("{s:s, s:i, s:s}", "format", FORMAT, "version", VERSION, "kind", tokenizer->kind->name);
    if (object && tokenizer->kind->write(tokenizer, object) != 0) {
        json_decref(object);
        return NULL;
    }
    return object;
}

char *pq_tokenizer_to_json(const pq_tokenizer *tokenizer) {
    json_t *object = to_object(tokenizer);
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    return text;
}

pq_status pq_tokenizer_begin(const pq_tokenizer_row *kind, pq_tokenizer **out, pq_error *err) {
    PQ_TRY(pq_calloc(1, sizeof **out, "the tokenizer", out, err));
    (*out)->kind = kind;
    (*out)->end = -1;
    return PQ_OK;
}

/* The hash of the JSON text that `object` (may be NULL) gives. */
static pq_status finish(pq_tokenizer *tokenizer, const json_t *object, pq_tokenizer **out, pq_error *err) {
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    if (!text) {
        pq_tokenizer_destroy(tokenizer);
        return PQ_FAIL(err, PQ_ERR_MEMORY, "the tokenizer's JSON text could not be allocated");
    }
    tokenizer->hash = pq_hash(text, strlen(text));
    free(text);
    *out = tokenizer;
    return PQ_OK;
}

pq_status pq_tokenizer_finish(pq_tokenizer *tokenizer, pq_tokenizer **out, pq_error *err) {
    json_t *object = to_object(tokenizer);
    pq_status status = finish(tokenizer, object, out, err);
    json_decref(object);
    return status;
}

pq_status pq_tokenizer_create(const char *kind, const char *text, size_t bytes, pq_tokenizer **out,
                              pq_error *err) {
    pq_tokenizer *tokenizer;
    *out = NULL;
    const pq_tokenizer_row *found = find_kind(kind);
    if (!found)
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "the tokenizer \"%s\" is not in this build; it has char, byte and bpe", kind);
    PQ_TRY(pq_tokenizer_begin(found, &tokenizer, err));
    pq_status status = found->create(text, bytes, tokenizer, err);
    if (status != PQ_OK) {
        free(tokenizer);
        return status;
    }
    return pq_tokenizer_finish(tokenizer, out, err);
}

/* The tokenizer that `object` describes, without its hash. */
static pq_status from_object(const json_t *object, pq_tokenizer *tokenizer, pq_error *err) {
    const char *format = json_string_value(json_object_get(object, "format"));
    const char *kind = json_string_value(json_object_get(object, "kind"));
    const json_t *version = json_object_get(object, "version");
    if (!format || strcmp(format, FORMAT) != 0)
        return PQ_FAIL(err, PQ_ERR_FORMAT,
                       "the tokenizer's JSON is not potqat's: \"format\" should be \"" FORMAT "\"");
    if (!json_is_integer(version) || json_integer_value(version) != VERSION)
        return PQ_FAIL(err, PQ_ERR_FORMAT,
                       "the tokenizer's JSON has another version than %d, which this build reads", VERSION);
    tokenizer->kind = kind ? find_kind(kind) : NULL;
    if (!tokenizer->kind)
        return PQ_FAIL(err, PQ_ERR_FORMAT,
                       "the tokenizer's JSON is of the kind \"%.64s\"; this build has char, byte and bpe",
                       kind ? kind : "");
    return tokenizer->kind->read(object, tokenizer, err);
}

pq_status pq_tokenizer_from_json(const char *json, size_t bytes, pq_tokenizer **out, pq_error *err) {
    json_error_t where;
    pq_tokenizer *tokenizer;
    *out = NULL;
    json_t *object = json_loadb(json, bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &where);
    if (!object)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "the tokenizer's JSON is damaged at line %d, column %d: %s",
                       where.line, where.column, where.text);
    pq_status status = pq_tokenizer_begin(NULL, &tokenizer, err);
    if (status == PQ_OK) {
        status = from_object(object, tokenizer, err);
        if (status != PQ_OK) free(tokenizer);
    }
    if (status == PQ_OK) {
        /* Written again it must say the same: that refuses every key that no kind reads. */
        json_t *again = to_object(tokenizer);
        if (again && !json_equal(object, again)) {
            pq_tokenizer_destroy(tokenizer);
            status = PQ_FAIL(err, PQ_ERR_FORMAT, "the tokenizer's JSON holds more than a %s tokenizer has",
                             json_string_value(json_object_get(object, "kind")));
        } else {
            status = finish(tokenizer, again, out, err);
        }
        json_decref(again);
    }
    json_decref(object);
    return status;
}

void pq_tokenizer_destroy(pq_tokenizer *tokenizer) {
    if (!tokenizer) return;
    if (tokenizer->kind->destroy) tokenizer->kind->destroy(tokenizer->state);
    free(tokenizer);
}

size_t pq_tokenizer_vocab(const pq_tokenizer *tokenizer) {
    return tokenizer->vocab;
}

const char *pq_tokenizer_kind(const pq_tokenizer *tokenizer) {
    return tokenizer->kind->name;
}

uint64_t pq_tokenizer_hash(const pq_tokenizer *tokenizer) {
    return tokenizer->hash;
}

int32_t pq_tokenizer_end_of_text(const pq_tokenizer *tokenizer) {
    return tokenizer->end;
}

pq_status pq_tokenizer_encode(const pq_tokenizer *tokenizer, const char *text, size_t bytes,
                              uint16_t **tokens, size_t *count, pq_error *err) {
    *tokens = NULL;
    *count = 0;
    return tokenizer->kind->encode(tokenizer, text, bytes, tokens, count, err);
}

pq_status pq_tokenizer_encode_documents(const pq_tokenizer *tokenizer, const char *text, size_t bytes,
                                        uint16_t **tokens, size_t *count, pq_error *err) {
    if (!tokenizer->kind->encode_documents)
        return pq_tokenizer_encode(tokenizer, text, bytes, tokens, count, err);
    *tokens = NULL;
    *count = 0;
    return tokenizer->kind->encode_documents(tokenizer, text, bytes, tokens, count, err);
}

pq_status pq_tokenizer_decode(const pq_tokenizer *tokenizer, const uint16_t *tokens, size_t count,
                              char **text, size_t *bytes, pq_error *err) {
    *text = NULL;
    *bytes = 0;
    for (size_t i = 0; i < count; i++)
        if (tokens[i] >= tokenizer->vocab)
            return PQ_FAIL(err, PQ_ERR_USAGE, "token %zu has the id %u; the %s tokenizer's ids end at %zu", i,
                           tokens[i], tokenizer->kind->name, tokenizer->vocab - 1);
    return tokenizer->kind->decode(tokenizer, tokens, count, text, bytes, err);
}
