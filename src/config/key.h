/* The rows of schema.def as data: what the reader, the printer and the help loop over. Stays in this room. */
#ifndef PQ_CONFIG_KEY_H
#define PQ_CONFIG_KEY_H

#include <stdio.h>

#include "base/error.h"
#include "config/config.h"
#include "config/yaml.h"

typedef enum pq_key_type {
    PQ_KEY_INT,
    PQ_KEY_REAL,
    PQ_KEY_BOOL,
    PQ_KEY_MAYBE,
    PQ_KEY_TEXT,
    PQ_KEY_CHOICE,
    PQ_KEY_EVERY,
    PQ_KEY_REALS,
    PQ_KEY_TEXTS,
    PQ_KEY_PAIRS,
    PQ_KEY_OVERRIDES
} pq_key_type;

typedef struct pq_key {
    const char *section, *name;
    pq_key_type type;
    size_t offset;       /* of the field in struct pq_config */
    const char *initial; /* the default, YAML text */
    const char *help;
    double least,
        most; /* bounds of numbers, of the items of REALS, of the second numbers of PAIRS and OVERRIDES */
    bool above, below;   /* the bound itself is not allowed: above least, below most */
    size_t count;        /* items of REALS */
    const char *choices; /* words that work in this build, "a|b|c" */
    const char *later;   /* words that do not work in this build */
    const char *beyond;  /* what any other word names, where that is allowed */
    bool nullable;
    bool absent; /* only the default works in this build */
    bool resume; /* may change on --resume */
} pq_key;

typedef struct pq_section {
    const char *name, *help;
} pq_section;

extern const pq_key pq_keys[];
extern const pq_section pq_sections[];
extern const size_t pq_key_count, pq_section_count;

const pq_key *pq_key_find(const char *section, const char *name); /* NULL: no such key */
bool pq_section_exists(const char *section);
/* The end of a sentence about a key that does not exist: "; did you mean train.lr?" or what there is. */
void pq_key_suggest(const char *section, const char *name, char *out, size_t bytes);
/* What a key allows, for errors and help: "a number above 0 and at most 10, or null". */
void pq_key_allowed(const pq_key *key, char *out, size_t bytes);

/* Set the key's field from a YAML value; texts and lists are kept in config->memory. `where` begins the
 * error: "x.yaml:3" or "command line". */
pq_status pq_key_read(const pq_key *key, const pq_yaml *value, const char *where, pq_config *config,
                      pq_error *err);

typedef enum pq_flavour { PQ_FLAVOUR_YAML, PQ_FLAVOUR_JSON } pq_flavour;
void pq_key_print(const pq_key *key, const pq_config *config, pq_flavour flavour, FILE *out);
/* The same as heap text; NULL on lack of memory. */
char *pq_key_text(const pq_key *key, const pq_config *config, pq_flavour flavour);

/* What several keys say together, after presets are filled in: what a key alone cannot show. */
void pq_config_resolve(pq_config *config);
/* *key names the key at fault, whose place the caller knows; the sentence comes without it. */
pq_status pq_config_check(const pq_config *config, const pq_key **key, pq_error *err);

/* Numbers are read and written with a point whatever the host program's locale; bracket with these. */
typedef struct pq_numbers {
    void *own, *host;
} pq_numbers;
pq_numbers pq_numbers_begin(void);
void pq_numbers_end(pq_numbers numbers);

#endif
