/* potqat sweep: many runs from one file. */
#include <jansson.h>
#include <signal.h>
#include <stdio.h>

#include "base/threads.h"
#include "cli/cli.h"
#include "train/sweep/sweep.h"

static volatile sig_atomic_t signalled;

/* The first signal asks the runs to save and stop; the second one leaves at once, and they follow. */
static void on_signal(int number) {
    signalled = 1;
    signal(number, SIG_DFL);
}

static bool cancelled(void *user) {
    (void)user;
    return signalled;
}

static void list_runs(const pq_sweep *sweep) {
    static const char *const kinds[] = {"parent", "control", "point"};
    for (size_t i = 0; i < sweep->count; i++) {
        const pq_sweep_run *run = &sweep->runs[i];
        if (run->kind == PQ_SWEEP_POINT)
            printf("%zu", i - sweep->first + 1);
        else
            printf("%s", kinds[run->kind]);
        printf("\t%s\t%s\n", run->name, pq_sweep_state_name(run->state));
    }
}

static void print_result(const pq_cli *cli, const pq_sweep *sweep) {
    size_t points = sweep->count - sweep->first, done = 0, diverged = 0;
    for (size_t i = sweep->first; i < sweep->count; i++) {
        done += sweep->runs[i].state == PQ_SWEEP_DONE;
        diverged += sweep->runs[i].state == PQ_SWEEP_DIVERGED;
    }
    if (pq_cli_json(cli)) {
        json_t *line = json_pack("{s:s, s:I, s:I, s:I}", "sweep", sweep->dir, "points", (json_int_t)points,
                                 "done", (json_int_t)done, "diverged", (json_int_t)diverged);
        json_dumpf(line, stdout, JSON_PRESERVE_ORDER);
        putchar('\n');
        json_decref(line);
        return;
    }
    printf("%s: %zu of %zu points done", sweep->dir, done, points);
    if (diverged) printf(", %zu diverged", diverged);
    putchar('\n');
}

static pq_status run(const pq_cli *cli, pq_error *err) {
    size_t count;
    const char *const *overrides = pq_cli_overrides(cli, &count);
    long long jobs, point;
    pq_sweep *sweep;
    PQ_TRY(pq_cli_int(cli, "jobs", 1, 1, 1024, &jobs, err));
    PQ_TRY(pq_cli_int(cli, "point", 0, 1, 10000, &point, err));
    PQ_TRY(pq_sweep_read(pq_cli_at(cli, 0), overrides, count, &sweep, err));
    pq_sweep_options options = {.program = "/proc/self/exe",
                                .jobs = (size_t)jobs,
                                .threads = pq_threads_get(),
                                .point = (size_t)point,
                                .cancelled = cancelled};
    pq_status status = pq_sweep_inspect(sweep, err);
    if (status == PQ_OK && pq_cli_has(cli, "dry-run")) {
        list_runs(sweep);
    } else if (status == PQ_OK) {
        signal(SIGINT, on_signal);
        signal(SIGTERM, on_signal);
        status = pq_sweep_train(sweep, &options, err);
        if (status == PQ_OK) print_result(cli, sweep);
    }
    pq_sweep_destroy(sweep);
    return status;
}

static const pq_flag flags[] = {
    {"jobs", 'j', "N", "runs at once (default 1); the threads are divided among them"},
    {"point", 0, "K", "point K alone, counted from 1, and its parent: for job arrays; writes no results"},
    {"dry-run", 0, NULL, "check everything and list the runs; train nothing"},
    {NULL, 0, NULL, NULL},
};

const pq_command pq_cmd_sweep = {
    .verb = "sweep",
    .synopsis = "SWEEP.yaml [--jobs N] [--point K] [--dry-run] [key=value ...]",
    .summary = "train many runs that differ in a few keys, and compare them",
    .details =
        "Reads the YAML file SWEEP, makes the config of every run and checks all of them, then trains each "
        "in "
        "a folder of its own below the sweep's. key=value changes the base.\n"
        "\n"
        "KEYS OF THE FILE\n"
        "    base: PATH          the config that every point starts from\n"
        "    grid: {KEY: [...]}  every combination, in written order, the last key fastest; or\n"
        "    list: [{KEY: VALUE, ...}, ...]  these points; name: gives one a name\n"
        "    seeds: [...]        each point once with each train.seed (default: the base's)\n"
        "    dir: FOLDER         of the runs (default: runs/ and the file's name)\n"
        "    parent: PATH        a config that is trained first; the points start from its last iterate\n"
        "    parent_seeds: each  one parent a seed (default), or shared: one for all\n"
        "    control: PATH or {KEY: VALUE, ...}  the run that points are compared with, once a seed: a "
        "config, "
        "or changes of the base\n"
        "Paths start at the current folder, as in every config.\n"
        "\n"
        "FILES\n"
        "    FOLDER/NAME/        a run, as potqat train makes it; NAME.yaml and NAME.log beside it are its "
        "config and its messages\n"
        "    FOLDER/results.csv  a row a point: keys, seed, run, status, losses, sizes, and differences to "
        "the "
        "control and to the parent, in pairs of windows, with 95 % intervals\n"
        "    FOLDER/summary.csv  means over seeds, with 95 % intervals (Student's t)\n"
        "\n"
        "SIGINT or SIGTERM lets the runs save and exits with 3. The same command goes on, after kill -9, "
        "too: "
        "finished runs are skipped, others resumed, failed ones tried again, and results.csv has the bytes "
        "of "
        "an undisturbed sweep. A run that diverged is a result: its row says so. Exit status 1: some runs "
        "failed.\n"
        "\n"
        "EXAMPLES\n"
        "    potqat sweep configs/sweep-char-levels.yaml --dry-run\n"
        "    potqat sweep configs/sweep-char-levels.yaml --jobs 2\n"
        "    potqat sweep configs/sweep-char-levels.yaml --point 3\n",
    .flags = flags,
    .overrides = true,
    .least = 1,
    .most = 1,
    .run = run,
};
