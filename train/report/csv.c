/* Owns the long CSV of a report: every number of its curves and tables, one a row. */
#include "train/report/csv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "train/report/data.h"
#include "train/report/report.h"

void pq_csv_put(FILE *out, const char *text) {
    if (!strpbrk(text, ",\"\n\r")) {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    for (; *text; text++) {
        if (*text == '"') fputc('"', out);
        fputc(*text, out);
    }
    fputc('"', out);
}

static void put_integer(FILE *out, int64_t value) {
    fputc(',', out);
    if (value >= 0) fprintf(out, "%lld", (long long)value);
}

/* What stands before the quantity; group NULL: none. */
static void put_place(FILE *out, const pq_report_run *run, const pq_report_group *group, const char *split,
                      int64_t iter, const char *matrix, int64_t level) {
    pq_csv_put(out, run->label);
    fputc(',', out);
    pq_csv_put(out, group ? group->split : split);
    fputc(',', out);
    pq_csv_put(out, group ? group->protocol : "");
    put_integer(out, group ? group->context : -1);
    put_integer(out, group ? group->stride : -1);
    put_integer(out, iter);
    fputc(',', out);
    pq_csv_put(out, matrix);
    put_integer(out, level);
    fputc(',', out);
}

static void put_value(FILE *out, const char *quantity, double value, double se) {
    pq_csv_put(out, quantity);
    fprintf(out, isfinite(value) ? ",%.9g," : ",,", value);
    if (isfinite(se)) fprintf(out, "%.9g", se);
    fputc('\n', out);
}

/* Training lines and those of matrices: each of their numbers. */
static void put_line(FILE *out, const pq_report_run *run, const json_t *line) {
    const char *matrix = pq_report_word(line, "matrix", NULL), *split = pq_report_word(line, "split", NULL),
               *key;
    json_t *value, *share;
    size_t level;
    int64_t iter = json_integer_value(json_object_get(line, "iter"));
    if (!matrix && (!split || json_object_get(line, "protocol"))) return;
    json_object_foreach((json_t *)line, key, value) {
        if (strcmp(key, "iter") == 0) continue;
        if (json_is_number(value)) {
            put_place(out, run, NULL, split ? split : "", iter, matrix ? matrix : "", -1);
            put_value(out, key, json_number_value(value), NAN);
        }
        if (!json_is_array(value)) continue;
        json_array_foreach(value, level, share) {
            put_place(out, run, NULL, "", iter, matrix ? matrix : "", (int64_t)level);
            put_value(out, key, json_is_number(share) ? json_number_value(share) : NAN, NAN);
        }
    }
}

static void put_run(FILE *out, const pq_report *report, size_t index) {
    const pq_report_run *run = &report->runs[index];
    const struct {
        const char *name;
        double value;
    } facts[] = {{"levels", run->levels > 0 ? run->levels : NAN},
                 {"bits", run->bits > 0 ? run->bits : NAN},
                 {"bits_per_weight", run->bits_a_weight},
                 {"weight_bytes", run->weight_bytes},
                 {"tokens_per_s", run->tokens_per_s},
                 {"elapsed_s", run->elapsed_s}};
    size_t k, freedom;
    json_t *line;
    for (k = 0; k < sizeof facts / sizeof *facts; k++) {
        if (!isfinite(facts[k].value)) continue;
        put_place(out, run, NULL, "", -1, "", -1);
        put_value(out, facts[k].name, facts[k].value, NAN);
    }
    for (k = 0; k < run->eval_count; k++) {
        const pq_report_eval *eval = &run->evals[k];
        put_place(out, run, &report->groups[eval->group], "", eval->iter, "", -1);
        put_value(out, "loss", eval->loss, eval->loss_se);
    }
    for (size_t g = 0; g < report->group_count; g++) {
        size_t reference = 0;
        while (!pq_report_evaluated(&report->runs[reference], g)) reference++;
        pq_difference d = pq_report_pair(report, g, index, reference, &freedom);
        if (index == reference || !isfinite(d.mean)) continue;
        put_place(out, run, &report->groups[g], "", run->evals[run->eval_count - 1].iter, "", -1);
        put_value(out, "difference", d.mean, d.se);
    }
    json_array_foreach(run->metrics, k, line) put_line(out, run, line);
}

pq_status pq_report_csv(const char *const *runs, size_t count, const char *path, bool overwrite,
                        pq_error *err) {
    pq_report report;
    pq_file_writer writer;
    pq_status status = pq_report_read(runs, count, &report, err);
    if (status == PQ_OK) status = pq_file_create(path, overwrite, &writer, err);
    if (status == PQ_OK) {
        fputs("run,split,protocol,context,stride,iter,matrix,level,quantity,value,se\n", writer.stream);
        for (size_t i = 0; i < report.count; i++) put_run(writer.stream, &report, i);
        status = pq_file_commit(&writer, err); /* checks the stream */
    }
    pq_report_deinit(&report);
    return status;
}
