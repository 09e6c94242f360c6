/* Owns the reading of a command's words (options, key=value, the rest) and the layout of its help. */
#include "cli/cli.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "config/nearest.h"

struct pq_cli {
    const pq_command *command;
    const char **positional, **overrides; /* [count of words] each */
    struct given {
        const pq_flag *flag;
        const char *text; /* "" for a flag without a value */
    } * flags;
    size_t positional_count, override_count, flag_count;
    const char *const *words;
    size_t word_count;
};

static const pq_flag common_flags[] = {
    {.name = "threads",
     .value = "N",
     .help = "threads to use; 0: the physical cores (results do not depend on it)"},
    {.name = "json", .help = "print the result as JSON"},
    {.name = "quiet", .help = "no progress on stderr; warnings and errors stay"},
    {.name = "help", .letter = 'h', .help = "print this text"},
    {0},
};
static const pq_flag writer_flags[] = {
    {.name = "out", .letter = 'o', .value = "PATH", .help = "where to write the result"},
    {.name = "overwrite", .help = "replace what stands there already"},
    {0},
};

/* The tables a command's options come from, its own first; ended by NULL. */
typedef struct flag_tables {
    const pq_flag *table[4];
} flag_tables;

static flag_tables tables_of(const pq_command *command) {
    flag_tables all = {{0}};
    size_t count = 0;
    if (command->flags) all.table[count++] = command->flags;
    if (command->writes) all.table[count++] = writer_flags;
    all.table[count] = common_flags;
    return all;
}

/* The flag named by the first `length` bytes of `name`, or by `letter`; NULL where there is none. */
static const pq_flag *find_flag(const pq_command *command, const char *name, size_t length, char letter) {
    flag_tables all = tables_of(command);
    for (size_t t = 0; all.table[t]; t++) {
        for (const pq_flag *flag = all.table[t]; flag->name; flag++) {
            if (letter ? flag->letter == letter
                       : strlen(flag->name) == length && memcmp(flag->name, name, length) == 0)
                return flag;
        }
    }
    return NULL;
}

static pq_status unknown_flag(const pq_command *command, const char *word, pq_error *err) {
    char name[64];
    pq_nearest nearest = {.wanted = name};
    snprintf(name, sizeof name, "%.*s", (int)strcspn(word + strspn(word, "-"), "="),
             word + strspn(word, "-"));
    flag_tables all = tables_of(command);
    for (size_t t = 0; all.table[t]; t++)
        for (const pq_flag *flag = all.table[t]; flag->name; flag++) pq_nearest_offer(&nearest, flag->name);
    if (nearest.best)
        return PQ_FAIL(err, PQ_ERR_USAGE, "potqat %s has no option %.80s; did you mean --%s?", command->verb,
                       word, nearest.best);
    return PQ_FAIL(err, PQ_ERR_USAGE, "potqat %s has no option %.80s; potqat %s --help lists them",
                   command->verb, word, command->verb);
}

/* key=value, where the key looks like a key and not like a path. */
static bool looks_like_override(const char *word) {
    size_t key = strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-");
    return key > 0 && word[0] != '-' && word[key] == '=';
}

/* The option at words[*i] (which is moved on past its value). */
static pq_status read_option(pq_cli *cli, size_t count, const char *const *words, size_t *i, pq_error *err) {
    const char *word = words[*i], *value = NULL;
    const pq_flag *flag;
    if (word[1] == '-') {
        size_t length = strcspn(word + 2, "=");
        flag = find_flag(cli->command, word + 2, length, 0);
        if (word[2 + length]) value = word + 2 + length + 1;
    } else {
        flag = find_flag(cli->command, NULL, 0, word[1]);
        if (word[2]) value = word + 2;
    }
    if (!flag) return unknown_flag(cli->command, word, err);
    if (flag->value && !value) {
        if (*i + 1 == count)
            return PQ_FAIL(err, PQ_ERR_USAGE, "option --%s of potqat %s needs a value: --%s %s", flag->name,
                           cli->command->verb, flag->name, flag->value);
        value = words[++*i];
    }
    if (!flag->value && value)
        return PQ_FAIL(err, PQ_ERR_USAGE, "option --%s of potqat %s takes no value, found %.80s", flag->name,
                       cli->command->verb, word);
    cli->flags[cli->flag_count++] = (struct given){flag, value ? value : ""};
    return PQ_OK;
}

static pq_status check_count(const pq_cli *cli, pq_error *err) {
    const pq_command *command = cli->command;
    if (cli->positional_count > (size_t)command->most) {
        const char *extra = cli->positional[command->most];
        if (looks_like_override(extra))
            return PQ_FAIL(err, PQ_ERR_USAGE, "potqat %s takes no key=value words, found %.80s",
                           command->verb, extra);
        return PQ_FAIL(err, PQ_ERR_USAGE, "unexpected argument %.80s; usage: potqat %s %s", extra,
                       command->verb, command->synopsis);
    }
    if (cli->positional_count < (size_t)command->least)
        return PQ_FAIL(err, PQ_ERR_USAGE, "potqat %s needs %d argument%s, found %zu; usage: potqat %s %s",
                       command->verb, command->least, command->least == 1 ? "" : "s", cli->positional_count,
                       command->verb, command->synopsis);
    return PQ_OK;
}

pq_status pq_cli_parse(const pq_command *command, size_t count, const char *const *words, pq_cli **out,
                       pq_error *err) {
    pq_cli *cli;
    pq_status status;
    bool options = true;
    *out = NULL;
    PQ_TRY(pq_calloc(1, sizeof *cli, "command line", &cli, err));
    cli->command = command;
    cli->words = words;
    cli->word_count = count;
    PQ_TRY_TO(status, fail, pq_calloc(count, sizeof *cli->positional, "command line", &cli->positional, err));
    PQ_TRY_TO(status, fail, pq_calloc(count, sizeof *cli->overrides, "command line", &cli->overrides, err));
    PQ_TRY_TO(status, fail, pq_calloc(count, sizeof *cli->flags, "command line", &cli->flags, err));
    for (size_t i = 0; i < count; i++) {
        const char *word = words[i];
        if (options && strcmp(word, "--") == 0)
            options = false;
        else if (options && word[0] == '-' && word[1])
            PQ_TRY_TO(status, fail, read_option(cli, count, words, &i, err));
        else if (options && command->overrides && looks_like_override(word))
            cli->overrides[cli->override_count++] = word;
        else
            cli->positional[cli->positional_count++] = word;
    }
    if (!pq_cli_has(cli, "help")) PQ_TRY_TO(status, fail, check_count(cli, err));
    *out = cli;
    return PQ_OK;
fail:
    pq_cli_destroy(cli);
    return status;
}

void pq_cli_destroy(pq_cli *cli) {
    if (!cli) return;
    free(cli->positional);
    free(cli->overrides);
    free(cli->flags);
    free(cli);
}

size_t pq_cli_count(const pq_cli *cli) {
    return cli->positional_count;
}

const char *pq_cli_at(const pq_cli *cli, size_t index) {
    return index < cli->positional_count ? cli->positional[index] : NULL;
}

const char *const *pq_cli_overrides(const pq_cli *cli, size_t *count) {
    *count = cli->override_count;
    return cli->overrides;
}

const char *pq_cli_text(const pq_cli *cli, const char *flag) {
    for (size_t i = cli->flag_count; i-- > 0;) /* the last one given wins */
        if (strcmp(cli->flags[i].flag->name, flag) == 0) return cli->flags[i].text;
    return NULL;
}

bool pq_cli_has(const pq_cli *cli, const char *flag) {
    return pq_cli_text(cli, flag) != NULL;
}

const char *const *pq_cli_words(const pq_cli *cli, int *count) {
    *count = (int)cli->word_count;
    return cli->words;
}

bool pq_cli_json(const pq_cli *cli) {
    return pq_cli_has(cli, "json");
}

pq_status pq_cli_print_json(json_t *json, pq_error *err) {
    char *line = json ? json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(json);
    if (!line) return PQ_FAIL(err, PQ_ERR_MEMORY, "the result could not be allocated");
    printf("%s\n", line);
    free(line);
    return PQ_OK;
}

bool pq_cli_quiet(const pq_cli *cli) {
    return pq_cli_has(cli, "quiet");
}

pq_status pq_cli_int(const pq_cli *cli, const char *flag, long long otherwise, long long least,
                     long long most, long long *out, pq_error *err) {
    const char *text = pq_cli_text(cli, flag);
    char *end;
    *out = otherwise;
    if (!text) return PQ_OK;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (end == text || *end || errno || number < least || number > most)
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "option --%s: expected a whole number from %lld to %lld, found %.80s", flag, least,
                       most, *text ? text : "nothing");
    *out = number;
    return PQ_OK;
}

pq_status pq_cli_real(const pq_cli *cli, const char *flag, double otherwise, double least, double most,
                      double *out, pq_error *err) {
    const char *text = pq_cli_text(cli, flag);
    char *end;
    *out = otherwise;
    if (!text) return PQ_OK;
    double number = strtod(text, &end);
    if (end == text || *end || !isfinite(number) || number < least || number > most)
        return PQ_FAIL(err, PQ_ERR_USAGE, "option --%s: expected a number from %g to %g, found %.80s", flag,
                       least, most, *text ? text : "nothing");
    *out = number;
    return PQ_OK;
}

enum { PAGE = 90, INDENT = 4 }; /* columns */

/* One line of text, wrapped at PAGE columns; what follows the first line stands at column `hang`, and the
 * cursor is at column `at` now. */
static void print_wrapped(FILE *out, const char *line, size_t length, size_t at, size_t hang) {
    size_t column = at;
    bool first = true;
    while (length > 0) {
        size_t spaces = 0, word;
        while (spaces < length && line[spaces] == ' ') spaces++;
        for (word = spaces; word < length && line[word] != ' ';) word++;
        if (!first && column + word > PAGE) {
            fprintf(out, "\n%*s", (int)hang, "");
            column = hang;
            fwrite(line + spaces, 1, word - spaces, out);
            column += word - spaces;
        } else {
            fwrite(line, 1, word, out);
            column += word;
        }
        line += word, length -= word;
        first = false;
    }
    fputc('\n', out);
}

static bool is_heading(const char *line, size_t length) {
    for (size_t i = 0; i < length; i++)
        if (!(line[i] >= 'A' && line[i] <= 'Z') && line[i] != ' ') return false;
    return length > 2 && line[0] != ' ';
}

static void print_body(FILE *out, const char *text) {
    while (*text) {
        size_t length = strcspn(text, "\n"), own = strspn(text, " ");
        bool heading = is_heading(text, length);
        if (length > 0) fprintf(out, "%*s", heading ? 0 : INDENT, "");
        print_wrapped(out, text, length, heading ? 0 : INDENT, INDENT + own);
        text += length;
        if (*text == '\n') text++;
    }
}

static void print_flag(FILE *out, const pq_flag *flag) {
    char name[64];
    int used = 0;
    if (flag->letter) used = snprintf(name, sizeof name, "-%c, ", flag->letter);
    used += snprintf(name + used, sizeof name - (size_t)used, "--%s%s%s", flag->name, flag->value ? " " : "",
                     flag->value ? flag->value : "");
    enum { HELP_AT = 28 };
    fprintf(out, "%*s%-*s", INDENT, "", HELP_AT - INDENT, name);
    if (used >= HELP_AT - INDENT) fprintf(out, "\n%*s", HELP_AT, "");
    print_wrapped(out, flag->help, strlen(flag->help), HELP_AT, HELP_AT);
}

void pq_cli_print_help(const pq_command *command, FILE *out) {
    flag_tables all = tables_of(command);
    fprintf(out, "potqat %s: %s\n\nUSAGE\n%*spotqat %s%s%s [options]\n", command->verb, command->summary,
            INDENT, "", command->verb, *command->synopsis ? " " : "", command->synopsis);
    fprintf(out, "\nDESCRIPTION\n");
    print_body(out, command->details);
    fprintf(out, "\nOPTIONS\n");
    for (size_t t = 0; all.table[t]; t++)
        for (const pq_flag *flag = all.table[t]; flag->name; flag++) print_flag(out, flag);
    if (command->overrides)
        fprintf(out,
                "%*skey=value               changes one key of the config; potqat config --help lists them\n",
                INDENT, "");
    if (command->print_more) command->print_more(out);
    fprintf(
        out,
        "\nEXIT STATUS\n%*s0 done; 1 I/O or a damaged file; 2 usage or config; 3 stopped, can be resumed; 4 "
        "diverged\n",
        INDENT, "");
}
