/* Owns the HTML page: one file, no scripts, nothing fetched; every text from outside goes through put(). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "train/report.h"
#include "train/report_data.h"
#include "train/report_plot.h"

static const char style[] =
    ":root{color-scheme:light dark;--ink:#1c1f24;--soft:#5b626d;--line:#d8dce2;--page:#fff;--tint:#f5f6f8}\n"
    "@media (prefers-color-scheme:dark){:root{--ink:#e3e6ea;--soft:#9ba3af;--line:#363c45;--page:#15181c;"
    "--tint:#1d2126}}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0 auto;max-width:64rem;padding:1.5rem 1rem 4rem;background:var(--page);color:var(--ink);"
    "font:1rem/1.5 system-ui,sans-serif}\n"
    "h1{font-size:1.6rem;line-height:1.25;margin:0 0 .5rem;overflow-wrap:anywhere}\n"
    "h2{font-size:1.15rem;margin:2.5rem 0 .5rem}h3{font-size:1rem;margin:1.5rem 0 .5rem}\n"
    "p,ul{max-width:44rem;margin:.5rem 0}.soft,small,caption{color:var(--soft)}small{font-weight:400}\n"
    ".box{overflow-x:auto;margin:.75rem 0}\n"
    "table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}\n"
    "caption{text-align:left;padding:.25rem 0;font-size:.9rem}\n"
    "th,td{padding:.3rem .75rem .3rem 0;text-align:right;vertical-align:top;white-space:nowrap;"
    "border-bottom:1px solid var(--line)}\n"
    "thead th{font-weight:600;vertical-align:bottom}thead .span{text-align:left;border-bottom:0}\n"
    "tbody th{font-weight:600;text-align:left}th:first-child{text-align:left}\n"
    ".words td,.words thead th{text-align:left}"
    ".words td{white-space:normal;min-width:9rem;max-width:26rem;overflow-wrap:anywhere}\n"
    ".group{padding-left:1.25rem}\n"
    "figure{margin:1rem 0}svg{display:block;width:100%;height:auto}svg.narrow{display:none}\n"
    "figcaption ul{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.15rem "
    "1.25rem;font-size:.9rem}\n"
    "figcaption li{overflow-wrap:anywhere}"
    ".key{display:inline-block;width:1.5rem;border-top:3px solid;vertical-align:middle;margin-right:.4rem}"
    ".key.dashed{border-top:2px dashed}\n"
    "details{margin:.75rem 0}summary{cursor:pointer}\n"
    "pre{overflow-x:auto;padding:.75rem;background:var(--tint);font-size:.8rem;line-height:1.4}\n"
    "@media (max-width:40rem){svg.wide{display:none}svg.narrow{display:block}"
    "th,td{padding-right:.6rem}.words td{min-width:7rem}}\n";

/* The only way of text from outside onto the page. */
static void put(FILE *out, const char *text) {
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

static void element(FILE *out, const char *open, const char *text, const char *close) {
    fputs(open, out);
    put(out, text);
    fputs(close, out);
}

static void cell(FILE *out, pq_text text) {
    element(out, "<td>", text.at, "</td>");
}

static void open_table(FILE *out, const char *class, const char *what) {
    /* Focusable, so that a wide table can be scrolled by keyboard. */
    element(out, "<div class=\"box\" tabindex=\"0\" role=\"region\" aria-label=\"", what, "\">");
    fprintf(out, "<table class=\"%s\">\n", class);
}

static void close_table(FILE *out) {
    fputs("</tbody>\n</table></div>\n", out);
}

/* The run's name with its quantizer below, as the head of a row. */
static void run_head(FILE *out, const pq_report_run *run) {
    element(out, "<tr><th scope=\"row\">", run->label, "");
    if (run->quantizer[0]) element(out, "<br><small>", run->quantizer, "</small>");
    fputs("</th>", out);
}

static void write_results(FILE *out, const pq_report *report, size_t group) {
    char name[128];
    double floor_loss = NAN;
    pq_report_group_name(&report->groups[group], name, sizeof name);
    open_table(out, "numbers", "Results");
    element(out, "<caption>", name, "</caption>\n");
    fputs("<thead>\n<tr><th rowspan=\"2\" scope=\"col\">Run</th>"
          "<th colspan=\"2\" scope=\"colgroup\" class=\"span group\">First evaluation</th>"
          "<th colspan=\"3\" scope=\"colgroup\" class=\"span group\">Last</th>"
          "<th colspan=\"3\" scope=\"colgroup\" class=\"span group\">Best</th></tr>\n"
          "<tr><th scope=\"col\" class=\"group\">Iter</th><th scope=\"col\">Loss</th>"
          "<th scope=\"col\" class=\"group\">Iter</th><th scope=\"col\">Loss</th><th "
          "scope=\"col\">Perplexity</th>"
          "<th scope=\"col\" class=\"group\">Iter</th><th scope=\"col\">Loss</th><th "
          "scope=\"col\">Perplexity</th>"
          "</tr>\n</thead>\n<tbody>\n",
          out);
    for (size_t i = 0; i < report->count; i++) {
        pq_report_summary s;
        if (!pq_report_summarize(&report->runs[i], group, &s)) continue;
        if (isfinite(report->runs[i].floor)) floor_loss = report->runs[i].floor;
        run_head(out, &report->runs[i]);
        cell(out, pq_text_count((double)s.first->iter));
        cell(out, pq_text_loss(s.first->loss, s.first->loss_se));
        const pq_report_eval *shown[] = {s.last, s.best};
        for (int k = 0; k < 2; k++) {
            cell(out, pq_text_count((double)shown[k]->iter));
            cell(out, pq_text_loss(shown[k]->loss, shown[k]->loss_se));
            cell(out, pq_text_perplexity(shown[k]->loss, shown[k]->loss_se));
        }
        fputs("</tr>\n", out);
    }
    close_table(out);
    if (isfinite(floor_loss)) {
        pq_text loss = pq_text_loss(floor_loss, NAN), perplexity = pq_text_perplexity(floor_loss, NAN);
        fprintf(out,
                "<p class=\"soft\">The entropy of the text itself is %s nats a token, a perplexity of %s: no "
                "model "
                "can do better.</p>\n",
                loss.at, perplexity.at);
    }
}

static void write_legend(FILE *out, const pq_report *report, size_t group, pq_figure_kind kind) {
    bool training = false;
    fputs("<figcaption><ul>", out);
    for (size_t i = 0; i < report->count; i++) {
        const pq_report_run *run = &report->runs[i];
        pq_report_summary unused;
        bool evaluated = pq_report_summarize(run, group, &unused);
        bool trained = kind == PQ_FIGURE_LOSS && run->training_count;
        training = training || trained;
        if (!evaluated && !trained) continue;
        fprintf(out, "<li><span class=\"key\" style=\"color:%s\"></span>", pq_figure_colors[i % 8]);
        element(out, "", run->label, "</li>");
    }
    for (size_t i = 0; i < report->count; i++)
        if (isfinite(report->runs[i].floor)) {
            fputs("<li><span class=\"key dashed\"></span>floor of the text</li>", out);
            break;
        }
    fputs("</ul>", out);
    if (training)
        fputs("<p class=\"soft\">Dots: evaluations. Thin lines: training loss, with dropout.</p>", out);
    fputs("</figcaption>", out);
}

static pq_status write_figures(FILE *out, const pq_report *report, size_t group, pq_error *err) {
    for (pq_figure_kind kind = 0; kind < PQ_FIGURE_KINDS; kind++) {
        static const pq_figure_place inline_places[] = {PQ_FIGURE_WIDE, PQ_FIGURE_NARROW};
        char name[128];
        fprintf(out, "<h3>%s <small>", pq_figure_titles[kind]);
        element(out, "", pq_report_group_name(&report->groups[group], name, sizeof name),
                "</small></h3>\n<figure>\n");
        for (int place = 0; place < 2; place++) {
            char *svg;
            pq_error reason = {0};
            pq_status status = pq_figure_draw(report, group, kind, inline_places[place], &svg, &reason);
            if (status == PQ_ERR_MEMORY) return PQ_FAIL(err, status, "%s", reason.message);
            if (status != PQ_OK) { /* the page is worth having without curves */
                element(out, "<p>No curves: ", reason.message, ".</p></figure>\n");
                return PQ_OK;
            }
            fputs(svg, out);
            free(svg);
        }
        write_legend(out, report, group, kind);
        fputs("</figure>\n", out);
    }
    return PQ_OK;
}

static void write_costs(FILE *out, const pq_report *report) {
    bool quantized = false;
    open_table(out, "numbers", "Size and speed");
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
        run_head(out, run);
        cell(out, pq_text_count(run->levels > 0 ? run->levels : NAN));
        cell(out, pq_text_count(run->bits > 0 ? run->bits : NAN));
        cell(out, bits);
        cell(out, pq_text_bytes(run->weight_bytes));
        cell(out, share);
        cell(out, pq_text_count(run->tokens_per_s));
        cell(out, pq_text_seconds(run->elapsed_s));
        fputs("</tr>\n", out);
        quantized = quantized || run->bits > 0;
    }
    close_table(out);
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
    if (status) put(out, status);
    if (isnan(iter)) return;
    fprintf(out, "%s%s", status ? ", iteration " : "iteration ", pq_text_count(iter).at);
    if ((most = pq_report_setting_value(run, "train.max_iters")))
        element(out, " of ", pq_text_count(atof(most)).at, "");
}

static void fact_text(const pq_report_run *run, FILE *out) {
    const char *source = pq_report_word(run->info, "data", "source");
    if (!source) source = pq_report_setting_value(run, "data.path");
    if (source) put(out, source);
}

static void fact_parameters(const pq_report_run *run, FILE *out) {
    double all = pq_report_number(run->info, "parameters", NULL);
    double quantized = pq_report_number(run->info, "quantized_parameters", NULL);
    if (isnan(all)) return;
    put(out, pq_text_count(all).at);
    if (quantized > 0) element(out, ", ", pq_text_count(quantized).at, " of them quantized");
}

static void fact_quantizer(const pq_report_run *run, FILE *out) {
    put(out, run->quantizer);
}

static void fact_parent(const pq_report_run *run, FILE *out) {
    const char *model = pq_report_word(run->info, "parent", "model");
    double loss = pq_report_number(run->info, "parent", "loss");
    if (model) put(out, model);
    if (model && !isnan(loss)) element(out, ", loss ", pq_text_loss(loss, NAN).at, "");
}

static void fact_machine(const pq_report_run *run, FILE *out) {
    static const char *const keys[] = {"cpu", "kernels", "blas"};
    static const char *const after[] = {"", " kernels", ""};
    double threads = pq_report_number(run->info, "threads", NULL);
    const char *separator = "";
    for (int i = 0; i < 3; i++) {
        const char *word = pq_report_word(run->info, keys[i], NULL);
        if (!word) continue;
        element(out, separator, word, after[i]);
        separator = ", ";
    }
    if (!isnan(threads)) fprintf(out, "%s%.0f thread%s", separator, threads, threads == 1 ? "" : "s");
}

static void fact_started(const pq_report_run *run, FILE *out) {
    const char *started = pq_report_word(run->info, "started", NULL);
    if (started) put(out, started);
}

static void fact_version(const pq_report_run *run, FILE *out) {
    const char *version = pq_report_word(run->info, "potqat", NULL),
               *commit = pq_report_word(run->info, "commit", NULL);
    if (version) put(out, version);
    if (commit) element(out, version ? ", commit " : "commit ", commit, "");
}

static void fact_command(const pq_report_run *run, FILE *out) {
    const json_t *arguments = json_object_get(run->info, "arguments"), *argument;
    size_t i;
    if (!json_is_array(arguments) || !json_array_size(arguments)) return;
    fputs("<code>", out);
    json_array_foreach(arguments, i, argument) {
        if (json_is_string(argument)) element(out, i ? " " : "", json_string_value(argument), "");
    }
    fputs("</code>", out);
}

static void write_facts(FILE *out, const pq_report *report) {
    static const struct {
        const char *name;
        fact *write;
    } facts[] = {
        {"State", fact_state},         {"Text", fact_text},           {"Parameters", fact_parameters},
        {"Quantizer", fact_quantizer}, {"Started from", fact_parent}, {"Command", fact_command},
        {"Machine", fact_machine},     {"Begun", fact_started},       {"potqat", fact_version}};
    open_table(out, "words", "What was run");
    fputs("<thead><tr><td></td>", out);
    for (size_t i = 0; i < report->count; i++)
        element(out, "<th scope=\"col\">", report->runs[i].label, "</th>");
    fputs("</tr></thead>\n<tbody>\n", out);
    for (size_t f = 0; f < sizeof facts / sizeof *facts; f++) {
        fprintf(out, "<tr><th scope=\"row\">%s</th>", facts[f].name);
        for (size_t i = 0; i < report->count; i++) {
            fputs("<td>", out);
            facts[f].write(&report->runs[i], out);
            fputs("</td>", out);
        }
        fputs("</tr>\n", out);
    }
    close_table(out);
}

/* Keys whose values are not the same in all runs; where a run stands and with how many threads it ran (run.*)
 * is no difference. */
static void write_differences(FILE *out, const pq_report *report) {
    bool any = false;
    fputs("<h2>Config differences</h2>\n", out);
    for (size_t r = 0; r < report->count; r++) {
        for (size_t k = 0; k < report->runs[r].setting_count; k++) {
            const char *key = report->runs[r].settings[k].key, *value = report->runs[r].settings[k].value;
            bool seen = false, differs = false;
            for (size_t i = 0; i < report->count; i++) {
                const char *other = pq_report_setting_value(&report->runs[i], key);
                if (i < r && other) seen = true; /* listed with that run */
                if (report->runs[i].config && (!other || strcmp(other, value) != 0)) differs = true;
            }
            if (seen || !differs || strncmp(key, "run.", 4) == 0) continue;
            if (!any) {
                open_table(out, "words", "Config differences");
                fputs("<thead><tr><th scope=\"col\">Key</th>", out);
                for (size_t i = 0; i < report->count; i++)
                    element(out, "<th scope=\"col\">", report->runs[i].label, "</th>");
                fputs("</tr></thead>\n<tbody>\n", out);
            }
            any = true;
            element(out, "<tr><th scope=\"row\">", key, "</th>");
            for (size_t i = 0; i < report->count; i++) {
                const char *other = pq_report_setting_value(&report->runs[i], key);
                element(out, "<td>", other ? other : "–", "</td>");
            }
            fputs("</tr>\n", out);
        }
    }
    if (any)
        close_table(out);
    else
        fputs("<p>None: the configs agree in every key.</p>\n", out);
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
    cell(out, text);
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
    element(out, "<details><summary>", run->label, "");
    fprintf(out, ", at iteration %s</summary>\n", pq_text_count(pq_report_number(columns, "iter", NULL)).at);
    open_table(out, "numbers", "Matrices");
    fputs("<thead><tr><th scope=\"col\">Matrix</th>", out);
    json_object_foreach(columns, key, value) {
        if (json_is_number(value) && strcmp(key, "iter") != 0)
            element(out, "<th scope=\"col\">", matrix_heading(key), "</th>");
    }
    fputs("</tr></thead>\n<tbody>\n", out);
    json_object_foreach(last, name, line) {
        element(out, "<tr><th scope=\"row\">", name, "</th>");
        json_object_foreach(columns, key, value) {
            if (json_is_number(value) && strcmp(key, "iter") != 0)
                write_matrix_cell(out, key, json_object_get(line, key));
        }
        fputs("</tr>\n", out);
    }
    close_table(out);
    fputs("</details>\n", out);
}

static void write_all_matrices(FILE *out, const pq_report *report) {
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

static void write_events(FILE *out, const pq_report *report) {
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
            if (count == 1) element(out, "<h3>", report->runs[i].label, "</h3>\n<ul>\n");
            fprintf(out, "<li>Iteration %s: ", pq_text_count(pq_report_number(line, "iter", NULL)).at);
            element(out, "", event, "");
            if (reason) element(out, ", ", reason, "");
            fputs("</li>\n", out);
        }
        if (count > MOST) fprintf(out, "<li>and %zu more</li>\n", count - MOST);
        if (count) fputs("</ul>\n", out);
    }
}

static pq_status write_page(FILE *out, const pq_report *report, pq_error *err) {
    char many[64];
    snprintf(many, sizeof many, "%zu runs", report->count);
    const char *title = report->count == 1 ? report->runs[0].label : many;
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
          "<meta name=\"color-scheme\" content=\"light dark\">\n",
          out);
    element(out, "<title>", title, " – potqat</title>\n<style>\n");
    fprintf(out, "%s</style>\n</head>\n<body>\n<main>\n", style);
    element(out, "<h1>", title, "</h1>\n");
    fputs("<p class=\"soft\">Training report by potqat. One iteration is one update of the weights; the loss "
          "is in nats "
          "a token, ± its standard error.</p>\n<h2>Results</h2>\n",
          out);
    for (size_t i = 0; i < report->count; i++) {
        if (report->runs[i].eval_count) continue;
        element(out, "<p>", report->runs[i].label, ": no evaluation is recorded yet.</p>\n");
    }
    for (size_t g = 0; g < report->group_count; g++) write_results(out, report, g);
    if (report->group_count > 1)
        fputs("<p class=\"soft\">Different protocols score different tokens: compare numbers within a table "
              "only.</p>\n",
              out);
    if (report->group_count) fputs("<h2>Curves</h2>\n", out);
    for (size_t g = 0; g < report->group_count; g++) PQ_TRY(write_figures(out, report, g, err));
    fputs("<h2>Size and speed</h2>\n", out);
    write_costs(out, report);
    if (report->count > 1) write_differences(out, report);
    write_all_matrices(out, report);
    write_events(out, report);
    fputs("<h2>What was run</h2>\n", out);
    write_facts(out, report);
    fputs("<h2>Configs</h2>\n", out);
    for (size_t i = 0; i < report->count; i++) {
        const pq_report_run *run = &report->runs[i];
        element(out, "<details><summary>", run->label, "</summary>\n");
        element(out, "<pre>", run->config ? run->config : "config.yaml is missing", "</pre></details>\n");
    }
    fputs("</main>\n</body>\n</html>\n", out);
    return PQ_OK;
}

pq_status pq_report_html(const char *const *runs, size_t count, const char *path, bool overwrite,
                         pq_error *err) {
    pq_report report;
    pq_file_writer writer;
    pq_status status = pq_report_read(runs, count, &report, err);
    if (status == PQ_OK) status = pq_file_create(path, overwrite, &writer, err);
    if (status == PQ_OK) {
        status = write_page(writer.stream, &report, err);
        if (status == PQ_OK)
            status = pq_file_commit(&writer, err); /* checks the stream */
        else
            pq_file_abort(&writer);
    }
    pq_report_deinit(&report);
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
