/* A text as tokens in three splits, and the windows drawn from it. Windows depend on (seed, iteration,
 * sequence) alone: resuming, threads and micro-batches do not change them. */
#ifndef PQ_DATA_DATASET_H
#define PQ_DATA_DATASET_H

#include <potqat/tokenizer.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "data/documents.h"
#include "data/split.h"

typedef enum pq_order { PQ_ORDER_RANDOM, PQ_ORDER_EPOCH } pq_order;

typedef struct pq_data_options {
    const char *path;  /* a source of text (documents.h), a folder of shards, a shard, a .bin file of nanoGPT
                          or  llm.c, or a folder with train.bin and val.bin */
    const char *field; /* of JSONL; NULL = text */
    const char *tokenizer;      /* char | byte | what pq_tokenizer_open takes | NULL: the parent's, or char */
    const pq_tokenizer *parent; /* the parent model's tokenizer or NULL; used when given (a `tokenizer` that
                                   disagrees is an error) */
    double split[3];  /* shares of train, val, test, at most 1 together (split.h). Prepared folders keep the
                         splits they have */
    bool by_document; /* cut between documents (texts alone), else three contiguous parts */
} pq_data_options;

typedef struct pq_dataset pq_dataset;

/* What a data.path is, by its name and by what lies there. */
typedef enum pq_data_kind {
    PQ_DATA_TEXT,
    PQ_DATA_SHARDS,
    PQ_DATA_SHARD,
    PQ_DATA_BIN,
    PQ_DATA_BINS
} pq_data_kind;
pq_data_kind pq_data_kind_of(const char *path);
/* PQ_ERR_USAGE for shares that are none, and for a tokenizer that is not the parent's. */
pq_status pq_data_check(const pq_data_options *options, pq_error *err);
/* The tokenizer that the options ask for, for documents just opened; the rest as in encode.h. */
pq_status pq_data_tokenizer(const pq_data_options *options, pq_documents *documents,
                            bool (*go_on)(void *context, const pq_documents *at), void *context,
                            pq_tokenizer **out, pq_error *err);

/* The text, in this order for the name tinyshakespeare: a folder in POTQAT_DATA, the cache (POTQAT_CACHE,
 * else the user's cache folder), a download (short time-out, SHA-256 checked, kept in the cache). Errors:
 * missing, empty or too short text; one that cannot be downloaded; characters the tokenizer does not know. */
pq_status pq_dataset_open(const pq_data_options *options, pq_dataset **out, pq_error *err);
void pq_dataset_close(pq_dataset *dataset);

const pq_tokenizer *pq_dataset_tokenizer(const pq_dataset *dataset); /* borrowed */
const double *pq_dataset_shares(const pq_dataset *dataset);          /* [3], as split */
bool pq_dataset_by_document(const pq_dataset *dataset);
size_t pq_dataset_tokens(const pq_dataset *dataset, pq_split split);
uint64_t pq_dataset_hash(const pq_dataset *dataset);      /* of the tokens of all splits and the tokenizer */
const char *pq_dataset_source(const pq_dataset *dataset); /* one line for people: which text, from where */
/* Entropy in nats a token below which no model can go on average (the built-in corpus with the char
 * tokenizer); NaN where it is not known. */
double pq_dataset_floor(const pq_dataset *dataset);
/* pq_dataset_hash from its parts: how many tokens each split has, and XXH3 of their bytes. */
uint64_t pq_dataset_hash_of(const pq_tokenizer *tokenizer, const size_t tokens[3], const uint64_t hash[3]);

/* Copy `count` tokens from `offset` of a split; in range by contract. */
void pq_dataset_read(const pq_dataset *dataset, pq_split split, size_t offset, size_t count, uint16_t *out);
/* These tokens will be read soon: where they lie in a mapped file, begin to fetch them, and do not wait. */
void pq_dataset_prefetch(const pq_dataset *dataset, pq_split split, size_t offset, size_t count);

/* The start of training window `sequence` (0 .. sequences-1, over all micro-batches) of iteration `iter`; the
 * window is context + 1 tokens long, which the split must hold (pq_dataset_check). RANDOM draws starts
 * uniformly from [0, n - context); EPOCH passes through the n' = (n - 1) / context windows that do not
 * overlap, in a new order each epoch, without repeats. */
size_t pq_dataset_window(const pq_dataset *dataset, pq_order order, uint64_t seed, uint64_t iter,
                         uint64_t sequences, uint64_t sequence, size_t context);
/* PQ_ERR_USAGE with the numbers when a split is too short for one window of context + 1 tokens. */
pq_status pq_dataset_check(const pq_dataset *dataset, pq_split split, size_t context, pq_error *err);

#endif
