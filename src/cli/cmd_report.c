/* potqat report: tables and curves of one or several runs. */
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/memory.h"
#include "cli/cli.h"
#include "train/report.h"

/* The runs as an array that the report functions take; heap. */
static pq_status collect_runs(const pq_cli *cli, const char ***runs, pq_error *err) {
    PQ_TRY(pq_calloc(pq_cli_count(cli), sizeof **runs, "arguments", runs, err));
    for (size_t i = 0; i < pq_cli_count(cli); i++) (*runs)[i] = pq_cli_at(cli, i);
    return PQ_OK;
}

/* The page goes where -o says; without any other output asked for, a single run's goes into its folder,
 * where it replaces the one the run made. */
static pq_status write_page(const pq_cli *cli, const char *const *runs, size_t count, bool others,
                            pq_error *err) {
    const char *chosen = pq_cli_text(cli, "out");
    if (!chosen && others) return PQ_OK;
    if (!chosen && count > 1)
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
    const char **runs, *csv = pq_cli_text(cli, "csv"), *svg = pq_cli_text(cli, "svg");
    size_t count = pq_cli_count(cli);
    bool overwrite = pq_cli_has(cli, "overwrite"), text = pq_cli_has(cli, "text"), json = pq_cli_json(cli);
    pq_status status;
    PQ_TRY(collect_runs(cli, &runs, err));
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
    {"csv", 0, "FILE", "write one row an evaluation"},
    {"svg", 0, "DIR", "write each figure as an SVG file into DIR"},
    {0},
};

const pq_command pq_cmd_report = {
    .verb = "report",
    .synopsis = "RUN... [-o x.html] [--text] [--csv FILE] [--svg DIR]",
    .summary = "tables and curves of one or several runs",
    .details =
        "Reads run folders (config.yaml, run.json, metrics.jsonl, timing.jsonl) and writes one "
        "self-contained HTML "
        "page: results with standard errors, curves of training and validation, sizes and speed, quantized "
        "matrices, what differs between the configs, and the configs themselves. The page has no scripts, "
        "fetches "
        "nothing, and can be sent by mail.\n"
        "\n"
        "Without -o and without another output, the page of a single run replaces RUN/report.html. Results "
        "of "
        "different evaluation protocols stand in tables and figures of their own, since they score different "
        "tokens. A run that is still going, or was stopped, gives a page about what is there so far.\n"
        "\n"
        "Losses are in nats a token, with their standard error; the standard error of a perplexity is "
        "perplexity "
        "times that of the loss. Curves are drawn by gnuplot; without it the page has its tables and says "
        "so.\n"
        "\n"
        "With --json the table is printed as one JSON array, an object a run and protocol.\n"
        "\n"
        "EXAMPLES\n"
        "potqat report runs/char-qat\n"
        "potqat report runs/char-fp32 runs/char-qat -o compare.html\n"
        "potqat report runs/char-fp32 runs/char-qat --text\n"
        "potqat report runs/* --csv evaluations.csv --svg figures\n",
    .flags = flags,
    .writes = true,
    .least = 1,
    .most = 1000,
    .run = run,
};
