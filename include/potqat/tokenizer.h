/* Text to token ids and back. */
#ifndef POTQAT_TOKENIZER_H
#define POTQAT_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include <potqat/status.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A tokenizer; immutable once made, so any number of threads may use one. */
typedef struct pq_tokenizer pq_tokenizer;

/** Make a tokenizer of `kind` ("char": the text's Unicode characters in code point order; "byte": 256 ids,
 * `text` unused). `text` is UTF-8; invalid UTF-8 is an error that names the byte offset. */
PQ_API pq_status pq_tokenizer_create(const char *kind, const char *text, size_t bytes, pq_tokenizer **out,
                                     pq_error *err);
/** The JSON text that pq_tokenizer_to_json wrote (and that checkpoints and packed models carry). */
PQ_API pq_status pq_tokenizer_from_json(const char *json, size_t bytes, pq_tokenizer **out, pq_error *err);
/** The tokenizer as JSON text, canonical: equal tokenizers give equal bytes. Heap, NULL on lack of memory. */
PQ_API char *pq_tokenizer_to_json(const pq_tokenizer *tokenizer);
PQ_API void pq_tokenizer_destroy(pq_tokenizer *tokenizer);

/** Ids run from 0 to this minus 1; at most 65,536. */
PQ_API size_t pq_tokenizer_vocab(const pq_tokenizer *tokenizer);
/** "char", "byte", ... */
PQ_API const char *pq_tokenizer_kind(const pq_tokenizer *tokenizer);
/** XXH3 of the JSON text: equal hashes mean the same ids. */
PQ_API uint64_t pq_tokenizer_hash(const pq_tokenizer *tokenizer);
/** The id that ends a document, or -1 where the tokenizer has none (char, byte). */
PQ_API int32_t pq_tokenizer_end_of_text(const pq_tokenizer *tokenizer);

/** tokens[*count] (heap, free()) of `bytes` bytes of UTF-8 text. A character outside the vocabulary is an
 * error that names it and its byte offset. */
PQ_API pq_status pq_tokenizer_encode(const pq_tokenizer *tokenizer, const char *text, size_t bytes,
                                     uint16_t **tokens, size_t *count, pq_error *err);
/** text[*bytes] (heap, NUL-terminated besides, free()) of tokens[count]; an id out of range is an error. */
PQ_API pq_status pq_tokenizer_decode(const pq_tokenizer *tokenizer, const uint16_t *tokens, size_t count,
                                     char **text, size_t *bytes, pq_error *err);

#ifdef __cplusplus
}
#endif
#endif
