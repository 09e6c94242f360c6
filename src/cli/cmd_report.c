/* potqat report: tables and curves of one or several runs. */
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/memory.h"
#include "cli/cli.h"
#include "store/run.h"
#include "train/report/report.h"

/* The runs as an array that the report functions take, --against first; heap. */
static pq_status collect_runs(const pq_cli *cli, const char ***runs, size_t *count, pq_error *err) {
    const char *against = pq_cli_text(cli, "against");
    *count = 0;
    PQ_TRY(pq_calloc(pq_cli_count(cli) + 1, sizeof **runs, "arguments", runs, err));
    if (against) (*runs)[(*count)++] = against;
    for (size_t i = 0; i < pq_cli_count(cli); i++) (*runs)[(*count)++] = pq_cli_at(cli, i);
    return PQ_OK;
}

static bool is_run(const char *dir) {
    return pq_run_check(dir, NULL) == PQ_OK;
}

/* The page goes where -o says; without any other output asked for, a single run's goes into its folder,
 * where it replaces the one the run made. */
static pq_status write_page(const pq_cli *cli, const char *const *runs, size_t count, bool others,
                            pq_error *err) {
    const char *chosen = pq_cli_text(cli, "out");
    if (!chosen && others) return PQ_OK;
    if (!chosen && (count > 1 || !is_run(runs[0])))
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "a page about several runs needs a name: -o x.html (or use --text)");
    char *own = chosen ? NULL : pq_path_join(runs[0], "report.html");
    const char *path = chosen ? chosen : own;
    pq_status status = path ? pq_report_html(runs, count, path, own || pq_cli_has(cli, "overwrite"), err)
                            : PQ_FAIL(err, PQ_ERR_MEMORY, "a file name could not be allocated");
    if (status == PQ_OK && !others && !pq_cli_quiet(cli)) printf("%s\n", path);
    free(own);
    return status;
}

static pq_status run(const pq_cli *cli, pq_error *err) {
    const char **runs, *csv = pq_cli_text(cli, "csv"), *svg = pq_cli_text(cli, "figures");
    size_t count;
    bool overwrite = pq_cli_has(cli, "overwrite"), text = pq_cli_has(cli, "text"), json = pq_cli_json(cli);
    pq_status status;
    PQ_TRY(collect_runs(cli, &runs, &count, err));
    status = write_page(cli, runs, count, text || json || csv || svg, err);
    if (status == PQ_OK && csv) status = pq_report_csv(runs, count, csv, overwrite, err);
    if (status == PQ_OK && svg) status = pq_report_figures(runs, count, svg, overwrite, err);
    if (status == PQ_OK && json)
        status = pq_report_json(runs, count, stdout, err);
    else if (status == PQ_OK && text)
        status = pq_report_text(runs, count, stdout, err);
    free(runs);
    return status;
}

static const pq_flag flags[] = {
    {"text", 0, NULL, "print tables to stdout"},
    {"csv", 0, "FILE", "write every number of curves and tables, one a row"},
    {"figures", 0, "DIR", "write each figure as an SVG file into DIR"},
    {"against", 0, "RUN", "put RUN first: differences are to the first run"},
    {0},
};

const pq_command pq_cmd_report = {
    .verb = "report",
    .synopsis = "RUN|SWEEP... [-o x.html] [--text] [--csv FILE] [--figures DIR] [--against RUN]",
    .summary = "tables and curves of one or several runs",
    .details =
        "Reads run folders (config.yaml, run.json, metrics.jsonl, timing.jsonl, windows-last.csv) and writes "
        "one "
        "self-contained HTML page: results with 95 % intervals and differences in pairs, curves of training "
        "and "
        "validation, perplexity against bits a weight, what goes on inside the quantized matrices, sizes and "
        "speed, "
        "and configs with the keys that differ. The page has no scripts, fetches nothing, and can be sent by "
        "mail.\n"
        "\n"
        "A folder of runs (a sweep) stands for all of them: runs that differ in the seed alone are one "
        "point, shown "
        "with its mean and 95 % interval, and the loss is drawn against each swept key that is a number.\n"
        "\n"
        "Without -o and without another output, the page of a single run replaces RUN/report.html. Results "
        "of "
        "different evaluation protocols stand in tables and figures of their own, since they score different "
        "tokens. A run that is still going, or was stopped, gives a page about what is there so far.\n"
        "\n"
        "Losses are in nats a token. Differences are taken window by window, where both runs scored the same "
        "windows of the same text. Curves are drawn by gnuplot; without it the page has its tables and says "
        "so.\n"
        "\n"
        "With --json the table is printed as one JSON array, an object a run and protocol.\n"
        "\n"
        "EXAMPLES\n"
        "potqat report runs/char-qat\n"
        "potqat report runs/char-fp32 runs/char-qat -o compare.html\n"
        "potqat report sweeps/levels --against runs/char-fp32 -o levels.html\n"
        "potqat report runs/char-fp32 runs/char-qat --text\n"
        "potqat report runs/* --csv numbers.csv --figures figures\n",
    .flags = flags,
    .writes = true,
    .least = 1,
    .most = 1000,
    .run = run,
};
