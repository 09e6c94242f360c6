/* Owns the figures of a report that are about losses, and how a figure gets from gnuplot's scripts onto a
 * page or into a file. */
#include "train/report/plot.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "train/report/gnuplot.h"
#include "train/report/html.h"
#include "train/report/report.h"

#define MOST_POINTS 400 /* of a training curve; more are averaged in runs of equal length */
#define MOST_LABELS 12  /* in a figure of dots; beyond, the legend has to do */

/* At least 3 : 1 against white and against the page's dark, told apart by the colour-blind (after Okabe and
 * Ito); shape and dashes differ, too. */
static const char *const colors[8] = {"#0072b2", "#d55e00", "#009e73", "#b8629b",
                                      "#a67c00", "#7f6bd6", "#2293ab", "#808080"};
static const int shapes[5] = {7, 5, 9, 11, 13}; /* gnuplot's: circle, square, triangles, diamond */
static const char *const dashes[3] = {"", " dt (6,3)", " dt (2,3)"};
static const char *const svg_dashes[3] = {"", " stroke-dasharray='6,3'", " stroke-dasharray='2,3'"};

typedef enum place { WIDE, NARROW, SMALL, IN_FILE } place;
static const struct {
    const char *class;
    int width, height, font, x_steps;
} places[] = {[WIDE] = {"wide", 860, 400, 13, 10},
              [NARROW] = {"narrow", 360, 300, 12, 4},
              [SMALL] = {"small", 280, 190, 11, 3},
              [IN_FILE] = {"", 860, 410, 13, 10}};

double pq_plot_step(double span, int steps) {
    double step = pow(10, floor(log10(span / steps)));
    if (step * steps >= span) return step;
    if (2 * step * steps >= span) return 2 * step;
    return 5 * step * steps >= span ? 5 * step : 10 * step;
}

void pq_plot_quote(FILE *script, const char *label, size_t most) {
    /* In gnuplot's single quotes nothing but the quote itself is special. */
    size_t length = strlen(label), kept = length < most ? length : most;
    while (kept < length && kept > 0 && ((unsigned char)label[kept] & 0xC0) == 0x80) kept--;
    fputc('\'', script);
    for (size_t i = 0; i < kept; i++) {
        if (label[i] == '\'') fputc('\'', script);
        fputc(label[i], script);
    }
    fputs(kept < length ? "…'" : "'", script);
}

void pq_plot_style(FILE *script, size_t style, bool lines) {
    if (lines)
        fprintf(script, " with linespoints lw 2%s", dashes[style / 8 % 3]);
    else
        fprintf(script, " with points");
    fprintf(script, " pt %d ps 0.5 lc rgb '%s' notitle", shapes[style % 5], colors[style % 8]);
}

void pq_figure_mark(FILE *out, size_t style) {
    static const char *const marks[] = {"<circle cx='14' cy='6' r='3.5'", "<path d='M11,3h6v6h-6z'",
                                        "<path d='M14,2L18,9H10z'", "<path d='M14,10L18,3H10z'",
                                        "<path d='M14,1.5L18.5,6L14,10.5L9.5,6z'"};
    fprintf(out, "<path d='M0,6H28' stroke='%s' stroke-width='2'%s/>%s fill='%s'/>", colors[style % 8],
            svg_dashes[style / 8 % 3], marks[style % 5], colors[style % 8]);
}

typedef struct extent {
    double least, largest;
    double first, last; /* along x */
} extent;

static void include_value(extent *e, double value, double x) {
    if (!isfinite(value) || !isfinite(x)) return;
    e->least = fmin(e->least, value);
    e->largest = fmax(e->largest, value);
    e->first = fmin(e->first, x);
    e->last = fmax(e->last, x);
}

/* A logarithmic axis where the values span more than a factor of two (a loss falls fast, then slowly), with
 * labels at round numbers; else a linear one. */
static void write_y_axis(FILE *script, extent e) {
    static const double marks[] = {1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8};
    if (!(e.least > 0 && e.largest > 2 * e.least)) {
        double span = fmax(e.largest - e.least, 1e-3 * fabs(e.largest) + 1e-9), step = pq_plot_step(span, 6);
        fprintf(script, "set yrange [%.9g:%.9g]\nset ytics %.9g\n", e.least - 0.05 * span,
                e.largest + 0.05 * span, step);
        return;
    }
    double from = e.least / 1.05, to = e.largest * 1.05, wide = log10(to / from);
    const char *separator = "";
    fprintf(script, "set logscale y\nset yrange [%.9g:%.9g]\nset mytics 1\nset ytics (", from, to);
    int every = wide > 6 ? (int)ceil(wide / 6) : 1;
    for (int decade = (int)floor(log10(from)); decade <= (int)ceil(log10(to)); decade += every)
        for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
            double mark = marks[i] * pow(10, decade);
            bool coarse = i == 0 || i == 3 || i == 7, fine = coarse || i == 2 || i == 5;
            if (mark < from || mark > to || (wide > 3 && i) || (wide > 1.2 && !coarse) ||
                (wide > 0.7 && !fine))
                continue;
            fprintf(script, "%s'%.9g' %.9g", separator, mark, mark);
            separator = ", ";
        }
    fprintf(script, ")\n");
}

/* ---- loss against iterations ---- */

static void write_data(FILE *script, const pq_report_run *run, size_t index, size_t group, extent *e) {
    fprintf(script, "$val%zu << EOD\n", index);
    for (size_t i = 0; i < run->eval_count; i++) {
        const pq_report_eval *eval = &run->evals[i];
        if (eval->group != group || !isfinite(eval->loss)) continue;
        fprintf(script, "%lld %.9g\n", (long long)eval->iter, eval->loss);
        include_value(e, eval->loss, (double)eval->iter);
    }
    fprintf(script, "EOD\n");
    size_t step = (run->training_count + MOST_POINTS - 1) / MOST_POINTS;
    fprintf(script, "$train%zu << EOD\n", index);
    for (size_t i = 0; i < run->training_count; i += step) {
        size_t end = i + step < run->training_count ? i + step : run->training_count;
        double sum = 0;
        for (size_t k = i; k < end; k++) sum += run->training[k].loss;
        sum /= (double)(end - i);
        fprintf(script, "%lld %.9g\n", (long long)run->training[end - 1].iter, sum);
        include_value(e, sum, (double)run->training[end - 1].iter);
    }
    fprintf(script, "EOD\n");
}

static void write_curves(FILE *script, const pq_report *report, size_t group) {
    const char *separator = "plot ";
    for (size_t i = 0; i < report->count; i++) {
        if (!report->runs[i].training_count || !pq_report_evaluated(&report->runs[i], group)) continue;
        fprintf(script, "%s$train%zu with lines lw 1 lc rgb '#60%s' notitle", separator, i,
                colors[i % 8] + 1);
        separator = ", ";
    }
    for (size_t i = 0; i < report->count; i++) {
        if (!pq_report_evaluated(&report->runs[i], group)) continue;
        fprintf(script, "%s$val%zu", separator, i);
        pq_plot_style(script, i, true);
        separator = ", ";
    }
    for (size_t i = 0; i < report->count; i++)
        if (pq_report_new_floor(report, group, i))
            fprintf(script, "%s$floor%zu with lines lw 1.5 dt (6,4) lc rgb '" PQ_PLOT_INK "' notitle",
                    separator, i);
    fprintf(script, "\n");
}

static pq_status plot_loss(FILE *script, const pq_report *report, const pq_figure *figure, place where,
                           pq_error *err) {
    extent e = {INFINITY, -INFINITY, 0, 0};
    for (size_t i = 0; i < report->count; i++)
        if (pq_report_evaluated(&report->runs[i], figure->group))
            write_data(script, &report->runs[i], i, figure->group, &e);
    for (size_t i = 0; i < report->count; i++)
        if (pq_report_new_floor(report, figure->group, i)) include_value(&e, report->runs[i].floor, 0);
    if (e.least > e.largest) return PQ_FAIL(err, PQ_ERR_FORMAT, "no value is small enough to be drawn");
    double last = e.last > 0 ? e.last : 1;
    for (size_t i = 0; i < report->count; i++)
        if (pq_report_new_floor(report, figure->group, i))
            fprintf(script, "$floor%zu << EOD\n0 %.9g\n%.9g %.9g\nEOD\n", i, report->runs[i].floor, last,
                    report->runs[i].floor);
    fprintf(script,
            "set xlabel 'iteration'\nset ylabel 'loss (nats a token)'\nset format x '%%.0f'\n"
            "set xrange [0:%.9g]\nset xtics %.9g\n",
            last, fmax(pq_plot_step(last, places[where].x_steps), 1));
    write_y_axis(script, e);
    write_curves(script, report, figure->group);
    return PQ_OK;
}

/* ---- dots with error bars ---- */

typedef struct dot {
    double x, y, from, to;
    size_t style;
    char label[64];
} dot;

/* The dots of a figure in the order of their series; false where index is past the last. A dot that is not
 * known has NaN. */
static bool get_dot(const pq_report *report, const pq_figure *figure, size_t index, dot *out) {
    *out = (dot){.x = NAN, .y = NAN, .style = index};
    if (figure->kind == PQ_FIGURE_BITS) {
        pq_report_summary s;
        if (index >= report->count) return false;
        const pq_report_run *run = &report->runs[index];
        if (!pq_report_summarize(run, figure->group, &s)) return true;
        double half = isfinite(s.last->loss_se) ? PQ_REPORT_95 * s.last->loss_se : 0;
        *out = (dot){run->bits_a_weight,
                     exp(s.last->loss),
                     exp(s.last->loss - half),
                     exp(s.last->loss + half),
                     index,
                     ""};
        snprintf(out->label, sizeof out->label, "%s", run->label);
        return true;
    }
    if (index >= report->point_count) return false;
    pq_report_mean m = pq_report_point_loss(report, figure->group, index);
    double half = isfinite(m.half) ? m.half : 0;
    double x = figure->kind == PQ_FIGURE_KEY ? pq_report_point_number(report, index, figure->key)
                                             : pq_report_point_run(report, index)->bits_a_weight;
    *out = (dot){x, m.mean, m.mean - half, m.mean + half, index, ""};
    char name[2][256];
    pq_report_point_name(report, index, figure->key, name[0], sizeof name[0]);
    snprintf(out->label, sizeof out->label, "%.60s", figure->kind == PQ_FIGURE_KEY ? "" : name[0]);
    for (size_t i = 0; figure->kind == PQ_FIGURE_KEY && i < index; i++)
        if (strcmp(pq_report_point_name(report, i, figure->key, name[1], sizeof name[1]), name[0]) == 0) {
            out->style = i; /* the same series as that point */
            break;
        }
    return true;
}

static bool drawn(const dot *d) {
    return isfinite(d->x) && isfinite(d->y) && isfinite(d->from) && isfinite(d->to) && fabs(d->to) < 1e12;
}

static bool any_dot_of(const pq_report *report, const pq_figure *figure, size_t style) {
    dot d;
    for (size_t i = 0; get_dot(report, figure, i, &d); i++)
        if (d.style == style && drawn(&d)) return true;
    return false;
}

static int by_x(const void *a, const void *b) {
    const dot *x = a, *y = b;
    return (x->x > y->x) - (x->x < y->x);
}

static int by_y(const void *a, const void *b) {
    const dot *x = a, *y = b;
    return (x->y > y->y) - (x->y < y->y);
}

/* Labels beside their dots, from the bottom up, each above the one before where they would meet. */
static void write_labels(FILE *script, const dot *dots, size_t count, extent e, bool log_x, place where) {
    double last[2] = {-1, -1}, gap = 1.6 * places[where].font / (places[where].height - 70.0);
    double span = e.largest - e.least, wide = log_x ? log(e.last / e.first) : e.last - e.first;
    for (size_t i = 0; i < count; i++) {
        double x = wide > 0 ? (log_x ? log(dots[i].x / e.first) : dots[i].x - e.first) / wide : 0.5;
        double y = span > 0 ? 0.05 + 0.9 * (dots[i].y - e.least) / span : 0.5;
        bool left = x > 0.5;
        if (last[left] >= 0 && y < last[left] + gap) y = last[left] + gap;
        last[left] = y;
        fprintf(script, "set label ");
        pq_plot_quote(script, dots[i].label, where == NARROW ? 18 : 40);
        fprintf(script, " at first %.9g, graph %.4f %s offset character %s,0 textcolor rgb '%s'\n", dots[i].x,
                y, left ? "right" : "left", left ? "-1" : "1", colors[dots[i].style % 8]);
    }
}

static void write_x_axis(FILE *script, extent e, bool log_x, place where) {
    static const double marks[] = {1, 1.5, 2, 3, 4, 5, 6, 8, 12, 16, 32};
    const char *separator = "";
    if (!log_x) {
        double span = fmax(e.last - e.first, 1e-3 * fabs(e.last) + 1e-9);
        fprintf(script, "set xrange [%.9g:%.9g]\nset xtics %.9g\n", e.first - 0.05 * span,
                e.last + 0.05 * span, pq_plot_step(span, places[where].x_steps));
        return;
    }
    fprintf(script, "set logscale x\nset xrange [%.9g:%.9g]\nset mxtics 1\nset xtics (", e.first / 1.1,
            e.last * 1.1);
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        if (marks[i] < e.first / 1.1 || marks[i] > e.last * 1.1) continue;
        fprintf(script, "%s'%g' %g", separator, marks[i], marks[i]);
        separator = ", ";
    }
    fprintf(script, ")\n");
}

static void write_dots(FILE *script, dot *dots, size_t count, bool lines) {
    const char *separator = "plot ";
    for (size_t i = 0; i < count; i++) {
        bool first = true;
        for (size_t k = 0; k < i; k++) first = first && dots[k].style != dots[i].style;
        if (!first) continue;
        fprintf(script, "$dots%zu << EOD\n", dots[i].style);
        for (size_t k = i; k < count; k++)
            if (dots[k].style == dots[i].style)
                fprintf(script, "%.9g %.9g %.9g %.9g\n", dots[k].x, dots[k].y, dots[k].from, dots[k].to);
        fprintf(script, "EOD\n");
    }
    for (size_t i = 0; i < count; i++) {
        bool first = true;
        for (size_t k = 0; k < i; k++) first = first && dots[k].style != dots[i].style;
        if (!first) continue;
        fprintf(script,
                "%s$dots%zu using 1:3:(0):($4-$3) with vectors nohead lw 1.5 lc rgb '%s' notitle, $dots%zu",
                separator, dots[i].style, colors[dots[i].style % 8], dots[i].style);
        pq_plot_style(script, dots[i].style, lines);
        separator = ", ";
    }
    fprintf(script, "\n");
}

static pq_status plot_dots(FILE *script, const pq_report *report, const pq_figure *figure, place where,
                           pq_error *err) {
    extent e = {INFINITY, -INFINITY, INFINITY, -INFINITY};
    size_t count = 0, most = report->count + report->point_count;
    dot *dots, d;
    PQ_TRY(pq_calloc(most + 1, sizeof *dots, "dots", &dots, err));
    for (size_t i = 0; get_dot(report, figure, i, &d); i++) {
        if (!drawn(&d)) continue;
        dots[count++] = d;
        include_value(&e, d.from, d.x);
        include_value(&e, d.to, d.x);
    }
    bool bits = figure->kind != PQ_FIGURE_KEY, log_x = bits && e.first > 0 && e.last > 2 * e.first;
    pq_status status = PQ_OK;
    if (!count) {
        status = PQ_FAIL(err, PQ_ERR_FORMAT, "no value is small enough to be drawn");
    } else {
        double span = fmax(e.largest - e.least, 1e-3 * fabs(e.largest) + 1e-9);
        fprintf(script, "set xlabel ");
        pq_plot_quote(script, bits ? "bits a weight, scales included" : figure->key, 60);
        fprintf(script, "\nset ylabel '%s'\n",
                figure->kind == PQ_FIGURE_BITS ? "perplexity a token" : "loss (nats a token)");
        write_x_axis(script, e, log_x, where);
        fprintf(script, "set yrange [%.9g:%.9g]\nset ytics %.9g\n", e.least - 0.05 * span,
                e.largest + 0.05 * span, pq_plot_step(span, 6));
        e.least -= 0.0, e.largest = e.least + span;
        qsort(dots, count, sizeof *dots, by_y);
        if (count <= MOST_LABELS && bits) write_labels(script, dots, count, e, log_x, where);
        qsort(dots, count, sizeof *dots, by_x);
        write_dots(script, dots, count, !bits);
    }
    free(dots);
    return status;
}

/* ---- any figure ---- */

bool pq_figure_series(const pq_report *report, const pq_figure *figure, size_t index, size_t *style,
                      char *name, size_t bytes) {
    const bool points = figure->kind == PQ_FIGURE_POINTS || figure->kind == PQ_FIGURE_KEY;
    const size_t most = points ? report->point_count : report->count;
    if (figure->kind == PQ_FIGURE_LEVELS) return false;
    for (size_t i = 0, seen = 0; i < most; i++) {
        bool there = figure->kind == PQ_FIGURE_LOSS     ? pq_report_evaluated(&report->runs[i], figure->group)
                     : figure->kind == PQ_FIGURE_INSIDE ? report->runs[i].has_matrices
                                                        : any_dot_of(report, figure, i);
        if (!there || seen++ < index) continue;
        *style = i;
        if (points)
            pq_report_point_name(report, i, figure->key, name, bytes);
        else
            snprintf(name, bytes, "%s", report->runs[i].label);
        return true;
    }
    return false;
}

static void write_terminal(FILE *script, place where) {
    fprintf(script,
            "reset\nset encoding utf8\n"
            "set terminal svg size %d,%d dynamic noenhanced font 'sans-serif,%d'\n"
            "set border 3 lc rgb '" PQ_PLOT_INK "'\n"
            "set tics nomirror out scale 0.5 textcolor rgb '" PQ_PLOT_INK "'\n"
            "set grid ytics lt 1 lc rgb '#a0808080' lw 1\nset key off\n"
            "set xlabel textcolor rgb '" PQ_PLOT_INK "'\nset ylabel textcolor rgb '" PQ_PLOT_INK
            "'\nset title textcolor rgb '" PQ_PLOT_INK "' offset 0,-0.5\n",
            places[where].width, places[where].height, places[where].font);
}

static pq_status write_panel(FILE *script, const pq_report *report, const pq_figure *figure, size_t panel,
                             place where, pq_error *err) {
    write_terminal(script, where);
    if (figure->kind >= PQ_FIGURE_INSIDE) {
        PQ_TRY(pq_matrix_panel(script, report, figure, panel, err));
    } else if (figure->kind == PQ_FIGURE_LOSS) {
        PQ_TRY(plot_loss(script, report, figure, where, err));
    } else {
        PQ_TRY(plot_dots(script, report, figure, where, err));
    }
    fprintf(script, "set output\n"); /* ends this document */
    if (fflush(script) == 0 && !ferror(script)) return PQ_OK;
    return PQ_FAIL(err, PQ_ERR_IO, "a temporary file could not be written: %s", strerror(errno));
}

static bool write_on_page(FILE *out, const char *raw, const pq_figure *figure, const place *where,
                          size_t count) {
    for (size_t i = 0; i < count && raw; i++) {
        place p = where[i];
        fprintf(out,
                "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" class=\"%s\" role=\"img\" ",
                places[p].width, places[p].height, places[p].class);
        pq_html_element(out, "aria-label=\"", figure->title, "\">\n");
        raw = pq_svg_write_body(out, raw);
        fputs("</svg>\n", out);
    }
    return raw != NULL;
}

/* Panels in rows of three, the title above, the series' names below. */
static bool write_file(FILE *out, const char *raw, const pq_report *report, const pq_figure *figure,
                       const place *where, size_t count) {
    const int across = count < 3 ? (int)count : 3, down = ((int)count + across - 1) / across;
    const int width = across * places[where[0]].width, height = places[where[0]].height;
    char name[256];
    size_t series = 0, style;
    while (pq_figure_series(report, figure, series, &style, name, sizeof name)) series++;
    const int total = 36 + down * height + 20 * (int)series + 10;
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" "
            "color=\"#222\" font-family=\"sans-serif\" font-size=\"13\">\n"
            "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
            width, total, width, total);
    pq_html_element(out, "<title>", figure->title, "</title>\n");
    pq_html_element(out, "<text x=\"12\" y=\"22\" fill=\"currentColor\">", figure->title, "</text>\n");
    for (size_t i = 0; i < count && raw; i++) {
        fprintf(out, "<svg x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\">\n",
                (int)i % across * places[where[i]].width, 36 + (int)i / across * height,
                places[where[i]].width, height);
        raw = pq_svg_write_body(out, raw);
        fputs("</svg>\n", out);
    }
    for (size_t i = 0; i < series; i++) {
        pq_figure_series(report, figure, i, &style, name, sizeof name);
        int y = 36 + down * height + 20 * (int)i;
        fprintf(out, "<g transform=\"translate(12,%d)\">", y);
        pq_figure_mark(out, style);
        pq_html_element(out, "</g><text x=\"48\" fill=\"currentColor\"", "", "");
        fprintf(out, " y=\"%d\">", y + 11);
        pq_html_element(out, "", name, "</text>\n");
    }
    fputs("</svg>\n", out);
    return raw != NULL;
}

static pq_status finish(const char *raw, const pq_report *report, const pq_figure *figure, bool file,
                        const place *where, size_t count, char **out, pq_error *err) {
    size_t bytes;
    FILE *stream = open_memstream(out, &bytes);
    if (!stream) return PQ_FAIL(err, PQ_ERR_MEMORY, "a figure does not fit in memory");
    bool whole = file ? write_file(stream, raw, report, figure, where, count)
                      : write_on_page(stream, raw, figure, where, count);
    bool good = !ferror(stream);
    if (fclose(stream) == 0 && good && whole) return PQ_OK;
    free(*out);
    *out = NULL;
    if (!whole) return PQ_FAIL(err, PQ_ERR_IO, "gnuplot wrote fewer figures than it was asked for");
    return PQ_FAIL(err, PQ_ERR_MEMORY, "a figure does not fit in memory");
}

pq_status pq_figure_draw(const pq_report *report, const pq_figure *figure, bool file, char **svg,
                         pq_error *err) {
    const bool panels = figure->kind >= PQ_FIGURE_INSIDE;
    size_t count = panels ? pq_matrix_panels(report, figure) : file ? 1 : 2;
    FILE *script = tmpfile();
    place *where = NULL;
    char *raw = NULL;
    *svg = NULL;
    if (!script) return PQ_FAIL(err, PQ_ERR_IO, "a temporary file could not be made: %s", strerror(errno));
    pq_status status = pq_calloc(count + 1, sizeof *where, "a figure", &where, err);
    for (size_t i = 0; i < count && status == PQ_OK; i++) {
        where[i] = panels ? SMALL : file ? IN_FILE : i ? NARROW : WIDE;
        status = write_panel(script, report, figure, i, where[i], err);
    }
    if (status == PQ_OK) status = pq_gnuplot(script, &raw, err);
    if (status == PQ_OK) status = finish(raw, report, figure, file, where, count, svg, err);
    free(raw);
    free(where);
    fclose(script);
    return status;
}
