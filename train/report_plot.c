/* Owns the gnuplot scripts of a report and what happens to gnuplot's SVG before it goes on a page: no ids
 * that could meet, no fixed black. gnuplot is started without a shell; script, result and complaints are
 * temporary files without names, so that no pipe can fill up. */
#include "train/report_plot.h"

#include <errno.h>
#include <math.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "train/report.h"

#define INK         "#123456" /* stands for the colour of text in the script, replaced in the SVG */
#define MOST_POINTS 400       /* of a training curve; more are averaged in runs of equal length */

const char *const pq_figure_titles[PQ_FIGURE_KINDS] = {"Loss", "Perplexity"};
const char *const pq_figure_colors[8] = {"#3f83d6", "#d9792b", "#3a9a5c", "#a067d0",
                                         "#d4525c", "#2a9aa0", "#a9783c", "#c963a0"};

static const char *const axis_titles[PQ_FIGURE_KINDS] = {"loss (nats a token)", "perplexity a token"};

static const struct {
    const char *class;
    int width, height, font, x_steps;
} places[] = {[PQ_FIGURE_WIDE] = {"wide", 860, 400, 13, 10},
              [PQ_FIGURE_NARROW] = {"narrow", 360, 300, 12, 4},
              [PQ_FIGURE_FILE] = {"file", 860, 410, 13, 10}};

/* The smallest of 1, 2, 5 x 10^k that covers `span` in at most `steps` steps. */
static double nice_step(double span, int steps) {
    double step = pow(10, floor(log10(span / steps)));
    if (step * steps >= span) return step;
    if (2 * step * steps >= span) return 2 * step;
    return 5 * step * steps >= span ? 5 * step : 10 * step;
}

static double shown(pq_figure_kind kind, double loss) {
    return kind == PQ_FIGURE_PERPLEXITY ? exp(loss) : loss;
}

typedef struct extent {
    double least, largest;
    int64_t last_iter;
} extent;

static void include_value(extent *e, pq_figure_kind kind, double loss, int64_t iter) {
    double value = shown(kind, loss);
    if (!isfinite(value)) return;
    e->least = fmin(e->least, value);
    e->largest = fmax(e->largest, value);
    if (iter > e->last_iter) e->last_iter = iter;
}

/* The validation curve as a data block, and with PQ_FIGURE_LOSS the training curve. */
static void write_data(FILE *script, const pq_report_run *run, size_t index, size_t group,
                       pq_figure_kind kind, extent *e) {
    fprintf(script, "$val%zu << EOD\n", index);
    for (size_t i = 0; i < run->eval_count; i++) {
        const pq_report_eval *eval = &run->evals[i];
        if (eval->group != group || !isfinite(shown(kind, eval->loss))) continue;
        fprintf(script, "%lld %.9g\n", (long long)eval->iter, shown(kind, eval->loss));
        include_value(e, kind, eval->loss, eval->iter);
    }
    fprintf(script, "EOD\n");
    if (kind != PQ_FIGURE_LOSS) return;
    size_t step = (run->training_count + MOST_POINTS - 1) / MOST_POINTS;
    fprintf(script, "$train%zu << EOD\n", index);
    for (size_t i = 0; i < run->training_count; i += step) {
        size_t end = i + step < run->training_count ? i + step : run->training_count;
        double sum = 0;
        for (size_t k = i; k < end; k++) sum += run->training[k].loss;
        sum /= (double)(end - i);
        fprintf(script, "%lld %.9g\n", (long long)run->training[end - 1].iter, sum);
        include_value(e, kind, sum, run->training[end - 1].iter);
    }
    fprintf(script, "EOD\n");
}

/* A logarithmic axis where the values span more than a factor of two (a loss falls fast, then slowly), with
 * labels at round numbers; else a linear one. */
static void write_y_axis(FILE *script, extent e) {
    static const double marks[] = {1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8};
    if (!(e.least > 0 && e.largest > 2 * e.least)) {
        double span = fmax(e.largest - e.least, 1e-3 * fabs(e.largest) + 1e-9), step = nice_step(span, 6);
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

/* A title in gnuplot's single quotes, where nothing but the quote itself is special; cut to fit a legend. */
static void write_title(FILE *script, const char *label) {
    size_t length = strlen(label), kept = length < 40 ? length : 40;
    while (kept < length && kept > 0 && ((unsigned char)label[kept] & 0xC0) == 0x80) kept--;
    fputs(" title '", script);
    for (size_t i = 0; i < kept; i++) {
        if (label[i] == '\'') fputc('\'', script);
        fputc(label[i], script);
    }
    fputs(kept < length ? "…'" : "'", script);
}

static void write_curves(FILE *script, const pq_report *report, size_t group, pq_figure_kind kind) {
    const char *separator = "plot ";
    for (size_t i = 0; i < report->count && kind == PQ_FIGURE_LOSS; i++) {
        if (!report->runs[i].training_count || !pq_report_evaluated(&report->runs[i], group)) continue;
        fprintf(script, "%s$train%zu with lines lw 1 lc rgb '#60%s' notitle", separator, i,
                pq_figure_colors[i % 8] + 1);
        separator = ", ";
    }
    for (size_t i = 0; i < report->count; i++) {
        if (!pq_report_evaluated(&report->runs[i], group)) continue;
        fprintf(script, "%s$val%zu with linespoints lw 2 pt 7 ps 0.45 lc rgb '%s'", separator, i,
                pq_figure_colors[i % 8]);
        write_title(script, report->runs[i].label);
        separator = ", ";
    }
    for (size_t i = 0; i < report->count; i++) {
        if (!pq_report_new_floor(report, group, i)) continue;
        double value = shown(kind, report->runs[i].floor);
        fprintf(script,
                "%s$floor%zu with lines lw 1.5 dt (6,4) lc rgb '" INK "' title 'floor of the text, %.4f'",
                separator, i, value);
        separator = ", ";
    }
    fprintf(script, "\n");
}

/* The legend of a file stands below the axes and adds to its height. */
static int figure_height(const pq_report *report, size_t group, pq_figure_place place) {
    int height = places[place].height;
    if (place == PQ_FIGURE_FILE)
        for (size_t i = 0; i < report->count; i++)
            height +=
                20 * (pq_report_evaluated(&report->runs[i], group) + pq_report_new_floor(report, group, i));
    return height;
}

static pq_status write_script(FILE *script, const pq_report *report, size_t group, pq_figure_kind kind,
                              pq_figure_place place, pq_error *err) {
    extent e = {INFINITY, -INFINITY, 0};
    for (size_t i = 0; i < report->count; i++)
        if (pq_report_evaluated(&report->runs[i], group))
            write_data(script, &report->runs[i], i, group, kind, &e);
    for (size_t i = 0; i < report->count; i++)
        if (pq_report_new_floor(report, group, i)) include_value(&e, kind, report->runs[i].floor, 0);
    if (e.least > e.largest) return PQ_FAIL(err, PQ_ERR_FORMAT, "no value is small enough to be drawn");
    double last = e.last_iter > 0 ? (double)e.last_iter : 1;
    for (size_t i = 0; i < report->count; i++)
        if (pq_report_new_floor(report, group, i))
            fprintf(script, "$floor%zu << EOD\n0 %.9g\n%.9g %.9g\nEOD\n", i,
                    shown(kind, report->runs[i].floor), last, shown(kind, report->runs[i].floor));
    fprintf(script,
            "set encoding utf8\n"
            "set terminal svg size %d,%d dynamic noenhanced font 'sans-serif,%d'\n"
            "set border 3 lc rgb '" INK "'\n"
            "set tics nomirror out scale 0.5 textcolor rgb '" INK "'\n"
            "set grid ytics lt 1 lc rgb '#a0808080' lw 1\n"
            "set xlabel 'iteration' textcolor rgb '" INK "'\n"
            "set ylabel '%s' textcolor rgb '" INK "'\n"
            "set format x '%%.0f'\nset xrange [0:%.0f]\nset xtics %.9g\n",
            places[place].width, figure_height(report, group, place), places[place].font, axis_titles[kind],
            last, fmax(nice_step(last, places[place].x_steps), 1));
    if (place == PQ_FIGURE_FILE)
        fprintf(script, "set key below left Left reverse textcolor rgb '" INK "'\n");
    else
        fprintf(script, "set key off\n");
    write_y_axis(script, e);
    write_curves(script, report, group, kind);
    if (fflush(script) == 0 && !ferror(script)) return PQ_OK;
    return PQ_FAIL(err, PQ_ERR_IO, "a temporary file could not be written: %s", strerror(errno));
}

extern char **environ;

/* Run gnuplot with these files as its standard streams. -d: no personal start-up files. */
static pq_status run_gnuplot(FILE *script, FILE *result, FILE *complaints, pq_error *err) {
    char *arguments[] = {"gnuplot", "-d", NULL};
    posix_spawn_file_actions_t actions;
    pid_t child;
    int status = 0;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, fileno(script), STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, fileno(result), STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, fileno(complaints), STDERR_FILENO);
    int failure = posix_spawnp(&child, "gnuplot", &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (failure == ENOENT)
        return PQ_FAIL(err, PQ_ERR_IO, "gnuplot, which draws the curves, is not installed");
    if (failure) return PQ_FAIL(err, PQ_ERR_IO, "gnuplot could not be started: %s", strerror(failure));
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return PQ_OK;
    char said[300] = "";
    rewind(complaints);
    size_t length = fread(said, 1, sizeof said - 1, complaints);
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)said[i] < 0x20) said[i] = ' ';
    return PQ_FAIL(err, PQ_ERR_IO, "gnuplot failed and said: %s", length ? said : "nothing");
}

static pq_status read_back(FILE *stream, char **text, pq_error *err) {
    if (fseek(stream, 0, SEEK_END) != 0) return PQ_FAIL(err, PQ_ERR_IO, "gnuplot's result could not be read");
    long size = ftell(stream);
    PQ_TRY(pq_calloc((size_t)(size > 0 ? size : 0) + 1, 1, "a figure", text, err));
    rewind(stream);
    if (size > 0 && fread(*text, 1, (size_t)size, stream) != (size_t)size) {
        free(*text);
        *text = NULL;
        return PQ_FAIL(err, PQ_ERR_IO, "gnuplot's result could not be read");
    }
    return PQ_OK;
}

/* gnuplot's words -> ours. Groups set `color` to black, so that currentColor within them would be black. */
static const char *const replacements[][2] = {
    {"rgb( 18,  52,  86)", "currentColor"},
    {"rgb(18,52,86)", "currentColor"},
    {" color=\"black\"", ""},
    {" color=\"white\"", ""},
    {" color=\"gray\"", ""},
    {"stroke=\"black\"", "stroke=\"currentColor\""},
    {" id=\"gnuplot_canvas\"", ""},
    {"<use xlink:href='#gpPt6'", "<circle r='1' stroke='none' fill='currentColor'"},
    {" stroke-linecap=\"butt\" stroke-linejoin=\"miter\"", ""},
};

static void write_line(FILE *out, const char *line, size_t length) {
    for (size_t i = 0; i < length;) {
        size_t known = sizeof replacements / sizeof *replacements, r;
        for (r = 0; r < known; r++)
            if (strncmp(line + i, replacements[r][0], strlen(replacements[r][0])) == 0) break;
        if (r < known) {
            fputs(replacements[r][1], out);
            i += strlen(replacements[r][0]);
        } else {
            fputc(line[i++], out);
        }
    }
    fputc('\n', out);
}

static bool starts(const char *line, const char *with) {
    return strncmp(line, with, strlen(with)) == 0;
}

/* Copy what stands between <svg ...> and </svg>, line by line, without titles, definitions and empty groups.
 */
static void write_body(FILE *out, const char *svg) {
    const char *held = NULL; /* the opening of a group that may turn out to be empty */
    size_t held_length = 0, length;
    bool defs = false, head = true;
    for (const char *line = svg; *line; line += length + (line[length] == '\n')) {
        length = strcspn(line, "\n");
        const char *text = line + strspn(line, "\t ");
        if (head) {
            head = !starts(text, "<desc>");
        } else if (defs || starts(text, "<defs>")) {
            defs = !starts(text, "</defs>");
        } else if (held && starts(text, "</g>")) {
            held = NULL;
        } else if (length) {
            if (held) write_line(out, held, held_length);
            held = NULL;
            if (starts(text, "<g id=\"gnuplot_plot")) {
                fputs("<g>\n", out);
            } else if (starts(text, "<g fill=\"none\"")) {
                held = line;
                held_length = length;
            } else {
                write_line(out, line, length);
            }
        }
    }
}

static pq_status finish(const char *svg, int height, pq_figure_kind kind, pq_figure_place place, char **out,
                        pq_error *err) {
    size_t bytes;
    int width = places[place].width;
    if (!strstr(svg, "<desc>") || !strstr(svg, "</svg>"))
        return PQ_FAIL(err, PQ_ERR_IO, "gnuplot wrote no SVG figure (is its svg terminal missing?)");
    FILE *stream = open_memstream(out, &bytes);
    if (!stream) return PQ_FAIL(err, PQ_ERR_MEMORY, "a figure does not fit in memory");
    fprintf(stream, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" ", width, height);
    if (place == PQ_FIGURE_FILE)
        fprintf(stream,
                "width=\"%d\" height=\"%d\" color=\"#222\">\n<rect width=\"100%%\" height=\"100%%\" "
                "fill=\"#fff\"/>\n",
                width, height);
    else
        fprintf(stream, "class=\"%s\" role=\"img\" aria-label=\"%s against iterations\">\n",
                places[place].class, pq_figure_titles[kind]);
    write_body(stream, svg);
    bool good = !ferror(stream);
    if (fclose(stream) == 0 && good) return PQ_OK;
    free(*out);
    *out = NULL;
    return PQ_FAIL(err, PQ_ERR_MEMORY, "a figure does not fit in memory");
}

pq_status pq_figure_draw(const pq_report *report, size_t group, pq_figure_kind kind, pq_figure_place place,
                         char **svg, pq_error *err) {
    FILE *script = tmpfile(), *result = tmpfile(), *complaints = tmpfile();
    char *raw = NULL;
    pq_status status = PQ_OK;
    *svg = NULL;
    if (!script || !result || !complaints)
        status = PQ_FAIL(err, PQ_ERR_IO, "a temporary file could not be made: %s", strerror(errno));
    if (status == PQ_OK) {
        status = write_script(script, report, group, kind, place, err);
        rewind(script);
    }
    if (status == PQ_OK) status = run_gnuplot(script, result, complaints, err);
    if (status == PQ_OK) status = read_back(result, &raw, err);
    if (status == PQ_OK) status = finish(raw, figure_height(report, group, place), kind, place, svg, err);
    free(raw);
    if (script) fclose(script);
    if (result) fclose(result);
    if (complaints) fclose(complaints);
    return status;
}

static pq_status write_figure_file(const pq_report *report, size_t group, pq_figure_kind kind,
                                   const char *folder, bool overwrite, pq_error *err) {
    static const char *const names[PQ_FIGURE_KINDS] = {"loss", "perplexity"};
    char name[40] = "", number[24] = "";
    char *svg = NULL, *path;
    pq_file_writer writer;
    if (group) snprintf(number, sizeof number, "-%zu", group + 1);
    snprintf(name, sizeof name, "%s%s.svg", names[kind], number);
    path = pq_path_join(folder, name);
    if (!path) return PQ_FAIL(err, PQ_ERR_MEMORY, "a file name could not be allocated");
    pq_status status = pq_figure_draw(report, group, kind, PQ_FIGURE_FILE, &svg, err);
    if (status == PQ_OK) status = pq_file_create(path, overwrite, &writer, err);
    if (status == PQ_OK) {
        status = pq_file_write(&writer, svg, strlen(svg), err);
        if (status == PQ_OK)
            status = pq_file_commit(&writer, err);
        else
            pq_file_abort(&writer);
    }
    free(svg);
    free(path);
    return status;
}

pq_status pq_report_figures(const char *const *runs, size_t count, const char *folder, bool overwrite,
                            pq_error *err) {
    pq_report report;
    pq_status status = pq_report_read(runs, count, &report, err);
    if (status == PQ_OK && !report.group_count)
        status = PQ_FAIL(err, PQ_ERR_USAGE, "%s has no evaluation yet: there is nothing to draw", runs[0]);
    if (status == PQ_OK) status = pq_folder_create(folder, err);
    for (size_t g = 0; g < report.group_count && status == PQ_OK; g++)
        for (pq_figure_kind kind = 0; kind < PQ_FIGURE_KINDS && status == PQ_OK; kind++)
            status = write_figure_file(&report, g, kind, folder, overwrite, err);
    pq_report_deinit(&report);
    return status;
}
