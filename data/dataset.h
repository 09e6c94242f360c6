/* A text as tokens in three splits, and the windows drawn from it. Windows depend on (seed, iteration,
 * sequence) alone: resuming, threads and micro-batches do not change them. */
#ifndef PQ_DATA_DATASET_H
#define PQ_DATA_DATASET_H

#include <potqat/tokenizer.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef enum pq_split { PQ_TRAIN, PQ_VAL, PQ_TEST } pq_split;
typedef enum pq_order { PQ_ORDER_RANDOM, PQ_ORDER_EPOCH } pq_order;

typedef struct pq_data_options {
    const char *path; /* a text file, a folder of shards, a shard, or a name: tinyshakespeare | builtin */
    const char *tokenizer;      /* char | byte | NULL: the parent's */
    const pq_tokenizer *parent; /* the parent model's tokenizer or NULL; used when given (a kind that
                                   disagrees is an error) */
    double split[3]; /* shares of train, val, test, at most 1 together; contiguous, each split ends at
                        floor(n * sum of the shares so far). Prepared folders keep the splits they have */
} pq_data_options;

typedef struct pq_dataset pq_dataset;

/* The text, in this order for the name tinyshakespeare: a folder in POTQAT_DATA, the cache (POTQAT_CACHE,
 * else the user's cache folder), a download (short time-out, SHA-256 checked, kept in the cache), else the
 * built-in corpus, said with pq_log. Errors: missing, empty or too short text; characters the tokenizer does
 * not know. */
pq_status pq_dataset_open(const pq_data_options *options, pq_dataset **out, pq_error *err);
void pq_dataset_close(pq_dataset *dataset);

const pq_tokenizer *pq_dataset_tokenizer(const pq_dataset *dataset); /* borrowed */
const double *pq_dataset_shares(const pq_dataset *dataset);          /* [3], as split */
size_t pq_dataset_tokens(const pq_dataset *dataset, pq_split split);
uint64_t pq_dataset_hash(const pq_dataset *dataset);      /* of the tokens of all splits and the tokenizer */
const char *pq_dataset_source(const pq_dataset *dataset); /* one line for people: which text, from where */
/* Entropy in nats a token below which no model can go on average (the built-in corpus with the char
 * tokenizer); NaN where it is not known. */
double pq_dataset_floor(const pq_dataset *dataset);

/* Copy `count` tokens from `offset` of a split; in range by contract. */
void pq_dataset_read(const pq_dataset *dataset, pq_split split, size_t offset, size_t count, uint16_t *out);

/* The start of training window `sequence` (0 .. sequences-1, over all micro-batches) of iteration `iter`; the
 * window is context + 1 tokens long, which the split must hold (pq_dataset_check). RANDOM draws starts
 * uniformly from [0, n - context); EPOCH passes through the n' = (n - 1) / context windows that do not
 * overlap, in a new order each epoch, without repeats. */
size_t pq_dataset_window(const pq_dataset *dataset, pq_order order, uint64_t seed, uint64_t iter,
                         uint64_t sequences, uint64_t sequence, size_t context);
/* PQ_ERR_USAGE with the numbers when a split is too short for one window of context + 1 tokens. */
pq_status pq_dataset_check(const pq_dataset *dataset, pq_split split, size_t context, pq_error *err);

#endif
