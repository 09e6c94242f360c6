/* potqat data train-tokenizer: a byte-level BPE vocabulary from one's own text. */
#include <jansson.h>
#include <potqat/tokenizer.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "cli/cli.h"
#include "data/fetch.h"

/* A text file, or a text that has a name. */
static pq_status map_text(const char *source, pq_file_view *out, pq_error *err) {
    const pq_source *named = pq_source_find(source);
    char *path = NULL;
    if (!named) return pq_file_map(source, out, err);
    PQ_TRY(pq_source_locate(named, &path, err));
    if (!path) PQ_TRY(pq_source_download(named, &path, err));
    pq_status status = pq_file_map(path, out, err);
    free(path);
    return status;
}

static pq_status write_tokenizer(const pq_tokenizer *tokenizer, const char *path, bool overwrite,
                                 pq_error *err) {
    char *text;
    PQ_TRY(pq_tokenizer_to_file(tokenizer, "tokenizer.json", &text, err));
    pq_status status = pq_file_save(path, overwrite, text, strlen(text), err);
    free(text);
    return status;
}

static pq_status print_result(const pq_cli *cli, const char *path, const pq_tokenizer *tokenizer,
                              size_t bytes, size_t tokens, pq_error *err) {
    const size_t vocab = pq_tokenizer_vocab(tokenizer);
    if (!pq_cli_json(cli)) {
        printf("%s: %zu ids; the text's %zu bytes are %zu tokens (%.2f bytes a token)\n", path, vocab, bytes,
               tokens, (double)bytes / (double)tokens);
        return PQ_OK;
    }
    json_t *object = json_pack("{s:s, s:I, s:I, s:I}", "path", path, "vocab", (json_int_t)vocab, "bytes",
                               (json_int_t)bytes, "tokens", (json_int_t)tokens);
    char *line = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    if (!line) return PQ_FAIL(err, PQ_ERR_MEMORY, "the result could not be allocated");
    printf("%s\n", line);
    free(line);
    return PQ_OK;
}

static pq_status learn(const pq_cli *cli, const pq_file_view *view, const char *out, size_t vocab,
                       pq_error *err) {
    pq_tokenizer *tokenizer;
    uint16_t *tokens = NULL;
    size_t count;
    PQ_TRY(pq_tokenizer_learn(view->data, view->size, vocab, &tokenizer, err));
    const size_t found = pq_tokenizer_vocab(tokenizer);
    if (found < vocab)
        pq_log(PQ_LOG_WARNING,
               "the text gives %zu ids instead of %zu: no pair of tokens occurs twice any more", found,
               vocab);
    pq_status status = pq_tokenizer_encode_documents(tokenizer, view->data, view->size, &tokens, &count, err);
    if (status == PQ_OK) status = write_tokenizer(tokenizer, out, pq_cli_has(cli, "overwrite"), err);
    if (status == PQ_OK) status = print_result(cli, out, tokenizer, view->size, count, err);
    free(tokens);
    pq_tokenizer_destroy(tokenizer);
    return status;
}

static pq_status run(const pq_cli *cli, pq_error *err) {
    const char *source = pq_cli_at(cli, 0), *out = pq_cli_text(cli, "out");
    pq_file_view view;
    long long vocab;
    if (!out)
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "potqat data train-tokenizer needs -o FILE, the tokenizer.json to make");
    PQ_TRY(pq_cli_int(cli, "vocab", 0, 257, 65536, &vocab, err));
    if (!pq_cli_has(cli, "vocab"))
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "potqat data train-tokenizer needs --vocab N, how many ids to make");
    if (!pq_cli_has(cli, "overwrite") && pq_file_exists(out))
        return PQ_FAIL(err, PQ_ERR_USAGE, "%s exists already; --overwrite replaces it", out);
    PQ_TRY(map_text(source, &view, err));
    pq_status status =
        view.size ? learn(cli, &view, out, (size_t)vocab, err)
                  : PQ_FAIL(err, PQ_ERR_USAGE, "%s is empty; a text to learn from has characters", source);
    pq_file_view_close(&view);
    return status;
}

static const char details[] =
    "Learns a byte-level BPE, the kind of tokenizer that GPT-2 has, from a text, and writes it as a "
    "tokenizer.json, which data.tokenizer= and import --tokenizer take, and Hugging Face's programs read. "
    "SRC is "
    "a text file or the name tinyshakespeare; any bytes are text.\n"
    "\n"
    "The text is split into words as GPT-2 does it; <|endoftext|> in it ends a document. Ids 0 to 255 are "
    "the "
    "bytes in GPT-2's order. Each further id joins the pair of ids that follow one another most often at "
    "that "
    "point; of equally frequent pairs the one with the lower left id, then the lower right id goes first, so "
    "that the same text gives the same file. No token is longer than 256 bytes. The last id is "
    "<|endoftext|>. "
    "There are fewer ids than asked for, and a warning, when no pair occurs twice any more.\n"
    "\n"
    "EXAMPLES\n"
    "    potqat data train-tokenizer stories.txt -o stories.json --vocab 4096\n"
    "    potqat train configs/baby.yaml data.path=stories.txt data.tokenizer=stories.json";

static const pq_flag flags[] = {
    {.name = "vocab", .value = "N", .help = "how many ids to make, 257 to 65536"},
    {0},
};

const pq_command pq_cmd_data_train_tokenizer = {
    .verb = "data train-tokenizer",
    .synopsis = "SRC -o FILE --vocab N",
    .summary = "learn a byte-level BPE vocabulary from a text",
    .details = details,
    .flags = flags,
    .writes = true,
    .least = 1,
    .most = 1,
    .run = run,
};
