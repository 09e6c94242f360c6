/* Documents to tokens, on all threads, in bounded memory. */
#ifndef PQ_DATA_ENCODE_H
#define PQ_DATA_ENCODE_H

#include <potqat/tokenizer.h>
#include <stdbool.h>

#include "base/error.h"
#include "data/documents.h"

/* Takes `count` tokens of a document; called in the order of the text. */
typedef pq_status (*pq_token_sink)(void *context, uint64_t document, const uint16_t *tokens, size_t count,
                                   pq_error *err);

typedef struct pq_encoder pq_encoder;

/* Both are borrowed. Documents end with the tokenizer's end-of-text id where it has one. */
pq_status pq_encoder_create(pq_documents *documents, const pq_tokenizer *tokenizer, pq_encoder **out,
                            pq_error *err);
void pq_encoder_destroy(pq_encoder *encoder); /* NULL is fine */
/* The next MiB or so of text to `sink`; *more = whether there may be any after them. The documents then stand
 * where the next call begins. An error of the tokenizer names file and place. */
pq_status pq_encoder_next(pq_encoder *encoder, pq_token_sink sink, void *context, bool *more, pq_error *err);

/* A tokenizer of `kind` for documents just opened, which are read whole where the kind needs it (char) and
 * then restarted for it; `go_on` (NULL: none) is called now and then, and stops the work (PQ_STOPPED) by
 * returning false. */
pq_status pq_encoder_tokenizer(const char *kind, pq_documents *documents,
                               bool (*go_on)(void *context, const pq_documents *at), void *context,
                               pq_tokenizer **out, pq_error *err);

#endif
