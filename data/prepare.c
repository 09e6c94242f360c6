/* Owns the writing of token shards: everything goes to a temporary folder first; the index is the last file
 * to get its place. */
#include <dirent.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "data/shards.h"

static pq_status no_name(pq_error *err) {
    return PQ_FAIL(err, PQ_ERR_MEMORY, "a file name could not be allocated");
}

static void hash_text(uint64_t hash, char out[17]) {
    snprintf(out, 17, "%016" PRIx64, hash);
}

/* A new file of two parts. */
static pq_status write_file(const char *path, const void *head, size_t head_bytes, const void *body,
                            size_t body_bytes, pq_error *err) {
    pq_file_writer file;
    PQ_TRY(pq_file_create(path, false, &file, err));
    pq_status status = pq_file_write(&file, head, head_bytes, err);
    if (status == PQ_OK) status = pq_file_write(&file, body, body_bytes, err);
    if (status == PQ_OK) return pq_file_commit(&file, err);
    pq_file_abort(&file);
    return status;
}

static pq_status write_text(const char *folder, const char *name, const char *text, pq_error *err) {
    char *path = pq_path_join(folder, name);
    pq_status status = path && text ? write_file(path, text, strlen(text), "\n", 1, err)
                                    : PQ_FAIL(err, PQ_ERR_MEMORY, "%s could not be allocated", name);
    free(path);
    return status;
}

/* Tokens [offset, offset + count) of a split as one shard; *hash = theirs. */
static pq_status write_shard(const pq_dataset *dataset, pq_split split, size_t offset, size_t count,
                             const char *path, uint64_t *hash, pq_error *err) {
    const pq_tokenizer *tokenizer = pq_dataset_tokenizer(dataset);
    uint16_t *tokens;
    PQ_TRY(pq_calloc(count, sizeof *tokens, "a shard", &tokens, err));
    pq_dataset_read(dataset, split, offset, count, tokens);
    *hash = pq_hash(tokens, 2 * count);
    pq_shard_header header = {.version = PQ_SHARD_VERSION,
                              .vocab = (uint32_t)pq_tokenizer_vocab(tokenizer),
                              .tokens = count,
                              .hash = *hash,
                              .tokenizer = pq_tokenizer_hash(tokenizer)};
    memcpy(header.magic, PQ_SHARD_MAGIC, sizeof header.magic);
    pq_status status = write_file(path, &header, sizeof header, tokens, 2 * count, err);
    free(tokens);
    return status;
}

/* The split's shards; their rows of the index go to `list`. */
static pq_status write_split(const pq_dataset *dataset, pq_split split, size_t shard_tokens,
                             const char *folder, json_t *list, pq_error *err) {
    size_t total = pq_dataset_tokens(dataset, split);
    for (size_t offset = 0, number = 0; offset < total; offset += shard_tokens, number++) {
        size_t count = total - offset < shard_tokens ? total - offset : shard_tokens;
        uint64_t hash = 0;
        char text[17], *path = pq_shard_path(folder, split, number);
        if (!path) return no_name(err);
        pq_status status = write_shard(dataset, split, offset, count, path, &hash, err);
        free(path);
        PQ_TRY(status);
        hash_text(hash, text);
        if (json_array_append_new(list, json_pack("{s:I, s:s}", "tokens", (json_int_t)count, "hash", text)))
            return PQ_FAIL(err, PQ_ERR_MEMORY, "the index could not be allocated");
    }
    return PQ_OK;
}

static pq_status write_files(const pq_dataset *dataset, size_t shard_tokens, const char *folder,
                             json_t *index, pq_error *err) {
    char hash[17];
    char *tokenizer = pq_tokenizer_to_json(pq_dataset_tokenizer(dataset));
    pq_status status = write_text(folder, "tokenizer.json", tokenizer, err);
    free(tokenizer);
    for (pq_split split = PQ_TRAIN; split <= PQ_TEST && status == PQ_OK; split++)
        status = write_split(dataset, split, shard_tokens, folder,
                             json_object_get(index, pq_split_names[split]), err);
    PQ_TRY(status);
    hash_text(pq_shards_index_hash(index), hash);
    if (json_object_set_new(index, "hash", json_string(hash)))
        return PQ_FAIL(err, PQ_ERR_MEMORY, "the index could not be allocated");
    char *text = json_dumps(index, JSON_INDENT(1));
    status = write_text(folder, PQ_SHARDS_INDEX, text, err);
    free(text);
    return status;
}

static json_t *make_index(const pq_dataset *dataset) {
    const double *shares = pq_dataset_shares(dataset), floor = pq_dataset_floor(dataset);
    json_t *source = json_string(pq_dataset_source(dataset));
    if (!source) source = json_string("a text whose path is not UTF-8");
    return json_pack("{s:s, s:i, s:o, s:[f,f,f], s:o, s:[], s:[], s:[]}", "format", PQ_SHARDS_FORMAT,
                     "version", PQ_SHARD_VERSION, "source", source, "split", shares[0], shares[1], shares[2],
                     "floor", isnan(floor) ? json_null() : json_real(floor), pq_split_names[0],
                     pq_split_names[1], pq_split_names[2]);
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

/* Put the files of `temporary` over those of an older folder of shards. When this is cut short, the old index
 * does not fit the new files, so that the folder is refused. */
static pq_status replace(const char *temporary, const char *folder, const json_t *index, pq_error *err) {
    size_t count[3];
    PQ_TRY(move_file(pq_path_join(temporary, "tokenizer.json"), pq_path_join(folder, "tokenizer.json"), err));
    for (pq_split split = PQ_TRAIN; split <= PQ_TEST; split++) {
        count[split] = json_array_size(json_object_get(index, pq_split_names[split]));
        for (size_t i = 0; i < count[split]; i++)
            PQ_TRY(move_file(pq_shard_path(temporary, split, i), pq_shard_path(folder, split, i), err));
    }
    PQ_TRY(move_file(pq_path_join(temporary, PQ_SHARDS_INDEX), pq_path_join(folder, PQ_SHARDS_INDEX), err));
    remove_shards(folder, count);
    rmdir(temporary);
    return PQ_OK;
}

static void remove_folder(const char *folder) {
    static const char *const names[] = {"tokenizer.json", PQ_SHARDS_INDEX};
    remove_shards(folder, (size_t[3]){0});
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = pq_path_join(folder, names[i]);
        if (path) unlink(path);
        free(path);
    }
    rmdir(folder);
}

static bool folder_is_empty(const char *path) {
    DIR *folder = opendir(path);
    size_t entries = 0;
    if (!folder) return false;
    while (readdir(folder)) entries++;
    closedir(folder);
    return entries == 2; /* . and .. */
}

/* Whether `folder` may be written: absent; or, with overwrite, empty or of shards (*older = true). */
static pq_status check_target(const char *folder, bool overwrite, bool *older, pq_error *err) {
    char *index = pq_path_join(folder, PQ_SHARDS_INDEX);
    if (!index) return no_name(err);
    *older = pq_file_exists(index);
    free(index);
    if (!pq_file_exists(folder)) return PQ_OK;
    if (!overwrite)
        return PQ_FAIL(err, PQ_ERR_USAGE, "%s exists already; --overwrite replaces a folder of shards",
                       folder);
    if (!*older && !folder_is_empty(folder))
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "%s exists and is not a folder of shards (it has no %s); it was left alone", folder,
                       PQ_SHARDS_INDEX);
    return PQ_OK;
}

pq_status pq_shards_write(const pq_dataset *dataset, const char *folder, bool overwrite, size_t shard_tokens,
                          pq_error *err) {
    bool older = false;
    size_t length = strlen(folder);
    while (length > 1 && folder[length - 1] == '/') length--;
    if (length == 0 || shard_tokens == 0)
        return PQ_FAIL(err, PQ_ERR_USAGE, "shards need a folder's name and a size of at least one token");
    PQ_TRY(check_target(folder, overwrite, &older, err));
    size_t bytes = length + 32;
    char *temporary = malloc(bytes);
    json_t *index = make_index(dataset);
    if (!temporary || !index) {
        free(temporary);
        json_decref(index);
        return PQ_FAIL(err, PQ_ERR_MEMORY, "the index of %s could not be allocated", folder);
    }
    snprintf(temporary, bytes, "%.*s.tmp-%ld", (int)length, folder, (long)getpid());
    pq_status status = pq_folder_create(temporary, err);
    if (status == PQ_OK) {
        status = write_files(dataset, shard_tokens, temporary, index, err);
        if (status == PQ_OK)
            status = older ? replace(temporary, folder, index, err)
                           : pq_file_publish(temporary, folder, true, err);
        if (status != PQ_OK) remove_folder(temporary);
    }
    free(temporary);
    json_decref(index);
    return status;
}
