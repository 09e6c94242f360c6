/* Owns the table of keys, expanded from schema.def, and the search in it. */
#include <stddef.h>
#include <string.h>

#include "config/key.h"
#include "config/nearest.h"

const pq_key pq_keys[] = {
#define PQ_SECTION(section, help)
#define PQ_SECTION_END(section)
#define PQ_KEY(section_, name_, type_, initial_, ...)                                                        \
    {.section = #section_,                                                                                   \
     .name = #name_,                                                                                         \
     .type = PQ_KEY_##type_,                                                                                 \
     .offset = offsetof(struct pq_config, section_.name_),                                                   \
     .initial = initial_,                                                                                    \
     .help = __VA_ARGS__},
#include "config/schema.def"
#undef PQ_SECTION
#undef PQ_KEY
#undef PQ_SECTION_END
};
const size_t pq_key_count = sizeof pq_keys / sizeof *pq_keys;

const pq_section pq_sections[] = {
#define PQ_SECTION(section, help) {#section, help},
#define PQ_SECTION_END(section)
#define PQ_KEY(...)
#include "config/schema.def"
#undef PQ_SECTION
#undef PQ_KEY
#undef PQ_SECTION_END
};
const size_t pq_section_count = sizeof pq_sections / sizeof *pq_sections;

const pq_key *pq_key_find(const char *section, const char *name) {
    for (size_t i = 0; i < pq_key_count; i++)
        if (strcmp(pq_keys[i].section, section) == 0 && strcmp(pq_keys[i].name, name) == 0)
            return &pq_keys[i];
    return NULL;
}

bool pq_section_exists(const char *section) {
    for (size_t i = 0; i < pq_section_count; i++)
        if (strcmp(pq_sections[i].name, section) == 0) return true;
    return false;
}

/* The name by which a section or key was most likely meant; NULL when nothing is near. */
static const pq_key *nearest_key(const char *section, const char *name) {
    char wanted[64], full[64];
    const pq_key *best = NULL;
    pq_nearest here = {.wanted = name}, anywhere = {.wanted = wanted};
    for (size_t i = 0; i < pq_key_count; i++) {
        if (strcmp(pq_keys[i].section, section) != 0) continue;
        pq_nearest_offer(&here, pq_keys[i].name);
        if (here.best == pq_keys[i].name) best = &pq_keys[i];
    }
    if (best) return best;
    for (size_t i = 0; i < pq_key_count; i++) /* the right name under the wrong section */
        if (strcmp(pq_keys[i].name, name) == 0) return &pq_keys[i];
    snprintf(wanted, sizeof wanted, "%s.%s", section, name);
    for (size_t i = 0; i < pq_key_count; i++) {
        size_t distance = anywhere.distance;
        const char *before = anywhere.best;
        snprintf(full, sizeof full, "%s.%s", pq_keys[i].section, pq_keys[i].name);
        pq_nearest_offer(&anywhere, full);
        if (anywhere.best && (!before || anywhere.distance < distance)) best = &pq_keys[i];
    }
    return best;
}

static void list_names(const char *section, char *out, size_t bytes) {
    size_t used = (size_t)snprintf(out, bytes, section ? "; section %s has" : "; sections are", section);
    const char *separator = " ";
    for (size_t i = 0; i < (section ? pq_key_count : pq_section_count) && used < bytes; i++) {
        if (section && strcmp(pq_keys[i].section, section) != 0) continue;
        used += (size_t)snprintf(out + used, bytes - used, "%s%s", separator,
                                 section ? pq_keys[i].name : pq_sections[i].name);
        separator = ", ";
    }
}

void pq_key_suggest(const char *section, const char *name, char *out, size_t bytes) {
    pq_nearest sections = {.wanted = section};
    if (name) {
        const pq_key *key = nearest_key(section, name);
        if (key)
            snprintf(out, bytes, "; did you mean %s.%s?", key->section, key->name);
        else
            list_names(pq_section_exists(section) ? section : NULL, out, bytes);
        return;
    }
    for (size_t i = 0; i < pq_section_count; i++) pq_nearest_offer(&sections, pq_sections[i].name);
    for (size_t i = 0; i < pq_key_count && !sections.best; i++) { /* a key without its section */
        if (strcmp(pq_keys[i].name, section) != 0) continue;
        snprintf(out, bytes, "; did you mean %s.%s?", pq_keys[i].section, pq_keys[i].name);
        return;
    }
    if (sections.best)
        snprintf(out, bytes, "; did you mean %s?", sections.best);
    else
        list_names(NULL, out, bytes);
}
