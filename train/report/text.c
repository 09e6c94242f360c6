/* Owns the plain forms of a report: tables for a terminal, JSON. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "train/report/data.h"
#include "train/report/report.h"

enum { COLUMNS = 12, WIDTH = 160 };

/* A row of a table; the widest cell decides the width of its column. */
typedef struct row {
    char cells[COLUMNS][WIDTH];
} row;

static int characters(const char *text) {
    int count = 0;
    for (; *text; text++) count += ((unsigned char)*text & 0xC0) != 0x80;
    return count;
}

static void set_cell(row *r, int column, const char *text) {
    size_t length = strnlen(text, WIDTH - 1);
    while (length < strlen(text) && length > 0 && ((unsigned char)text[length] & 0xC0) == 0x80) length--;
    memcpy(r->cells[column], text, length);
    r->cells[column][length] = 0;
}

static void print_rows(const row *rows, size_t count, FILE *out) {
    int widths[COLUMNS] = {0};
    for (size_t i = 0; i < count; i++)
        for (int c = 0; c < COLUMNS; c++) {
            int width = characters(rows[i].cells[c]);
            if (width > widths[c]) widths[c] = width;
        }
    for (size_t i = 0; i < count; i++) {
        for (int c = 0; c < COLUMNS; c++) {
            const char *text = rows[i].cells[c];
            int padding = widths[c] - characters(text);
            if (c < 2) /* names to the left, numbers to the right */
                fprintf(out, "%s%s%*s", c ? "  " : "", text, padding, "");
            else
                fprintf(out, "  %*s%s", padding, "", text);
        }
        fputc('\n', out);
    }
}

static void fill_row(row *r, const pq_report_run *run, const pq_report_summary *s) {
    set_cell(r, 0, run->label);
    set_cell(r, 1, run->quantizer[0] ? run->quantizer : "–");
    set_cell(r, 2, pq_text_count(run->bits > 0 ? run->bits : NAN).at);
    set_cell(r, 3, pq_text_count((double)s->last->iter).at);
    set_cell(r, 4, pq_text_loss(s->last->loss, s->last->loss_se).at);
    set_cell(r, 5, pq_text_perplexity(s->last->loss, s->last->loss_se).at);
    snprintf(r->cells[6], WIDTH, "%s at %s", pq_text_loss(s->best->loss, NAN).at,
             pq_text_count((double)s->best->iter).at);
    set_cell(r, 7, pq_text_bytes(run->weight_bytes).at);
    set_cell(r, 8, pq_text_count(run->tokens_per_s).at);
    set_cell(r, 9, pq_text_seconds(run->elapsed_s).at);
    double half = PQ_REPORT_95 * s->last->loss_se;
    set_cell(r, 10, pq_text_interval(s->last->loss - half, s->last->loss + half, 4).at);
}

/* To the first run under the protocol, in pairs, ± half of the 95 % interval. */
static void fill_difference(row *r, const pq_report *report, size_t group, size_t index, size_t reference) {
    size_t freedom;
    pq_difference d = pq_report_pair(report, group, index, reference, &freedom);
    set_cell(r, 11, pq_text_difference(d).at);
    if (index == reference)
        set_cell(r, 11, "reference");
    else if (isfinite(d.mean))
        snprintf(r->cells[11], WIDTH, "%s ± %.4f", pq_text_difference(d).at, d.se * pq_report_t(freedom));
}

static pq_status print_group(const pq_report *report, size_t group, FILE *out, pq_error *err) {
    static const row head = {{"run", "quantizer", "bits", "iter", "last loss", "perplexity", "best loss",
                              "weights", "tokens/s", "time", "95 % interval", "difference"}};
    char name[128];
    size_t used = 1, reference = report->count;
    row *rows;
    PQ_TRY(pq_calloc(report->count + 1, sizeof *rows, "a table", &rows, err));
    rows[0] = head;
    for (size_t i = 0; i < report->count; i++) {
        pq_report_summary s;
        if (!pq_report_summarize(&report->runs[i], group, &s)) continue;
        if (reference == report->count) reference = i;
        fill_row(&rows[used], &report->runs[i], &s);
        fill_difference(&rows[used++], report, group, i, reference);
    }
    fprintf(out, "%s%s (loss in nats a token ± standard error)\n", group ? "\n" : "",
            pq_report_group_name(&report->groups[group], name, sizeof name));
    print_rows(rows, used, out);
    free(rows);
    return PQ_OK;
}

static pq_status check_stream(FILE *out, pq_error *err) {
    if (fflush(out) == 0 && !ferror(out)) return PQ_OK;
    return PQ_FAIL(err, PQ_ERR_IO, "the report could not be written");
}

pq_status pq_report_text(const char *const *runs, size_t count, FILE *out, pq_error *err) {
    pq_report report;
    pq_status status = pq_report_read(runs, count, &report, err);
    for (size_t g = 0; g < report.group_count && status == PQ_OK; g++)
        status = print_group(&report, g, out, err);
    for (size_t i = 0; i < report.count && status == PQ_OK; i++) {
        const pq_report_run *run = &report.runs[i];
        if (!run->eval_count) fprintf(out, "%s: no evaluation is recorded yet\n", run->label);
        if (isfinite(run->floor) && run->eval_count)
            fprintf(out, "%s: the entropy of the text is %s nats a token\n", run->label,
                    pq_text_loss(run->floor, NAN).at);
    }
    if (status == PQ_OK) status = check_stream(out, err);
    pq_report_deinit(&report);
    return status;
}

/* null where a number is not known. */
static json_t *number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *integer(int64_t value) {
    return value >= 0 ? json_integer(value) : json_null();
}

static json_t *evaluation(const pq_report_eval *eval) {
    double perplexity = exp(eval->loss);
    return json_pack("{s:I, s:o, s:o, s:o, s:o}", "iter", (json_int_t)eval->iter, "loss", number(eval->loss),
                     "loss_se", number(eval->loss_se), "perplexity", number(perplexity), "perplexity_se",
                     number(perplexity * eval->loss_se));
}

static json_t *summary(const pq_report_run *run, const pq_report_group *group, const pq_report_summary *s) {
    return json_pack("{s:s, s:s, s:o, s:o, s:o, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "run",
                     run->label, "quantizer", run->quantizer, "levels", integer(run->levels), "bits",
                     integer(run->bits), "bits_a_weight", number(run->bits_a_weight), "split", group->split,
                     "protocol", group->protocol, "context", integer(group->context), "first",
                     evaluation(s->first), "last", evaluation(s->last), "best", evaluation(s->best),
                     "weight_bytes", number(run->weight_bytes), "tokens_per_s", number(run->tokens_per_s),
                     "elapsed_s", number(run->elapsed_s));
}

pq_status pq_report_json(const char *const *runs, size_t count, FILE *out, pq_error *err) {
    pq_report report;
    pq_status status = pq_report_read(runs, count, &report, err);
    json_t *rows = json_array();
    bool good = rows != NULL;
    for (size_t g = 0; g < report.group_count; g++)
        for (size_t i = 0; i < report.count; i++) {
            pq_report_summary s;
            if (pq_report_summarize(&report.runs[i], g, &s))
                good =
                    good && json_array_append_new(rows, summary(&report.runs[i], &report.groups[g], &s)) == 0;
        }
    if (status == PQ_OK && !good) status = PQ_FAIL(err, PQ_ERR_MEMORY, "a report's JSON could not be made");
    if (status == PQ_OK) {
        json_dumpf(rows, out, JSON_COMPACT | JSON_REAL_PRECISION(9));
        fputc('\n', out);
        status = check_stream(out, err);
    }
    json_decref(rows);
    pq_report_deinit(&report);
    return status;
}
