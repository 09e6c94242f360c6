/* Owns the finding of a text's files. Texts with a name are fetch.c's and corpus.c's. */
#include "data/files.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "data/corpus.h"
#include "data/fetch.h"

/* Kinds of files that a folder is searched for; any other single file is taken as text ... */
static const struct kind {
    const char *ending;
    bool lines;
} kinds[] = {{".txt", false}, {".jsonl", true}, {".txt.zst", false}, {".jsonl.zst", true}};
/* ... but for those that are none. */
static const char *const foreign[] = {".parquet", ".arrow", ".gz", ".xz", ".bz2", ".zip", ".npy", ".pkl"};

bool pq_ends_with(const char *text, const char *ending) {
    size_t length = strlen(text), tail = strlen(ending);
    return length > tail && strcmp(text + length - tail, ending) == 0;
}

static const struct kind *find_kind(const char *path) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (pq_ends_with(path, kinds[i].ending)) return &kinds[i];
    return NULL;
}

static int is_text(const struct dirent *entry) {
    return find_kind(entry->d_name) != NULL;
}

static int by_bytes(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

static void free_entries(struct dirent **entries, int count) {
    for (int i = 0; i < count; i++) free(entries[i]);
    free(entries);
}

bool pq_files_in(const char *path) {
    struct dirent **entries = NULL;
    int count = scandir(path, &entries, is_text, by_bytes);
    free_entries(entries, count);
    return count > 0;
}

static pq_status no_memory(pq_error *err) {
    return PQ_FAIL(err, PQ_ERR_MEMORY, "the names of a text's files could not be allocated");
}

/* Append `path` (taken). */
static pq_status add(pq_files *files, char *path, pq_error *err) {
    struct stat info;
    if (!path) return no_memory(err);
    pq_text_file *list = realloc(files->list, (files->count + 1) * sizeof *list);
    if (!list) {
        free(path);
        return no_memory(err);
    }
    files->list = list;
    const struct kind *kind = find_kind(path);
    list[files->count++] = (pq_text_file){.path = path, .lines = kind && kind->lines};
    if (stat(path, &info) != 0 || !S_ISREG(info.st_mode))
        return PQ_FAIL(err, PQ_ERR_IO,
                       "there is no text %s; expected a UTF-8 file, JSONL, a folder of them or of shards, a "
                       ".bin file, or one of the names tinyshakespeare and builtin",
                       path);
    list[files->count - 1].size = (uint64_t)info.st_size;
    files->size += (uint64_t)info.st_size;
    uint64_t facts[4] = {files->identity, XXH3_64bits(path, strlen(path)), (uint64_t)info.st_size,
                         (uint64_t)info.st_mtim.tv_sec * 1000000000u + (uint64_t)info.st_mtim.tv_nsec};
    files->identity = XXH3_64bits(facts, sizeof facts);
    return PQ_OK;
}

static pq_status find_folder(const char *path, pq_files *out, pq_error *err) {
    struct dirent **entries = NULL;
    int count = scandir(path, &entries, is_text, by_bytes);
    pq_status status = PQ_OK;
    out->folder = true;
    if (count <= 0)
        status = PQ_FAIL(err, PQ_ERR_IO,
                         "the folder %s holds no .txt, .jsonl, .txt.zst or .jsonl.zst file, and neither "
                         "shards.json nor train.bin",
                         path);
    for (int i = 0; i < count && status == PQ_OK; i++)
        status = add(out, pq_path_join(path, entries[i]->d_name), err);
    free_entries(entries, count);
    PQ_TRY(status);
    return asprintf(&out->name, "%d files in %s", count, path) < 0 ? no_memory(err) : PQ_OK;
}

static pq_status find_builtin(pq_files *out, pq_error *err) {
    pq_corpus corpus;
    pq_corpus_init(&corpus);
    PQ_TRY(pq_corpus_generate(&corpus, PQ_CORPUS_SEED, PQ_CORPUS_CHARACTERS, &out->memory, err));
    PQ_TRY(pq_calloc(1, sizeof *out->list, "a text", &out->list, err));
    out->count = 1;
    out->size = out->list[0].size = PQ_CORPUS_CHARACTERS;
    out->floor = corpus.entropy;
    return pq_copy_text("the built-in corpus", &out->name, err);
}

/* A text with a name: from this machine, else downloaded. */
static pq_status find_source(const pq_source *source, pq_files *out, pq_error *err) {
    char *path;
    PQ_TRY(pq_source_locate(source, &path, err));
    if (!path) {
        pq_status status = pq_source_download(source, &path, err);
        if (status != PQ_OK)
            return pq_prefix(err, status, "%s (data.path may be another text; builtin needs no download)",
                             source->name);
    }
    PQ_TRY(add(out, path, err));
    return asprintf(&out->name, "%s (%s)", source->name, path) < 0 ? no_memory(err) : PQ_OK;
}

static pq_status find_file(const char *path, pq_files *out, pq_error *err) {
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
        if (pq_ends_with(path, foreign[i]))
            return PQ_FAIL(err, PQ_ERR_USAGE,
                           "%s: %s files are not read; docs/data.md tells how to make JSONL of them", path,
                           foreign[i]);
    char *copy;
    PQ_TRY(pq_copy_text(path, &copy, err));
    PQ_TRY(add(out, copy, err));
    return pq_copy_text(path, &out->name, err);
}

pq_status pq_files_find(const char *path, pq_files *out, pq_error *err) {
    const pq_source *source = pq_source_find(path);
    *out = (pq_files){.floor = NAN};
    pq_status status = strcmp(path, "builtin") == 0 ? find_builtin(out, err)
                       : source                     ? find_source(source, out, err)
                       : pq_folder_exists(path)     ? find_folder(path, out, err)
                                                    : find_file(path, out, err);
    if (status != PQ_OK) pq_files_deinit(out);
    return status;
}

void pq_files_deinit(pq_files *files) {
    for (size_t i = 0; i < files->count; i++) free(files->list[i].path);
    free(files->list);
    free(files->name);
    free(files->memory);
    *files = (pq_files){0};
}
