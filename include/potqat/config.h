/* Reading a run's config: YAML with one schema, overrides as key=value. */
#ifndef POTQAT_CONFIG_H
#define POTQAT_CONFIG_H

#include <stddef.h>

#include <potqat/status.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pq_config pq_config;

/** Read `path` (NULL: defaults alone), then apply `overrides` ("train.lr=1e-3"; the value is YAML), check
 * every key (unknown, type, range, choice, "not in this build") and resolve presets. Errors name file, line,
 * key, what is allowed, and the nearest key. */
PQ_API pq_status pq_config_load(const char *path, const char *const *overrides, size_t count, pq_config **out,
                                pq_error *err);
/** The same from YAML text; `name` stands for the file in errors. */
PQ_API pq_status pq_config_from_text(const char *yaml, size_t bytes, const char *name,
                                     const char *const *overrides, size_t count, pq_config **out,
                                     pq_error *err);
PQ_API void pq_config_destroy(pq_config *config);

#ifdef __cplusplus
}
#endif
#endif
