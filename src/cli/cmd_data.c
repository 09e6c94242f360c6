/* potqat data fetch and potqat data prepare: texts onto this machine, and texts into token shards. */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "cli/cli.h"
#include "config/config.h"
#include "data/corpus.h"
#include "data/fetch.h"
#include "data/prepare.h"
#include "data/shards.h"

/* Print `object` (taken) as one line of JSON. */
static pq_status print_json(json_t *object, pq_error *err) {
    char *line = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    if (!line) return PQ_FAIL(err, PQ_ERR_MEMORY, "the result could not be allocated");
    printf("%s\n", line);
    free(line);
    return PQ_OK;
}

static pq_status fetch_builtin(const char *out, bool overwrite, pq_error *err) {
    pq_corpus corpus;
    char *text;
    if (!out)
        return PQ_FAIL(
            err, PQ_ERR_USAGE,
            "builtin needs no fetching: use data.path=builtin, or write it to a file with -o FILE");
    pq_corpus_init(&corpus);
    PQ_TRY(pq_corpus_generate(&corpus, PQ_CORPUS_SEED, PQ_CORPUS_CHARACTERS, &text, err));
    pq_status status = pq_file_put(out, overwrite, text, PQ_CORPUS_CHARACTERS, err);
    free(text);
    return status;
}

static pq_status fetch_source(const pq_source *source, const char *out, bool overwrite, char **path,
                              pq_error *err) {
    pq_file_view view;
    PQ_TRY(pq_source_locate(source, path, err));
    if (!*path) PQ_TRY(pq_source_download(source, path, err));
    if (!out) return PQ_OK;
    PQ_TRY(pq_file_read(*path, &view, err));
    pq_status status = pq_file_put(out, overwrite, view.data, view.size, err);
    pq_file_view_close(&view);
    return status;
}

static pq_status run_fetch(const pq_cli *cli, pq_error *err) {
    const char *name = pq_cli_at(cli, 0), *out = pq_cli_text(cli, "out");
    bool overwrite = pq_cli_has(cli, "overwrite"), builtin = strcmp(name, "builtin") == 0;
    const pq_source *source = pq_source_find(name);
    char *path = NULL;
    if (!source && !builtin)
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "there is no text named %.60s; there are tinyshakespeare and builtin", name);
    pq_status status =
        builtin ? fetch_builtin(out, overwrite, err) : fetch_source(source, out, overwrite, &path, err);
    if (status == PQ_OK) {
        const char *at = out ? out : path;
        if (pq_cli_json(cli))
            status = print_json(json_pack("{s:s, s:s}", "name", name, "path", at), err);
        else
            printf("%s\n", at);
    }
    free(path);
    return status;
}

static const char fetch_details[] =
    "Prints the path of a text that has a name, after downloading it when it is not on this machine yet. It "
    "is "
    "looked for in the folder POTQAT_DATA, then in the cache (POTQAT_CACHE, else $XDG_CACHE_HOME/potqat, "
    "else "
    "~/.cache/potqat); a download gets its place in the cache once its SHA-256 was found right. A file of "
    "that "
    "name with another SHA-256 is refused. -o FILE also copies the text there and prints that path.\n"
    "\n"
    "NAMES\n"
    "tinyshakespeare: 1,115,394 characters of plays, 65 different ones; the download needs curl.\n"
    "builtin: 1,000,000 characters from a generator inside the program, whose entropy is known exactly; "
    "never "
    "downloaded, written with -o FILE.\n"
    "\n"
    "EXAMPLES\n"
    "potqat data fetch tinyshakespeare\n"
    "potqat data fetch builtin -o builtin.txt";

static const pq_flag no_flags[] = {{.name = NULL}};

const pq_command pq_cmd_data_fetch = {
    .verb = "data fetch",
    .synopsis = "NAME [-o FILE]",
    .summary = "get a text that has a name; print its path",
    .details = fetch_details,
    .flags = no_flags,
    .writes = true,
    .least = 1,
    .most = 1,
    .run = run_fetch,
};

static pq_status print_prepared(const pq_cli *cli, const char *folder, const pq_prepared *made,
                                pq_error *err) {
    const size_t *n = made->tokens;
    if (!pq_cli_json(cli)) {
        printf("%s: %zu train, %zu val, %zu test tokens (%s, %zu ids) of %s\n", folder, n[0], n[1], n[2],
               pq_tokenizer_kind(made->tokenizer), pq_tokenizer_vocab(made->tokenizer), made->source);
        return PQ_OK;
    }
    char hash[17];
    snprintf(hash, sizeof hash, "%016" PRIx64, made->hash);
    return print_json(json_pack("{s:s, s:s, s:I, s:I, s:I, s:s, s:I, s:s}", "path", folder, "source",
                                made->source, "train", (json_int_t)n[0], "val", (json_int_t)n[1], "test",
                                (json_int_t)n[2], "tokenizer", pq_tokenizer_kind(made->tokenizer), "vocab",
                                (json_int_t)pq_tokenizer_vocab(made->tokenizer), "hash", hash),
                      err);
}

static volatile sig_atomic_t signalled;

/* The first signal asks for a stop that can be resumed; the second one leaves at once. */
static void on_signal(int number) {
    signalled = 1;
    signal(number, SIG_DFL);
}

/* The line of progress on stderr: redrawn on a terminal, elsewhere a new one each half minute. */
typedef struct progress {
    bool quiet, terminal, drawn;
    const char *doing;
    double began, shown;
    uint64_t from; /* bytes that were done when it began */
} progress;

static bool show(void *context, const char *doing, uint64_t done, uint64_t total) {
    progress *p = context;
    double now = pq_seconds();
    if (signalled || p->quiet) return !signalled;
    if (p->doing != doing) {
        p->doing = doing;
        p->began = p->shown = now;
        p->from = done;
    }
    if (now - p->shown < (p->terminal ? 0.2 : 30)) return true;
    p->shown = now;
    p->drawn = true;
    double rate = (double)(done - p->from) / (now - p->began);
    fprintf(stderr, "%s%s: %.1f of %.1f MB, %.1f MB/s, %.0f s left%s", p->terminal ? "\r" : "", doing,
            (double)done / 1e6, (double)total / 1e6, rate / 1e6, rate > 0 ? (double)(total - done) / rate : 0,
            p->terminal ? "\033[K" : "\n");
    return true;
}

static pq_status prepare(const pq_cli *cli, const pq_config *config, size_t shard_tokens, pq_error *err) {
    pq_prepared made;
    progress shown = {.quiet = pq_cli_quiet(cli), .terminal = isatty(STDERR_FILENO)};
    pq_prepare_options options = {.data = {.path = pq_cli_at(cli, 0),
                                           .field = config->data.field,
                                           .tokenizer = config->data.tokenizer,
                                           .by_document = strcmp(config->data.split_by, "document") == 0},
                                  .folder = pq_cli_text(cli, "out"),
                                  .overwrite = pq_cli_has(cli, "overwrite"),
                                  .resume = pq_cli_has(cli, "resume"),
                                  .shard_tokens = shard_tokens,
                                  .go_on = show,
                                  .context = &shown};
    memcpy(options.data.split, config->data.split.items, sizeof options.data.split);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    pq_status status = pq_prepare(&options, &made, err);
    if (shown.terminal && shown.drawn) fprintf(stderr, "\n");
    if (status == PQ_OK) status = print_prepared(cli, options.folder, &made, err);
    pq_prepared_deinit(&made);
    return status;
}

static pq_status run_prepare(const pq_cli *cli, pq_error *err) {
    pq_config *config = NULL;
    size_t count;
    long long shard_tokens;
    const char *const *overrides = pq_cli_overrides(cli, &count);
    if (!pq_cli_text(cli, "out"))
        return PQ_FAIL(err, PQ_ERR_USAGE, "potqat data prepare needs -o DIR, the folder to make");
    PQ_TRY(pq_cli_int(cli, "shard-tokens", (long long)PQ_SHARD_TOKENS, 1, 1LL << 40, &shard_tokens, err));
    for (size_t i = 0; i < count; i++)
        if (strncmp(overrides[i], "data.", 5) != 0 || strncmp(overrides[i], "data.path=", 10) == 0)
            return PQ_FAIL(err, PQ_ERR_USAGE,
                           "potqat data prepare takes data.tokenizer=, data.field=, data.split= and "
                           "data.split_by= (SRC is the path); found %.100s",
                           overrides[i]);
    PQ_TRY(pq_config_load(NULL, overrides, count, &config, err));
    pq_status status = prepare(cli, config, (size_t)shard_tokens, err);
    pq_config_destroy(config);
    return status;
}

static const char prepare_details[] =
    "Turns texts into a folder of token shards, which every command then takes as data.path: the same "
    "tokens, "
    "splits and windows as from the text itself, but memory-mapped. It takes less than 200 MiB of memory, "
    "however long the texts are.\n"
    "\n"
    "SRC is a text file, a .jsonl file (one object a line, the text in the field data.field), either of them "
    "compressed by zstd (.txt.zst, .jsonl.zst), a folder of such files, which are taken in the order of "
    "their "
    "names, or a name (tinyshakespeare, builtin). Tokens are taken as they are from a folder of shards, a "
    ".bin file of nanoGPT or llm.c, and a folder with train.bin and val.bin.\n"
    "\n"
    "A document ends with a file, with a line of JSONL, and in a text with a line <|endoftext|>. Where the "
    "tokenizer has an id for that, it is put there in place of such a line.\n"
    "\n"
    "The folder appears whole or not at all. Until then the work is in DIR.part: stopped or killed at any "
    "point, the same command with --resume goes on and makes the same files. A folder that exists is "
    "refused; "
    "--overwrite replaces the files of an older preparation in it and leaves all others alone.\n"
    "\n"
    "KEYS\n"
    "data.tokenizer=char|byte|PATH: the text's own characters (the default), 256 ids for any bytes, or the "
    "byte-level BPE of a tokenizer.json or of a folder with vocab.json and merges.txt\n"
    "data.field=text: the field of JSONL that holds the text\n"
    "data.split=[0.8,0.1,0.1]: shares of train, val and test, in this order along the text\n"
    "data.split_by=token|document: cut at a token, or give whole documents to the splits, spread evenly\n"
    "\n"
    "FILES\n"
    "DIR/shards.json, DIR/tokenizer.json, DIR/{train,val,test}-NNNNN.shard; docs/formats.md specifies them\n"
    "\n"
    "EXAMPLES\n"
    "potqat data prepare novel.txt -o novel-shards\n"
    "potqat data prepare novel.txt -o novel-bytes data.tokenizer=byte data.split=[0.9,0.1,0]\n"
    "potqat data prepare openwebtext/ -o owt --resume data.tokenizer=byte data.split_by=document";

static const pq_flag prepare_flags[] = {
    {.name = "shard-tokens", .value = "N", .help = "tokens a shard at most (default 67108864)"},
    {.name = "resume", .help = "go on with what was cut short; begin where nothing was"},
    {.name = NULL},
};

const pq_command pq_cmd_data_prepare = {
    .verb = "data prepare",
    .synopsis = "SRC -o DIR [--resume] [data.*=...]",
    .summary = "turn texts into token shards",
    .details = prepare_details,
    .flags = prepare_flags,
    .writes = true,
    .overrides = true,
    .least = 1,
    .most = 1,
    .run = run_prepare,
};
