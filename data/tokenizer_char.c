/* Owns the character tokenizer: the Unicode characters that a text has, numbered in code point order. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "data/tokenizer_kinds.h"
#include "data/utf8.h"

typedef struct characters {
    uint32_t *code; /* [vocab] code point of an id, ascending */
    int32_t *id;    /* [limit] id of a code point, -1 = not in the vocabulary */
    size_t limit;   /* largest code point + 1 */
} characters;

static pq_status not_utf8(const char *text, size_t offset, pq_error *err) {
    return PQ_FAIL(err, PQ_ERR_FORMAT,
                   "the text is not UTF-8: byte 0x%02X at byte offset %zu begins no valid character",
                   (unsigned char)text[offset], offset);
}

static pq_status not_known(const pq_tokenizer *tokenizer, uint32_t code, size_t offset, pq_error *err) {
    char shown[8] = " '";
    bool printable = code >= 0x20 && (code < 0x7F || code >= 0xA0);
    if (printable) {
        size_t length = pq_utf8_write(code, shown + 2);
        memcpy(shown + 2 + length, "'", 2);
    }
    return PQ_FAIL(err, PQ_ERR_USAGE,
                   "the character%s (U+%04X) at byte offset %zu is not one of the %zu characters that the "
                   "tokenizer knows",
                   printable ? shown : "", (unsigned)code, offset, tokenizer->vocab);
}

static void destroy(void *state) {
    characters *self = state;
    if (!self) return;
    free(self->code);
    free(self->id);
    free(self);
}

/* The state for code[count] (ascending, taken also on error). */
static pq_status take_codes(uint32_t *code, size_t count, pq_tokenizer *out, pq_error *err) {
    characters *self = calloc(1, sizeof *self);
    size_t limit = (size_t)code[count - 1] + 1;
    int32_t *id = malloc(limit * sizeof *id);
    if (!self || !id) {
        free(self);
        free(id);
        free(code);
        return PQ_FAIL(err, PQ_ERR_MEMORY, "a table of %zu characters could not be allocated", count);
    }
    memset(id, 0xFF, limit * sizeof *id);
    for (size_t i = 0; i < count; i++) id[code[i]] = (int32_t)i;
    *self = (characters){.code = code, .id = id, .limit = limit};
    out->vocab = count;
    out->state = self;
    return PQ_OK;
}

static pq_status create(const char *text, size_t bytes, pq_tokenizer *out, pq_error *err) {
    uint64_t *seen; /* one bit a code point */
    uint32_t *code, c = 0;
    size_t count = 0, length;
    if (bytes == 0)
        return PQ_FAIL(err, PQ_ERR_USAGE, "a char tokenizer needs a text with characters; the text is empty");
    PQ_TRY(pq_calloc(PQ_CODE_POINTS / 64, sizeof *seen, "the characters of the text", &seen, err));
    for (size_t at = 0; at < bytes; at += length) {
        length = pq_utf8_read(text + at, bytes - at, &c);
        if (length == 0) {
            free(seen);
            return not_utf8(text, at, err);
        }
        uint64_t bit = (uint64_t)1 << c % 64;
        count += !(seen[c / 64] & bit);
        seen[c / 64] |= bit;
    }
    if (count > PQ_TOKENIZER_MOST) {
        free(seen);
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "the text has %zu different characters; a tokenizer holds at most %d", count,
                       PQ_TOKENIZER_MOST);
    }
    pq_status status = pq_calloc(count, sizeof *code, "the characters of the tokenizer", &code, err);
    if (status == PQ_OK) {
        size_t i = 0;
        for (uint32_t word = 0; word < PQ_CODE_POINTS / 64; word++)
            for (uint64_t bits = seen[word]; bits; bits &= bits - 1)
                code[i++] = 64 * word + (uint32_t)__builtin_ctzll(bits);
        status = take_codes(code, count, out, err);
    }
    free(seen);
    return status;
}

static pq_status read(const json_t *object, pq_tokenizer *out, pq_error *err) {
    const json_t *value = json_object_get(object, "characters");
    const char *text = json_string_value(value);
    size_t bytes = json_string_length(value), count = 0;
    uint32_t *code;
    if (bytes == 0) return PQ_FAIL(err, PQ_ERR_FORMAT, "the tokenizer's JSON has no text \"characters\"");
    PQ_TRY(pq_calloc(bytes, sizeof *code, "the characters of the tokenizer", &code, err));
    for (size_t at = 0, length; at < bytes; at += length, count++) {
        length = pq_utf8_read(text + at, bytes - at, &code[count]); /* jansson checked that it is UTF-8 */
        if (length == 0 || count == PQ_TOKENIZER_MOST || (count && code[count] <= code[count - 1])) {
            free(code);
            return PQ_FAIL(err, PQ_ERR_FORMAT,
                           "the tokenizer's characters should be in ascending order, each once, at most %d; "
                           "number %zu is not",
                           PQ_TOKENIZER_MOST, count);
        }
    }
    return take_codes(code, count, out, err);
}

static int write(const pq_tokenizer *tokenizer, json_t *object) {
    const characters *self = tokenizer->state;
    char *text = malloc(4 * tokenizer->vocab);
    size_t bytes = 0;
    if (!text) return -1;
    for (size_t i = 0; i < tokenizer->vocab; i++) bytes += pq_utf8_write(self->code[i], text + bytes);
    int failed = json_object_set_new(object, "characters", json_stringn(text, bytes));
    free(text);
    return failed;
}

static pq_status encode(const pq_tokenizer *tokenizer, const char *text, size_t bytes, uint16_t **tokens,
                        size_t *count, pq_error *err) {
    const characters *self = tokenizer->state;
    uint16_t *ids = malloc((bytes ? bytes : 1) * sizeof *ids);
    size_t n = 0;
    uint32_t c = 0;
    if (!ids) return PQ_FAIL(err, PQ_ERR_MEMORY, "%zu tokens could not be allocated", bytes);
    for (size_t at = 0, length; at < bytes; at += length) {
        length = pq_utf8_read(text + at, bytes - at, &c);
        if (length == 0 || c >= self->limit || self->id[c] < 0) {
            free(ids);
            return length == 0 ? not_utf8(text, at, err) : not_known(tokenizer, c, at, err);
        }
        ids[n++] = (uint16_t)self->id[c];
    }
    uint16_t *fitted = n ? realloc(ids, n * sizeof *ids) : NULL;
    *tokens = fitted ? fitted : ids;
    *count = n;
    return PQ_OK;
}

static pq_status decode(const pq_tokenizer *tokenizer, const uint16_t *tokens, size_t count, char **text,
                        size_t *bytes, pq_error *err) {
    const characters *self = tokenizer->state;
    char *out = malloc(4 * count + 1);
    size_t n = 0;
    if (!out) return PQ_FAIL(err, PQ_ERR_MEMORY, "a text of %zu characters could not be allocated", count);
    for (size_t i = 0; i < count; i++) n += pq_utf8_write(self->code[tokens[i]], out + n);
    out[n] = 0;
    char *fitted = realloc(out, n + 1);
    *text = fitted ? fitted : out;
    *bytes = n;
    return PQ_OK;
}

const pq_tokenizer_row pq_tokenizer_char = {.name = "char",
                                            .create = create,
                                            .read = read,
                                            .write = write,
                                            .encode = encode,
                                            .decode = decode,
                                            .destroy = destroy};
