/* What `potqat config` prints about the schema and about configs. */
#ifndef PQ_CONFIG_HELP_H
#define PQ_CONFIG_HELP_H

#include <stdio.h>

#include "base/error.h"
#include "config/config.h"

/* Every key with type, default, bounds or choices, help and availability; as plain text or as docs/config.md.
 */
void pq_config_print_help(bool markdown, FILE *out);
void pq_config_print_json(const pq_config *config, FILE *out); /* every key, {"section": {"key": value}} */
/* One line a key that differs, "train.lr: 0.001 | 0.01", or {"train.lr": [0.001, 0.01]}. */
pq_status pq_config_diff(const pq_config *a, const pq_config *b, bool json, FILE *out, pq_error *err);

#endif
