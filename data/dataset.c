/* Owns the way from a text's name to tokens in three splits, and the order in which windows are drawn. Texts
 * with a name are fetch.c's and corpus.c's, shards are shards.c's. */
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
#include "data/corpus.h"
#include "data/fetch.h"
#include "data/shards.h"

enum { LEAST = 2 /* tokens of a split: one to read, one to predict */ };

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
    char *source;
    uint64_t hash;
    uint16_t *text;   /* the tokens of a text; NULL for shards */
    pq_shards shards; /* empty for a text */
};

/* A text before it is tokenized. */
typedef struct text {
    pq_file_view view;
    char *name; /* where it is from, for people and errors */
    double floor;
} text;

static pq_status no_memory(pq_error *err) {
    return PQ_FAIL(err, PQ_ERR_MEMORY, "the name of a text could not be allocated");
}

static pq_status load_builtin(const char *instead, text *out, pq_error *err) {
    pq_corpus corpus;
    char *characters;
    pq_corpus_init(&corpus);
    PQ_TRY(pq_corpus_generate(&corpus, PQ_CORPUS_SEED, PQ_CORPUS_CHARACTERS, &characters, err));
    out->view = (pq_file_view){.data = characters, .size = PQ_CORPUS_CHARACTERS};
    out->floor = corpus.entropy;
    return asprintf(&out->name, "the built-in corpus%s%s", instead ? " in place of " : "",
                    instead ? instead : "") < 0
               ? no_memory(err)
               : PQ_OK;
}

/* A text with a name: from this machine, else downloaded, else the built-in corpus in its place. */
static pq_status load_source(const pq_source *source, text *out, pq_error *err) {
    char *path;
    pq_error reason;
    PQ_TRY(pq_source_locate(source, &path, err));
    if (!path && pq_source_download(source, &path, &reason) != PQ_OK) {
        pq_log(PQ_LOG_WARNING, "the built-in corpus takes the place of %s: %s", source->name, reason.message);
        return load_builtin(source->name, out, err);
    }
    pq_status status = pq_file_read(path, &out->view, err);
    if (status == PQ_OK && asprintf(&out->name, "%s (%s)", source->name, path) < 0) status = no_memory(err);
    free(path);
    return status;
}

static pq_status load_file(const char *path, text *out, pq_error *err) {
    static const char *const foreign[] = {".jsonl", ".zst", ".bin"};
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        size_t length = strlen(path), ending = strlen(foreign[i]);
        if (length > ending && strcmp(path + length - ending, foreign[i]) == 0)
            return PQ_FAIL(
                err, PQ_ERR_USAGE,
                "%s: %s files are not in this build; expected UTF-8 text or what potqat data prepare "
                "wrote",
                path, foreign[i]);
    }
    if (!pq_file_exists(path))
        return PQ_FAIL(err, PQ_ERR_IO,
                       "there is no text %s; expected a UTF-8 file, a folder of shards, or one of the names "
                       "tinyshakespeare and builtin",
                       path);
    PQ_TRY(pq_file_read(path, &out->view, err));
    return pq_copy_text(path, &out->name, err);
}

/* Where a split of n tokens ends when the shares up to it sum to `share`: floor(n * share), but sums like
 * 0.7 + 0.2 lie a rounding error below the decimal number that was meant and must not lose a token by that.
 */
static size_t boundary(size_t n, double share) {
    double exact = (double)n * share, nearest = round(exact);
    size_t end = (size_t)(fabs(exact - nearest) <= 1e-15 * (double)n ? nearest : exact);
    return end < n ? end : n;
}

static void add_piece(pq_dataset *dataset, pq_split split, const uint16_t *tokens, size_t count) {
    dataset->pieces[split][dataset->piece_count[split]++] =
        (piece){.tokens = tokens, .start = dataset->tokens[split], .count = count};
    dataset->tokens[split] += count;
}

/* Three contiguous splits of tokens[n]. */
static pq_status cut(pq_dataset *dataset, const uint16_t *tokens, size_t n, pq_error *err) {
    double share = 0;
    size_t start = 0;
    for (pq_split split = PQ_TRAIN; split <= PQ_TEST; split++) {
        share += dataset->shares[split];
        size_t end = boundary(n, share);
        if (dataset->shares[split] > 0 && end - start < LEAST)
            return PQ_FAIL(
                err, PQ_ERR_USAGE,
                "%s has %zu tokens, of which its %s split (share %g) gets %zu; at least %d are needed",
                dataset->source, n, pq_split_names[split], dataset->shares[split], end - start, LEAST);
        PQ_TRY(pq_calloc(1, sizeof(piece), "the splits", &dataset->pieces[split], err));
        if (end > start) add_piece(dataset, split, tokens + start, end - start);
        start = end;
    }
    return PQ_OK;
}

/* The tokenizer that the options ask for, for a text. */
static pq_status make_tokenizer(const pq_data_options *options, const text *from, pq_tokenizer **out,
                                pq_error *err) {
    if (!options->parent)
        return pq_tokenizer_create(options->tokenizer ? options->tokenizer : "char", from->view.data,
                                   from->view.size, out, err);
    char *json = pq_tokenizer_to_json(options->parent); /* a copy, so that the parent may be destroyed */
    if (!json) return PQ_FAIL(err, PQ_ERR_MEMORY, "the parent's tokenizer could not be copied");
    pq_status status = pq_tokenizer_from_json(json, strlen(json), out, err);
    free(json);
    return status;
}

static pq_status open_text(const pq_data_options *options, pq_dataset *dataset, pq_error *err) {
    const pq_source *source = pq_source_find(options->path);
    text from = {.floor = NAN};
    size_t count = 0;
    pq_status status = strcmp(options->path, "builtin") == 0 ? load_builtin(NULL, &from, err)
                       : source                              ? load_source(source, &from, err)
                                                             : load_file(options->path, &from, err);
    if (status == PQ_OK) {
        dataset->source = from.name;
        dataset->floor = from.floor;
        if (from.view.size == 0)
            status =
                PQ_FAIL(err, PQ_ERR_USAGE, "%s is empty; a text to learn from has characters", from.name);
        if (status == PQ_OK) {
            status = make_tokenizer(options, &from, &dataset->tokenizer, err);
            if (status == PQ_OK)
                status = pq_tokenizer_encode(dataset->tokenizer, from.view.data, from.view.size,
                                             &dataset->text, &count, err);
            if (status != PQ_OK) pq_prefix(err, status, "%s", from.name);
        }
    }
    pq_file_view_close(&from.view);
    PQ_TRY(status);
    return cut(dataset, dataset->text, count, err);
}

/* Shards carry their tokenizer; it must be the one that is asked for. */
static pq_status check_tokenizer(const pq_data_options *options, const pq_tokenizer *found, pq_error *err) {
    const char *kind = pq_tokenizer_kind(found);
    if (options->tokenizer && strcmp(options->tokenizer, kind) != 0)
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
    if (memcmp(shards->split, options->split, sizeof shards->split) != 0)
        pq_log(PQ_LOG_WARNING,
               "%s was split %g, %g, %g when it was prepared; data.split does not change that", options->path,
               shards->split[0], shards->split[1], shards->split[2]);
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

/* One shard by itself, its tokenizer beside it: cut like a text. */
static pq_status open_shard(const pq_data_options *options, pq_dataset *dataset, pq_error *err) {
    pq_shards *shards = &dataset->shards;
    char *path;
    PQ_TRY(pq_copy_text(options->path, &path, err));
    pq_status status = pq_shards_tokenizer(dirname(path), &dataset->tokenizer, err);
    free(path);
    PQ_TRY(status);
    PQ_TRY(check_tokenizer(options, dataset->tokenizer, err));
    PQ_TRY(pq_calloc(1, sizeof(pq_shard), "the shard", &shards->shard[0], err));
    PQ_TRY(pq_shard_open(options->path, dataset->tokenizer, shards->shard[0], err));
    shards->count[0] = 1;
    if (asprintf(&dataset->source, "the shard %s", options->path) < 0) return no_memory(err);
    return cut(dataset, shards->shard[0]->tokens, shards->shard[0]->count, err);
}

/* The same for the same tokens, however they are cut into shards. */
static pq_status hash_all(pq_dataset *dataset, pq_error *err) {
    uint64_t parts[7] = {pq_tokenizer_hash(dataset->tokenizer)};
    XXH3_state_t *state = XXH3_createState();
    if (!state) return PQ_FAIL(err, PQ_ERR_MEMORY, "a hash could not be allocated");
    for (size_t split = 0; split < 3; split++) {
        XXH3_64bits_reset(state);
        for (size_t i = 0; i < dataset->piece_count[split]; i++)
            XXH3_64bits_update(state, dataset->pieces[split][i].tokens, 2 * dataset->pieces[split][i].count);
        parts[1 + 2 * split] = dataset->tokens[split];
        parts[2 + 2 * split] = XXH3_64bits_digest(state);
    }
    XXH3_freeState(state);
    dataset->hash = pq_hash(parts, sizeof parts);
    return PQ_OK;
}

static pq_status check_options(const pq_data_options *options, pq_error *err) {
    const double *s = options->split;
    bool good = true;
    for (size_t i = 0; i < 3; i++) good = good && s[i] >= 0 && s[i] <= 1;
    if (!good || s[0] + s[1] + s[2] > 1 + 1e-9)
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "data.split should be three shares from 0 to 1, at most 1 together; found %g, %g, %g",
                       s[0], s[1], s[2]);
    if (options->parent && options->tokenizer &&
        strcmp(options->tokenizer, pq_tokenizer_kind(options->parent)) != 0)
        return PQ_FAIL(err, PQ_ERR_USAGE, "data.tokenizer is %s; the model it continues has the tokenizer %s",
                       options->tokenizer, pq_tokenizer_kind(options->parent));
    return PQ_OK;
}

pq_status pq_dataset_open(const pq_data_options *options, pq_dataset **out, pq_error *err) {
    pq_dataset *dataset;
    const char *path = options->path;
    *out = NULL;
    PQ_TRY(check_options(options, err));
    PQ_TRY(pq_calloc(1, sizeof *dataset, "the data", &dataset, err));
    dataset->floor = NAN;
    memcpy(dataset->shares, options->split, sizeof dataset->shares);
    bool named = strcmp(path, "builtin") == 0 || pq_source_find(path);
    pq_status status = !named && pq_folder_exists(path)      ? open_folder(options, dataset, err)
                       : !named && pq_shard_looks_like(path) ? open_shard(options, dataset, err)
                                                             : open_text(options, dataset, err);
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
    free(dataset->text);
    free(dataset->source);
    free(dataset);
}

const pq_tokenizer *pq_dataset_tokenizer(const pq_dataset *dataset) {
    return dataset->tokenizer;
}

const double *pq_dataset_shares(const pq_dataset *dataset) {
    return dataset->shares;
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

void pq_dataset_read(const pq_dataset *dataset, pq_split split, size_t offset, size_t count, uint16_t *out) {
    const piece *pieces = dataset->pieces[split];
    size_t low = 0, high = dataset->piece_count[split];
    while (high - low > 1) { /* the last piece that starts at or before offset */
        size_t middle = low + (high - low) / 2;
        if (pieces[middle].start <= offset)
            low = middle;
        else
            high = middle;
    }
    for (; count; low++) {
        size_t within = offset - pieces[low].start, left = pieces[low].count - within;
        size_t now = count < left ? count : left;
        memcpy(out, pieces[low].tokens + within, 2 * now);
        out += now, offset += now, count -= now;
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
