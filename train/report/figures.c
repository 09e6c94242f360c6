/* Owns which figures a report has, and their files. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "train/report/plot.h"
#include "train/report/report.h"

pq_status pq_figure_add(pq_figure **list, size_t *count, pq_figure figure, pq_error *err) {
    pq_figure *grown = realloc(*list, (*count + 1) * sizeof *grown);
    if (!grown) return PQ_FAIL(err, PQ_ERR_MEMORY, "the figures of a report do not fit in memory");
    *list = grown;
    /* A file name: letters, digits, dots and dashes; what follows the protocol makes it unique. */
    for (char *s = figure.name; *s; s++)
        if (!isalnum((unsigned char)*s) && *s != '.' && *s != '_') *s = '-';
    grown[(*count)++] = figure;
    return PQ_OK;
}

/* Runs with a loss and known bits under a protocol, and whether their bits differ. */
static bool bits_differ(const pq_report *report, size_t group) {
    double least = INFINITY, largest = -INFINITY;
    for (size_t i = 0; i < report->count; i++) {
        double bits = report->runs[i].bits_a_weight;
        if (!isfinite(bits) || !pq_report_evaluated(&report->runs[i], group)) continue;
        least = fmin(least, bits);
        largest = fmax(largest, bits);
    }
    return largest > least;
}

/* Whether a swept key has at least two numbers among the points of a protocol. */
static bool numeric(const pq_report *report, size_t group, const char *key) {
    double least = INFINITY, largest = -INFINITY;
    for (size_t p = 0; p < report->point_count; p++) {
        double x = pq_report_point_number(report, p, key);
        if (!isfinite(x) || !pq_report_point_loss(report, group, p).count) continue;
        least = fmin(least, x);
        largest = fmax(largest, x);
    }
    return largest > least;
}

static pq_figure figure_of(const pq_report *report, pq_figure_kind kind, size_t group, const char *key) {
    static const char *const names[] = {"loss", "perplexity-bits", "loss-bits", "loss"};
    static const char *const titles[] = {"Loss", "Perplexity against bits a weight",
                                         "Loss against bits a weight, over seeds", "Loss against"};
    static const char *const notes[] = {
        "Marks: evaluations. Thin lines: training loss, with dropout.",
        "Bars: 95 % intervals from the spread of the text\xE2\x80\x99s windows. Unquantized runs: 32 bits.",
        "Means over seeds; bars: 95 % intervals (Student\xE2\x80\x99s t), none with one seed.",
        "Means over seeds; bars: 95 % intervals (Student\xE2\x80\x99s t), none with one seed."};
    pq_figure figure = {.kind = kind, .group = group, .key = key, .note = notes[kind]};
    char name[128], number[24] = "";
    if (group) snprintf(number, sizeof number, "-%zu", group + 1);
    snprintf(figure.name, sizeof figure.name, "%s%s%.40s%s", names[kind], key ? "-" : "", key ? key : "",
             number);
    snprintf(figure.title, sizeof figure.title, "%s%s%.60s – %s", titles[kind], key ? " " : "",
             key ? key : "", pq_report_group_name(&report->groups[group], name, sizeof name));
    return figure;
}

pq_status pq_figures_list(const pq_report *report, pq_figure **out, size_t *count, pq_error *err) {
    *out = NULL;
    *count = 0;
    pq_status status = PQ_OK;
    for (size_t g = 0; g < report->group_count && status == PQ_OK; g++) {
        status = pq_figure_add(out, count, figure_of(report, PQ_FIGURE_LOSS, g, NULL), err);
        if (status == PQ_OK && bits_differ(report, g)) {
            status = pq_figure_add(out, count, figure_of(report, PQ_FIGURE_BITS, g, NULL), err);
            if (status == PQ_OK && report->sweep)
                status = pq_figure_add(out, count, figure_of(report, PQ_FIGURE_POINTS, g, NULL), err);
        }
        for (size_t k = 0; k < report->swept_count && report->sweep && status == PQ_OK; k++)
            if (numeric(report, g, report->swept[k]))
                status =
                    pq_figure_add(out, count, figure_of(report, PQ_FIGURE_KEY, g, report->swept[k]), err);
    }
    if (status == PQ_OK) status = pq_figures_of_matrices(report, out, count, err);
    if (status == PQ_OK) return PQ_OK;
    free(*out);
    *out = NULL;
    return status;
}

static pq_status write_figure_file(const pq_report *report, const pq_figure *figure, const char *folder,
                                   bool overwrite, pq_error *err) {
    char name[96];
    char *svg = NULL;
    snprintf(name, sizeof name, "%s.svg", figure->name);
    char *path = pq_path_join(folder, name);
    if (!path) return PQ_FAIL(err, PQ_ERR_MEMORY, "a file name could not be allocated");
    pq_status status = pq_figure_draw(report, figure, true, &svg, err);
    if (status == PQ_OK) status = pq_file_put(path, overwrite, svg, strlen(svg), err);
    free(svg);
    free(path);
    return status;
}

pq_status pq_report_figures(const char *const *runs, size_t count, const char *folder, bool overwrite,
                            pq_error *err) {
    pq_report report;
    pq_figure *figures = NULL;
    size_t figure_count = 0;
    pq_status status = pq_report_read(runs, count, &report, err);
    if (status == PQ_OK && !report.group_count)
        status = PQ_FAIL(err, PQ_ERR_USAGE, "%s has no evaluation yet: there is nothing to draw", runs[0]);
    if (status == PQ_OK) status = pq_figures_list(&report, &figures, &figure_count, err);
    if (status == PQ_OK) status = pq_folder_create(folder, err);
    for (size_t i = 0; i < figure_count && status == PQ_OK; i++)
        status = write_figure_file(&report, &figures[i], folder, overwrite, err);
    free(figures);
    pq_report_deinit(&report);
    return status;
}
