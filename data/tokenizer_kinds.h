/* What a kind of tokenizer is: one row of the table in tokenizer.c and one file that fills it. */
#ifndef PQ_DATA_TOKENIZER_KINDS_H
#define PQ_DATA_TOKENIZER_KINDS_H

#include <jansson.h>
#include <potqat/tokenizer.h>

#include "base/error.h"

#define PQ_TOKENIZER_MOST 65536 /* ids are uint16 */

typedef struct pq_tokenizer_row {
    const char *name;
    /* Both fill out->vocab and out->state; on error they leave nothing behind. `read` takes from the parsed
     * JSON object what `write` put there. */
    pq_status (*create)(const char *text, size_t bytes, pq_tokenizer *out, pq_error *err);
    pq_status (*read)(const json_t *object, pq_tokenizer *out, pq_error *err);
    int (*write)(const pq_tokenizer *tokenizer, json_t *object); /* 0, or -1 on lack of memory */
    pq_status (*encode)(const pq_tokenizer *tokenizer, const char *text, size_t bytes, uint16_t **tokens,
                        size_t *count, pq_error *err);
    /* The same where ends of documents are read; NULL for a kind that has none. */
    pq_status (*encode_documents)(const pq_tokenizer *tokenizer, const char *text, size_t bytes,
                                  uint16_t **tokens, size_t *count, pq_error *err);
    /* The ids are in range already. */
    pq_status (*decode)(const pq_tokenizer *tokenizer, const uint16_t *tokens, size_t count, char **text,
                        size_t *bytes, pq_error *err);
    void (*destroy)(void *state);
} pq_tokenizer_row;

struct pq_tokenizer {
    const pq_tokenizer_row *kind;
    size_t vocab;
    uint64_t hash;
    int32_t end; /* the id that ends a document, -1 = none */
    void *state; /* the kind's own; NULL where it needs none */
};

extern const pq_tokenizer_row pq_tokenizer_char, pq_tokenizer_byte, pq_tokenizer_bpe_row;

/* A tokenizer of a kind with nothing in it, *out; then, once it is filled, the last step: its hash. On error
 * finish destroys it. */
pq_status pq_tokenizer_begin(const pq_tokenizer_row *kind, pq_tokenizer **out, pq_error *err);
pq_status pq_tokenizer_finish(pq_tokenizer *tokenizer, pq_tokenizer **out, pq_error *err);

#endif
