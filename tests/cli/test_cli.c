/* The parser of a command's words and the layout of its help. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "tests/harness/suite.h"

static const pq_flag flags[] = {
    {.name = "prompt", .letter = 'p', .value = "TEXT", .help = "text to continue; - reads it from stdin"},
    {.name = "tokens", .value = "N", .help = "how many"},
    {.name = "temperature", .value = "T", .help = "of sampling"},
    {.name = "greedy", .help = "always the most likely token"},
    {0},
};
static const pq_command command = {
    .verb = "generate",
    .synopsis = "MODEL [key=value ...]",
    .summary = "continue a text",
    .details = "Reads a model and continues a text, word after word after word after word after word after "
               "word, on and on.\n"
               "EXAMPLES\n"
               "potqat generate runs/x\n",
    .flags = flags,
    .writes = true,
    .overrides = true,
    .least = 1,
    .most = 2,
};
static const pq_command plain = {
    .verb = "inspect", .synopsis = "FILE", .summary = "", .details = "", .least = 1, .most = 1};

static size_t count_of(const char *const *words) {
    size_t count = 0;
    while (words[count]) count++;
    return count;
}

#define WORDS(...)                                                                                           \
    (const char *const[]) {                                                                                  \
        __VA_ARGS__, NULL                                                                                    \
    }

static pq_cli *parse(const char *const *words) {
    pq_cli *cli;
    pq_error err = {0};
    pq_status status = pq_cli_parse(&command, count_of(words), words, &cli, &err);
    ck_assert_msg(status == PQ_OK, "%s", err.message);
    return cli;
}

START_TEST(options_stand_anywhere) {
    size_t count;
    pq_cli *cli = parse(WORDS("--tokens", "5", "a.h5", "train.lr=1e-3", "-o", "x", "--temperature=0.5",
                              "-phello", "--greedy", "--tokens", "-7", "b", "quant.params=[a=b]"));
    const char *const *overrides = pq_cli_overrides(cli, &count);
    ck_assert_uint_eq(pq_cli_count(cli), 2);
    ck_assert_str_eq(pq_cli_at(cli, 0), "a.h5");
    ck_assert_str_eq(pq_cli_at(cli, 1), "b");
    ck_assert_ptr_null(pq_cli_at(cli, 2));
    ck_assert_uint_eq(count, 2);
    ck_assert_str_eq(overrides[1], "quant.params=[a=b]");
    ck_assert_str_eq(pq_cli_text(cli, "out"), "x");
    ck_assert_str_eq(pq_cli_text(cli, "prompt"), "hello");
    ck_assert_str_eq(pq_cli_text(cli, "tokens"), "-7"); /* the last one wins */
    ck_assert(pq_cli_has(cli, "greedy") && !pq_cli_has(cli, "overwrite") && !pq_cli_json(cli) &&
              !pq_cli_quiet(cli));
    ck_assert_ptr_null(pq_cli_text(cli, "threads"));
    pq_cli_destroy(cli);
    cli = parse(WORDS("--json", "--quiet", "-p", "-", "--", "--greedy",
                      "a.b=c")); /* all words after "--" stand for themselves */
    ck_assert_str_eq(pq_cli_text(cli, "prompt"), "-");
    ck_assert_str_eq(pq_cli_at(cli, 0), "--greedy");
    ck_assert_str_eq(pq_cli_at(cli, 1), "a.b=c");
    ck_assert(pq_cli_json(cli) && pq_cli_quiet(cli) && !pq_cli_has(cli, "greedy"));
    pq_cli_destroy(cli);
    cli = parse(WORDS("./a=b.yaml", "-")); /* a path, and stdin */
    ck_assert_str_eq(pq_cli_at(cli, 0), "./a=b.yaml");
    pq_cli_destroy(cli);
    cli = parse(WORDS("--help")); /* nothing else is asked for then */
    ck_assert(pq_cli_has(cli, "help"));
    pq_cli_destroy(cli);
}
END_TEST

START_TEST(numbers_are_checked) {
    static const struct {
        const char *text;
        bool whole, real; /* as a whole number of 0 to 100, as a number of -1 to 100 */
    } cases[] = {{"0", true, true},     {"100", true, true},  {"101", false, false},
                 {"-1", false, true},   {"1.5", false, true}, {"", false, false},
                 {"x", false, false},   {"5x", false, false}, {"nan", false, false},
                 {"inf", false, false}, {"1e1", false, true}, {"99999999999999999999", false, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        long long whole;
        double real;
        pq_error err = {0};
        pq_cli *cli = parse(WORDS("m", "--tokens", cases[i].text));
        pq_status status = pq_cli_int(cli, "tokens", 7, 0, 100, &whole, &err);
        ck_assert_msg(status == (cases[i].whole ? PQ_OK : PQ_ERR_USAGE), "%s", cases[i].text);
        if (!cases[i].whole)
            ck_assert(strncmp(err.message, "option --tokens: expected a whole number from 0 to 100", 54) ==
                      0);
        status = pq_cli_real(cli, "tokens", 7, -1, 100, &real, &err);
        ck_assert_msg(status == (cases[i].real ? PQ_OK : PQ_ERR_USAGE), "%s", cases[i].text);
        ck_assert_int_eq(pq_cli_int(cli, "temperature", 7, 0, 100, &whole, &err), PQ_OK);
        ck_assert_int_eq(whole, 7);
        ck_assert_int_eq(pq_cli_real(cli, "temperature", 0.25, 0, 100, &real, &err), PQ_OK);
        ck_assert_double_eq(real, 0.25);
        pq_cli_destroy(cli);
    }
}
END_TEST

static void refuse(const pq_command *of, const char *const *words, const char *sentence) {
    pq_cli *cli;
    pq_error err = {0};
    ck_assert_int_eq(pq_cli_parse(of, count_of(words), words, &cli, &err), PQ_ERR_USAGE);
    ck_assert_ptr_null(cli);
    ck_assert_str_eq(err.message, sentence);
}

START_TEST(mistakes_are_named) {
    refuse(&command, WORDS("m", "--tokns", "5"),
           "potqat generate has no option --tokns; did you mean --tokens?");
    refuse(&command, WORDS("m", "--overwrit"),
           "potqat generate has no option --overwrit; did you mean --overwrite?");
    refuse(&command, WORDS("m", "--zzzzzz=3"),
           "potqat generate has no option --zzzzzz=3; potqat generate --help lists them");
    refuse(&command, WORDS("m", "-x"), "potqat generate has no option -x; potqat generate --help lists them");
    refuse(&command, WORDS("m", "--tokens"), "option --tokens of potqat generate needs a value: --tokens N");
    refuse(&command, WORDS("m", "--greedy=yes"),
           "option --greedy of potqat generate takes no value, found --greedy=yes");
    refuse(&command, WORDS("--greedy"),
           "potqat generate needs 1 argument, found 0; usage: potqat generate MODEL [key=value ...]");
    refuse(&command, WORDS("a", "b", "c"),
           "unexpected argument c; usage: potqat generate MODEL [key=value ...]");
    refuse(&plain, WORDS("a", "train.lr=3"), "potqat inspect takes no key=value words, found train.lr=3");
    refuse(&plain, WORDS("a", "--out", "x"),
           "potqat inspect has no option --out; potqat inspect --help lists them");
}
END_TEST

START_TEST(help_is_laid_out) {
    char *text;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    pq_cli_print_help(&command, out);
    fclose(out);
    static const char *const parts[] = {
        "potqat generate: continue a text\n\nUSAGE\n    potqat generate MODEL [key=value ...] [options]\n",
        "\nDESCRIPTION\n    Reads a model and",
        "\nEXAMPLES\n    potqat generate runs/x\n",
        "\nOPTIONS\n    -p, --prompt TEXT       text to continue; - reads it from stdin\n",
        "\n    -o, --out PATH ",
        "\n    --threads N ",
        "\n    key=value  ",
        "\nEXIT STATUS\n"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        ck_assert_msg(strstr(text, parts[i]) != NULL, "missing: %s\nin: %s", parts[i], text);
    for (const char *line = text; *line; line += strcspn(line, "\n") + 1)
        ck_assert_uint_le(strcspn(line, "\n"), 100);
    free(text);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("command line");
    TCase *tests = tcase_create("all");
    tcase_add_test(tests, options_stand_anywhere);
    tcase_add_test(tests, numbers_are_checked);
    tcase_add_test(tests, mistakes_are_named);
    tcase_add_test(tests, help_is_laid_out);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
