/* GPT-2's byte-level BPE inside: the tables that make one, the words that a text is split into, and the
 * merging of a word's bytes into tokens. */
#ifndef PQ_DATA_TOKENIZER_BPE_H
#define PQ_DATA_TOKENIZER_BPE_H

#include <stdbool.h>

#include "data/tokenizer_kinds.h"

#define PQ_END_OF_TEXT "<|endoftext|>"

enum {
    PQ_BPE_MERGES = 1 << 20,     /* at most so many */
    PQ_BPE_TOKEN_BYTES = 1 << 12 /* a token has at most so many bytes; GPT-2's longest has 128 */
};

/* Where `left` meets `right`, they become `made`. */
typedef struct pq_bpe_merge {
    uint16_t left, right, made;
} pq_bpe_merge;

/* What says everything about one. Each id is one of: a byte's, a merge's, the end of text's. */
typedef struct pq_bpe_tables {
    uint16_t byte_id[256];
    pq_bpe_merge *merges; /* [merge_count], heap; the first is the strongest */
    size_t merge_count, vocab;
    int32_t end; /* the id of PQ_END_OF_TEXT, -1 = it has none */
} pq_bpe_tables;

/* The place of a pair of ids in the list of merges. */
typedef struct pq_bpe_slot {
    uint32_t pair; /* left << 16 | right */
    uint32_t rank; /* UINT32_MAX = free */
} pq_bpe_slot;

/* The state of the kind "bpe". */
typedef struct pq_bpe {
    pq_bpe_tables tables;
    pq_bpe_slot *slots; /* [slot_mask + 1], linear probing, at most half full */
    size_t slot_mask;
    char *bytes;      /* those of all tokens */
    uint32_t *start;  /* [vocab] where a token's begin */
    uint16_t *length; /* [vocab] how many it has */
    struct pq_split *split;
} pq_bpe;

/* A tokenizer of `tables` (its merges are taken, also on error). PQ_ERR_FORMAT: ids out of range or without
 * origin, merges that occur twice or use tokens that no earlier merge makes. */
pq_status pq_tokenizer_from_tables(pq_bpe_tables *tables, pq_tokenizer **out, pq_error *err);
/* The state of a tokenizer of the kind "bpe", NULL for another kind. */
const pq_bpe *pq_tokenizer_bpe(const pq_tokenizer *tokenizer);

/* The slot of the merge of two ids, or the free one where it would be. */
static inline pq_bpe_slot *pq_bpe_slot_of(const pq_bpe *bpe, uint32_t left, uint32_t right) {
    const uint32_t pair = left << 16 | right;
    size_t i = (pair * UINT64_C(0x9E3779B97F4A7C15)) >> 40 & bpe->slot_mask;
    while (bpe->slots[i].rank != UINT32_MAX && bpe->slots[i].pair != pair) i = (i + 1) & bpe->slot_mask;
    return &bpe->slots[i];
}

/* The rank of that merge, UINT32_MAX where there is none. */
static inline uint32_t pq_bpe_rank(const pq_bpe *bpe, uint32_t left, uint32_t right) {
    return pq_bpe_slot_of(bpe, left, right)->rank;
}

/* encode and encode_documents of the kind. */
pq_status pq_bpe_encode(const pq_tokenizer *tokenizer, const char *text, size_t bytes, uint16_t **tokens,
                        size_t *count, pq_error *err);
pq_status pq_bpe_encode_documents(const pq_tokenizer *tokenizer, const char *text, size_t bytes,
                                  uint16_t **tokens, size_t *count, pq_error *err);

/* The tokens of a word: out[*count], which has room for `bytes` ids. */
pq_status pq_bpe_merge_word(const pq_bpe *bpe, const char *word, size_t bytes, uint16_t *out, size_t *count,
                            pq_error *err);

/* GPT-2's split pattern, compiled. */
typedef struct pq_split pq_split;
pq_status pq_split_create(pq_split **out, pq_error *err);
void pq_split_destroy(pq_split *split);

/* The words of a text, one after another: nothing is left out. What is not UTF-8 is no part of what the
 * pattern sees: the text ends there for it, and each run of such bytes is a word. */
typedef struct pq_words {
    const pq_split *split;
    const char *text;
    size_t bytes, at;
    size_t valid; /* up to here the text is known to be UTF-8 */
    void *match;
} pq_words;

pq_status pq_words_init(pq_words *words, const pq_split *split, pq_error *err);
void pq_words_deinit(pq_words *words);
/* Begin with a text, which must live on. */
void pq_words_start(pq_words *words, const char *text, size_t bytes);
/* The length of the next word, which begins at text[at - length]; 0 at the end. */
pq_status pq_words_next(pq_words *words, size_t *length, pq_error *err);

#endif
