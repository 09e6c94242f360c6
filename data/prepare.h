/* Texts of any size into a folder of shards, in bounded memory; the work can be cut short at any point and
 * resumed, and then gives the same bytes.
 *
 * Until it is done, all is in DIR.part: tokenizer.json, the tokens so far (tokens-0, or tokens-0 ... tokens-2
 * where splits are cut between documents), progress.json (how far they go and where in the text that is), and
 * at last shards/, which is renamed to DIR. */
#ifndef PQ_DATA_PREPARE_H
#define PQ_DATA_PREPARE_H

#include "data/dataset.h"

typedef struct pq_prepare_options {
    pq_data_options data;
    const char *folder; /* to be made */
    bool overwrite;     /* replace an older folder of shards, throw away what was begun */
    bool resume;        /* go on with what was begun; from the start where nothing was */
    size_t shard_tokens;
    uint64_t save_every; /* bytes of text on the disk between two savings of progress; 0 = 32 MiB */
    /* Called often, with what is being done and how many of how many bytes are; false stops (PQ_STOPPED, to
     * be resumed). NULL: none. */
    bool (*go_on)(void *context, const char *doing, uint64_t done, uint64_t total);
    void *context;
} pq_prepare_options;

/* What was made; deinit it. */
typedef struct pq_prepared {
    char *source; /* as pq_dataset_source of the text */
    pq_tokenizer *tokenizer;
    size_t tokens[3];
    uint64_t hash; /* as pq_dataset_hash of the folder */
} pq_prepared;

/* The folder appears whole or not at all; after an error nothing is left of it, after a stop DIR.part. */
pq_status pq_prepare(const pq_prepare_options *options, pq_prepared *out, pq_error *err);
void pq_prepared_deinit(pq_prepared *prepared);

#endif
