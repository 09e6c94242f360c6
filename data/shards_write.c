/* Owns the writing of token shards and the way in which a folder of them gets its place: everything goes to a
 * temporary folder first; the index is the last file to get there. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/memory.h"
#include "data/shards.h"

static pq_status no_name(pq_error *err) {
    return PQ_FAIL(err, PQ_ERR_MEMORY, "a file name could not be allocated");
}

static void hash_text(uint64_t hash, char out[17]) {
    snprintf(out, 17, "%016" PRIx64, hash);
}

/* `text` (taken; NULL: no memory for it) and a line break as a file. */
static pq_status write_text(const char *folder, const char *name, char *text, pq_error *err) {
    char *path = pq_path_join(folder, name), *line = NULL;
    if (text && asprintf(&line, "%s\n", text) < 0) line = NULL;
    pq_status status = path && line ? pq_file_put(path, false, line, strlen(line), err)
                                    : PQ_FAIL(err, PQ_ERR_MEMORY, "%s could not be allocated", name);
    free(path);
    free(line);
    free(text);
    return status;
}

/* What a split is written with. */
typedef struct writing {
    const pq_shards_plan *plan;
    pq_split split;
    XXH3_state_t *one, *all; /* of a shard's tokens, of the split's */
    uint16_t *tokens;        /* [PIECE] */
} writing;

enum { PIECE = 1 << 19 };

/* Tokens [offset, offset + count) of the split behind the header, which is written last. */
static pq_status write_body(const writing *w, size_t offset, size_t count, pq_file_writer *file,
                            uint64_t *hash, pq_error *err) {
    const pq_tokenizer *tokenizer = w->plan->tokenizer;
    pq_shard_header header = {.version = PQ_SHARD_VERSION,
                              .vocab = (uint32_t)pq_tokenizer_vocab(tokenizer),
                              .tokens = count,
                              .tokenizer = pq_tokenizer_hash(tokenizer)};
    memcpy(header.magic, PQ_SHARD_MAGIC, sizeof header.magic);
    XXH3_64bits_reset(w->one);
    PQ_TRY(pq_file_write(file, &header, sizeof header, err));
    for (size_t at = 0; at < count; at += PIECE) {
        size_t now = count - at < PIECE ? count - at : PIECE;
        PQ_TRY(w->plan->read(w->plan->context, w->split, offset + at, now, w->tokens, err));
        XXH3_64bits_update(w->one, w->tokens, 2 * now);
        XXH3_64bits_update(w->all, w->tokens, 2 * now);
        PQ_TRY(pq_file_write(file, w->tokens, 2 * now, err));
    }
    header.hash = *hash = XXH3_64bits_digest(w->one);
    if (fseeko(file->stream, 0, SEEK_SET) != 0)
        return PQ_FAIL(err, PQ_ERR_IO, "%s could not be written: %s", file->path, strerror(errno));
    return pq_file_write(file, &header, sizeof header, err);
}

static pq_status write_shard(const writing *w, size_t offset, size_t count, const char *path, uint64_t *hash,
                             pq_error *err) {
    pq_file_writer file;
    PQ_TRY(pq_file_create(path, false, &file, err));
    return pq_file_end(&file, write_body(w, offset, count, &file, hash, err), err);
}

/* The split's shards; their rows of the index go to `list`. */
static pq_status write_split(const writing *w, const char *folder, json_t *list, pq_error *err) {
    size_t total = w->plan->tokens[w->split], most = w->plan->shard_tokens;
    for (size_t offset = 0, number = 0; offset < total; offset += most, number++) {
        size_t count = total - offset < most ? total - offset : most;
        uint64_t hash = 0;
        char text[17], *path = pq_shard_path(folder, w->split, number);
        if (!path) return no_name(err);
        pq_status status = write_shard(w, offset, count, path, &hash, err);
        free(path);
        PQ_TRY(status);
        hash_text(hash, text);
        if (json_array_append_new(list, json_pack("{s:I, s:s}", "tokens", (json_int_t)count, "hash", text)))
            return PQ_FAIL(err, PQ_ERR_MEMORY, "the index could not be allocated");
    }
    return PQ_OK;
}

static pq_status write_splits(const pq_shards_plan *plan, const char *folder, json_t *index, uint64_t hash[3],
                              pq_error *err) {
    writing w = {.plan = plan, .one = XXH3_createState(), .all = XXH3_createState()};
    pq_status status = pq_calloc(PIECE, sizeof *w.tokens, "a piece of a shard", &w.tokens, err);
    if (status == PQ_OK && (!w.one || !w.all))
        status = PQ_FAIL(err, PQ_ERR_MEMORY, "a hash could not be allocated");
    for (w.split = PQ_TRAIN; w.split <= PQ_TEST && status == PQ_OK; w.split++) {
        XXH3_64bits_reset(w.all);
        status = write_split(&w, folder, json_object_get(index, pq_split_names[w.split]), err);
        hash[w.split] = XXH3_64bits_digest(w.all);
    }
    XXH3_freeState(w.one);
    XXH3_freeState(w.all);
    free(w.tokens);
    return status;
}

static json_t *make_index(const pq_shards_plan *plan) {
    json_t *source = json_string(plan->source);
    if (!source) source = json_string("a text whose path is not UTF-8");
    return json_pack("{s:s, s:i, s:o, s:[f,f,f], s:s, s:o, s:[], s:[], s:[]}", "format", PQ_SHARDS_FORMAT,
                     "version", PQ_SHARD_VERSION, "source", source, "split", plan->split[0], plan->split[1],
                     plan->split[2], "split_by", plan->by_document ? "document" : "token", "floor",
                     isnan(plan->floor) ? json_null() : json_real(plan->floor), pq_split_names[0],
                     pq_split_names[1], pq_split_names[2]);
}

pq_status pq_shards_write_files(const pq_shards_plan *plan, const char *folder, uint64_t hash[3],
                                pq_error *err) {
    char index_hash[17], *text = NULL;
    json_t *index = make_index(plan);
    if (!index) return PQ_FAIL(err, PQ_ERR_MEMORY, "the index of %s could not be allocated", folder);
    pq_status status = write_text(folder, "tokenizer.json", pq_tokenizer_to_json(plan->tokenizer), err);
    if (status == PQ_OK) status = write_splits(plan, folder, index, hash, err);
    if (status == PQ_OK) {
        hash_text(pq_shards_index_hash(index), index_hash);
        if (json_object_set_new(index, "hash", json_string(index_hash)) == 0)
            text = json_dumps(index, JSON_INDENT(1));
        status = write_text(folder, PQ_SHARDS_INDEX, text, err);
    }
    json_decref(index);
    return status;
}

/* Remove the shards of each split from number first[split] on; they are numbered without gaps. */
static void remove_shards(const char *folder, const size_t first[3]) {
    for (pq_split split = PQ_TRAIN; split <= PQ_TEST; split++) {
        bool removed = true;
        for (size_t number = first[split]; removed; number++) {
            char *path = pq_shard_path(folder, split, number);
            removed = path && unlink(path) == 0;
            free(path);
        }
    }
}

static pq_status move_file(char *from, char *to, pq_error *err) {
    pq_status status = from && to ? pq_file_publish(from, to, true, err) : no_name(err);
    free(from);
    free(to);
    return status;
}

pq_status pq_shards_publish(const char *temporary, const char *folder, bool older, pq_error *err) {
    size_t count[3] = {0};
    if (!older) return pq_file_publish(temporary, folder, true, err);
    PQ_TRY(move_file(pq_path_join(temporary, "tokenizer.json"), pq_path_join(folder, "tokenizer.json"), err));
    for (pq_split split = PQ_TRAIN; split <= PQ_TEST; split++)
        for (;; count[split]++) {
            char *from = pq_shard_path(temporary, split, count[split]);
            if (from && !pq_file_exists(from)) {
                free(from);
                break;
            }
            PQ_TRY(move_file(from, pq_shard_path(folder, split, count[split]), err));
        }
    PQ_TRY(move_file(pq_path_join(temporary, PQ_SHARDS_INDEX), pq_path_join(folder, PQ_SHARDS_INDEX), err));
    remove_shards(folder, count);
    rmdir(temporary);
    return PQ_OK;
}

void pq_shards_remove(const char *folder) {
    static const char *const names[] = {"tokenizer.json", PQ_SHARDS_INDEX};
    remove_shards(folder, (size_t[3]){0});
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = pq_path_join(folder, names[i]);
        if (path) unlink(path);
        free(path);
    }
    rmdir(folder);
}

pq_status pq_shards_check_target(const char *folder, bool overwrite, bool *older, pq_error *err) {
    char *index = pq_path_join(folder, PQ_SHARDS_INDEX);
    if (!index) return no_name(err);
    *older = pq_file_exists(index);
    free(index);
    if (!pq_file_exists(folder)) return PQ_OK;
    if (!overwrite)
        return PQ_FAIL(err, PQ_ERR_USAGE, "%s exists already; --overwrite replaces a folder of shards",
                       folder);
    if (!*older && !pq_folder_is_empty(folder))
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "%s exists and is not a folder of shards (it has no %s); it was left alone", folder,
                       PQ_SHARDS_INDEX);
    return PQ_OK;
}

static pq_status read_dataset(void *context, pq_split split, size_t offset, size_t count, uint16_t *out,
                              pq_error *err) {
    (void)err;
    pq_dataset_read(context, split, offset, count, out);
    return PQ_OK;
}

pq_status pq_shards_write(const pq_dataset *dataset, const char *folder, bool overwrite, size_t shard_tokens,
                          pq_error *err) {
    bool older = false;
    uint64_t hash[3];
    size_t length = strlen(folder);
    while (length > 1 && folder[length - 1] == '/') length--;
    if (length == 0 || shard_tokens == 0)
        return PQ_FAIL(err, PQ_ERR_USAGE, "shards need a folder's name and a size of at least one token");
    PQ_TRY(pq_shards_check_target(folder, overwrite, &older, err));
    pq_shards_plan plan = {.tokenizer = pq_dataset_tokenizer(dataset),
                           .floor = pq_dataset_floor(dataset),
                           .by_document = pq_dataset_by_document(dataset),
                           .source = pq_dataset_source(dataset),
                           .shard_tokens = shard_tokens,
                           .read = read_dataset,
                           .context = (void *)dataset};
    memcpy(plan.split, pq_dataset_shares(dataset), sizeof plan.split);
    for (pq_split split = PQ_TRAIN; split <= PQ_TEST; split++)
        plan.tokens[split] = pq_dataset_tokens(dataset, split);
    char *temporary;
    if (asprintf(&temporary, "%.*s.tmp-%ld", (int)length, folder, (long)getpid()) < 0) return no_name(err);
    pq_status status = pq_folder_create(temporary, err);
    if (status == PQ_OK) {
        status = pq_shards_write_files(&plan, temporary, hash, err);
        if (status == PQ_OK) status = pq_shards_publish(temporary, folder, older, err);
        if (status != PQ_OK) pq_shards_remove(temporary);
    }
    free(temporary);
    return status;
}
