/* Owns the byte tokenizer: 256 ids, each byte its own; any bytes are text. */
#include <stdlib.h>
#include <string.h>

#include "data/tokenizer_kinds.h"

static pq_status create(const char *text, size_t bytes, pq_tokenizer *out, pq_error *err) {
    (void)text, (void)bytes, (void)err;
    out->vocab = 256;
    return PQ_OK;
}

static pq_status read(const json_t *object, pq_tokenizer *out, pq_error *err) {
    (void)object;
    return create(NULL, 0, out, err);
}

static int write(const pq_tokenizer *tokenizer, json_t *object) {
    (void)tokenizer, (void)object;
    return 0;
}

static pq_status encode(const pq_tokenizer *tokenizer, const char *text, size_t bytes, uint16_t **tokens,
                        size_t *count, pq_error *err) {
    (void)tokenizer;
    uint16_t *ids = malloc((bytes ? bytes : 1) * sizeof *ids);
    if (!ids) return PQ_FAIL(err, PQ_ERR_MEMORY, "%zu tokens could not be allocated", bytes);
    for (size_t i = 0; i < bytes; i++) ids[i] = (unsigned char)text[i];
    *tokens = ids;
    *count = bytes;
    return PQ_OK;
}

static pq_status decode(const pq_tokenizer *tokenizer, const uint16_t *tokens, size_t count, char **text,
                        size_t *bytes, pq_error *err) {
    (void)tokenizer;
    char *out = malloc(count + 1);
    if (!out) return PQ_FAIL(err, PQ_ERR_MEMORY, "a text of %zu bytes could not be allocated", count);
    for (size_t i = 0; i < count; i++) out[i] = (char)tokens[i];
    out[count] = 0;
    *text = out;
    *bytes = count;
    return PQ_OK;
}

const pq_tokenizer_row pq_tokenizer_byte = {
    .name = "byte", .create = create, .read = read, .write = write, .encode = encode, .decode = decode};
