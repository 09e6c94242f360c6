/* Owns the table of commands, the process's surroundings (streams, messages, threads) and the exit status. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/threads.h"
#include "cli/cli.h"
#include "config/nearest.h"

/* One row a command, in the order of potqat --help. */
/* clang-format off */
static const pq_command *const commands[] = {
    &pq_cmd_data_fetch,
    &pq_cmd_data_prepare,
    &pq_cmd_data_train_tokenizer,
    &pq_cmd_import,
    &pq_cmd_train,
    &pq_cmd_sweep,
    &pq_cmd_quantize,
    &pq_cmd_eval,
    &pq_cmd_generate,
    &pq_cmd_export,
    &pq_cmd_inspect,
    &pq_cmd_config,
    &pq_cmd_report,
    &pq_cmd_bench_train,
    &pq_cmd_bench_infer,
    &pq_cmd_bench_kernels,
    NULL,
};
/* clang-format on */

static void print_usage(FILE *out) {
    fprintf(out,
            "potqat: quantization-aware training of GPT-2 models with power-of-two weights\n\n"
            "USAGE\n    potqat COMMAND [arguments] [options]\n    potqat COMMAND --help\n    potqat --help | "
            "--version\n\nCOMMANDS\n");
    for (size_t i = 0; commands[i]; i++)
        fprintf(out, "    %-22s%s\n", commands[i]->verb, commands[i]->summary);
    fprintf(
        out,
        "\nOptions of every command: --threads N, --json, --quiet, --help.\n"
        "Results go to stdout, progress and messages to stderr.\n\n"
        "EXIT STATUS\n    0 done; 1 I/O or a damaged file; 2 usage or config; 3 stopped, can be resumed; 4 "
        "diverged\n\n"
        "ENVIRONMENT\n"
        "    POTQAT_DATA             folder of texts that are not to be downloaded\n"
        "    POTQAT_CACHE            where downloads are kept (default: the user's cache folder)\n"
        "    POTQAT_CPU              kernels to use at most: ref, avx2, avx-vnni, avx512,\n"
        "                            avx512-vnni, avx512-bf16, amx\n");
}

/* How many of words[count] the verb `name` takes up when they begin with it: 0, 1, or 2 for a nested one. */
static size_t words_of_verb(const char *name, size_t count, const char *const *words) {
    const char *space = strchr(name, ' ');
    if (count < 1) return 0;
    if (!space) return strcmp(name, words[0]) == 0;
    size_t length = (size_t)(space - name);
    return count > 1 && strlen(words[0]) == length && memcmp(words[0], name, length) == 0 &&
                   strcmp(space + 1, words[1]) == 0
               ? 2
               : 0;
}

static bool is_help(const char *word) {
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

/* The commands nested under `group`; false where there are none. */
static bool print_group(const char *group, FILE *out) {
    size_t length = strlen(group), count = 0;
    for (size_t i = 0; commands[i]; i++) {
        const char *verb = commands[i]->verb;
        if (strncmp(verb, group, length) != 0 || verb[length] != ' ') continue;
        if (count++ == 0)
            fprintf(out, "potqat %s: needs one of these; each has its own --help\n\nCOMMANDS\n", group);
        fprintf(out, "    %-22s%s\n", verb, commands[i]->summary);
    }
    return count > 0;
}

static pq_status unknown_command(size_t count, const char *const *words, pq_error *err) {
    char typed[80], within[256] = "";
    pq_nearest nearest = {.wanted = typed};
    size_t first = strlen(words[0]), used = 0;
    snprintf(typed, sizeof typed, "%s", words[0]);
    for (size_t i = 0; commands[i]; i++) {
        const char *verb = commands[i]->verb;
        if (strlen(verb) > first && verb[first] == ' ' && memcmp(verb, words[0], first) == 0)
            used += (size_t)snprintf(within + used, sizeof within - used, "%s%s", used ? ", " : "",
                                     verb + first + 1);
    }
    if (used) /* the first word of nested commands */
        return PQ_FAIL(err, PQ_ERR_USAGE, "potqat %s needs one of: %s%s%.60s", words[0], within,
                       count > 1 ? "; found " : "", count > 1 ? words[1] : "");
    for (size_t i = 0; commands[i]; i++) pq_nearest_offer(&nearest, commands[i]->verb);
    if (nearest.best)
        return PQ_FAIL(err, PQ_ERR_USAGE, "unknown command %.60s; did you mean potqat %s?", words[0],
                       nearest.best);
    return PQ_FAIL(err, PQ_ERR_USAGE, "unknown command %.60s; potqat --help lists them", words[0]);
}

static void to_stderr(void *user, pq_log_level level, const char *line) {
    const bool *quiet = user;
    if (level == PQ_LOG_WARNING)
        fprintf(stderr, "potqat: warning: %s\n", line);
    else if (!*quiet)
        fprintf(stderr, "%s\n", line);
}

static pq_status run(size_t count, const char *const *words, pq_error *err) {
    static bool quiet; /* the receiver of messages outlives this call */
    const pq_command *command = NULL;
    pq_cli *cli = NULL;
    long long threads;
    size_t taken = 0;
    if (count == 0) {
        print_usage(stderr);
        return PQ_FAIL(err, PQ_ERR_USAGE, "no command given");
    }
    if (is_help(words[0])) {
        print_usage(stdout);
        return PQ_OK;
    }
    if (strcmp(words[0], "--version") == 0) {
        printf("potqat %s\n", PQ_VERSION);
        return PQ_OK;
    }
    for (size_t i = 0; commands[i] && !taken; i++) {
        taken = words_of_verb(commands[i]->verb, count, words);
        if (taken) command = commands[i];
    }
    if (!command && count > 1 && is_help(words[1]) && print_group(words[0], stdout)) return PQ_OK;
    if (!command) return unknown_command(count, words, err);
    PQ_TRY(pq_cli_parse(command, count - taken, words + taken, &cli, err));
    pq_status status = PQ_OK;
    if (pq_cli_has(cli, "help")) {
        pq_cli_print_help(command, stdout);
        goto done;
    }
    quiet = pq_cli_quiet(cli);
    pq_log_set(to_stderr, &quiet);
    PQ_TRY_TO(status, done, pq_cli_int(cli, "threads", 0, 0, 1024, &threads, err));
    if (pq_cli_has(cli, "threads")) pq_threads_set((int)threads);
    status = command->run(cli, err);
done:
    pq_cli_destroy(cli);
    return status;
}

/* OpenMP's threads wait for each other by spinning, by default for milliseconds. On a machine that is busy
 * otherwise that holds the core the awaited thread needs: a training iteration became 8 times slower. The
 * runtime reads how long to spin when it is loaded, before main, so say it and start over; what the user has
 * set stays. */
static void spin_briefly(char **argv) {
    static const char *const settings[][2] = {{"GOMP_SPINCOUNT", "2000"}, {"KMP_BLOCKTIME", "0"}};
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT") || getenv("KMP_BLOCKTIME")) return;
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        if (setenv(settings[i][0], settings[i][1], 1) != 0) return;
    execv("/proc/self/exe", argv); /* where it cannot be, we go on as we are */
}

int main(int argc, char **argv) {
    pq_error err = {0};
    spin_briefly(argv);
    /* A closed standard stream must not become the number of a file we write; the wrong direction makes every
     * use of it an error. */
    for (int stream = 0; stream < 3; stream++)
        if (fcntl(stream, F_GETFD) == -1 && open("/dev/null", stream == 0 ? O_WRONLY : O_RDONLY) != stream)
            return 1;
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is an error of writing, reported below */
    size_t count = argc > 1 ? (size_t)argc - 1 : 0;
    pq_status status = run(count, (const char *const *)argv + (argc > 0), &err);
    bool broken = ferror(stdout) != 0;
    errno = 0;
    if ((fclose(stdout) != 0 || broken) && status == PQ_OK)
        status = PQ_FAIL(&err, PQ_ERR_IO, "standard output could not be written: %s",
                         strerror(errno ? errno : EIO));
    if (status != PQ_OK) fprintf(stderr, "potqat: %s\n", err.message);
    return pq_exit_code(status);
}
