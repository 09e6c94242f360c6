/* The resolved config as C structs, one a section, made from schema.def. cfg->train.lr is the key train.lr.
 *
 * C types by schema type: INT int64_t; REAL double; BOOL bool; TEXT and CHOICE const char * (a choice is one
 * of the schema's words; NULL = null); REALS pq_reals; TEXTS pq_texts; PAIRS pq_pairs; OVERRIDES
 * pq_overrides. A nullable INT that is null is PQ_UNSET, a nullable REAL is NaN. MAYBE (a nullable truth
 * value) is int64_t: 0, 1 or PQ_UNSET. EVERY is int64_t: 0 = never, 1 = step, N = every N iters. All memory
 * belongs to the config.
 *
 * Resolved by the loader: model.* from the preset, or from char's values where there is neither a preset nor
 * init.from. Null stays null, with the meaning that the help gives, in: model.* with init.from (the
 * parent's), data.tokenizer, train.context, train.decay_iters, eval.context, quant.scale_eps. */
#ifndef PQ_CONFIG_CONFIG_H
#define PQ_CONFIG_CONFIG_H

#include <potqat/config.h>
#include <stdbool.h>
#include <stdint.h>

#define PQ_UNSET INT64_MIN

typedef struct pq_reals {
    size_t count; /* 0 = null or empty */
    double items[8];
} pq_reals;

typedef struct pq_texts {
    size_t count;
    const char **items;
} pq_texts;

typedef struct pq_pairs { /* [[iter, value], ...] */
    size_t count;
    struct pq_pair {
        int64_t iter;
        double value;
    } * items;
} pq_pairs;

typedef struct pq_overrides { /* [{match: pattern, levels: N}, ...]: the last match wins */
    size_t count;
    struct pq_override {
        const char *match;
        int64_t levels;
    } * items;
} pq_overrides;

#include "config/schema.h" /* the section structs and struct pq_config, expanded from schema.def */

/* The config's text (canonical YAML, every key, schema order). without_run drops the run section: the form
 * kept in checkpoints and hashed. Heap; NULL on lack of memory. */
char *pq_config_to_yaml(const pq_config *config, bool without_run);
uint64_t pq_config_hash(const pq_config *config); /* of the text without run */

/* A key set by another file than the config, such as a sweep: its name ("train.lr") and value there. */
typedef struct pq_setting {
    const char *file;
    const struct pq_yaml *key, *value;
} pq_setting;
/* pq_config_load with `settings` between the config's file and the overrides; an error about one of them
 * names its file and line. */
pq_status pq_config_load_settings(const char *path, const pq_setting *settings, size_t setting_count,
                                  const char *const *overrides, size_t count, pq_config **out, pq_error *err);
/* The value of a key ("train.lr") as YAML text; heap, NULL where there is no such key, or no memory. */
char *pq_config_value(const pq_config *config, const char *key);

/* Whether `name` matches the shell-like pattern ("*" any run of characters, dots included; "?" one). */
bool pq_pattern_match(const char *pattern, const char *name);

/* PQ_ERR_USAGE naming the key when `a` (a run's config) and `b` (the same with overrides, for --resume)
 * differ in a key that the schema does not allow to change on resume. */
pq_status pq_config_check_resume(const pq_config *a, const pq_config *b, pq_error *err);
/* PQ_ERR_USAGE naming the key when a run's config says something else than `config`, the section run left
 * out. What training fills in (model.*, train.context) agrees with null. */
pq_status pq_config_check_same(const pq_config *run, const pq_config *config, pq_error *err);

#endif
