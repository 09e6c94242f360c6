/* Token shards: a folder with the tokens of three splits, cut into files that are memory-mapped, their
 * tokenizer and an index. docs/formats.md specifies it.
 *
 *   DIR/shards.json        index: splits, and tokens and hash of each shard; itself hashed
 *   DIR/tokenizer.json     the tokenizer (tokenizer.h)
 *   DIR/train-00000.shard  ... val-, test-: 64 bytes of header, then tokens as uint16, little-endian */
#ifndef PQ_DATA_SHARDS_H
#define PQ_DATA_SHARDS_H

#include <jansson.h>

#include "base/file.h"
#include "data/dataset.h"

#define PQ_SHARD_MAGIC   "PQSHARD\n"
#define PQ_SHARD_VERSION 1
#define PQ_SHARD_TOKENS  ((size_t)64 << 20) /* at most so many tokens a shard, unless told otherwise */
#define PQ_SHARDS_INDEX  "shards.json"
#define PQ_SHARDS_FORMAT "potqat-shards"

typedef struct pq_shard_header {
    char magic[8];
    uint32_t version;
    uint32_t vocab;     /* every token is below it */
    uint64_t tokens;    /* the file is 64 + 2 * tokens bytes long */
    uint64_t hash;      /* XXH3 of the tokens' bytes */
    uint64_t tokenizer; /* hash of the tokenizer's JSON text */
    uint64_t zero[3];
} pq_shard_header;

/* One shard, mapped and checked. */
typedef struct pq_shard {
    pq_file_view view;
    const uint16_t *tokens; /* [count], in the view */
    size_t count;
    uint64_t hash;
} pq_shard;

/* One pass over the mapped tokens[count], whose pages are let go behind it: XXH3 of their bytes in *hash, the
 * largest of them in *largest; `running` (may be NULL) takes their bytes, too. */
struct XXH3_state_s;
pq_status pq_tokens_scan(const uint16_t *tokens, size_t count, struct XXH3_state_s *running, uint64_t *hash,
                         uint16_t *largest, pq_error *err);

/* Map a shard and check its header against the file and `tokenizer`, then its hash and every token.
 * PQ_ERR_FORMAT when it is damaged, newer, or of another tokenizer. `running` as above. */
pq_status pq_shard_open(const char *path, const pq_tokenizer *tokenizer, struct XXH3_state_s *running,
                        pq_shard *out, pq_error *err);
void pq_shard_close(pq_shard *shard);
/* Whether `path` is a file that begins as a shard does. */
bool pq_shard_looks_like(const char *path);

/* A folder of shards, opened. */
typedef struct pq_shards {
    pq_tokenizer *tokenizer;
    pq_shard *shard[3]; /* [count[split]] */
    size_t count[3];
    uint64_t hash[3]; /* of all tokens of a split */
    double split[3];  /* shares that the folder was made with */
    bool by_document; /* ... and how */
    double floor;     /* pq_dataset_floor of the text, NaN = unknown */
    char *source;     /* pq_dataset_source of the text */
} pq_shards;

pq_status pq_shards_open(const char *folder, pq_shards *out, pq_error *err);
void pq_shards_close(pq_shards *shards);
/* The tokenizer.json in `folder`. */
pq_status pq_shards_tokenizer(const char *folder, pq_tokenizer **out, pq_error *err);

/* FOLDER/train-00000.shard, ...; heap, NULL on lack of memory. */
char *pq_shard_path(const char *folder, pq_split split, size_t number);
/* The hash that stands in an index, of the object without it; 0 on lack of memory. */
uint64_t pq_shards_index_hash(const json_t *index);

/* Tokens to be written, wherever they are. */
typedef struct pq_shards_plan {
    const pq_tokenizer *tokenizer;
    double split[3], floor;
    bool by_document;
    const char *source;
    size_t tokens[3], shard_tokens; /* of each split; at most, of each file */
    pq_status (*read)(void *context, pq_split split, size_t offset, size_t count, uint16_t *out,
                      pq_error *err);
    void *context;
} pq_shards_plan;

/* Write all files into `folder`, which exists; hash[split] = XXH3 of the bytes of its tokens. */
pq_status pq_shards_write_files(const pq_shards_plan *plan, const char *folder, uint64_t hash[3],
                                pq_error *err);
/* Whether `folder` may be written: absent; or, with overwrite, empty or of shards (*older = true). A folder
 * that holds other things and no shards.json is never touched. */
pq_status pq_shards_check_target(const char *folder, bool overwrite, bool *older, pq_error *err);
/* Give the files in `temporary` their place: the folder's name, or where `older` is set that of each file of
 * an older folder; all others are left alone. Cut short, the old index does not fit the new files, so that
 * the folder is refused; with the same files in `temporary` again it can be repeated. */
pq_status pq_shards_publish(const char *temporary, const char *folder, bool older, pq_error *err);
void pq_shards_remove(const char *folder); /* the files that write_files makes, and the folder when empty */

/* Write `dataset` as a folder of shards with at most shard_tokens tokens each. The folder appears whole or
 * not at all. An existing one is refused unless `overwrite`, as above. */
pq_status pq_shards_write(const pq_dataset *dataset, const char *folder, bool overwrite, size_t shard_tokens,
                          pq_error *err);

#endif
