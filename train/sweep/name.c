/* Owns how a point of a sweep is named, and so its folder. */
#include "train/sweep/name.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "config/yaml.h"

/* What is not safe becomes a dash; brackets, quotes and spaces go. */
static void append(const char *text, char out[PQ_SWEEP_NAME]) {
    size_t used = strlen(out);
    for (; *text && used + 1 < PQ_SWEEP_NAME; text++) {
        if (strchr("[]{}\"' ", *text)) continue;
        bool safe = isalnum((unsigned char)*text) || strchr("_=,+-", *text) || (used > 0 && *text == '.');
        out[used++] = '-';
        if (safe) out[used - 1] = *text;
    }
    out[used] = 0;
}

/* "levels" of quant.levels, or the whole key where another swept one ends alike. */
static const char *short_key(const pq_sweep *sweep, const char *key) {
    const char *dot = strchr(key, '.');
    for (size_t i = 0; i < sweep->key_count && dot; i++) {
        const char *other = strchr(sweep->keys[i], '.');
        if (other && strcmp(sweep->keys[i], key) != 0 && strcmp(other, dot) == 0) return key;
    }
    return dot ? dot + 1 : key;
}

pq_status pq_sweep_name(const pq_sweep *sweep, const pq_setting *settings, size_t count,
                        const pq_config *config, const char *given, char out[PQ_SWEEP_NAME], pq_error *err) {
    out[0] = 0;
    if (given) append(given, out);
    for (size_t i = 0; !given && i < count; i++) {
        const char *key = settings[i].key->text;
        char *value = pq_config_value(config, key);
        if (!value) return PQ_FAIL(err, PQ_ERR_MEMORY, "no memory for a point's name");
        if (out[0]) append(",", out);
        append(short_key(sweep, key), out);
        append("=", out);
        append(value, out);
        free(value);
    }
    if (strlen(out) + 1 >= PQ_SWEEP_NAME)
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "%.200s: a point's name has %d characters or more (%.40s...); use list, and give each "
                       "point a name",
                       sweep->path, PQ_SWEEP_NAME - 1, out);
    if (!out[0]) strcpy(out, "base");
    return PQ_OK;
}
