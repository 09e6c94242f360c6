/* YAML text as a small tree: the reader of configs, and of reports, which show configs of any schema. */
#ifndef PQ_CONFIG_YAML_H
#define PQ_CONFIG_YAML_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/* Memory that is freed at once: a list of blocks. */
typedef struct pq_blocks pq_blocks;
void *pq_blocks_take(pq_blocks **blocks, size_t bytes); /* zeroed; NULL on lack of memory */
void pq_blocks_free(pq_blocks *blocks);

typedef enum pq_yaml_kind { PQ_YAML_SCALAR, PQ_YAML_LIST, PQ_YAML_MAP } pq_yaml_kind;

typedef struct pq_yaml {
    pq_yaml_kind kind;
    int line;              /* from 1 */
    const char *text;      /* of a scalar: valid UTF-8 without NUL */
    bool plain;            /* a scalar without quotes: may be a number, true, null */
    size_t count;          /* items of a list, pairs of a map */
    struct pq_yaml *items; /* of a map: key, value, key, value, ... */
} pq_yaml;

/* Parse one document; the tree lives in *blocks, *out is NULL where the text is empty. Refused with a
 * sentence that begins with `name`:line (or with `name` alone where `lines` is false): broken YAML, several
 * documents, invalid UTF-8, NUL, directives, anchors, aliases, tags, keys that are not scalars, more than 1
 * MiB, 10,000 values or 5 levels. */
pq_status pq_yaml_parse(const char *text, size_t bytes, const char *name, bool lines, pq_blocks **blocks,
                        pq_yaml **out, pq_error *err);

bool pq_yaml_is_null(const pq_yaml *value);
/* A value as it may stand in an error: quoted, cut, without control characters. */
void pq_yaml_show(const pq_yaml *value, char out[80]);

#endif
