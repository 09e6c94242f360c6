/* Owns escaping and the tables of the HTML page that are about runs: size and speed, config differences,
 * matrices, events, facts. */
#include "train/report/html.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void pq_html_put(FILE *out, const char *text) {
    for (; *text; text++) {
        switch (*text) {
        case '&':
            fputs("&amp;", out);
            break;
        case '<':
            fputs("&lt;", out);
            break;
        case '>':
            fputs("&gt;", out);
            break;
        case '"':
            fputs("&quot;", out);
            break;
        case '\'':
            fputs("&#39;", out);
            break;
        default:
            if ((unsigned char)*text >= 0x20 || *text == '\n' || *text == '\t')
                fputc(*text, out);
            else
                fputs("\xEF\xBF\xBD", out);
        }
    }
}

void pq_html_element(FILE *out, const char *open, const char *text, const char *close) {
    fputs(open, out);
    pq_html_put(out, text);
    fputs(close, out);
}

void pq_html_cell(FILE *out, pq_text text) {
    pq_html_element(out, "<td>", text.at, "</td>");
}

void pq_html_open_table(FILE *out, const char *class, const char *what) {
    /* Focusable, so that a wide table can be scrolled by keyboard. */
    pq_html_element(out, "<div class=\"box\" tabindex=\"0\" role=\"region\" aria-label=\"", what, "\">");
    fprintf(out, "<table class=\"%s\">\n", class);
}

void pq_html_close_table(FILE *out) {
    fputs("</tbody>\n</table></div>\n", out);
}

void pq_html_run_head(FILE *out, const pq_report_run *run) {
    pq_html_element(out, "<tr><th scope=\"row\">", run->label, "");
    if (run->quantizer[0] && strcmp(run->quantizer, "none") != 0)
        pq_html_element(out, "<br><small>", run->quantizer, "</small>");
    fputs("</th>", out);
}

void pq_html_costs(FILE *out, const pq_report *report) {
    bool quantized = false;
    pq_html_open_table(out, "numbers", "Size and speed");
    fputs(
        "<thead><tr><th scope=\"col\">Run</th><th scope=\"col\">Levels</th><th scope=\"col\">Bits a code</th>"
        "<th scope=\"col\">Bits a weight</th><th scope=\"col\">Weights</th><th scope=\"col\">Of fp32</th>"
        "<th scope=\"col\">Tokens/s</th><th scope=\"col\">Time</th></tr></thead>\n<tbody>\n",
        out);
    for (size_t i = 0; i < report->count; i++) {
        const pq_report_run *run = &report->runs[i];
        pq_text bits = {"–"}, share = {"–"};
        if (isfinite(run->bits_a_weight)) snprintf(bits.at, sizeof bits.at, "%.2f", run->bits_a_weight);
        if (run->fp32_bytes > 0 && isfinite(run->weight_bytes))
            snprintf(share.at, sizeof share.at, "%.1f %%", 100 * run->weight_bytes / run->fp32_bytes);
        pq_html_run_head(out, run);
        pq_html_cell(out, pq_text_count(run->levels > 0 ? run->levels : NAN));
        pq_html_cell(out, pq_text_count(run->bits > 0 ? run->bits : NAN));
        pq_html_cell(out, bits);
        pq_html_cell(out, pq_text_bytes(run->weight_bytes));
        pq_html_cell(out, share);
        pq_html_cell(out, pq_text_count(run->tokens_per_s));
        pq_html_cell(out, pq_text_seconds(run->elapsed_s));
        fputs("</tr>\n", out);
        quantized = quantized || run->bits > 0;
    }
    pq_html_close_table(out);
    if (quantized)
        fputs("<p class=\"soft\">A code takes whole bits: 9 levels need 4, as 15 do. Bits a weight count the "
              "scales "
              "of the quantized tensors.</p>\n",
              out);
}

/* Facts of a run in words; each fills `out` or leaves it empty. */
typedef void fact(const pq_report_run *run, FILE *out);

static void fact_state(const pq_report_run *run, FILE *out) {
    const char *status = pq_report_word(run->info, "status", NULL), *most;
    double iter = pq_report_number(run->info, "iter", NULL);
    if (status) pq_html_put(out, status);
    if (isnan(iter)) return;
    fprintf(out, "%s%s", status ? ", iteration " : "iteration ", pq_text_count(iter).at);
    if ((most = pq_report_setting_value(run, "train.max_iters")))
        pq_html_element(out, " of ", pq_text_count(atof(most)).at, "");
}

static void fact_text(const pq_report_run *run, FILE *out) {
    const char *source = pq_report_word(run->info, "data", "source");
    if (!source) source = pq_report_setting_value(run, "data.path");
    if (source) pq_html_put(out, source);
}

static void fact_parameters(const pq_report_run *run, FILE *out) {
    double all = pq_report_number(run->info, "parameters", NULL);
    double quantized = pq_report_number(run->info, "quantized_parameters", NULL);
    if (isnan(all)) return;
    pq_html_put(out, pq_text_count(all).at);
    if (quantized > 0) pq_html_element(out, ", ", pq_text_count(quantized).at, " of them quantized");
}

static void fact_quantizer(const pq_report_run *run, FILE *out) {
    pq_html_put(out, run->quantizer);
}

static void fact_parent(const pq_report_run *run, FILE *out) {
    const char *model = pq_report_word(run->info, "parent", "model");
    double loss = pq_report_number(run->info, "parent", "loss");
    if (model) pq_html_put(out, model);
    if (model && !isnan(loss)) pq_html_element(out, ", loss ", pq_text_loss(loss, NAN).at, "");
}

static void fact_machine(const pq_report_run *run, FILE *out) {
    static const char *const keys[] = {"cpu", "kernels", "blas"};
    static const char *const after[] = {"", " kernels", ""};
    double threads = pq_report_number(run->info, "threads", NULL);
    const char *separator = "";
    for (int i = 0; i < 3; i++) {
        const char *word = pq_report_word(run->info, keys[i], NULL);
        if (!word) continue;
        pq_html_element(out, separator, word, after[i]);
        separator = ", ";
    }
    if (!isnan(threads)) fprintf(out, "%s%.0f thread%s", separator, threads, threads == 1 ? "" : "s");
}

static void fact_started(const pq_report_run *run, FILE *out) {
    const char *started = pq_report_word(run->info, "started", NULL);
    if (started) pq_html_put(out, started);
}

static void fact_version(const pq_report_run *run, FILE *out) {
    const char *version = pq_report_word(run->info, "potqat", NULL),
               *commit = pq_report_word(run->info, "commit", NULL);
    if (version) pq_html_put(out, version);
    if (commit) pq_html_element(out, version ? ", commit " : "commit ", commit, "");
}

static void fact_command(const pq_report_run *run, FILE *out) {
    const json_t *arguments = json_object_get(run->info, "arguments"), *argument;
    size_t i;
    if (!json_is_array(arguments) || !json_array_size(arguments)) return;
    fputs("<code>", out);
    json_array_foreach(arguments, i, argument) {
        if (json_is_string(argument)) pq_html_element(out, i ? " " : "", json_string_value(argument), "");
    }
    fputs("</code>", out);
}

/* One row, left out where no run knows anything. */
static pq_status write_fact(FILE *out, const pq_report *report, const char *name, fact *write,
                            pq_error *err) {
    char *cells = NULL;
    size_t bytes, empty = strlen("<td></td>") * report->count;
    FILE *stream = open_memstream(&cells, &bytes);
    for (size_t i = 0; i < report->count && stream; i++) {
        fputs("<td>", stream);
        write(&report->runs[i], stream);
        fputs("</td>", stream);
    }
    if (!stream || fclose(stream) != 0) {
        free(cells);
        return PQ_FAIL(err, PQ_ERR_MEMORY, "a table of a report does not fit in memory");
    }
    if (bytes > empty) fprintf(out, "<tr><th scope=\"row\">%s</th>%s</tr>\n", name, cells);
    free(cells);
    return PQ_OK;
}

pq_status pq_html_facts(FILE *out, const pq_report *report, pq_error *err) {
    static const struct {
        const char *name;
        fact *write;
    } facts[] = {
        {"State", fact_state},         {"Text", fact_text},           {"Parameters", fact_parameters},
        {"Quantizer", fact_quantizer}, {"Started from", fact_parent}, {"Command", fact_command},
        {"Machine", fact_machine},     {"Begun", fact_started},       {"potqat", fact_version}};
    char *rows = NULL;
    size_t bytes;
    pq_status status = PQ_OK;
    FILE *stream = open_memstream(&rows, &bytes);
    for (size_t f = 0; f < sizeof facts / sizeof *facts && stream && status == PQ_OK; f++)
        status = write_fact(stream, report, facts[f].name, facts[f].write, err);
    if ((!stream || fclose(stream) != 0) && status == PQ_OK)
        status = PQ_FAIL(err, PQ_ERR_MEMORY, "a table of a report does not fit in memory");
    if (status == PQ_OK && bytes) {
        pq_html_open_table(out, "words", "What was run");
        fputs("<thead><tr><td></td>", out);
        for (size_t i = 0; i < report->count; i++)
            pq_html_element(out, "<th scope=\"col\">", report->runs[i].label, "</th>");
        fprintf(out, "</tr></thead>\n<tbody>\n%s", rows);
        pq_html_close_table(out);
    } else if (status == PQ_OK) {
        fputs("<p>run.json is missing or empty.</p>\n", out);
    }
    free(rows);
    return status;
}

/* Whether the runs that have a config do not agree in a key. */
static bool differs(const pq_report *report, const char *key, const char *value) {
    for (size_t i = 0; i < report->count; i++) {
        const char *other = pq_report_setting_value(&report->runs[i], key);
        if (report->runs[i].config && (!other || strcmp(other, value) != 0)) return true;
    }
    return false;
}

/* One row a key, a column a run; `equal` chooses keys in which all agree (one column then). Returns how many.
 * Where a run stands and with how many threads it ran (run.*) is no difference. */
static size_t write_keys(FILE *out, const pq_report *report, bool equal) {
    size_t rows = 0, columns = equal ? 1 : report->count;
    for (size_t r = 0; r < report->count; r++) {
        for (size_t k = 0; k < report->runs[r].setting_count; k++) {
            const char *key = report->runs[r].settings[k].key, *value = report->runs[r].settings[k].value;
            bool seen = false; /* listed with a run before */
            for (size_t i = 0; i < r; i++) seen = seen || pq_report_setting_value(&report->runs[i], key);
            if (seen || differs(report, key, value) == equal || strncmp(key, "run.", 4) == 0) continue;
            if (rows++ == 0) {
                pq_html_open_table(out, "words", equal ? "Keys in which all agree" : "Config differences");
                fputs("<thead><tr><th scope=\"col\">Key</th>", out);
                for (size_t i = 0; i < columns; i++)
                    pq_html_element(out, "<th scope=\"col\">", equal ? "All runs" : report->runs[i].label,
                                    "</th>");
                fputs("</tr></thead>\n<tbody>\n", out);
            }
            pq_html_element(out, "<tr><th scope=\"row\">", key, "</th>");
            for (size_t i = 0; i < columns; i++) {
                const char *other = equal ? value : pq_report_setting_value(&report->runs[i], key);
                const char *first = pq_report_setting_value(&report->runs[0], key);
                bool marked = !equal && i && (!other || !first || strcmp(other, first) != 0);
                pq_html_element(out, marked ? "<td><mark>" : "<td>", other ? other : "–",
                                marked ? "</mark></td>" : "</td>");
            }
            fputs("</tr>\n", out);
        }
    }
    if (rows) pq_html_close_table(out);
    return rows;
}

void pq_html_differences(FILE *out, const pq_report *report) {
    fputs("<h2>Config differences</h2>\n", out);
    if (!write_keys(out, report, false)) fputs("<p>None: the configs agree in every key.</p>\n", out);
    fputs("<details><summary>Keys in which all agree</summary>\n", out);
    if (!write_keys(out, report, true)) fputs("<p>None.</p>\n", out);
    fputs("</details>\n", out);
}

/* How a number of a matrix line is shown: shares (reals of the named keys) as per cent, the rest plainly. */
static void write_matrix_cell(FILE *out, const char *key, const json_t *value) {
    pq_text text = {"–"};
    bool share = strcmp(key, "zeros") == 0 || strcmp(key, "codes_changed") == 0;
    if (json_is_integer(value))
        text = pq_text_count(json_number_value(value));
    else if (json_is_real(value))
        snprintf(text.at, sizeof text.at, share ? "%.2f %%" : "%.5g",
                 json_real_value(value) * (share ? 100 : 1));
    pq_html_cell(out, text);
}

static const char *matrix_heading(const char *key) {
    static const char *const headings[][2] = {{"sqnr_db", "SQNR (dB)"},
                                              {"zeros", "Zeros"},
                                              {"codes_changed", "Codes changed"},
                                              {"scale_drift", "Scale drift"}};
    for (size_t i = 0; i < sizeof headings / sizeof *headings; i++)
        if (strcmp(headings[i][0], key) == 0) return headings[i][1];
    return key;
}

/* The last line of each matrix of a run; columns are whatever numbers the first of them has. */
static void write_matrices(FILE *out, const pq_report_run *run, json_t *last) {
    const char *name, *key;
    json_t *line, *value, *columns = json_object_iter_value(json_object_iter(last));
    pq_html_element(out, "<details><summary>", run->label, "");
    fprintf(out, ", at iteration %s</summary>\n", pq_text_count(pq_report_number(columns, "iter", NULL)).at);
    pq_html_open_table(out, "numbers", "Matrices");
    fputs("<thead><tr><th scope=\"col\">Matrix</th>", out);
    json_object_foreach(columns, key, value) {
        if (json_is_number(value) && strcmp(key, "iter") != 0)
            pq_html_element(out, "<th scope=\"col\">", matrix_heading(key), "</th>");
    }
    fputs("</tr></thead>\n<tbody>\n", out);
    json_object_foreach(last, name, line) {
        pq_html_element(out, "<tr><th scope=\"row\">", name, "</th>");
        json_object_foreach(columns, key, value) {
            if (json_is_number(value) && strcmp(key, "iter") != 0)
                write_matrix_cell(out, key, json_object_get(line, key));
        }
        fputs("</tr>\n", out);
    }
    pq_html_close_table(out);
    fputs("</details>\n", out);
}

void pq_html_matrices(FILE *out, const pq_report *report) {
    bool any = false;
    for (size_t i = 0; i < report->count; i++) {
        json_t *last = json_object(), *line; /* matrix -> its last line */
        size_t k;
        json_array_foreach(report->runs[i].metrics, k, line) {
            const char *name = pq_report_word(line, "matrix", NULL);
            if (name) json_object_set(last, name, line);
        }
        if (json_object_size(last)) {
            if (!any) fputs("<h2>Quantized matrices</h2>\n", out);
            any = true;
            write_matrices(out, &report->runs[i], last);
        }
        json_decref(last);
    }
}

void pq_html_events(FILE *out, const pq_report *report) {
    enum { MOST = 20 };
    bool any = false;
    for (size_t i = 0; i < report->count; i++) {
        size_t k, count = 0;
        json_t *line;
        json_array_foreach(report->runs[i].metrics, k, line) {
            const char *event = pq_report_word(line, "event", NULL),
                       *reason = pq_report_word(line, "reason", NULL);
            if (!event || ++count > MOST) continue;
            if (!any) fputs("<h2>Events</h2>\n", out);
            any = true;
            if (count == 1) pq_html_element(out, "<h3>", report->runs[i].label, "</h3>\n<ul>\n");
            fprintf(out, "<li>Iteration %s: ", pq_text_count(pq_report_number(line, "iter", NULL)).at);
            pq_html_element(out, "", event, "");
            if (reason) pq_html_element(out, ", ", reason, "");
            fputs("</li>\n", out);
        }
        if (count > MOST) fprintf(out, "<li>and %zu more</li>\n", count - MOST);
        if (count) fputs("</ul>\n", out);
    }
}
