/* Owns the losses window by window (windows-last.csv) and differences of runs in pairs. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "train/report/data.h"

static pq_status parse(const char *text, const char *path, pq_report_run *run, pq_error *err) {
    size_t lines = 0;
    for (const char *s = text; *s; s++) lines += *s == '\n';
    PQ_TRY(pq_calloc(lines + 1, sizeof *run->windows, "losses of windows", &run->windows, err));
    const char *line = strchr(text, '\n');
    if (!line || strncmp(text, "window,offset,loss\n", 19) != 0)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "%s: expected the first line window,offset,loss", path);
    for (line++; *line; line = strchr(line, '\n') + 1) {
        unsigned long long window, offset;
        int used = 0;
        if (sscanf(line, "%llu,%llu,%lf%n", &window, &offset, &run->windows[run->window_count], &used) != 3 ||
            line[used] != '\n' || window != run->window_count)
            return PQ_FAIL(err, PQ_ERR_FORMAT, "%s, line %zu: expected %zu,OFFSET,LOSS", path,
                           run->window_count + 2, run->window_count);
        run->window_count++;
    }
    return PQ_OK;
}

/* They count only where their mean is the last evaluation: a run may be going on while it is read. */
pq_status pq_report_read_windows(pq_report_run *run, pq_error *err) {
    pq_file_view file;
    double sum = 0;
    char *path = pq_path_join(run->dir, "windows-last.csv");
    if (!path) return PQ_FAIL(err, PQ_ERR_MEMORY, "a file name could not be allocated");
    pq_status status = PQ_OK;
    if (pq_file_exists(path)) {
        status = pq_file_read(path, &file, err);
        if (status == PQ_OK) {
            status = parse(file.data, path, run, err);
            pq_file_view_close(&file);
        }
    }
    free(path);
    PQ_TRY(status);
    for (size_t i = 0; i < run->window_count; i++) sum += run->windows[i];
    double loss = run->eval_count ? run->evals[run->eval_count - 1].loss : NAN;
    if (run->window_count && fabs(sum / (double)run->window_count - loss) <= 1e-6 * (1 + fabs(loss)))
        return PQ_OK;
    free(run->windows);
    run->windows = NULL;
    run->window_count = 0;
    return PQ_OK;
}

static bool same_text(const pq_report_run *a, const pq_report_run *b) {
    const char *x = pq_report_word(a->info, "data", "hash"), *y = pq_report_word(b->info, "data", "hash");
    const char *p = pq_report_setting_value(a, "data.split"), *q = pq_report_setting_value(b, "data.split");
    return x && y && strcmp(x, y) == 0 && (!p || !q || strcmp(p, q) == 0);
}

pq_difference pq_report_pair(const pq_report *report, size_t group, size_t a, size_t b, size_t *freedom) {
    const pq_report_run *x = &report->runs[a], *y = &report->runs[b];
    pq_difference d = {NAN, NAN};
    *freedom = 0;
    if (!x->windows || !y->windows || !same_text(x, y) || x->evals[x->eval_count - 1].group != group ||
        y->evals[y->eval_count - 1].group != group)
        return d;
    const pq_evaluation one = {.windows = x->window_count,
                               .tokens = x->window_count,
                               .loss = x->evals[x->eval_count - 1].loss,
                               .window_loss = x->windows},
                        other = {.windows = y->window_count,
                                 .tokens = y->window_count,
                                 .loss = y->evals[y->eval_count - 1].loss,
                                 .window_loss = y->windows};
    if (pq_evaluation_compare(&one, &other, &d, NULL) != PQ_OK) return (pq_difference){NAN, NAN};
    *freedom = x->window_count - 1;
    return d;
}
