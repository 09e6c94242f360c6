/* Owns the HTML page: one file, no scripts, nothing fetched; every text from outside goes through
 * pq_html_put(). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "train/report.h"
#include "train/report_html.h"
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
    "th,td{padding:.3rem 1.25rem .3rem 0;text-align:right;vertical-align:top;white-space:nowrap;"
    "border-bottom:1px solid var(--line)}\n"
    "thead th{font-weight:600;vertical-align:bottom}th:first-child{text-align:left}\n"
    "tbody th{font-weight:600;white-space:normal;overflow-wrap:anywhere;min-width:6.5rem;max-width:16rem}\n"
    ".words tbody th{white-space:nowrap;max-width:none}\n"
    ".words td,.words thead th{text-align:left;white-space:normal;min-width:9rem;max-width:26rem;"
    "overflow-wrap:anywhere}\n.words th:first-child,.words td:first-child{min-width:0}\n"
    "figure{margin:1rem 0}svg{display:block;width:100%;height:auto}svg.narrow{display:none}\n"
    "figcaption{font-size:.9rem}figcaption "
    "ul{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.15rem 1.25rem}\n"
    "figcaption li{overflow-wrap:anywhere}"
    ".key{display:inline-block;width:1.5rem;border-top:3px solid;vertical-align:middle;margin-right:.4rem}"
    ".key.dashed{border-top:2px dashed}\n"
    "details{margin:.75rem 0}summary{cursor:pointer}\n"
    "pre{overflow-x:auto;padding:.75rem;background:var(--tint);font-size:.8rem;line-height:1.4}\n"
    "@media (max-width:40rem){svg.wide{display:none}svg.narrow{display:block}"
    "th,td{padding-right:.6rem}.words td,.words thead th{min-width:7rem}}\n";

/* A loss with its iteration below it, and the perplexity where asked for. */
static void write_eval(FILE *out, const pq_report_eval *eval, bool perplexity) {
    pq_html_element(out, "<td>", pq_text_loss(eval->loss, eval->loss_se).at, "");
    fprintf(out, "<br><small>at %s</small></td>", pq_text_count((double)eval->iter).at);
    if (perplexity) pq_html_cell(out, pq_text_perplexity(eval->loss, eval->loss_se));
}

static void write_results(FILE *out, const pq_report *report, size_t group) {
    char name[128];
    pq_report_group_name(&report->groups[group], name, sizeof name);
    pq_html_open_table(out, "numbers", "Results");
    pq_html_element(out, "<caption>", name, "</caption>\n");
    fputs("<thead><tr><th scope=\"col\">Run</th><th scope=\"col\">Last loss</th><th "
          "scope=\"col\">Perplexity</th>"
          "<th scope=\"col\">Best loss</th><th scope=\"col\">Perplexity</th><th scope=\"col\">First loss</th>"
          "</tr></thead>\n<tbody>\n",
          out);
    for (size_t i = 0; i < report->count; i++) {
        pq_report_summary s;
        if (!pq_report_summarize(&report->runs[i], group, &s)) continue;
        pq_html_run_head(out, &report->runs[i]);
        write_eval(out, s.last, true);
        write_eval(out, s.best, true);
        write_eval(out, s.first, false);
        fputs("</tr>\n", out);
    }
    pq_html_close_table(out);
    for (size_t i = 0; i < report->count; i++) {
        if (!pq_report_new_floor(report, group, i)) continue;
        pq_text loss = pq_text_loss(report->runs[i].floor, NAN);
        pq_html_element(out, "<p class=\"soft\">The entropy of the text of ", report->runs[i].label, " is ");
        fprintf(out, "%s nats a token, a perplexity of %s: no model can do better on average.</p>\n", loss.at,
                pq_text_perplexity(report->runs[i].floor, NAN).at);
    }
}

static void write_legend(FILE *out, const pq_report *report, size_t group, pq_figure_kind kind) {
    bool training = false, with_floor = false;
    fputs("<figcaption><ul>", out);
    for (size_t i = 0; i < report->count; i++) {
        const pq_report_run *run = &report->runs[i];
        if (!pq_report_evaluated(run, group)) continue;
        training = training || (kind == PQ_FIGURE_LOSS && run->training_count);
        with_floor = with_floor || isfinite(run->floor);
        fprintf(out, "<li><span class=\"key\" style=\"color:%s\"></span>", pq_figure_colors[i % 8]);
        pq_html_element(out, "", run->label, "</li>");
    }
    if (with_floor) fputs("<li><span class=\"key dashed\"></span>floor of the text</li>", out);
    fputs("</ul>", out);
    if (training)
        fputs("<p class=\"soft\">Dots: evaluations. Thin lines: training loss, with dropout.</p>", out);
    fputs("</figcaption>\n", out);
}

static pq_status write_figures(FILE *out, const pq_report *report, size_t group, pq_error *err) {
    for (pq_figure_kind kind = 0; kind < PQ_FIGURE_KINDS; kind++) {
        static const pq_figure_place inline_places[] = {PQ_FIGURE_WIDE, PQ_FIGURE_NARROW};
        char name[128];
        fprintf(out, "<h3>%s <small>", pq_figure_titles[kind]);
        pq_html_element(out, "", pq_report_group_name(&report->groups[group], name, sizeof name),
                        "</small></h3>\n<figure>\n");
        for (int place = 0; place < 2; place++) {
            char *svg;
            pq_error reason = {0};
            pq_status status = pq_figure_draw(report, group, kind, inline_places[place], &svg, &reason);
            if (status == PQ_ERR_MEMORY) return PQ_FAIL(err, status, "%s", reason.message);
            if (status != PQ_OK) { /* the page is worth having without curves */
                pq_html_element(out, "<p>No curves: ", reason.message, ".</p></figure>\n");
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

static pq_status write_page(FILE *out, const pq_report *report, pq_error *err) {
    char many[64];
    snprintf(many, sizeof many, "%zu runs", report->count);
    const char *title = report->count == 1 ? report->runs[0].label : many;
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
          "<meta name=\"color-scheme\" content=\"light dark\">\n",
          out);
    pq_html_element(out, "<title>", title, " – potqat</title>\n<style>\n");
    fprintf(out, "%s</style>\n</head>\n<body>\n<main>\n", style);
    pq_html_element(out, "<h1>", title, "</h1>\n");
    fputs("<p class=\"soft\">Training report by potqat. One iteration is one update of the weights; the loss "
          "is in nats "
          "a token, ± its standard error.</p>\n<h2>Results</h2>\n",
          out);
    for (size_t i = 0; i < report->count; i++) {
        if (report->runs[i].eval_count) continue;
        pq_html_element(out, "<p>", report->runs[i].label, ": no evaluation is recorded yet.</p>\n");
    }
    for (size_t g = 0; g < report->group_count; g++) write_results(out, report, g);
    if (report->group_count > 1)
        fputs("<p class=\"soft\">Different protocols score different tokens: compare numbers within a table "
              "only.</p>\n",
              out);
    if (report->group_count) fputs("<h2>Curves</h2>\n", out);
    for (size_t g = 0; g < report->group_count; g++) PQ_TRY(write_figures(out, report, g, err));
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
