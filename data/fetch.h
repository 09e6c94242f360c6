/* Texts that have a name: where they lie on this machine and how they get there. */
#ifndef PQ_DATA_FETCH_H
#define PQ_DATA_FETCH_H

#include <stdbool.h>

#include "base/error.h"

/* A downloadable text; a new one is a new row in fetch.c. */
typedef struct pq_source {
    const char *name;
    const char *file; /* its name in POTQAT_DATA and in the cache */
    const char *url;
    const char *sha256;
} pq_source;

/* The row of that name, or NULL. */
const pq_source *pq_source_find(const char *name);

/* The folder for downloads: POTQAT_CACHE, else $XDG_CACHE_HOME/potqat, else ~/.cache/potqat. Heap; not made.
 */
pq_status pq_cache_folder(char **folder, pq_error *err);

/* *path = the text's file (heap): in the folder POTQAT_DATA, else in the cache; NULL when it is in neither. A
 * file of that name with another SHA-256 is PQ_ERR_FORMAT. */
pq_status pq_source_locate(const pq_source *source, char **path, pq_error *err);

/* Download it into the cache with curl (10 s to connect, 60 s in all) and check its SHA-256 before it gets
 * its name there; *path as above. */
pq_status pq_source_download(const pq_source *source, char **path, pq_error *err);

#endif
