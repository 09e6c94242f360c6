/* Owns the figures about quantized matrices: curves of what metrics.jsonl says of them, a panel a kind of
 * matrix, and the shares of their levels, a panel a matrix. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "train/report/gnuplot.h"
#include "train/report/plot.h"

/* "h.3.attn.c_attn.weight" -> "attn.c_attn" */
static void kind_of(const char *matrix, char out[64]) {
    const char *rest = matrix;
    if (strncmp(rest, "h.", 2) == 0) {
        const char *dot = strchr(rest + 2, '.');
        if (dot) rest = dot + 1;
    }
    snprintf(out, 64, "%s", rest);
    char *end = strstr(out, ".weight");
    if (end) *end = 0;
    for (char *s = out; *s; s++) /* for gnuplot: a name from a file */
        if ((unsigned char)*s < 0x20) *s = '?';
}

/* A JSON object as an ordered set of names: kinds of the matrices that have `key`, or keys of all. */
static json_t *collect_kinds(const pq_report *report, const char *key) {
    json_t *kinds = json_object(), *line;
    size_t k;
    char kind[64];
    for (size_t i = 0; i < report->count; i++) json_array_foreach(report->runs[i].metrics, k, line) {
            const char *name = pq_report_word(line, "matrix", NULL);
            if (!name || !json_is_number(json_object_get(line, key))) continue;
            kind_of(name, kind);
            if (!json_object_get(kinds, kind)) json_object_set_new(kinds, kind, json_null());
        }
    return kinds;
}

static json_t *collect_keys(const pq_report *report) {
    json_t *keys = json_object(), *line, *value;
    const char *key;
    size_t k;
    for (size_t i = 0; i < report->count; i++) json_array_foreach(report->runs[i].metrics, k, line) {
            if (!json_object_get(line, "matrix")) continue;
            json_object_foreach(line, key, value) {
                if (json_is_number(value) && strcmp(key, "iter") != 0 && !json_object_get(keys, key))
                    json_object_set_new(keys, key, json_null());
            }
        }
    return keys;
}

/* The last line with a histogram of each matrix; borrowed lines. */
static json_t *last_histograms(const pq_report_run *run) {
    json_t *last = json_object(), *line;
    size_t k;
    json_array_foreach(run->metrics, k, line) {
        const char *name = pq_report_word(line, "matrix", NULL);
        const json_t *shares = json_object_get(line, "histogram");
        if (name && json_is_array(shares) && json_array_size(shares)) json_object_set(last, name, line);
    }
    return last;
}

/* The nth name of an object; the name is borrowed from it. */
static const char *nth(json_t *object, size_t index) {
    void *at = json_object_iter(object);
    while (at && index--) at = json_object_iter_next(object, at);
    return at ? json_object_iter_key(at) : NULL;
}

static const char *matrix_heading(const char *key) {
    static const char *const headings[][2] = {{"sqnr_db", "Signal to quantization noise (dB)"},
                                              {"zeros", "Share of zeros"},
                                              {"changed", "Share of codes changed, a step"},
                                              {"flipped_back", "Share of codes flipped back"},
                                              {"sign_flips", "Share of signs flipped"},
                                              {"scale_drift", "Scale drift"},
                                              {"grad_norm", "Gradient norm"}};
    for (size_t i = 0; i < sizeof headings / sizeof *headings; i++)
        if (strcmp(headings[i][0], key) == 0) return headings[i][1];
    return key;
}

pq_status pq_figures_of_matrices(const pq_report *report, pq_figure **list, size_t *count, pq_error *err) {
    json_t *keys = collect_keys(report), *unused;
    const char *key;
    pq_status status = PQ_OK;
    json_object_foreach(keys, key, unused) {
        /* The key is borrowed from the lines, which outlive this set. */
        pq_figure figure = {.kind = PQ_FIGURE_INSIDE,
                            .note = "Means over the layers of each kind of matrix."};
        snprintf(figure.name, sizeof figure.name, "inside-%.60s", key);
        snprintf(figure.title, sizeof figure.title, "%.150s", matrix_heading(key));
        for (size_t i = 0; i < report->count && !figure.key; i++) {
            json_t *line, *value;
            size_t k;
            json_array_foreach(report->runs[i].metrics, k, line) {
                const char *own;
                json_object_foreach(line, own, value) {
                    if (!figure.key && strcmp(own, key) == 0 && json_object_get(line, "matrix"))
                        figure.key = own;
                }
            }
        }
        if (status == PQ_OK) status = pq_figure_add(list, count, figure, err);
    }
    json_decref(keys);
    for (size_t i = 0; i < report->count && status == PQ_OK; i++) {
        /* Of many runs the first of each point: its seeds look alike. */
        if (report->count > 4 && pq_report_point_run(report, report->runs[i].point) != &report->runs[i])
            continue;
        json_t *last = last_histograms(&report->runs[i]);
        pq_figure figure = {.kind = PQ_FIGURE_LEVELS,
                            .run = i,
                            .note = "Share of the weights at each level, from the most negative to the most "
                                    "positive; 0 has its own colour."};
        snprintf(figure.name, sizeof figure.name, "levels-%zu", i + 1);
        snprintf(figure.title, sizeof figure.title, "Levels of %.100s", report->runs[i].label);
        for (char *s = figure.title + strlen(figure.title); s > figure.title && (s[-1] & 0xC0) == 0xC0;)
            *--s = 0;
        if (json_object_size(last)) status = pq_figure_add(list, count, figure, err);
        json_decref(last);
    }
    return status;
}

size_t pq_matrix_panels(const pq_report *report, const pq_figure *figure) {
    json_t *names = figure->kind == PQ_FIGURE_LEVELS ? last_histograms(&report->runs[figure->run])
                                                     : collect_kinds(report, figure->key);
    size_t count = json_object_size(names);
    json_decref(names);
    return count;
}

/* Means over the matrices of a kind by iteration, as a data block; what was written counts. */
static size_t write_means(FILE *script, const pq_report_run *run, const char *kind, const char *key,
                          double extent[3]) {
    json_t *line;
    size_t k, n = 0, written = 0, lines = json_array_size(run->metrics);
    double sum = 0, at = NAN;
    char own[64];
    for (k = 0; k <= lines; k++) { /* one beyond the last, which ends the last mean */
        line = json_array_get(run->metrics, k);
        const char *name = pq_report_word(line, "matrix", NULL);
        const json_t *value = json_object_get(line, key);
        double iter = pq_report_number(line, "iter", NULL);
        if (name) kind_of(name, own);
        const bool counts = name && json_is_number(value) && strcmp(own, kind) == 0;
        if (n && (k == lines || (counts && iter != at))) {
            fprintf(script, "%.0f %.9g\n", at, sum / (double)n);
            extent[0] = fmin(extent[0], sum / (double)n);
            extent[1] = fmax(extent[1], sum / (double)n);
            extent[2] = fmax(extent[2], at);
            written++, sum = 0, n = 0;
        }
        if (!counts) continue;
        at = iter;
        sum += json_number_value(value);
        n++;
    }
    return written;
}

static void plot_kind(FILE *script, const pq_report *report, const char *key, const char *kind) {
    const char *separator = "plot ";
    double extent[3] = {INFINITY, -INFINITY, 1}; /* least, largest, last iteration */
    char *has = calloc(report->count + 1, 1);
    for (size_t i = 0; i < report->count && has; i++) {
        fprintf(script, "$run%zu << EOD\n", i);
        has[i] = write_means(script, &report->runs[i], kind, key, extent) > 0;
        fprintf(script, "EOD\n");
    }
    fprintf(script, "set title ");
    pq_plot_quote(script, kind, 40);
    double span = fmax(extent[1] - extent[0], 1e-3 * fabs(extent[1]) + 1e-12);
    fprintf(script,
            "\nset format x '%%.0f'\nset xrange [0:%.9g]\nset xtics %.9g\nset format y '%%g'\n"
            "set yrange [%.9g:%.9g]\nset ytics %.9g\nset lmargin 9\nset tmargin 2\nset bmargin 2\n",
            extent[2], fmax(pq_plot_step(extent[2], 3), 1), extent[0] - 0.05 * span, extent[1] + 0.05 * span,
            pq_plot_step(span, 4));
    for (size_t i = 0; i < report->count && has; i++) {
        if (!has[i]) continue;
        fprintf(script, "%s$run%zu", separator, i);
        pq_plot_style(script, i, true);
        separator = ", ";
    }
    fprintf(script, "\n");
    free(has);
}

static void plot_levels(FILE *script, const char *matrix, const json_t *shares) {
    size_t n = json_array_size(shares);
    double most = 0;
    char name[80];
    snprintf(name, sizeof name, "%.70s", matrix);
    for (char *s = name; *s; s++)
        if ((unsigned char)*s < 0x20) *s = '?';
    char *end = strstr(name, ".weight");
    if (end) *end = 0;
    for (int zero = 0; zero < 2; zero++) {
        fprintf(script, "$levels%d << EOD\n", zero);
        for (size_t i = 0; i < n; i++) {
            double share = 100 * json_number_value(json_array_get(shares, i));
            if (!isfinite(share) || share < 0) share = 0;
            most = fmax(most, share);
            fprintf(script, "%.1f %.9g\n", (double)i - (double)(n - 1) / 2,
                    (n % 2 && i == n / 2) == zero ? share : 0);
        }
        fprintf(script, "EOD\n");
    }
    double half = (double)n / 2;
    fprintf(script, "set title ");
    pq_plot_quote(script, name, 40);
    fprintf(
        script,
        "\nset xrange [%.1f:%.1f]\nset xtics ('least' %.1f, '0' 0, 'largest' %.1f)\n"
        "set yrange [0:%.9g]\nset ytics %.9g\nset format y '%%g %%%%'\nset boxwidth 0.8\n"
        "set style fill solid noborder\nset lmargin 7\nset tmargin 2\nset bmargin 2\n"
        "plot $levels0 with boxes lc rgb '#0072b2' notitle, $levels1 with boxes lc rgb '#d55e00' notitle\n",
        -half - 0.2, half + 0.2, -half + 0.5, half - 0.5, most > 0 ? 1.05 * most : 1,
        pq_plot_step(most > 0 ? most : 1, 4));
}

pq_status pq_matrix_panel(FILE *script, const pq_report *report, const pq_figure *figure, size_t panel,
                          pq_error *err) {
    const bool levels = figure->kind == PQ_FIGURE_LEVELS;
    json_t *names = levels ? last_histograms(&report->runs[figure->run]) : collect_kinds(report, figure->key);
    const char *name = nth(names, panel);
    if (name && levels)
        plot_levels(script, name, json_object_get(json_object_get(names, name), "histogram"));
    else if (name)
        plot_kind(script, report, figure->key, name);
    json_decref(names);
    return name ? PQ_OK : PQ_FAIL(err, PQ_ERR_MEMORY, "the matrices of a report do not fit in memory");
}
