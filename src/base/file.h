/* Files: whole-file reads, memory maps, and writes that appear complete or not at all. */
#ifndef PQ_BASE_FILE_H
#define PQ_BASE_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

/* A file read whole (NUL-terminated after `size` bytes) or memory-mapped read-only; release with close. */
typedef struct pq_file_view {
    const char *data;
    size_t size;
    bool mapped;
} pq_file_view;

pq_status pq_file_read(const char *path, pq_file_view *out, pq_error *err); /* heap copy, NUL-terminated */
pq_status pq_file_map(const char *path, pq_file_view *out, pq_error *err); /* read-only map, not terminated */
void pq_file_view_close(pq_file_view *view);
/* A regular file (no folder, no pipe) opened for reading, and its size; the caller closes the descriptor. */
pq_status pq_file_open(const char *path, int *descriptor, size_t *size, pq_error *err);

/* A file being written under a temporary name beside its target. Either commit (flush, fsync, rename, fsync
 * of the folder) or abort (temporary file removed) ends it. With overwrite = false, open and commit refuse an
 * existing target. Every write goes through pq_file_write, which checks it. */
typedef struct pq_file_writer {
    FILE *stream;
    char *path, *temporary;
    bool overwrite;
} pq_file_writer;

pq_status pq_file_create(const char *path, bool overwrite, pq_file_writer *out, pq_error *err);
pq_status pq_file_write(pq_file_writer *writer, const void *data, size_t bytes, pq_error *err);
pq_status pq_file_commit(pq_file_writer *writer, pq_error *err); /* aborts by itself when a step fails */
void pq_file_abort(pq_file_writer *writer);
/* Commit where what was written has status PQ_OK, else abort and give that status back. */
pq_status pq_file_end(pq_file_writer *writer, pq_status status, pq_error *err);
/* All of these in one: a file of data[bytes]. */
pq_status pq_file_put(const char *path, bool overwrite, const void *data, size_t bytes, pq_error *err);

/* The last two steps for files written by another library (HDF5) under `temporary`: fsync, rename, fsync
 * folder. */
pq_status pq_file_publish(const char *temporary, const char *path, bool overwrite, pq_error *err);

bool pq_file_exists(const char *path);
bool pq_folder_exists(const char *path);
bool pq_folder_is_empty(const char *path);                   /* false where it cannot be read */
pq_status pq_folder_create(const char *path, pq_error *err); /* with its parents; existing is fine */
bool pq_file_same(const char *a, const char *b);             /* same device and inode */
char *pq_path_join(const char *folder, const char *name);    /* heap; NULL on lack of memory */

/* XXH3, 64 bits: hash of bytes (tokenizers, data, files). */
uint64_t pq_hash(const void *data, size_t bytes);
/* The same of a file's bytes from `offset` to its end, read in pieces; *bytes = how many those were. */
pq_status pq_file_hash(const char *path, size_t offset, size_t *bytes, uint64_t *hash, pq_error *err);

#endif
