/* Owns the HTML page: one file, no scripts, nothing fetched; every text from outside goes through
 * pq_html_put(). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "train/report/html.h"
#include "train/report/plot.h"
#include "train/report/report.h"

static const char style_sheet[] =
    ":root{color-scheme:light "
    "dark;--ink:#1c1f24;--soft:#5b626d;--line:#d8dce2;--page:#fff;--tint:#f5f6f8;--mark:#fff0b8}\n"
    "@media (prefers-color-scheme:dark){:root{--ink:#e3e6ea;--soft:#9ba3af;--line:#363c45;--page:#15181c;"
    "--tint:#1d2126;--mark:#4d4215}}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0 auto;max-width:72rem;padding:1.5rem 1rem 4rem;background:var(--page);color:var(--ink);"
    "font:1rem/1.5 system-ui,sans-serif}\n"
    "h1{font-size:1.6rem;line-height:1.25;margin:0 0 .5rem;overflow-wrap:anywhere}\n"
    "h2{font-size:1.15rem;margin:2.5rem 0 .5rem}h3{font-size:1rem;margin:1.5rem 0 .5rem}\n"
    "p,ul{max-width:44rem;margin:.5rem 0}.soft,small,caption{color:var(--soft)}small{font-weight:400}\n"
    ".box{overflow-x:auto;margin:.75rem 0}\n"
    "table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}\n"
    "caption{text-align:left;padding:.25rem 0;font-size:.9rem}\n"
    "th,td{padding:.3rem 1.25rem .3rem 0;text-align:right;vertical-align:top;white-space:nowrap;"
    "border-bottom:1px solid var(--line)}\n"
    "thead th{font-weight:600;vertical-align:bottom;white-space:normal}tbody th:first-child,thead "
    "th:first-child{position:sticky;left:0;background:var(--page)}th:first-child{text-align:left}\n"
    "tbody th{font-weight:600;white-space:normal;overflow-wrap:anywhere;min-width:6.5rem;max-width:16rem}\n"
    ".words tbody th{white-space:nowrap;max-width:none}\n"
    ".words td,.words thead th{text-align:left;white-space:normal;min-width:9rem;max-width:26rem;"
    "overflow-wrap:anywhere}\n.words th:first-child,.words td:first-child{min-width:0}\n"
    "figure{margin:1rem 0}svg{display:block;width:100%;height:auto}svg.narrow{display:none}\n"
    ".panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(15rem,100%),1fr));gap:.5rem}"
    ".panels figcaption{grid-column:1/-1}"
    "svg.key{display:inline-block;width:1.75rem;height:.75rem;"
    "margin-right:.4rem;vertical-align:middle}\n"
    "figcaption{font-size:.9rem}figcaption "
    "ul{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.15rem 1.25rem}\n"
    "figcaption li{overflow-wrap:anywhere}"
    ".dashed{display:inline-block;width:1.75rem;border-top:2px "
    "dashed;vertical-align:middle;margin-right:.4rem}\n"
    ".box:focus-visible,summary:focus-visible{outline:2px solid #2293ab;outline-offset:2px}\n"
    "mark{background:var(--mark);color:inherit;padding:0 .2rem}"
    "details{margin:.75rem 0}summary{cursor:pointer}\n"
    "pre{overflow-x:auto;padding:.75rem;background:var(--tint);font-size:.8rem;line-height:1.4}\n"
    "@media (max-width:40rem){svg.wide{display:none}svg.narrow{display:block}"
    "th,td{padding-right:.6rem}.words td,.words thead th{min-width:7rem}}\n";

/* Half of the 95 % interval of a difference in pairs. */
static double half_width(pq_difference d, size_t freedom) {
    return d.se * pq_report_t(freedom);
}

static void write_result(FILE *out, const pq_report *report, size_t group, size_t reference, size_t index) {
    const pq_report_run *run = &report->runs[index];
    pq_report_summary s;
    size_t freedom;
    if (!pq_report_summarize(run, group, &s)) return;
    double half = PQ_REPORT_95 * s.last->loss_se, perplexity = exp(s.last->loss);
    pq_text bits = {"–"};
    if (isfinite(run->bits_a_weight)) snprintf(bits.at, sizeof bits.at, "%.2f", run->bits_a_weight);
    pq_html_run_head(out, run);
    pq_html_cell(out, pq_text_count((double)s.last->iter));
    pq_html_cell(out, pq_text_loss(s.last->loss, NAN));
    pq_html_cell(out, pq_text_interval(s.last->loss - half, s.last->loss + half, 4));
    pq_html_element(out, "<td>", pq_text_perplexity(s.last->loss, NAN).at, "<br><small>");
    pq_html_element(out, "", pq_text_interval(perplexity * exp(-half), perplexity * exp(half), 3).at,
                    "</small></td>");
    pq_html_element(out, "<td>", pq_text_loss(s.best->loss, NAN).at, "");
    fprintf(out, "<br><small>at %s</small></td>", pq_text_count((double)s.best->iter).at);
    pq_html_cell(out, bits);
    pq_html_cell(out, pq_text_bytes(run->weight_bytes));
    if (report->count > 1) {
        pq_difference d = pq_report_pair(report, group, index, reference, &freedom);
        if (index == reference) d.mean = NAN;
        pq_html_element(out, "<td>", index == reference ? "reference" : pq_text_difference(d).at, "");
        if (isfinite(d.mean)) {
            double h = half_width(d, freedom);
            pq_html_element(out, "<br><small>", pq_text_interval(d.mean - h, d.mean + h, 4).at, "</small>");
        }
        fputs("</td>", out);
    }
    fputs("</tr>\n", out);
}

static void write_results(FILE *out, const pq_report *report, size_t group) {
    char name[128], spoken[160];
    size_t reference = 0;
    while (!pq_report_evaluated(&report->runs[reference], group)) reference++;
    pq_report_group_name(&report->groups[group], name, sizeof name);
    snprintf(spoken, sizeof spoken, "Results, %s", name);
    pq_html_open_table(out, "numbers", spoken);
    pq_html_element(out, "<caption>", name, "</caption>\n");
    fputs("<thead><tr><th scope=\"col\">Run</th><th scope=\"col\">Iterations</th><th scope=\"col\">Loss</th>"
          "<th scope=\"col\">95 % interval</th><th scope=\"col\">Perplexity</th><th scope=\"col\">Best "
          "loss</th>"
          "<th scope=\"col\">Bits a weight</th><th scope=\"col\">Weights</th>",
          out);
    if (report->count > 1)
        pq_html_element(out, "<th scope=\"col\">Loss minus that of ", report->runs[reference].label, "</th>");
    fputs("</tr></thead>\n<tbody>\n", out);
    for (size_t i = 0; i < report->count; i++) write_result(out, report, group, reference, i);
    pq_html_close_table(out);
    for (size_t i = 0; i < report->count; i++) {
        if (!pq_report_new_floor(report, group, i)) continue;
        pq_text loss = pq_text_loss(report->runs[i].floor, NAN);
        pq_html_element(out, "<p class=\"soft\">The entropy of the text of ", report->runs[i].label, " is ");
        fprintf(out, "%s nats a token, a perplexity of %s: no model can do better on average.</p>\n", loss.at,
                pq_text_perplexity(report->runs[i].floor, NAN).at);
    }
}

/* Where points have several runs: means over seeds, best first. */
static void write_points(FILE *out, const pq_report *report, size_t group) {
    char name[256], protocol[128];
    if (report->point_count == report->count) return;
    pq_html_open_table(out, "numbers", "Means over seeds");
    pq_html_element(out, "<caption>", pq_report_group_name(&report->groups[group], protocol, sizeof protocol),
                    ", means over seeds</caption>\n");
    fputs(
        "<thead><tr><th scope=\"col\">Config</th><th scope=\"col\">Seeds</th><th scope=\"col\">Mean loss</th>"
        "<th scope=\"col\">95 % interval</th><th scope=\"col\">Bits a weight</th></tr></thead>\n<tbody>\n",
        out);
    for (size_t p = 0; p < report->point_count; p++) {
        pq_report_mean m = pq_report_point_loss(report, group, p);
        double bits = pq_report_point_run(report, p)->bits_a_weight;
        if (!m.count) continue;
        pq_html_element(out, "<tr><th scope=\"row\">",
                        pq_report_point_name(report, p, NULL, name, sizeof name), "</th>");
        fprintf(out, "<td>%zu</td>", m.count);
        pq_html_cell(out, pq_text_loss(m.mean, NAN));
        pq_html_cell(out, pq_text_interval(m.mean - m.half, m.mean + m.half, 4));
        if (isfinite(bits))
            fprintf(out, "<td>%.2f</td></tr>\n", bits);
        else
            fputs("<td>–</td></tr>\n", out);
    }
    pq_html_close_table(out);
}

static void write_legend(FILE *out, const pq_report *report, const pq_figure *figure) {
    char name[256];
    size_t style;
    bool with_floor = false;
    fputs("<figcaption>", out);
    for (size_t i = 0; pq_figure_series(report, figure, i, &style, name, sizeof name); i++) {
        fputs(i ? "<li>" : "<ul>\n<li>", out);
        fputs("<svg class=\"key\" viewBox=\"0 0 28 12\" aria-hidden=\"true\">", out);
        pq_figure_mark(out, style);
        pq_html_element(out, "</svg>", name, "</li>\n");
        with_floor = with_floor || (figure->kind == PQ_FIGURE_LOSS && isfinite(report->runs[style].floor));
    }
    if (with_floor) fputs("<li><span class=\"dashed\"></span>floor of the text</li>", out);
    if (pq_figure_series(report, figure, 0, &style, name, sizeof name)) fputs("</ul>", out);
    pq_html_element(out, "<p class=\"soft\">", figure->note, "</p></figcaption>\n");
}

static pq_status write_figure(FILE *out, const pq_report *report, const pq_figure *figure, pq_error *err) {
    char *svg;
    pq_error reason = {0};
    const bool panels = figure->kind >= PQ_FIGURE_INSIDE;
    pq_html_element(out, "<h3>", figure->title,
                    panels ? "</h3>\n<figure class=\"panels\">\n" : "</h3>\n<figure>\n");
    pq_status status = pq_figure_draw(report, figure, false, &svg, &reason);
    if (status == PQ_ERR_MEMORY) return PQ_FAIL(err, status, "%s", reason.message);
    if (status != PQ_OK) { /* the page is worth having without curves */
        pq_html_element(out, "<p>No curves: ", reason.message, ".</p></figure>\n");
        return PQ_OK;
    }
    fputs(svg, out);
    free(svg);
    write_legend(out, report, figure);
    fputs("</figure>\n", out);
    return PQ_OK;
}

static pq_status write_figures(FILE *out, const pq_report *report, pq_error *err) {
    pq_figure *figures;
    size_t count;
    bool inside = false;
    PQ_TRY(pq_figures_list(report, &figures, &count, err));
    pq_status status = PQ_OK;
    if (count && figures[0].kind < PQ_FIGURE_INSIDE) fputs("<h2>Curves</h2>\n", out);
    for (size_t i = 0; i < count && status == PQ_OK; i++) {
        if (figures[i].kind >= PQ_FIGURE_INSIDE && !inside)
            fputs("<h2>Inside the matrices</h2>\n", out), inside = true;
        status = write_figure(out, report, &figures[i], err);
    }
    free(figures);
    return status;
}

static pq_status write_page(FILE *out, const pq_report *report, pq_error *err) {
    char many[64];
    snprintf(many, sizeof many, "%zu runs", report->count);
    const char *title = report->count == 1 ? report->runs[0].label : many;
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
          "<meta name=\"color-scheme\" content=\"light dark\">\n",
          out);
    pq_html_element(out, "<title>", title, " – potqat</title>\n<style>\n");
    fprintf(out, "%s</style>\n</head>\n<body>\n<main>\n", style_sheet);
    pq_html_element(out, "<h1>", title, "</h1>\n");
    fputs(
        "<p class=\"soft\">Training report by potqat. One iteration is one update of the weights; the loss "
        "is "
        "in nats a token, of the last evaluation. Intervals are 95 %, from the spread of the text’s windows "
        "(1.96 standard errors); differences are taken window by window, where two runs scored the same "
        "ones.</p>\n<h2>Results</h2>\n",
        out);
    for (size_t i = 0; i < report->count; i++) {
        if (report->runs[i].eval_count) continue;
        pq_html_element(out, "<p>", report->runs[i].label, ": no evaluation is recorded yet.</p>\n");
    }
    for (size_t g = 0; g < report->group_count; g++) {
        write_results(out, report, g);
        write_points(out, report, g);
    }
    if (report->group_count > 1)
        fputs("<p class=\"soft\">Different protocols score different tokens: compare numbers within a table "
              "only.</p>\n",
              out);
    PQ_TRY(write_figures(out, report, err));
    fputs("<h2>Size and speed</h2>\n", out);
    pq_html_costs(out, report);
    if (report->count > 1) pq_html_differences(out, report);
    pq_html_matrices(out, report);
    pq_html_events(out, report);
    fputs("<h2>What was run</h2>\n", out);
    PQ_TRY(pq_html_facts(out, report, err));
    fputs("<h2>Configs</h2>\n", out);
    for (size_t i = 0; i < report->count; i++) {
        const pq_report_run *run = &report->runs[i];
        pq_html_element(out, "<details><summary>", run->label, "</summary>\n");
        pq_html_element(out, "<pre>", run->config ? run->config : "config.yaml is missing",
                        "</pre></details>\n");
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
    if (status == PQ_OK) status = pq_file_end(&writer, write_page(writer.stream, &report, err), err);
    pq_report_deinit(&report);
    return status;
}
