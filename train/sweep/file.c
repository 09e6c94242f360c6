/* Owns the sweep file: its keys, the points it names, and the config of each run. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "config/nearest.h"
#include "config/yaml.h"
#include "store/run.h"
#include "train/sweep/name.h"
#include "train/sweep/sweep.h"

enum { MOST_POINTS = 10000 };

/* The file's keys: each names its place in struct file. */
typedef struct file {
    const char *path;
    const pq_yaml *root;
    const pq_yaml *base, *grid, *list, *seeds, *dir, *parent, *parent_seeds, *control;
    const char *const *overrides;
    size_t override_count;
    pq_blocks *blocks;
    pq_sweep *sweep;
} file;

static const struct {
    const char *name;
    size_t offset;
} words[] = {{"base", offsetof(file, base)},
             {"grid", offsetof(file, grid)},
             {"list", offsetof(file, list)},
             {"seeds", offsetof(file, seeds)},
             {"dir", offsetof(file, dir)},
             {"parent", offsetof(file, parent)},
             {"parent_seeds", offsetof(file, parent_seeds)},
             {"control", offsetof(file, control)}};
enum { WORDS = sizeof words / sizeof *words };

/* The keys that a run sets besides its config's file. */
typedef struct settings {
    pq_setting *items;
    size_t count;
} settings;

#define REFUSE(f, at, ...)                                                                                   \
    (PQ_FAIL(err, PQ_ERR_USAGE, __VA_ARGS__),                                                                \
     pq_prefix(err, PQ_ERR_USAGE, "%.280s:%d", (f)->path, (at)->line))

static pq_status no_memory(pq_error *err) {
    return PQ_FAIL(err, PQ_ERR_MEMORY, "the sweep does not fit in memory");
}

/* ---- the file's own keys ---- */

static pq_status expect_text(const file *f, const pq_yaml *value, const char *name, const char *what,
                             pq_error *err) {
    char shown[80];
    if (!value || (value->kind == PQ_YAML_SCALAR && !pq_yaml_is_null(value) && value->text[0])) return PQ_OK;
    pq_yaml_show(value, shown);
    return REFUSE(f, value, "%s: expected %s, found %s", name, what, shown);
}

/* A list or map that holds something. */
static pq_status expect_items(const file *f, const pq_yaml *value, const char *name, pq_yaml_kind kind,
                              const char *what, pq_error *err) {
    char shown[80];
    if (!value) return PQ_OK;
    pq_yaml_show(value, shown);
    if (value->kind != kind) return REFUSE(f, value, "%s: expected %s, found %s", name, what, shown);
    if (!value->count) return REFUSE(f, value, "%s: expected %s, found nothing in it", name, what);
    return PQ_OK;
}

static pq_status take_word(file *f, const pq_yaml *name, const pq_yaml *value, pq_error *err) {
    pq_nearest nearest = {.wanted = name->text};
    for (size_t i = 0; i < WORDS; i++) {
        const pq_yaml **slot = (const pq_yaml **)((char *)f + words[i].offset);
        pq_nearest_offer(&nearest, words[i].name);
        if (strcmp(words[i].name, name->text) != 0) continue;
        if (*slot) return REFUSE(f, name, "%s: given already on line %d", name->text, (*slot)->line);
        *slot = value;
        return PQ_OK;
    }
    return REFUSE(f, name,
                  "%.60s: unknown key of a sweep%s%s; it has base, grid or list, seeds, dir, parent, "
                  "parent_seeds, control",
                  name->text, nearest.best ? "; did you mean " : "", nearest.best ? nearest.best : "");
}

static pq_status check_words(const file *f, pq_error *err) {
    if (!f->base) return REFUSE(f, f->root, "base: expected the path of a config, found no such key");
    PQ_TRY(expect_text(f, f->base, "base", "the path of a config", err));
    if (f->grid && f->list)
        return REFUSE(f, f->grid->line > f->list->line ? f->grid : f->list,
                      "expected either grid or list, found both");
    if (!f->grid && !f->list && !f->seeds)
        return REFUSE(f, f->root, "expected grid, list or seeds, found none of them");
    PQ_TRY(expect_items(f, f->grid, "grid", PQ_YAML_MAP, "a map from keys to lists of values", err));
    for (size_t i = 0; f->grid && i < f->grid->count; i++)
        PQ_TRY(expect_items(f, &f->grid->items[2 * i + 1], f->grid->items[2 * i].text, PQ_YAML_LIST,
                            "a list of values", err));
    PQ_TRY(expect_items(f, f->list, "list", PQ_YAML_LIST, "a list of maps from keys to values", err));
    for (size_t i = 0; f->list && i < f->list->count; i++)
        if (f->list->items[i].kind != PQ_YAML_MAP) {
            char shown[80];
            pq_yaml_show(&f->list->items[i], shown);
            return REFUSE(f, &f->list->items[i], "list: expected a map from keys to values, found %s", shown);
        }
    PQ_TRY(expect_items(f, f->seeds, "seeds", PQ_YAML_LIST, "a list of whole numbers", err));
    PQ_TRY(expect_text(f, f->dir, "dir", "a folder", err));
    PQ_TRY(expect_text(f, f->parent, "parent", "the path of a config", err));
    if (f->parent_seeds && !f->parent) return REFUSE(f, f->parent_seeds, "parent_seeds: there is no parent");
    if (f->parent_seeds &&
        (f->parent_seeds->kind != PQ_YAML_SCALAR ||
         (strcmp(f->parent_seeds->text, "each") != 0 && strcmp(f->parent_seeds->text, "shared") != 0))) {
        char shown[80];
        pq_yaml_show(f->parent_seeds, shown);
        return REFUSE(f, f->parent_seeds, "parent_seeds: expected each or shared, found %s", shown);
    }
    return f->control && f->control->kind == PQ_YAML_MAP
               ? PQ_OK
               : expect_text(f, f->control, "control", "the path of a config or a map of keys", err);
}

static pq_status read_words(file *f, const pq_file_view *text, pq_error *err) {
    pq_yaml *root;
    PQ_TRY(pq_yaml_parse(text->data, text->size, f->path, true, &f->blocks, &root, err));
    static const pq_yaml nothing = {.line = 1};
    f->root = root ? root : &nothing;
    if (!root || root->kind != PQ_YAML_MAP)
        return REFUSE(f, f->root, "expected the keys of a sweep (base, grid, ...), found %s",
                      root && root->kind == PQ_YAML_LIST ? "a list" : "none");
    for (size_t i = 0; i < root->count; i++)
        PQ_TRY(take_word(f, &root->items[2 * i], &root->items[2 * i + 1], err));
    return check_words(f, err);
}

/* ---- what a run sets ---- */

static pq_yaml *make_text(file *f, const char *text, int line) {
    pq_yaml *node = pq_blocks_take(&f->blocks, sizeof *node);
    char *copy = pq_blocks_take(&f->blocks, strlen(text) + 1);
    if (!node || !copy) return NULL;
    *node = (pq_yaml){.kind = PQ_YAML_SCALAR, .line = line, .text = strcpy(copy, text)};
    return node;
}

static pq_status set(file *f, settings *s, const pq_yaml *key, const pq_yaml *value, pq_error *err) {
    if (!key || !value) return no_memory(err);
    s->items[s->count++] = (pq_setting){.file = f->path, .key = key, .value = value};
    return PQ_OK;
}

static bool sets(const settings *s, const char *key) {
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(s->items[i].key->text, key) == 0) return true;
    return false;
}

/* Room for `count` keys, and the seed and the parent. */
static pq_status make_settings(file *f, size_t count, settings *out, pq_error *err) {
    *out = (settings){.items = pq_blocks_take(&f->blocks, (count + 2) * sizeof *out->items)};
    return out->items ? PQ_OK : no_memory(err);
}

/* Whether a point or a control may set `key`. */
static pq_status check_key(const file *f, const settings *before, const pq_yaml *key, bool parent_too,
                           pq_error *err) {
    if (strncmp(key->text, "run.", 4) == 0)
        return REFUSE(f, key, "%.60s: the section run says where, not what, and is no part of a sweep",
                      key->text);
    if (strcmp(key->text, "train.seed") == 0)
        return REFUSE(f, key, "train.seed: expected under seeds of the sweep, not here");
    if (parent_too && f->parent && strcmp(key->text, "init.from") == 0)
        return REFUSE(f, key, "init.from: the sweep's parent (line %d) says it already", f->parent->line);
    if (sets(before, key->text)) return REFUSE(f, key, "%.60s: given already", key->text);
    return PQ_OK;
}

/* The keys of a map, `name` left out. */
static pq_status settings_of_map(file *f, const pq_yaml *map, bool point, settings *out, const char **name,
                                 pq_error *err) {
    PQ_TRY(make_settings(f, map->count, out, err));
    for (size_t i = 0; i < map->count; i++) {
        const pq_yaml *key = &map->items[2 * i], *value = key + 1;
        if (name && strcmp(key->text, "name") == 0) {
            PQ_TRY(expect_text(f, value, "name", "a text", err));
            *name = value->text;
            continue;
        }
        PQ_TRY(check_key(f, out, key, point, err));
        PQ_TRY(set(f, out, key, value, err));
    }
    return PQ_OK;
}

/* Combination `index` of the grid, the last key fastest. */
static pq_status settings_of_grid(file *f, size_t index, settings *out, pq_error *err) {
    size_t keys = f->grid->count;
    PQ_TRY(make_settings(f, keys, out, err));
    for (size_t i = 0; i < keys; i++) {
        size_t after = 1;
        const pq_yaml *key = &f->grid->items[2 * i], *values = key + 1;
        for (size_t j = i + 1; j < keys; j++) after *= f->grid->items[2 * j + 1].count;
        PQ_TRY(check_key(f, out, key, true, err));
        /* The error is to name the value's line. */
        pq_yaml *place = make_text(f, key->text, values->items[index / after % values->count].line);
        PQ_TRY(set(f, out, place, &values->items[index / after % values->count], err));
    }
    return PQ_OK;
}

static pq_status count_points(const file *f, size_t *out, pq_error *err) {
    size_t seeds = f->seeds ? f->seeds->count : 1;
    *out = f->list ? f->list->count : 1;
    for (size_t i = 0; f->grid && i < f->grid->count && *out <= MOST_POINTS; i++)
        *out *= f->grid->items[2 * i + 1].count;
    if (*out <= MOST_POINTS && *out * seeds <= MOST_POINTS) return PQ_OK;
    return REFUSE(f, f->root, "expected at most %d points, found more", MOST_POINTS);
}

static pq_status add_text(char ***list, size_t *count, const char *text, pq_error *err) {
    for (size_t i = 0; i < *count; i++)
        if (strcmp((*list)[i], text) == 0) return PQ_OK;
    char **grown = realloc(*list, (*count + 1) * sizeof *grown);
    if (!grown) return no_memory(err);
    *list = grown;
    PQ_TRY(pq_copy_text(text, &grown[*count], err));
    (*count)++;
    return PQ_OK;
}

/* ---- runs ---- */

static pq_status load(const file *f, const pq_yaml *path, const settings *s, bool overrides, pq_config **out,
                      pq_error *err) {
    if (!pq_file_exists(path->text) || pq_folder_exists(path->text))
        return REFUSE(f, path, "there is no config file %.300s (paths start at the current folder)",
                      path->text);
    return pq_config_load_settings(path->text, s->items, s->count, overrides ? f->overrides : NULL,
                                   overrides ? f->override_count : 0, out, err);
}

/* Take the config over and give the run its name and folder. */
static pq_status add_run(file *f, pq_sweep_run run, const char *name, bool with_seed, pq_error *err) {
    char full[PQ_SWEEP_NAME + 40], seed[32] = "";
    pq_sweep *sweep = f->sweep;
    if (with_seed) snprintf(seed, sizeof seed, ",seed=%lld", (long long)run.config->train.seed);
    snprintf(full, sizeof full, "%s%s", name, seed);
    pq_sweep_run *slot = &sweep->runs[sweep->count++];
    *slot = run;
    for (size_t i = 0; i + 1 < sweep->count; i++)
        if (strcmp(sweep->runs[i].name, full) == 0)
            return PQ_FAIL(
                err, PQ_ERR_USAGE,
                "%.280s:%d: two runs would both be named %s; expected points that differ, or a name "
                "for each (list: - {name: ...})",
                f->path, run.line, full);
    PQ_TRY(pq_copy_text(full, &slot->name, err));
    slot->dir = pq_path_join(sweep->dir, full);
    if (!slot->dir) return no_memory(err);
    slot->config->run.dir = slot->dir;
    return PQ_OK;
}

/* The seed, where the file names seeds. */
static pq_status set_seed(file *f, settings *s, size_t index, pq_error *err) {
    if (!f->seeds) return PQ_OK;
    const pq_yaml *seed = &f->seeds->items[index];
    return set(f, s, make_text(f, "train.seed", seed->line), seed, err);
}

static pq_status set_parent(file *f, settings *s, const pq_sweep_run *parent, pq_error *err) {
    if (!parent) return PQ_OK;
    char *spec = malloc(strlen(parent->dir) + 8);
    if (!spec) return no_memory(err);
    sprintf(spec, "%s@last", parent->dir);
    pq_status status =
        set(f, s, make_text(f, "init.from", f->parent->line), make_text(f, spec, f->parent->line), err);
    free(spec);
    return status;
}

static size_t seed_count(const file *f) {
    return f->seeds ? f->seeds->count : 1;
}

static bool shared_parent(const file *f) {
    return f->parent_seeds && strcmp(f->parent_seeds->text, "shared") == 0;
}

static size_t parent_of(const file *f, size_t seed) {
    return !f->parent ? PQ_SWEEP_NONE : shared_parent(f) ? 0 : seed;
}

static pq_status add_parents(file *f, pq_error *err) {
    size_t count = !f->parent ? 0 : shared_parent(f) ? 1 : seed_count(f);
    for (size_t i = 0; i < count; i++) {
        pq_sweep_run run = {.kind = PQ_SWEEP_PARENT,
                            .parent = PQ_SWEEP_NONE,
                            .control = PQ_SWEEP_NONE,
                            .line = f->parent->line};
        settings s;
        PQ_TRY(make_settings(f, 0, &s, err));
        if (!shared_parent(f)) PQ_TRY(set_seed(f, &s, i, err));
        PQ_TRY(load(f, f->parent, &s, false, &run.config, err));
        PQ_TRY(add_run(f, run, "parent", f->seeds && !shared_parent(f), err));
    }
    return PQ_OK;
}

/* A control of its own config stands alone; one made from the base has the points' parent, unless it names
 * another. */
static pq_status add_controls(file *f, pq_error *err) {
    for (size_t i = 0; f->control && i < seed_count(f); i++) {
        pq_sweep_run run = {.kind = PQ_SWEEP_CONTROL,
                            .parent = PQ_SWEEP_NONE,
                            .control = PQ_SWEEP_NONE,
                            .line = f->control->line};
        bool own = f->control->kind == PQ_YAML_SCALAR;
        settings s;
        if (own)
            PQ_TRY(make_settings(f, 0, &s, err));
        else
            PQ_TRY(settings_of_map(f, f->control, false, &s, NULL, err));
        if (!own && !sets(&s, "init.from")) {
            run.parent = parent_of(f, i);
            PQ_TRY(set_parent(f, &s, run.parent == PQ_SWEEP_NONE ? NULL : &f->sweep->runs[run.parent], err));
        }
        PQ_TRY(set_seed(f, &s, i, err));
        PQ_TRY(load(f, own ? f->control : f->base, &s, !own, &run.config, err));
        PQ_TRY(add_run(f, run, "control", f->seeds != NULL, err));
    }
    return PQ_OK;
}

static pq_status point_settings(file *f, size_t index, settings *out, const char **name, pq_error *err) {
    if (f->list) return settings_of_map(f, &f->list->items[index], true, out, name, err);
    if (f->grid) return settings_of_grid(f, index, out, err);
    return make_settings(f, 0, out, err);
}

static pq_status add_point(file *f, size_t index, size_t seed, size_t controls, pq_error *err) {
    const pq_yaml *place = f->list ? &f->list->items[index] : f->grid ? f->grid : f->seeds;
    pq_sweep_run run = {.kind = PQ_SWEEP_POINT,
                        .parent = parent_of(f, seed),
                        .group = index,
                        .control = f->control ? controls + seed : PQ_SWEEP_NONE,
                        .line = place->line};
    settings s;
    const char *given = NULL;
    char name[PQ_SWEEP_NAME];
    PQ_TRY(point_settings(f, index, &s, &given, err));
    const size_t own = s.count;
    PQ_TRY(set_parent(f, &s, run.parent == PQ_SWEEP_NONE ? NULL : &f->sweep->runs[run.parent], err));
    PQ_TRY(set_seed(f, &s, seed, err));
    PQ_TRY(load(f, f->base, &s, true, &run.config, err));
    pq_status status = pq_sweep_name(f->sweep, s.items, own, run.config, given, name, err);
    if (status != PQ_OK) {
        pq_config_destroy(run.config);
        return status;
    }
    PQ_TRY(add_run(f, run, name, f->seeds != NULL, err));
    if (seed == 0) PQ_TRY(pq_copy_text(name, &f->sweep->groups[f->sweep->group_count++], err));
    return PQ_OK;
}

/* The keys that any point sets, in the order in which the file names them first. */
static pq_status collect_keys(file *f, pq_error *err) {
    pq_sweep *sweep = f->sweep;
    for (size_t i = 0; f->grid && i < f->grid->count; i++)
        PQ_TRY(add_text(&sweep->keys, &sweep->key_count, f->grid->items[2 * i].text, err));
    for (size_t p = 0; f->list && p < f->list->count; p++)
        for (size_t i = 0; i < f->list->items[p].count; i++) {
            const char *key = f->list->items[p].items[2 * i].text;
            if (strcmp(key, "name") != 0) PQ_TRY(add_text(&sweep->keys, &sweep->key_count, key, err));
        }
    return PQ_OK;
}

/* What the command line may not change: it would be overruled by the sweep, or make all points alike. */
static pq_status check_overrides(const file *f, pq_error *err) {
    for (size_t i = 0; i < f->override_count; i++) {
        const char *word = f->overrides[i];
        size_t length = strcspn(word, "=");
        const char *owner = NULL;
        for (size_t k = 0; k < f->sweep->key_count; k++)
            if (strlen(f->sweep->keys[k]) == length && memcmp(word, f->sweep->keys[k], length) == 0)
                owner = f->list ? "list" : "grid";
        if (f->seeds && length == 10 && memcmp(word, "train.seed", 10) == 0) owner = "seeds";
        if (f->parent && length == 9 && memcmp(word, "init.from", 9) == 0) owner = "parent";
        if (length == 7 && memcmp(word, "run.dir", 7) == 0) owner = "dir";
        if (owner)
            return PQ_FAIL(err, PQ_ERR_USAGE, "command line: %.*s: the sweep's %s says it already (%.300s)",
                           (int)length, word, owner, f->path);
    }
    return PQ_OK;
}

static pq_status check_init(const file *f, pq_error *err) {
    for (size_t i = 0; i < f->sweep->count; i++) {
        const pq_sweep_run *run = &f->sweep->runs[i];
        pq_model_kind kind;
        char *path;
        if (run->parent != PQ_SWEEP_NONE || !run->config->init.from) continue;
        if (pq_model_locate(run->config->init.from, &path, &kind, err) != PQ_OK)
            return pq_prefix(err, PQ_ERR_USAGE, "%.200s:%d: %s: init.from", f->path, run->line, run->name);
        free(path);
    }
    return PQ_OK;
}

/* runs/NAME of .../NAME.yaml. */
static pq_status choose_dir(file *f, pq_error *err) {
    if (f->dir) return pq_copy_text(f->dir->text, &f->sweep->dir, err);
    const char *slash = strrchr(f->path, '/'), *name = slash ? slash + 1 : f->path;
    char *copy;
    PQ_TRY(pq_copy_text(name, &copy, err));
    char *dot = strrchr(copy, '.');
    if (dot && dot != copy) *dot = 0;
    f->sweep->dir = pq_path_join("runs", copy);
    free(copy);
    return f->sweep->dir ? PQ_OK : no_memory(err);
}

static pq_status make_runs(file *f, pq_error *err) {
    size_t points, seeds = seed_count(f);
    pq_sweep *sweep = f->sweep;
    PQ_TRY(choose_dir(f, err));
    PQ_TRY(count_points(f, &points, err));
    PQ_TRY(collect_keys(f, err));
    PQ_TRY(check_overrides(f, err));
    sweep->seeded = f->seeds != NULL;
    PQ_TRY(pq_calloc((points + 2) * seeds, sizeof *sweep->runs, "runs of a sweep", &sweep->runs, err));
    PQ_TRY(pq_calloc(points, sizeof *sweep->groups, "names of points", &sweep->groups, err));
    PQ_TRY(add_parents(f, err));
    size_t controls = sweep->count;
    PQ_TRY(add_controls(f, err));
    sweep->first = sweep->count;
    for (size_t p = 0; p < points; p++)
        for (size_t s = 0; s < seeds; s++) PQ_TRY(add_point(f, p, s, controls, err));
    return check_init(f, err);
}

pq_status pq_sweep_read(const char *path, const char *const *overrides, size_t count, pq_sweep **out,
                        pq_error *err) {
    file f = {.path = path, .overrides = overrides, .override_count = count};
    pq_file_view text;
    *out = NULL;
    PQ_TRY(pq_file_read(path, &text, err));
    pq_status status = pq_calloc(1, sizeof *f.sweep, "sweep", &f.sweep, err);
    if (status == PQ_OK) status = pq_copy_text(path, &f.sweep->path, err);
    if (status == PQ_OK) status = read_words(&f, &text, err);
    if (status == PQ_OK) status = make_runs(&f, err);
    pq_file_view_close(&text);
    pq_blocks_free(f.blocks);
    if (status != PQ_OK)
        pq_sweep_destroy(f.sweep);
    else
        *out = f.sweep;
    return status;
}

static void free_texts(char **list, size_t count) {
    for (size_t i = 0; i < count; i++) free(list[i]);
    free(list);
}

void pq_sweep_destroy(pq_sweep *sweep) {
    if (!sweep) return;
    for (size_t i = 0; i < sweep->count; i++) {
        pq_config_destroy(sweep->runs[i].config);
        free(sweep->runs[i].name);
        free(sweep->runs[i].dir);
    }
    free(sweep->runs);
    free_texts(sweep->keys, sweep->key_count);
    free_texts(sweep->groups, sweep->group_count);
    free(sweep->path);
    free(sweep->dir);
    free(sweep);
}
