/* potqat config: the resolved config, the description of every key, the difference of two configs. */
#include <stdlib.h>

#include "base/file.h"
#include "cli/cli.h"
#include "config/config.h"
#include "config/help.h"

static const pq_flag flags[] = {
    {.name = "diff", .help = "compare two configs: one line a key that differs"},
    {.name = "markdown", .help = "describe every key in Markdown (docs/config.md)"},
    {0},
};

/* A config file, or the config of a run folder. */
static pq_status load(const char *path, const char *const *overrides, size_t count, pq_config **out,
                      pq_error *err) {
    if (!path || !pq_folder_exists(path)) return pq_config_load(path, overrides, count, out, err);
    char *file = pq_path_join(path, "config.yaml");
    if (!file) return PQ_FAIL(err, PQ_ERR_MEMORY, "%s: no memory for its path", path);
    pq_status status = pq_config_load(file, overrides, count, out, err);
    free(file);
    return status;
}

static pq_status print_diff(const pq_cli *cli, pq_error *err) {
    pq_config *configs[2] = {NULL, NULL};
    size_t count;
    const char *const *overrides = pq_cli_overrides(cli, &count);
    pq_status status = PQ_OK;
    if (pq_cli_count(cli) != 2)
        return PQ_FAIL(err, PQ_ERR_USAGE, "potqat config --diff compares two configs, found %zu",
                       pq_cli_count(cli));
    for (size_t i = 0; i < 2; i++)
        PQ_TRY_TO(status, done, load(pq_cli_at(cli, i), overrides, count, &configs[i], err));
    status = pq_config_diff(configs[0], configs[1], pq_cli_json(cli), stdout, err);
done:
    pq_config_destroy(configs[0]);
    pq_config_destroy(configs[1]);
    return status;
}

static pq_status run(const pq_cli *cli, pq_error *err) {
    size_t count;
    const char *const *overrides = pq_cli_overrides(cli, &count);
    pq_config *config;
    pq_status status = PQ_OK;
    if (pq_cli_has(cli, "markdown")) {
        pq_config_print_help(true, stdout);
        return PQ_OK;
    }
    if (pq_cli_has(cli, "diff")) return print_diff(cli, err);
    if (pq_cli_count(cli) > 1)
        return PQ_FAIL(err, PQ_ERR_USAGE, "potqat config takes one CONFIG (two with --diff), found %zu",
                       pq_cli_count(cli));
    PQ_TRY(load(pq_cli_at(cli, 0), overrides, count, &config, err));
    if (pq_cli_json(cli)) {
        pq_config_print_json(config, stdout);
    } else {
        char *text = pq_config_to_yaml(config, false);
        if (text)
            fputs(text, stdout);
        else
            status = PQ_FAIL(err, PQ_ERR_MEMORY, "the config's text does not fit in memory");
        free(text);
    }
    pq_config_destroy(config);
    return status;
}

static void print_keys(FILE *out) {
    fprintf(out, "\nKEYS\n");
    pq_config_print_help(false, out);
}

const pq_command pq_cmd_config = {
    .verb = "config",
    .synopsis = "[CONFIG] [key=value ...] | --diff A B | --markdown",
    .summary = "print a config as resolved, describe its keys, compare two",
    .details =
        "Reads CONFIG (a YAML file or a run folder; without it the defaults alone), applies key=value "
        "changes, "
        "checks every key and prints the config as potqat train would see it: every key, presets filled in. "
        "The value of key=value is YAML, so quote it for the shell where it needs it.\n"
        "\n"
        "Below stands every key: section.key = default, what it means, what it allows.\n"
        "\n"
        "EXAMPLES\n"
        "potqat config configs/quickstart.yaml train.lr=5e-4 model.preset=baby\n"
        "potqat config --diff configs/char-fp32.yaml runs/char-qat\n"
        "potqat config configs/char-qat.yaml 'quant.params=[\"h.*.weight\"]' --json\n",
    .flags = flags,
    .print_more = print_keys,
    .overrides = true,
    .most = 2,
    .run = run,
};
