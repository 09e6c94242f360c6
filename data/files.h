/* The files that a source of text consists of. */
#ifndef PQ_DATA_FILES_H
#define PQ_DATA_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef struct pq_text_file {
    char *path; /* NULL: the text is in memory */
    uint64_t size;
    bool lines; /* JSONL */
} pq_text_file;

typedef struct pq_files {
    pq_text_file *list; /* [count] */
    size_t count;
    char *name;   /* for people */
    char *memory; /* the text itself, where it has no file; [list[0].size] */
    bool folder;
    double floor;            /* pq_dataset_floor of the text */
    uint64_t size, identity; /* bytes in all; hash of names, sizes and times */
} pq_files;

/* The name of a text, a file, or a folder: its .txt, .jsonl, .txt.zst and .jsonl.zst files in the order of
 * their names' bytes. */
pq_status pq_files_find(const char *path, pq_files *out, pq_error *err);
void pq_files_deinit(pq_files *files);
/* Whether `path` is a folder with such files. */
bool pq_files_in(const char *path);
bool pq_ends_with(const char *text, const char *ending);

#endif
