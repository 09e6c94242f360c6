/* Owns results.csv and summary.csv: figures of finished runs side by side, in fixed precision, without
 * anything that differs between two trainings of the same sweep. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "train/report/csv.h"
#include "train/report/data.h"
#include "train/sweep/sweep.h"

/* What both files say of a run or of a point. */
typedef struct interval {
    double mean, se, low, high;
} interval;

typedef struct figures {
    bool known;
    const pq_report_group *group;
    const pq_report_eval *last;
    double best, bits, bytes;
    interval control, parent;
} figures;

typedef struct table {
    const pq_sweep *sweep;
    pq_report report;
    size_t *place; /* [sweep->count]: index in report.runs, or PQ_SWEEP_NONE */
    FILE *out;
} table;

/* ---- reading ---- */

static pq_status read_runs(table *t, pq_error *err) {
    const pq_sweep *sweep = t->sweep;
    const char **dirs;
    size_t count = 0;
    PQ_TRY(pq_calloc(sweep->count, sizeof *t->place, "runs", &t->place, err));
    PQ_TRY(pq_calloc(sweep->count, sizeof *dirs, "run folders", &dirs, err));
    for (size_t i = 0; i < sweep->count; i++) {
        t->place[i] = PQ_SWEEP_NONE;
        if (sweep->runs[i].state != PQ_SWEEP_DONE && sweep->runs[i].state != PQ_SWEEP_DIVERGED) continue;
        t->place[i] = count;
        dirs[count++] = sweep->runs[i].dir;
    }
    pq_status status = count ? pq_report_read(dirs, count, &t->report, err) : PQ_OK;
    if (status == PQ_OK && t->report.count != count)
        status = PQ_FAIL(err, PQ_ERR_IO, "%s: two runs of the sweep stand in the same folder", sweep->dir);
    free(dirs);
    return status;
}

/* Run a minus run b over the windows of their last evaluations; NaN where they did not read the same ones. */
static interval difference(const table *t, size_t a, size_t b) {
    interval none = {NAN, NAN, NAN, NAN};
    size_t freedom;
    if (b == PQ_SWEEP_NONE || t->place[b] == PQ_SWEEP_NONE || t->sweep->runs[b].state != PQ_SWEEP_DONE)
        return none;
    const pq_report_run *run = &t->report.runs[t->place[a]];
    pq_difference d =
        pq_report_pair(&t->report, run->evals[run->eval_count - 1].group, t->place[a], t->place[b], &freedom);
    if (isnan(d.mean)) return none;
    double half = pq_report_t(freedom) * d.se;
    return (interval){d.mean, d.se, d.mean - half, d.mean + half};
}

/* Of point `index`; not known unless it is done. */
static figures figures_of(const table *t, size_t index) {
    const pq_sweep_run *point = &t->sweep->runs[index];
    figures f = {.control = {NAN, NAN, NAN, NAN}, .parent = {NAN, NAN, NAN, NAN}};
    pq_report_summary summary;
    if (point->state != PQ_SWEEP_DONE) return f;
    const pq_report_run *run = &t->report.runs[t->place[index]];
    if (!run->eval_count) return f;
    f.known = true;
    f.last = &run->evals[run->eval_count - 1];
    f.group = &t->report.groups[f.last->group];
    pq_report_summarize(run, f.last->group, &summary);
    f.best = summary.best->loss;
    f.bits = run->bits_a_weight;
    f.bytes = run->weight_bytes;
    f.control = difference(t, index, point->control);
    f.parent = difference(t, index, point->parent);
    return f;
}

/* ---- writing ---- */

/* Behind a comma; nothing where there is no number. */
static void put_number(FILE *out, double value, int digits) {
    fputc(',', out);
    if (isfinite(value)) fprintf(out, "%.*f", digits, value);
}

static void put_interval(FILE *out, interval i, bool with_se) {
    put_number(out, i.mean, 6);
    if (with_se) put_number(out, i.se, 6);
    put_number(out, i.low, 6);
    put_number(out, i.high, 6);
}

static pq_status put_keys(const table *t, const pq_config *config, pq_error *err) {
    for (size_t k = 0; k < t->sweep->key_count; k++) {
        fputc(',', t->out);
        if (!config) {
            pq_csv_put(t->out, t->sweep->keys[k]);
            continue;
        }
        char *value = pq_config_value(config, t->sweep->keys[k]);
        if (!value) return PQ_FAIL(err, PQ_ERR_MEMORY, "no memory for the results");
        size_t length = strlen(value);
        if (length >= 2 && value[0] == '"' && !strchr(value, '\\')) { /* a text: CSV has quotes of its own */
            value[length - 1] = 0;
            pq_csv_put(t->out, value + 1);
        } else {
            pq_csv_put(t->out, value);
        }
        free(value);
    }
    return PQ_OK;
}

/* A diverged run's iterations are where it gave up. */
static double iterations(const table *t, size_t index, const figures *f) {
    if (f->known) return (double)f->last->iter;
    if (t->place[index] == PQ_SWEEP_NONE) return NAN;
    return pq_report_number(t->report.runs[t->place[index]].info, "iter", NULL);
}

static pq_status put_point(const table *t, size_t index, pq_error *err) {
    const pq_sweep_run *run = &t->sweep->runs[index];
    figures f = figures_of(t, index);
    double nothing = NAN;
    FILE *out = t->out;
    fprintf(out, "%zu,", index - t->sweep->first + 1);
    pq_csv_put(out, t->sweep->groups[run->group]);
    PQ_TRY(put_keys(t, run->config, err));
    fprintf(out, ",%lld,", (long long)run->config->train.seed);
    pq_csv_put(out, run->dir);
    /* What stopped and what has not begun yet is the same to a reader: to be had later. */
    bool ended = run->state == PQ_SWEEP_DONE || run->state == PQ_SWEEP_DIVERGED ||
                 run->state == PQ_SWEEP_FAILED || run->state == PQ_SWEEP_NO_PARENT;
    fprintf(out, ",%s", pq_sweep_state_name(ended ? run->state : PQ_SWEEP_PENDING));
    put_number(out, iterations(t, index, &f), 0);
    fprintf(out, ",%s,%s", f.known ? f.group->protocol : "", f.known ? f.group->split : "");
    put_number(out, f.known ? f.last->tokens : nothing, 0);
    put_number(out, f.known ? f.last->loss : nothing, 6);
    put_number(out, f.known ? f.last->loss_se : nothing, 6);
    put_number(out, f.known ? f.best : nothing, 6);
    put_number(out, f.known ? exp(f.last->loss) : nothing, 6);
    put_number(out, f.known ? f.bits : nothing, 4);
    put_number(out, f.known ? f.bytes : nothing, 0);
    put_interval(out, f.control, true);
    put_interval(out, f.parent, true);
    fputc('\n', out);
    return PQ_OK;
}

static pq_status put_points(const table *t, pq_error *err) {
    fprintf(t->out, "point,name");
    PQ_TRY(put_keys(t, NULL, err));
    fprintf(t->out, ",seed,run,status,iterations,protocol,split,tokens,loss,loss_se,best_loss,perplexity,"
                    "bits_per_weight,weight_bytes,control_difference,control_se,control_low,control_high,"
                    "parent_difference,parent_se,parent_low,parent_high\n");
    for (size_t i = t->sweep->first; i < t->sweep->count; i++) PQ_TRY(put_point(t, i, err));
    return PQ_OK;
}

/* ---- means over seeds ---- */

enum { LOSS, BEST, CONTROL, PARENT, MEASURES };

static double measure(const figures *f, int which) {
    const double values[MEASURES] = {
        [LOSS] = f->last->loss, [BEST] = f->best, [CONTROL] = f->control.mean, [PARENT] = f->parent.mean};
    return values[which];
}

/* Mean and 95 % interval over those of values[count] that are numbers. */
static interval mean_of(const double *values, size_t count) {
    double sum = 0, squares = 0;
    size_t n = 0;
    for (size_t i = 0; i < count; i++)
        if (isfinite(values[i])) sum += values[i], n++;
    if (!n) return (interval){NAN, NAN, NAN, NAN};
    double mean = sum / (double)n;
    for (size_t i = 0; i < count; i++)
        if (isfinite(values[i])) squares += (values[i] - mean) * (values[i] - mean);
    double se = n > 1 ? sqrt(squares / (double)(n - 1) / (double)n) : NAN, half = pq_report_t(n - 1) * se;
    return (interval){mean, se, mean - half, mean + half};
}

static pq_status put_group(const table *t, size_t group, double *values, size_t seeds, pq_error *err) {
    const pq_sweep *sweep = t->sweep;
    size_t first = sweep->first + group * seeds, known = 0;
    double bits = NAN, bytes = NAN;
    pq_csv_put(t->out, sweep->groups[group]);
    PQ_TRY(put_keys(t, sweep->runs[first].config, err));
    for (size_t s = 0; s < seeds; s++) {
        figures f = figures_of(t, first + s);
        if (!f.known) continue;
        for (int m = 0; m < MEASURES; m++) values[(size_t)m * seeds + known] = measure(&f, m);
        bits = f.bits, bytes = f.bytes;
        known++;
    }
    fprintf(t->out, ",%zu,%zu", seeds, known);
    for (int m = 0; m < MEASURES; m++)
        put_interval(t->out, mean_of(values + (size_t)m * seeds, known), false);
    put_number(t->out, bits, 4);
    put_number(t->out, bytes, 0);
    fputc('\n', t->out);
    return PQ_OK;
}

static pq_status put_groups(const table *t, pq_error *err) {
    const pq_sweep *sweep = t->sweep;
    size_t seeds = (sweep->count - sweep->first) / sweep->group_count;
    double *values;
    PQ_TRY(pq_calloc(MEASURES * seeds, sizeof *values, "figures", &values, err));
    fprintf(t->out, "name");
    pq_status status = put_keys(t, NULL, err);
    fprintf(t->out, ",seeds,done,loss,loss_low,loss_high,best_loss,best_low,best_high,control_difference,"
                    "control_low,control_high,parent_difference,parent_low,parent_high,bits_per_weight,"
                    "weight_bytes\n");
    for (size_t g = 0; g < sweep->group_count && status == PQ_OK; g++)
        status = put_group(t, g, values, seeds, err);
    free(values);
    return status;
}

static pq_status write_file(table *t, const char *name, pq_status (*put)(const table *, pq_error *),
                            pq_error *err) {
    pq_file_writer writer;
    char *path = pq_path_join(t->sweep->dir, name);
    if (!path) return PQ_FAIL(err, PQ_ERR_MEMORY, "a file name could not be allocated");
    pq_status status = pq_file_create(path, true, &writer, err);
    if (status == PQ_OK) {
        t->out = writer.stream;
        status = pq_file_end(&writer, put(t, err), err);
    }
    free(path);
    return status;
}

pq_status pq_sweep_write_results(const pq_sweep *sweep, pq_error *err) {
    table t = {.sweep = sweep};
    pq_status status = read_runs(&t, err);
    if (status == PQ_OK) status = write_file(&t, "results.csv", put_points, err);
    if (status == PQ_OK) status = write_file(&t, "summary.csv", put_groups, err);
    pq_report_deinit(&t.report);
    free(t.place);
    return status;
}
