/* struct pq_config, expanded from schema.def: cfg->train.lr is the key train.lr. Included by config.h only.
 */
#ifndef PQ_CONFIG_SCHEMA_H
#define PQ_CONFIG_SCHEMA_H

#include "config/config.h" /* the types of the fields */

#define PQ_C_INT       int64_t
#define PQ_C_REAL      double
#define PQ_C_BOOL      bool
#define PQ_C_MAYBE     int64_t
#define PQ_C_TEXT      const char *
#define PQ_C_CHOICE    const char *
#define PQ_C_EVERY     int64_t
#define PQ_C_REALS     pq_reals
#define PQ_C_TEXTS     pq_texts
#define PQ_C_PAIRS     pq_pairs
#define PQ_C_OVERRIDES pq_overrides

struct pq_config {
#define PQ_SECTION(section, help)       struct pq_config_##section {
#define PQ_KEY(section, key, type, ...) PQ_C_##type key;
#define PQ_SECTION_END(section)                                                                              \
    }                                                                                                        \
    section;
#include "config/schema.def"
#undef PQ_SECTION
#undef PQ_KEY
#undef PQ_SECTION_END
    struct pq_blocks *memory; /* owns every text and list above */
};

#endif
