/* Owns the borders between phases and what a profile says: rows of phases and ops. */
#include "train/profile.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/threads.h"
#include "kernels/peak.h"
#include "train/session.h"

/* The phases of an iteration, and what stands around them; the graph gives way to its ops. */
static const struct {
    const char *name;
    bool iteration;
} phases[PQ_PHASES] = {
    [PQ_PHASE_LOADER] = {"loader", true},       [PQ_PHASE_QUANTIZE] = {"quantize weights", true},
    [PQ_PHASE_TEACHER] = {"teacher", true},     [PQ_PHASE_GRAPH] = {"between ops", true},
    [PQ_PHASE_METHODS] = {"QAT methods", true}, [PQ_PHASE_CLIP] = {"gradient norm", true},
    [PQ_PHASE_ADAMW] = {"AdamW", true},         [PQ_PHASE_EVALUATE] = {"evaluation", false},
    [PQ_PHASE_SAVE] = {"saving", false},        [PQ_PHASE_REST] = {"other", false},
};

void pq_profile_start(pq_profile *p) {
    *p = (pq_profile){.last = pq_seconds()};
}

void pq_profile_pause(pq_profile *p, pq_phase phase) {
    double now = pq_seconds();
    p->seconds[phase] += now - p->last;
    p->last = now;
}

void pq_profile_end(pq_profile *p, pq_phase phase) {
    pq_profile_pause(p, phase);
    p->calls[phase]++;
}

/* ---- rows ---- */

typedef struct writer {
    const pq_session *session;
    pq_profile_row *rows;
    size_t count;
    double peaks[PQ_BF16 + 1]; /* by type; 0 until it is needed */
} writer;

static double peak_of(writer *w, pq_type type) {
    if (w->peaks[type] == 0)
        w->peaks[type] = (type == PQ_BF16 ? pq_peak_bf16_flops : pq_peak_flops)(pq_threads_get());
    return w->peaks[type];
}

/* All nodes with the name of the op that node `first` is of, in one pass: forward or backward. */
static pq_profile_row op_row(writer *w, size_t first, bool backward) {
    const pq_graph *graph = w->session->graph;
    const pq_node_time *times = pq_graph_times(graph);
    const pq_op *op = graph->nodes[first].op;
    pq_profile_row row = {.name = op->name, .pass = backward ? "backward" : "forward", .iteration = true};
    double operations = 0;
    pq_type type = PQ_F32;
    for (size_t i = first; i < graph->node_count; i++) {
        if (strcmp(graph->nodes[i].op->name, op->name) != 0) continue;
        uint64_t calls = backward ? times[i].backward_calls : times[i].forward_calls;
        pq_work work = op->work ? op->work(graph, &graph->nodes[i]) : (pq_work){0};
        row.calls += calls;
        row.seconds += 1e-9 * (double)(backward ? times[i].backward : times[i].forward);
        operations += (double)calls * (backward ? work.backward : work.forward);
        type = work.type;
    }
    if (operations > 0 && row.seconds > 0) {
        row.flops = operations / row.seconds;
        if (peak_of(w, type) > 0) row.peak_share = row.flops / peak_of(w, type);
    }
    return row;
}

static bool met_before(const pq_graph *graph, size_t node) {
    for (size_t i = 0; i < node; i++)
        if (strcmp(graph->nodes[i].op->name, graph->nodes[node].op->name) == 0) return true;
    return false;
}

/* Returns the seconds of all ops. */
static double add_ops(writer *w) {
    const pq_graph *graph = w->session->graph;
    double seconds = 0;
    for (size_t i = 0; i < graph->node_count; i++)
        for (int backward = 0; backward < 2 && !met_before(graph, i); backward++) {
            pq_profile_row row = op_row(w, i, backward);
            seconds += row.seconds;
            if (row.calls) w->rows[w->count++] = row;
        }
    return seconds;
}

static void add_phases(writer *w, bool iteration) {
    const pq_profile *p = &w->session->profile;
    for (int i = 0; i < PQ_PHASES; i++) {
        if (phases[i].iteration != iteration || p->seconds[i] == 0) continue;
        double ops = i == PQ_PHASE_GRAPH ? add_ops(w) : 0;
        w->rows[w->count++] = (pq_profile_row){.name = phases[i].name,
                                               .pass = "",
                                               .iteration = iteration,
                                               .calls = p->calls[i],
                                               .seconds = p->seconds[i] - ops};
    }
}

/* Of the rows from `first`. */
static double set_shares(writer *w, size_t first) {
    double seconds = 0;
    for (size_t i = first; i < w->count; i++) seconds += w->rows[i].seconds;
    for (size_t i = first; i < w->count && seconds > 0; i++) w->rows[i].share = w->rows[i].seconds / seconds;
    return seconds;
}

pq_profile_row *pq_profile_rows(const pq_session *session, size_t *count) {
    writer w = {.session = session};
    *count = 0;
    w.rows = calloc(PQ_PHASES + 1 + 2 * session->graph->node_count, sizeof *w.rows);
    if (!w.rows) return NULL;
    add_phases(&w, true);
    size_t around = w.count;
    pq_profile_row iterations = {.name = "iterations",
                                 .pass = "",
                                 .calls = session->profile.calls[PQ_PHASE_LOADER],
                                 .seconds = set_shares(&w, 0)};
    w.rows[w.count++] = iterations;
    add_phases(&w, false);
    set_shares(&w, around);
    *count = w.count;
    return w.rows;
}

/* ---- a table of them ---- */

static void print_row(const pq_profile_row *r, double iterations, FILE *out) {
    char calls[24] = "";
    if (r->calls) snprintf(calls, sizeof calls, "%llu", (unsigned long long)r->calls);
    fprintf(out, "%-16s %-8s %9s %10.3f %7.2f", r->name, r->pass, calls, 1e3 * r->seconds / iterations,
            100 * r->share);
    if (r->flops > 0) fprintf(out, " %8.4g", r->flops / 1e9);
    if (r->peak_share > 0) fprintf(out, " %6.1f", 100 * r->peak_share);
    fputc('\n', out);
}

static void print_rows(const pq_profile_row *rows, size_t count, double iterations, FILE *out) {
    double seconds = 0;
    fprintf(out, "%-16s %-8s %9s %10s %7s %8s %6s\n", "of an iteration", "", "calls", "ms/iter", "share %",
            "GFLOP/s", "peak %");
    for (size_t i = 0; i < count; i++) {
        if (i && rows[i - 1].iteration && !rows[i].iteration)
            fprintf(out, "%-16s %-8s %9s %10s %7s\n", "of the whole", "", "calls", "ms/iter", "share %");
        print_row(&rows[i], iterations, out);
        if (!rows[i].iteration) seconds += rows[i].seconds;
    }
    fprintf(out, "%.0f iterations, %.2f s, %d threads\n", iterations, seconds, pq_threads_get());
}

void pq_profile_print(const pq_session *session, FILE *out) {
    size_t count;
    pq_profile_row *rows = pq_profile_rows(session, &count);
    uint64_t iterations = session->profile.calls[PQ_PHASE_LOADER];
    if (!rows || !iterations)
        fprintf(out, "profile: %s\n", rows ? "no iteration was run" : "no memory for it");
    else
        print_rows(rows, count, (double)iterations, out);
    free(rows);
}
