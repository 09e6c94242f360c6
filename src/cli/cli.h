/* The command line: one table of commands, one parser for all of them. A command is a row in main.c and a
 * file cmd_<verb>.c; it reads its arguments here, calls the library, prints its result to stdout. */
#ifndef PQ_CLI_CLI_H
#define PQ_CLI_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/error.h"

typedef struct pq_flag {
    const char *name;  /* long name without the dashes */
    char letter;       /* short name or 0 */
    const char *value; /* name of its value in the help (NULL: takes none) */
    const char *help;
} pq_flag;

typedef struct pq_cli pq_cli;

typedef struct pq_command {
    const char *verb;     /* "train" or, for nested ones, "bench train" */
    const char *synopsis; /* what follows "potqat verb" */
    const char *summary;  /* one line, for potqat --help */
    /* The body of --help: what it does, examples, files; as good as a man page. Lines are indented and
     * wrapped by the printer (continuation lines keep the line's own indent); a line in capitals, "EXAMPLES",
     * is a heading. USAGE, OPTIONS and EXIT STATUS are added. */
    const char *details;
    const pq_flag *flags; /* ended by name = NULL; --threads --json --quiet --help (and -o/--out, --overwrite
                             where `writes`) are added to each command */
    bool writes;
    bool overrides;  /* takes key=value words */
    int least, most; /* positional arguments */
    pq_status (*run)(const pq_cli *cli, pq_error *err);
    void (*print_more)(FILE *out); /* what --help prints behind the options; NULL: nothing */
} pq_command;

size_t pq_cli_count(const pq_cli *cli);                 /* positional arguments */
const char *pq_cli_at(const pq_cli *cli, size_t index); /* NULL past the last */
const char *const *pq_cli_overrides(const pq_cli *cli, size_t *count);
bool pq_cli_has(const pq_cli *cli, const char *flag);
const char *pq_cli_text(const pq_cli *cli, const char *flag); /* NULL when not given */
/* The number behind a flag, or `otherwise`; PQ_ERR_USAGE outside [least, most] or when it is not a number. */
pq_status pq_cli_int(const pq_cli *cli, const char *flag, long long otherwise, long long least,
                     long long most, long long *out, pq_error *err);
pq_status pq_cli_real(const pq_cli *cli, const char *flag, double otherwise, double least, double most,
                      double *out, pq_error *err);
/* All words behind the verb, as given; borrowed. */
const char *const *pq_cli_words(const pq_cli *cli, int *count);
bool pq_cli_json(const pq_cli *cli);
/* Print a result as one line of JSON; takes `json`, NULL is lack of memory. */
pq_status pq_cli_print_json(json_t *json, pq_error *err);
bool pq_cli_quiet(const pq_cli *cli);

/* What main.c does with a command: read words[count] (what stands behind the verb; borrowed, must outlive the
 * pq_cli), or print its help. Errors: unknown option (names the nearest), missing value, too few or too many
 * arguments, key=value where none is taken. With --help among the options nothing else is checked. */
pq_status pq_cli_parse(const pq_command *command, size_t count, const char *const *words, pq_cli **out,
                       pq_error *err);
void pq_cli_destroy(pq_cli *cli);
void pq_cli_print_help(const pq_command *command, FILE *out);

/* Each in the .c file of its command. */
extern const pq_command pq_cmd_data_fetch, pq_cmd_data_prepare, pq_cmd_data_train_tokenizer, pq_cmd_train,
    pq_cmd_quantize, pq_cmd_eval, pq_cmd_generate, pq_cmd_import, pq_cmd_export, pq_cmd_inspect,
    pq_cmd_config, pq_cmd_report, pq_cmd_bench_train, pq_cmd_bench_infer, pq_cmd_bench_kernels, pq_cmd_sweep;

#endif
