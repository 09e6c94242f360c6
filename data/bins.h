/* Bare tokens in files of other programs: nanoGPT's .bin (uint16 and nothing else) and llm.c's (1,024 bytes
 * of header: magic 20240520, version 1, number of tokens as int32, then uint16). Little-endian, used in
 * place. */
#ifndef PQ_DATA_BINS_H
#define PQ_DATA_BINS_H

#include "data/shards.h"

/* FOLDER/train.bin, ...; heap, NULL on lack of memory. */
char *pq_bin_path(const char *folder, pq_split split);
/* Map it and look at every token. PQ_ERR_FORMAT for a length that does not fit, another version, or an id
 * that `tokenizer` does not have. Close it as a shard. */
pq_status pq_bin_open(const char *path, const pq_tokenizer *tokenizer, pq_shard *out, pq_error *err);

#endif
