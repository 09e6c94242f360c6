/* Owns which runs a report is about and which of them differ in their seed alone. */
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "train/report/data.h"

static bool holds(const char *dir, const char *name) {
    char *path = pq_path_join(dir, name);
    bool found = path && pq_file_exists(path);
    free(path);
    return found;
}

static bool is_run(const char *dir) {
    return holds(dir, "config.yaml") || holds(dir, "metrics.jsonl") || holds(dir, "run.json") ||
           holds(dir, "timing.jsonl");
}

static pq_status add_run(pq_report *report, const char *dir, pq_error *err) {
    for (size_t i = 0; i < report->count; i++)
        if (pq_file_same(report->runs[i].dir, dir)) return PQ_OK;
    pq_report_run *grown = realloc(report->runs, (report->count + 1) * sizeof *grown);
    if (!grown) return PQ_FAIL(err, PQ_ERR_MEMORY, "the runs of a report do not fit in memory");
    report->runs = grown;
    grown[report->count] = (pq_report_run){0};
    PQ_TRY(pq_copy_text(dir, &grown[report->count].dir, err));
    report->count++;
    return PQ_OK;
}

static int by_number(const struct dirent **a, const struct dirent **b) {
    return strverscmp((*a)->d_name, (*b)->d_name);
}

/* The runs right below a sweep's folder, by name. Its parents are where points begin, not results; its
 * controls are results, but vary no key. */
static pq_status add_folder(pq_report *report, const char *dir, pq_error *err) {
    struct dirent **entries = NULL;
    pq_status status = PQ_OK;
    int count = scandir(dir, &entries, NULL, by_number);
    for (int i = 0; i < count; i++) {
        const char *name = entries[i]->d_name;
        const size_t before = report->count;
        char *path = name[0] == '.' || strncmp(name, "parent", 6) == 0 ? NULL : pq_path_join(dir, name);
        if (status == PQ_OK && path && is_run(path)) status = add_run(report, path, err);
        if (report->count > before) report->runs[before].swept = strncmp(name, "control", 7) != 0;
        free(path);
        free(entries[i]);
    }
    free(entries);
    return status;
}

static pq_status add_argument(pq_report *report, const char *dir, pq_error *err) {
    size_t before = report->count;
    if (!pq_folder_exists(dir)) return PQ_FAIL(err, PQ_ERR_USAGE, "there is no run folder %s", dir);
    if (is_run(dir)) return add_run(report, dir, err);
    PQ_TRY(add_folder(report, dir, err));
    char *runs = pq_path_join(dir, "runs");
    pq_status status = runs ? add_folder(report, runs, err)
                            : PQ_FAIL(err, PQ_ERR_MEMORY, "a file name could not be allocated");
    free(runs);
    if (status == PQ_OK && report->count == before && !holds(dir, "results.csv"))
        status = PQ_FAIL(err, PQ_ERR_USAGE,
                         "%s is not a run folder: it has no config.yaml, run.json or metrics.jsonl, and no "
                         "run below it",
                         dir);
    report->sweep = true;
    return status;
}

pq_status pq_report_find_runs(const char *const *dirs, size_t count, pq_report *out, pq_error *err) {
    for (size_t i = 0; i < count; i++) PQ_TRY(add_argument(out, dirs[i], err));
    if (out->count) return PQ_OK;
    return PQ_FAIL(err, PQ_ERR_USAGE, "sweep %s has no run yet", dirs[0]);
}

/* ---- points ---- */

/* What says where, how long and how often, not what. */
static bool ignored(const char *key) {
    return strncmp(key, "run.", 4) == 0 || strncmp(key, "log.", 4) == 0 || strncmp(key, "save.", 5) == 0 ||
           strcmp(key, "train.seed") == 0;
}

/* Equal, or equal but for each run's own seed in the name of a parent ("runs/fp32-1337@best"). */
static bool same_value(const pq_report_run *a, const pq_report_run *b, const char *key, const char *x,
                       const char *y) {
    const char *seeds[2] = {pq_report_setting_value(a, "train.seed"),
                            pq_report_setting_value(b, "train.seed")};
    size_t length = strlen(key);
    if (!x || !y) return x == y;
    if (strcmp(x, y) == 0) return true;
    if (length < 5 || strcmp(key + length - 5, ".from") != 0 || !seeds[0] || !seeds[1]) return false;
    const char *at[2] = {strstr(x, seeds[0]), strstr(y, seeds[1])};
    return at[0] && at[1] && at[0] - x == at[1] - y && memcmp(x, y, (size_t)(at[0] - x)) == 0 &&
           strcmp(at[0] + strlen(seeds[0]), at[1] + strlen(seeds[1])) == 0;
}

static bool differs_in(const pq_report_run *a, const pq_report_run *b, const char *key) {
    return !same_value(a, b, key, pq_report_setting_value(a, key), pq_report_setting_value(b, key));
}

static bool same_point(const pq_report_run *a, const pq_report_run *b) {
    if (!a->config || !b->config) return false;
    for (int side = 0; side < 2; side++) {
        const pq_report_run *run = side ? b : a;
        for (size_t k = 0; k < run->setting_count; k++)
            if (!ignored(run->settings[k].key) && differs_in(a, b, run->settings[k].key)) return false;
    }
    return true;
}

static pq_status add_swept(pq_report *report, const char *key, pq_error *err) {
    for (size_t i = 0; i < report->swept_count; i++)
        if (strcmp(report->swept[i], key) == 0) return PQ_OK;
    char **grown = realloc(report->swept, (report->swept_count + 1) * sizeof *grown);
    if (!grown) return PQ_FAIL(err, PQ_ERR_MEMORY, "the keys of a sweep do not fit in memory");
    report->swept = grown;
    PQ_TRY(pq_copy_text(key, &grown[report->swept_count], err));
    report->swept_count++;
    return PQ_OK;
}

pq_status pq_report_find_points(pq_report *report, pq_error *err) {
    const pq_report_run *first = NULL; /* whose keys the others' are compared with */
    for (size_t i = 0; i < report->count; i++) {
        pq_report_run *run = &report->runs[i];
        if (!first && run->swept) first = run;
        run->point = report->point_count;
        for (size_t j = 0; j < i && run->point == report->point_count; j++)
            if (same_point(&report->runs[j], run)) run->point = report->runs[j].point;
        if (run->point < report->point_count) continue;
        report->point_count++;
        for (size_t k = 0; k < run->setting_count; k++)
            if (run->swept && first->config && !ignored(run->settings[k].key) &&
                differs_in(first, run, run->settings[k].key))
                PQ_TRY(add_swept(report, run->settings[k].key, err));
    }
    return PQ_OK;
}

const pq_report_run *pq_report_point_run(const pq_report *report, size_t point) {
    for (size_t i = 0; i < report->count; i++)
        if (report->runs[i].point == point) return &report->runs[i];
    return NULL;
}

const char *pq_report_point_name(const pq_report *report, size_t point, const char *without, char *out,
                                 size_t bytes) {
    const pq_report_run *run = pq_report_point_run(report, point);
    size_t used = 0;
    out[0] = 0;
    for (size_t k = 0; k < report->swept_count && used < bytes && run->swept; k++) {
        const char *key = report->swept[k], *value = pq_report_setting_value(run, key);
        if (without && strcmp(key, without) == 0) continue;
        const char *dot = strrchr(key, '.');
        used += (size_t)snprintf(out + used, bytes - used, "%s%s %s", used ? ", " : "", dot ? dot + 1 : key,
                                 value ? value : "–");
    }
    if (used >= bytes) /* not in the middle of a character */
        for (size_t end = bytes - 1; end > 0 && ((unsigned char)out[end - 1] & 0xC0) == 0x80;)
            out[--end - 1] = 0;
    if (!out[0]) snprintf(out, bytes, "%s", without && run->swept ? "all points" : run->label);
    return out;
}

double pq_report_point_number(const pq_report *report, size_t point, const char *key) {
    const pq_report_run *run = pq_report_point_run(report, point);
    const char *value = run->swept ? pq_report_setting_value(run, key) : NULL;
    char *end;
    if (!value || !*value) return NAN;
    double number = strtod(value, &end);
    return *end ? NAN : number;
}

pq_report_mean pq_report_point_loss(const pq_report *report, size_t group, size_t point) {
    pq_report_mean m = {0, NAN, 0};
    double squares = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < report->count; i++) {
            pq_report_summary s;
            if (report->runs[i].point != point || !pq_report_summarize(&report->runs[i], group, &s)) continue;
            if (pass)
                squares += (s.last->loss - m.mean) * (s.last->loss - m.mean);
            else
                m.mean += s.last->loss, m.count++;
        }
        if (!pass) m.mean = m.count ? m.mean / (double)m.count : NAN;
    }
    double n = (double)m.count;
    if (m.count > 1) m.half = pq_report_t(m.count - 1) * sqrt(squares / (n - 1) / n);
    return m;
}
