/* Owns the way from a data.path to tokens in three splits, and the order in which windows are drawn. Texts
 * are documents.c's and encode.c's, shards are shards.c's, bare tokens are bins.c's. */
#include "data/dataset.h"

#include <libgen.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/random.h"
#include "data/bins.h"
#include "data/encode.h"
#include "data/fetch.h"
#include "data/files.h"
#include "data/shards.h"

/* Tokens that follow one another in memory: a whole split, or one shard of it. */
typedef struct piece {
    const uint16_t *tokens;
    size_t start, count; /* within the split */
} piece;

struct pq_dataset {
    pq_tokenizer *tokenizer;
    piece *pieces[3];
    size_t piece_count[3], tokens[3];
    double shares[3], floor;
    bool by_document;
    char *source;
    uint64_t hash;
    uint16_t *text[3]; /* the tokens of a text: of each split, or all in the first; NULL for shards */
    pq_shards shards;  /* empty for a text */
};

static pq_status no_memory(pq_error *err) {
    return PQ_FAIL(err, PQ_ERR_MEMORY, "the name of a text could not be allocated");
}

static void add_piece(pq_dataset *dataset, pq_split split, const uint16_t *tokens, size_t count) {
    dataset->pieces[split][dataset->piece_count[split]++] =
        (piece){.tokens = tokens, .start = dataset->tokens[split], .count = count};
    dataset->tokens[split] += count;
}

/* Three contiguous splits of tokens[n]. */
static pq_status cut(pq_dataset *dataset, const uint16_t *tokens, size_t n, pq_error *err) {
    size_t count[3];
    pq_split_tokens(dataset->shares, n, count);
    PQ_TRY(pq_split_check(dataset->shares, count, n, dataset->source, err));
    for (pq_split split = PQ_TRAIN; split <= PQ_TEST; split++) {
        PQ_TRY(pq_calloc(1, sizeof(piece), "the splits", &dataset->pieces[split], err));
        if (count[split]) add_piece(dataset, split, tokens, count[split]);
        tokens += count[split];
    }
    return PQ_OK;
}

/* Whether `name` is a kind of tokenizer that a text gives; else it is a file or a folder. */
static bool is_kind(const char *name) {
    return strcmp(name, "char") == 0 || strcmp(name, "byte") == 0;
}

static pq_status copy_tokenizer(const pq_tokenizer *from, pq_tokenizer **out, pq_error *err) {
    char *json = pq_tokenizer_to_json(from);
    if (!json) return PQ_FAIL(err, PQ_ERR_MEMORY, "the parent's tokenizer could not be copied");
    pq_status status = pq_tokenizer_from_json(json, strlen(json), out, err);
    free(json);
    return status;
}

pq_status pq_data_tokenizer(const pq_data_options *options, pq_documents *documents,
                            bool (*go_on)(void *context, const pq_documents *at), void *context,
                            pq_tokenizer **out, pq_error *err) {
    const char *name = options->tokenizer ? options->tokenizer : "char";
    if (!options->parent && is_kind(name))
        return pq_encoder_tokenizer(name, documents, go_on, context, out, err);
    if (!options->parent && !pq_file_exists(name))
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "data.tokenizer: expected char, byte, or the path of a tokenizer.json or of its "
                       "folder, found %s, and no such file",
                       name);
    if (options->parent)
        PQ_TRY(copy_tokenizer(options->parent, out, err)); /* the parent may be destroyed */
    else
        PQ_TRY(pq_tokenizer_open(name, out, err));
    pq_documents_restart(documents, pq_tokenizer_end_of_text(*out) >= 0);
    return PQ_OK;
}

/* Tokens that arrive piece by piece. */
typedef struct growing {
    pq_dataset *dataset;
    size_t count[3], capacity[3];
} growing;

static pq_status take_tokens(void *context, uint64_t document, const uint16_t *tokens, size_t count,
                             pq_error *err) {
    growing *g = context;
    int split = g->dataset->by_document ? pq_split_of_document(g->dataset->shares, document) : 0;
    if (split > 2) return PQ_OK;
    uint16_t **all = &g->dataset->text[split];
    if (count > g->capacity[split] - g->count[split]) {
        size_t capacity = 2 * g->capacity[split] + count;
        uint16_t *larger = realloc(*all, capacity * sizeof **all);
        if (!larger)
            return PQ_FAIL(err, PQ_ERR_MEMORY,
                           "%zu tokens could not be allocated; potqat data prepare makes shards of a large "
                           "text",
                           capacity);
        *all = larger;
        g->capacity[split] = capacity;
    }
    memcpy(*all + g->count[split], tokens, count * sizeof *tokens);
    g->count[split] += count;
    return PQ_OK;
}

static pq_status encode_all(pq_dataset *dataset, pq_documents *documents, pq_error *err) {
    growing g = {.dataset = dataset};
    pq_encoder *encoder;
    bool more = true;
    PQ_TRY(pq_encoder_create(documents, dataset->tokenizer, &encoder, err));
    pq_status status = PQ_OK;
    while (more && status == PQ_OK) status = pq_encoder_next(encoder, take_tokens, &g, &more, err);
    pq_encoder_destroy(encoder);
    PQ_TRY(status);
    size_t n = g.count[0] + g.count[1] + g.count[2];
    if (n == 0)
        return PQ_FAIL(err, PQ_ERR_USAGE, "%s is empty; a text to learn from has characters",
                       dataset->source);
    if (!dataset->by_document) return cut(dataset, dataset->text[0], n, err);
    PQ_TRY(pq_split_check(dataset->shares, g.count, n, dataset->source, err));
    for (pq_split split = PQ_TRAIN; split <= PQ_TEST; split++) {
        PQ_TRY(pq_calloc(1, sizeof(piece), "the splits", &dataset->pieces[split], err));
        if (g.count[split]) add_piece(dataset, split, dataset->text[split], g.count[split]);
    }
    return PQ_OK;
}

static pq_status open_text(const pq_data_options *options, pq_dataset *dataset, pq_error *err) {
    pq_documents *documents;
    dataset->by_document = options->by_document;
    PQ_TRY(pq_documents_open(options->path, options->field, &documents, err));
    dataset->floor = pq_documents_floor(documents);
    pq_status status = pq_copy_text(pq_documents_name(documents), &dataset->source, err);
    if (status == PQ_OK) status = pq_data_tokenizer(options, documents, NULL, NULL, &dataset->tokenizer, err);
    if (status == PQ_OK) status = encode_all(dataset, documents, err);
    pq_documents_close(documents);
    return status;
}

/* Whether the tokenizer that `name` asks for (NULL: any) is `found`. */
static pq_status agrees(const char *name, const pq_tokenizer *found, bool *same, pq_error *err) {
    pq_tokenizer *wanted;
    *same = !name || strcmp(name, pq_tokenizer_kind(found)) == 0;
    if (*same || is_kind(name)) return PQ_OK;
    PQ_TRY(pq_tokenizer_open(name, &wanted, err));
    *same = pq_tokenizer_hash(wanted) == pq_tokenizer_hash(found);
    pq_tokenizer_destroy(wanted);
    return PQ_OK;
}

/* Shards carry their tokenizer; it must be the one that is asked for. */
static pq_status check_tokenizer(const pq_data_options *options, const pq_tokenizer *found, pq_error *err) {
    const char *kind = pq_tokenizer_kind(found);
    bool same;
    PQ_TRY(agrees(options->tokenizer, found, &same, err));
    if (!same)
        return PQ_FAIL(err, PQ_ERR_USAGE, "%s was prepared with the tokenizer %s; data.tokenizer is %s",
                       options->path, kind, options->tokenizer);
    if (options->parent && pq_tokenizer_hash(options->parent) != pq_tokenizer_hash(found))
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "%s was prepared with another tokenizer (%s, %zu ids) than the model's (%s, %zu ids)",
                       options->path, kind, pq_tokenizer_vocab(found), pq_tokenizer_kind(options->parent),
                       pq_tokenizer_vocab(options->parent));
    return PQ_OK;
}

static pq_status open_folder(const pq_data_options *options, pq_dataset *dataset, pq_error *err) {
    pq_shards *shards = &dataset->shards;
    PQ_TRY(pq_shards_open(options->path, shards, err));
    PQ_TRY(check_tokenizer(options, shards->tokenizer, err));
    dataset->tokenizer = shards->tokenizer;
    shards->tokenizer = NULL;
    dataset->floor = shards->floor;
    if (memcmp(shards->split, options->split, sizeof shards->split) != 0 ||
        shards->by_document != options->by_document)
        pq_log(PQ_LOG_WARNING,
               "%s was split %g, %g, %g by %s when it was prepared; data.split and data.split_by do not "
               "change that",
               options->path, shards->split[0], shards->split[1], shards->split[2],
               shards->by_document ? "document" : "token");
    dataset->by_document = shards->by_document;
    memcpy(dataset->shares, shards->split, sizeof dataset->shares);
    if (asprintf(&dataset->source, "shards in %s of %s", options->path, shards->source) < 0)
        return no_memory(err);
    for (pq_split split = PQ_TRAIN; split <= PQ_TEST; split++) {
        PQ_TRY(pq_calloc(shards->count[split], sizeof(piece), "the shards", &dataset->pieces[split], err));
        for (size_t i = 0; i < shards->count[split]; i++)
            add_piece(dataset, split, shards->shard[split][i].tokens, shards->shard[split][i].count);
    }
    return PQ_OK;
}

/* The tokenizer.json in the folder of `file`. */
static pq_status tokenizer_beside(const char *file, pq_tokenizer **out, pq_error *err) {
    char *path;
    PQ_TRY(pq_copy_text(file, &path, err));
    pq_status status = pq_shards_tokenizer(dirname(path), out, err);
    free(path);
    return status;
}

/* One shard by itself, its tokenizer beside it: cut like a text. */
static pq_status open_shard(const pq_data_options *options, pq_dataset *dataset, pq_error *err) {
    pq_shards *shards = &dataset->shards;
    PQ_TRY(tokenizer_beside(options->path, &dataset->tokenizer, err));
    PQ_TRY(check_tokenizer(options, dataset->tokenizer, err));
    PQ_TRY(pq_calloc(1, sizeof(pq_shard), "the shard", &shards->shard[0], err));
    PQ_TRY(pq_shard_open(options->path, dataset->tokenizer, NULL, shards->shard[0], err));
    shards->count[0] = 1;
    if (asprintf(&dataset->source, "the shard %s", options->path) < 0) return no_memory(err);
    return cut(dataset, shards->shard[0]->tokens, shards->shard[0]->count, err);
}

/* Bare tokens say nothing of their vocabulary: it is the parent's, the one asked for, or lies beside them. */
static pq_status tokenizer_of_bin(const pq_data_options *options, const char *file, pq_tokenizer **out,
                                  pq_error *err) {
    if (options->parent) return copy_tokenizer(options->parent, out, err);
    if (options->tokenizer && strcmp(options->tokenizer, "char") != 0)
        return pq_tokenizer_create(options->tokenizer, "", 0, out, err);
    if (tokenizer_beside(file, out, err) != PQ_OK)
        return pq_prefix(err, PQ_ERR_USAGE,
                         "%s holds tokens alone; data.tokenizer, the parent model or a tokenizer.json beside "
                         "it has to name their vocabulary",
                         file);
    return check_tokenizer(options, *out, err);
}

static pq_status open_bin(const pq_data_options *options, pq_dataset *dataset, pq_error *err) {
    pq_shards *shards = &dataset->shards;
    PQ_TRY(tokenizer_of_bin(options, options->path, &dataset->tokenizer, err));
    PQ_TRY(pq_calloc(1, sizeof(pq_shard), "the tokens", &shards->shard[0], err));
    PQ_TRY(pq_bin_open(options->path, dataset->tokenizer, shards->shard[0], err));
    shards->count[0] = 1;
    if (asprintf(&dataset->source, "the tokens in %s", options->path) < 0) return no_memory(err);
    return cut(dataset, shards->shard[0]->tokens, shards->shard[0]->count, err);
}

/* train.bin, val.bin and, where there is one, test.bin: three splits as they are. */
static pq_status open_bins(const pq_data_options *options, pq_dataset *dataset, pq_error *err) {
    pq_shards *shards = &dataset->shards;
    double all = 0;
    if (asprintf(&dataset->source, "train.bin and val.bin in %s", options->path) < 0) return no_memory(err);
    for (pq_split split = PQ_TRAIN; split <= PQ_TEST; split++) {
        char *path = pq_bin_path(options->path, split);
        if (!path) return no_memory(err);
        pq_status status = PQ_OK;
        if (!dataset->tokenizer) status = tokenizer_of_bin(options, path, &dataset->tokenizer, err);
        if (status == PQ_OK) status = pq_calloc(1, sizeof(pq_shard), "tokens", &shards->shard[split], err);
        if (status == PQ_OK) status = pq_calloc(1, sizeof(piece), "splits", &dataset->pieces[split], err);
        if (status == PQ_OK && (split != PQ_TEST || pq_file_exists(path))) {
            status = pq_bin_open(path, dataset->tokenizer, shards->shard[split], err);
            if (status == PQ_OK) {
                shards->count[split] = 1;
                add_piece(dataset, split, shards->shard[split]->tokens, shards->shard[split]->count);
            }
        }
        free(path);
        PQ_TRY(status);
        all += (double)dataset->tokens[split];
    }
    for (size_t split = 0; split < 3; split++) dataset->shares[split] = (double)dataset->tokens[split] / all;
    return PQ_OK;
}

uint64_t pq_dataset_hash_of(const pq_tokenizer *tokenizer, const size_t tokens[3], const uint64_t hash[3]) {
    uint64_t parts[7] = {pq_tokenizer_hash(tokenizer)};
    for (size_t split = 0; split < 3; split++) {
        parts[1 + 2 * split] = tokens[split];
        parts[2 + 2 * split] = hash[split];
    }
    return pq_hash(parts, sizeof parts);
}

/* The same for the same tokens, however they are cut into shards. */
static pq_status hash_all(pq_dataset *dataset, pq_error *err) {
    uint64_t *hash = dataset->shards.hash, ignored;
    uint16_t largest;
    XXH3_state_t *state = XXH3_createState();
    pq_status status = state ? PQ_OK : PQ_FAIL(err, PQ_ERR_MEMORY, "a hash could not be allocated");
    bool done = hash[0] || hash[1] || hash[2]; /* a folder of shards knows them */
    for (size_t split = 0; split < 3 && status == PQ_OK && !done; split++) {
        XXH3_64bits_reset(state);
        for (size_t i = 0; i < dataset->piece_count[split] && status == PQ_OK; i++) {
            const piece *p = &dataset->pieces[split][i];
            if (dataset->text[0] || dataset->text[1] || dataset->text[2])
                XXH3_64bits_update(state, p->tokens, 2 * p->count);
            else
                status = pq_tokens_scan(p->tokens, p->count, state, &ignored, &largest, err);
        }
        hash[split] = XXH3_64bits_digest(state);
    }
    XXH3_freeState(state);
    dataset->hash = pq_dataset_hash_of(dataset->tokenizer, dataset->tokens, hash);
    return status;
}

pq_status pq_data_check(const pq_data_options *options, pq_error *err) {
    const double *s = options->split;
    bool good = true;
    for (size_t i = 0; i < 3; i++) good = good && s[i] >= 0 && s[i] <= 1;
    if (!good || s[0] + s[1] + s[2] > 1 + 1e-9)
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "data.split should be three shares from 0 to 1, at most 1 together; found %g, %g, %g",
                       s[0], s[1], s[2]);
    bool same = true;
    if (options->parent) PQ_TRY(agrees(options->tokenizer, options->parent, &same, err));
    if (!same)
        return PQ_FAIL(err, PQ_ERR_USAGE, "data.tokenizer is %s; the model it continues has the tokenizer %s",
                       options->tokenizer, pq_tokenizer_kind(options->parent));
    return PQ_OK;
}

pq_data_kind pq_data_kind_of(const char *path) {
    char *index, *bin;
    pq_data_kind kind = PQ_DATA_TEXT;
    if (strcmp(path, "builtin") == 0 || pq_source_find(path)) return kind;
    if (!pq_folder_exists(path))
        return pq_shard_looks_like(path) ? PQ_DATA_SHARD : pq_ends_with(path, ".bin") ? PQ_DATA_BIN : kind;
    index = pq_path_join(path, PQ_SHARDS_INDEX);
    bin = pq_bin_path(path, PQ_TRAIN);
    if (index && pq_file_exists(index))
        kind = PQ_DATA_SHARDS;
    else if (bin && pq_file_exists(bin))
        kind = PQ_DATA_BINS;
    free(index);
    free(bin);
    return kind;
}

static pq_status (*const readers[])(const pq_data_options *options, pq_dataset *dataset, pq_error *err) = {
    [PQ_DATA_TEXT] = open_text, [PQ_DATA_SHARDS] = open_folder, [PQ_DATA_SHARD] = open_shard,
    [PQ_DATA_BIN] = open_bin,   [PQ_DATA_BINS] = open_bins,
};

pq_status pq_dataset_open(const pq_data_options *options, pq_dataset **out, pq_error *err) {
    pq_dataset *dataset;
    const char *path = options->path;
    *out = NULL;
    PQ_TRY(pq_data_check(options, err));
    PQ_TRY(pq_calloc(1, sizeof *dataset, "the data", &dataset, err));
    dataset->floor = NAN;
    memcpy(dataset->shares, options->split, sizeof dataset->shares);
    pq_data_kind kind = pq_data_kind_of(path);
    pq_status status = readers[kind](options, dataset, err);
    if (status == PQ_OK) status = hash_all(dataset, err);
    if (status != PQ_OK) {
        pq_dataset_close(dataset);
        return status;
    }
    *out = dataset;
    return PQ_OK;
}

void pq_dataset_close(pq_dataset *dataset) {
    if (!dataset) return;
    for (size_t split = 0; split < 3; split++) free(dataset->pieces[split]);
    pq_shards_close(&dataset->shards);
    pq_tokenizer_destroy(dataset->tokenizer);
    for (size_t split = 0; split < 3; split++) free(dataset->text[split]);
    free(dataset->source);
    free(dataset);
}

const pq_tokenizer *pq_dataset_tokenizer(const pq_dataset *dataset) {
    return dataset->tokenizer;
}

const double *pq_dataset_shares(const pq_dataset *dataset) {
    return dataset->shares;
}

bool pq_dataset_by_document(const pq_dataset *dataset) {
    return dataset->by_document;
}

size_t pq_dataset_tokens(const pq_dataset *dataset, pq_split split) {
    return dataset->tokens[split];
}

uint64_t pq_dataset_hash(const pq_dataset *dataset) {
    return dataset->hash;
}

const char *pq_dataset_source(const pq_dataset *dataset) {
    return dataset->source;
}

double pq_dataset_floor(const pq_dataset *dataset) {
    return dataset->floor;
}

/* The piece that holds the token at `offset`: the last one that starts at or before it. */
static size_t find_piece(const pq_dataset *dataset, pq_split split, size_t offset) {
    const piece *pieces = dataset->pieces[split];
    size_t low = 0, high = dataset->piece_count[split];
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (pieces[middle].start <= offset)
            low = middle;
        else
            high = middle;
    }
    return low;
}

void pq_dataset_read(const pq_dataset *dataset, pq_split split, size_t offset, size_t count, uint16_t *out) {
    const piece *pieces = dataset->pieces[split];
    for (size_t i = find_piece(dataset, split, offset); count; i++) {
        size_t within = offset - pieces[i].start, left = pieces[i].count - within;
        size_t now = count < left ? count : left;
        memcpy(out, pieces[i].tokens + within, 2 * now);
        out += now, offset += now, count -= now;
    }
}

void pq_dataset_prefetch(const pq_dataset *dataset, pq_split split, size_t offset, size_t count) {
    if (dataset->text[0] || dataset->text[1] || dataset->text[2]) return;
    const piece *pieces = dataset->pieces[split];
    for (size_t i = find_piece(dataset, split, offset); count; i++) {
        size_t within = offset - pieces[i].start, left = pieces[i].count - within;
        size_t now = count < left ? count : left;
        pq_pages_fetch(pieces[i].tokens + within, 2 * now);
        offset += now, count -= now;
    }
}

/* Where `index` goes in the permutation of [0, count) that belongs to (seed, epoch): a Feistel network on the
 * next power of four, walked until it falls below count again, which keeps it one-to-one. */
static uint64_t permute(uint64_t seed, uint64_t epoch, uint64_t index, uint64_t count) {
    unsigned half = 1;
    uint32_t random[4];
    while (half < 32 && (uint64_t)1 << 2 * half < count) half++;
    uint64_t mask = ((uint64_t)1 << half) - 1;
    do {
        uint64_t left = index >> half, right = index & mask;
        for (uint64_t round = 0; round < 6; round++) {
            pq_random4(seed, PQ_STREAM_SHUFFLE, epoch, round << 32 | right, random);
            uint64_t mixed = left ^ (random[0] & mask);
            left = right;
            right = mixed;
        }
        index = left << half | right;
    } while (index >= count);
    return index;
}

size_t pq_dataset_window(const pq_dataset *dataset, pq_order order, uint64_t seed, uint64_t iter,
                         uint64_t sequences, uint64_t sequence, size_t context) {
    size_t n = dataset->tokens[PQ_TRAIN];
    if (order == PQ_ORDER_EPOCH) {
        uint64_t windows = (n - 1) / context, passed = iter * sequences + sequence;
        return (size_t)permute(seed, passed / windows, passed % windows, windows) * context;
    }
    uint32_t random[4];
    pq_random4(seed, PQ_STREAM_BATCH, iter, sequence, random);
    return (size_t)pq_random_below(random[0], random[1], n - context);
}

pq_status pq_dataset_check(const pq_dataset *dataset, pq_split split, size_t context, pq_error *err) {
    if (dataset->tokens[split] > context) return PQ_OK;
    return PQ_FAIL(err, PQ_ERR_USAGE,
                   "the %s split has %zu tokens; one window of context %zu takes %zu (%s, share %g)",
                   pq_split_names[split], dataset->tokens[split], context, context + 1, dataset->source,
                   dataset->shares[split]);
}
