/* Text to token ids and back. */
#ifndef POTQAT_TOKENIZER_H
#define POTQAT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <potqat/status.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A tokenizer; immutable once made, so any number of threads may use one. */
typedef struct pq_tokenizer pq_tokenizer;

/** Make a tokenizer of `kind` ("char": the text's Unicode characters in code point order; "byte": 256 ids,
 * `text` unused). `text` is UTF-8; invalid UTF-8 is an error that names the byte offset. The kind "bpe" is
 * opened or learned. */
PQ_API pq_status pq_tokenizer_create(const char *kind, const char *text, size_t bytes, pq_tokenizer **out,
                                     pq_error *err);
/** A tokenizer from files: a tokenizer.json (potqat's, or Hugging Face's of a byte-level BPE with GPT-2's
 * split), or a folder that holds one, or vocab.json and merges.txt, or encoder.json and vocab.bpe; looked for
 * in this order. Whatever would give other ids than those files' own program gives is an error that names the
 * file. */
PQ_API pq_status pq_tokenizer_open(const char *path, pq_tokenizer **out, pq_error *err);
/** Whether `folder` holds files that pq_tokenizer_open looks for. */
PQ_API bool pq_tokenizer_is_in(const char *folder);
/** Learn a byte-level BPE with GPT-2's split from `text` (any bytes): 256 bytes, then merges of the most
 * frequent pair of tokens (of equally frequent ones that with the lower left id, then the lower right id),
 * then
 * <|endoftext|>, `vocab` ids together (257 to 65,536); fewer where no pair occurs twice any more.
 * <|endoftext|> in the text separates documents. */
PQ_API pq_status pq_tokenizer_learn(const char *text, size_t bytes, size_t vocab, pq_tokenizer **out,
                                    pq_error *err);
/** The text (heap) of one of the files that Hugging Face's programs read a "bpe" from: "tokenizer.json",
 * "tokenizer_config.json", "vocab.json" or "merges.txt". PQ_ERR_USAGE for another kind or name. */
PQ_API pq_status pq_tokenizer_to_file(const pq_tokenizer *tokenizer, const char *name, char **text,
                                      pq_error *err);
/** The JSON text that pq_tokenizer_to_json wrote (and that checkpoints and packed models carry). */
PQ_API pq_status pq_tokenizer_from_json(const char *json, size_t bytes, pq_tokenizer **out, pq_error *err);
/** The tokenizer as JSON text, canonical: equal tokenizers give equal bytes. Heap, NULL on lack of memory. */
PQ_API char *pq_tokenizer_to_json(const pq_tokenizer *tokenizer);
PQ_API void pq_tokenizer_destroy(pq_tokenizer *tokenizer);

/** Ids run from 0 to this minus 1; at most 65,536. */
PQ_API size_t pq_tokenizer_vocab(const pq_tokenizer *tokenizer);
/** "char", "byte" or "bpe". */
PQ_API const char *pq_tokenizer_kind(const pq_tokenizer *tokenizer);
/** XXH3 of the JSON text: equal hashes mean the same ids. */
PQ_API uint64_t pq_tokenizer_hash(const pq_tokenizer *tokenizer);

/** The id that ends a document (<|endoftext|>), -1 where there is none. */
PQ_API int32_t pq_tokenizer_end_of_text(const pq_tokenizer *tokenizer);

/** tokens[*count] (heap, free()) of `bytes` bytes of text. "char" knows UTF-8 alone: another byte or a
 * character outside the vocabulary is an error that names it and its byte offset; the others take any bytes.
 * The whole text is plain text, also where it says <|endoftext|>. "bpe" uses all threads; the ids do not
 * depend on them. */
PQ_API pq_status pq_tokenizer_encode(const pq_tokenizer *tokenizer, const char *text, size_t bytes,
                                     uint16_t **tokens, size_t *count, pq_error *err);
/** The same, but each <|endoftext|> in the text becomes the one token that ends a document, where the
 * tokenizer has it: for training text, never for a prompt. */
PQ_API pq_status pq_tokenizer_encode_documents(const pq_tokenizer *tokenizer, const char *text, size_t bytes,
                                               uint16_t **tokens, size_t *count, pq_error *err);
/** text[*bytes] (heap, NUL-terminated besides, free()) of tokens[count]; an id out of range is an error. */
PQ_API pq_status pq_tokenizer_decode(const pq_tokenizer *tokenizer, const uint16_t *tokens, size_t count,
                                     char **text, size_t *bytes, pq_error *err);

#ifdef __cplusplus
}
#endif
#endif
