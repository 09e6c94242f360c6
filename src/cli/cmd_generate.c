/* potqat generate: continue a text. */
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/memory.h"
#include "cli/cli.h"
#include "cli/load.h"
#include "infer/generate.h"
#include "potqat/tokenizer.h"
#include "train/evaluate.h"
#include "train/pairs.h"

/* Where tokens go: written out at once, and kept for --json. */
typedef struct output {
    const pq_tokenizer *tokenizer;
    bool stream;
    uint16_t *tokens;
    size_t count;
} output;

static pq_status write_text(const char *text, size_t bytes, pq_error *err) {
    if (fwrite(text, 1, bytes, stdout) != bytes || fflush(stdout) != 0)
        return PQ_FAIL(err, PQ_ERR_IO, "standard output could not be written: %s", strerror(errno));
    return PQ_OK;
}

static pq_status take_token(void *user, uint16_t token, pq_error *err) {
    output *out = user;
    char *text;
    size_t bytes;
    out->tokens[out->count++] = token;
    if (!out->stream) return PQ_OK;
    PQ_TRY(pq_tokenizer_decode(out->tokenizer, &token, 1, &text, &bytes, err));
    pq_status status = write_text(text, bytes, err);
    free(text);
    return status;
}

/* All of stdin; heap. */
static pq_status read_stdin(char **text, size_t *bytes, pq_error *err) {
    size_t room = 0;
    *text = NULL;
    *bytes = 0;
    do {
        room = room ? 2 * room : 4096;
        char *grown = realloc(*text, room);
        if (!grown) {
            free(*text);
            return PQ_FAIL(err, PQ_ERR_MEMORY, "a prompt of %zu bytes does not fit in memory", *bytes);
        }
        *text = grown;
        *bytes += fread(*text + *bytes, 1, room - *bytes, stdin);
    } while (*bytes == room);
    if (!ferror(stdin)) return PQ_OK;
    free(*text);
    return PQ_FAIL(err, PQ_ERR_IO, "the prompt could not be read from standard input");
}

/* The prompt's text (heap) and tokens; without --prompt a newline. */
static pq_status read_prompt(const pq_cli *cli, const pq_tokenizer *tokenizer, char **text, size_t *bytes,
                             uint16_t **tokens, size_t *count, pq_error *err) {
    const char *words = pq_cli_text(cli, "prompt");
    if (words && strcmp(words, "-") == 0) {
        PQ_TRY(read_stdin(text, bytes, err));
    } else {
        PQ_TRY(pq_copy_text(words ? words : "\n", text, err));
        *bytes = strlen(*text);
    }
    pq_status status = pq_tokenizer_encode(tokenizer, *text, *bytes, tokens, count, err);
    if (status != PQ_OK && !words)
        status = PQ_FAIL(err, PQ_ERR_USAGE,
                         "this model's tokenizer has no newline to start from: give --prompt TEXT");
    else if (status != PQ_OK)
        pq_prefix(err, status, "--prompt");
    else if (*count == 0) {
        free(*tokens);
        status = PQ_FAIL(err, PQ_ERR_USAGE, "--prompt: the prompt is empty");
    }
    if (status != PQ_OK) free(*text);
    return status;
}

static pq_status read_sampling(const pq_cli *cli, pq_sampling *out, long long *tokens, pq_error *err) {
    long long top_k, seed;
    PQ_TRY(pq_cli_int(cli, "tokens", 500, 1, 100000000, tokens, err));
    PQ_TRY(pq_cli_real(cli, "temperature", 0.8, 0, 1e6, &out->temperature, err));
    PQ_TRY(pq_cli_int(cli, "top-k", 200, 0, 65536, &top_k, err));
    PQ_TRY(pq_cli_real(cli, "top-p", 1, 1e-9, 1, &out->top_p, err));
    PQ_TRY(pq_cli_int(cli, "seed", 1337, 0, LLONG_MAX, &seed, err));
    out->top_k = top_k;
    out->seed = (uint64_t)seed;
    if (pq_cli_has(cli, "greedy")) out->temperature = 0;
    return PQ_OK;
}

static pq_status print_json(const char *model, const char *prompt, size_t prompt_bytes, const output *out,
                            const pq_sampling *sampling, pq_error *err) {
    char *text, *line = NULL;
    size_t bytes;
    PQ_TRY(pq_tokenizer_decode(out->tokenizer, out->tokens, out->count, &text, &bytes, err));
    json_t *ids = json_array();
    for (size_t i = 0; i < out->count; i++) json_array_append_new(ids, json_integer(out->tokens[i]));
    json_t *json = json_pack("{s:s, s:o*, s:o*, s:o, s:f, s:I, s:f, s:I}", "model", model, "prompt",
                             json_stringn(prompt, prompt_bytes), "text", json_stringn(text, bytes), "tokens",
                             ids, "temperature", sampling->temperature, "top_k", (json_int_t)sampling->top_k,
                             "top_p", sampling->top_p, "seed", (json_int_t)sampling->seed);
    if (json) line = json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(9));
    json_decref(json);
    free(text);
    if (!line) return PQ_FAIL(err, PQ_ERR_MEMORY, "the result could not be allocated");
    printf("%s\n", line);
    free(line);
    return PQ_OK;
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static pq_status generate(const pq_cli *cli, const pq_packed *packed, const pq_tokenizer *tokenizer,
                          pq_error *err) {
    const int64_t context = packed->params.shape.context;
    pq_engine *engine = NULL;
    pq_sampling sampling;
    long long tokens;
    char *text = NULL;
    size_t bytes, count;
    uint16_t *prompt = NULL;
    output out = {.tokenizer = tokenizer, .stream = !pq_cli_json(cli)};
    pq_status status;
    pq_engine_options options;
    PQ_TRY(read_sampling(cli, &sampling, &tokens, err));
    PQ_TRY(pq_load_engine_options(cli, "fp32", &options, err));
    PQ_TRY(read_prompt(cli, tokenizer, &text, &bytes, &prompt, &count, err));
    PQ_TRY_TO(status, done, pq_calloc((size_t)tokens, sizeof *out.tokens, "tokens", &out.tokens, err));
    PQ_TRY_TO(status, done, pq_engine_create_with(packed, &options, &engine, err));
    if ((int64_t)count > context)
        pq_log(PQ_LOG_WARNING, "the prompt has %zu tokens, the context %lld: its end is read", count,
               (long long)context);
    if (out.stream && pq_cli_has(cli, "prompt")) PQ_TRY_TO(status, done, write_text(text, bytes, err));
    const double start = seconds();
    PQ_TRY_TO(status, done,
              pq_generate(engine, &sampling, prompt, count, (size_t)tokens, take_token, &out, err));
    const double taken = seconds() - start;
    status = out.stream ? write_text("\n", 1, err)
                        : print_json(pq_cli_at(cli, 0), text, bytes, &out, &sampling, err);
    pq_log(PQ_LOG_INFO, "%lld tokens in %.2f s, %.0f tokens/s", tokens, taken, (double)tokens / taken);
done:
    pq_engine_destroy(engine);
    free(out.tokens);
    free(prompt);
    free(text);
    return status;
}

/* ---- --pairs ---- */

static pq_status read_pairs(const pq_cli *cli, pq_pairs_options *out, pq_error *err) {
    long long prompts, prompt_tokens, tokens, draws;
    PQ_TRY(read_sampling(cli, &out->sampling, &tokens, err));
    PQ_TRY(pq_cli_int(cli, "tokens", 64, 1, 1000000, &tokens, err));
    PQ_TRY(pq_cli_int(cli, "prompts", 100, 1, 1000000, &prompts, err));
    PQ_TRY(pq_cli_int(cli, "prompt-tokens", 64, 1, 65536, &prompt_tokens, err));
    PQ_TRY(pq_cli_int(cli, "draws", 1, 1, 1000000, &draws, err));
    out->model = pq_cli_at(cli, 0);
    out->base = pq_cli_text(cli, "pairs");
    out->prompts = (size_t)prompts;
    out->prompt_tokens = (size_t)prompt_tokens;
    out->tokens = (size_t)tokens;
    out->draws = (size_t)draws;
    return PQ_OK;
}

/* The text that prompts come from, and its split, as the model's own config has them, or --data. */
static pq_status open_text(const pq_cli *cli, const pq_model *model, pq_pairs_options *options,
                           pq_dataset **out, pq_error *err) {
    pq_config *config;
    pq_evaluation_options evaluation;
    PQ_TRY(model->config ? pq_config_from_text(model->config, strlen(model->config), "the model's config",
                                               NULL, 0, &config, err)
                         : pq_config_load(NULL, NULL, 0, &config, err));
    pq_status status =
        pq_evaluation_options_make(config, (size_t)model->params.shape.context, &evaluation, err);
    if (status == PQ_OK) status = pq_load_dataset(model, config, pq_cli_text(cli, "data"), out, err);
    options->split = evaluation.split;
    pq_config_destroy(config);
    return status;
}

static pq_status check_tokenizers(const pq_packed *a, const pq_packed *b, const pq_pairs_options *o,
                                  pq_error *err) {
    const char *first = pq_packed_tokenizer(a), *second = pq_packed_tokenizer(b);
    if (!first || !second || strcmp(first, second) == 0) return PQ_OK;
    return PQ_FAIL(err, PQ_ERR_USAGE, "%s and %s have different tokenizers", o->base, o->model);
}

static pq_status run_pairs(const pq_cli *cli, pq_error *err) {
    pq_pairs_options options = {0};
    pq_model *model = NULL;
    pq_packed *packed = NULL, *base = NULL;
    pq_dataset *dataset = NULL;
    const char *folder = pq_cli_text(cli, "out");
    pq_status status;
    if (!folder) return PQ_FAIL(err, PQ_ERR_USAGE, "--pairs needs -o FOLDER for its files");
    if (pq_cli_has(cli, "prompt"))
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "--pairs takes its prompts from a text (--data), not from --prompt");
    PQ_TRY(read_pairs(cli, &options, err));
    PQ_TRY(pq_load_packed(options.base, &base, err));
    PQ_TRY_TO(status, done, pq_load_model(options.model, &model, err));
    PQ_TRY_TO(status, done, pq_packed_from_model(model, &packed, err));
    PQ_TRY_TO(status, done, check_tokenizers(base, packed, &options, err));
    PQ_TRY_TO(status, done, open_text(cli, model, &options, &dataset, err));
    const double start = seconds();
    status = pq_pairs_write(base, packed, dataset, &options, folder, pq_cli_has(cli, "overwrite"), err);
    if (status != PQ_OK) goto done;
    pq_log(PQ_LOG_INFO, "%zu prompts, %zu pairs in %.2f s", options.prompts, options.prompts * options.draws,
           seconds() - start);
    if (pq_cli_json(cli)) {
        json_t *line =
            json_pack("{s:s, s:I}", "folder", folder, "pairs", (json_int_t)(options.prompts * options.draws));
        json_dumpf(line, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
        putchar('\n');
        json_decref(line);
    } else {
        printf("%s: %zu pairs of continuations\n", folder, options.prompts * options.draws);
    }
done:
    pq_dataset_close(dataset);
    pq_packed_close(base);
    pq_packed_close(packed);
    pq_model_destroy(model);
    return status;
}

static pq_status refuse_without_pairs(const pq_cli *cli, pq_error *err) {
    static const char *const only[] = {"out", "overwrite", "data", "prompts", "prompt-tokens", "draws"};
    for (size_t i = 0; i < sizeof only / sizeof *only; i++)
        if (pq_cli_has(cli, only[i]))
            return PQ_FAIL(err, PQ_ERR_USAGE, "--%s is of use with --pairs alone", only[i]);
    return PQ_OK;
}

static pq_status run(const pq_cli *cli, pq_error *err) {
    if (pq_cli_has(cli, "pairs")) return run_pairs(cli, err);
    PQ_TRY(refuse_without_pairs(cli, err));
    const char *name = pq_cli_at(cli, 0);
    pq_packed *packed;
    pq_tokenizer *tokenizer = NULL;
    PQ_TRY(pq_load_packed(name, &packed, err));
    const char *json = pq_packed_tokenizer(packed);
    pq_status status = json
                           ? pq_tokenizer_from_json(json, strlen(json), &tokenizer, err)
                           : PQ_FAIL(err, PQ_ERR_USAGE,
                                     "%s carries no tokenizer; potqat import --tokenizer gives it one", name);
    if (status == PQ_OK && pq_tokenizer_vocab(tokenizer) != (size_t)packed->params.shape.vocab)
        status = PQ_FAIL(err, PQ_ERR_FORMAT, "%s has a vocabulary of %lld, its tokenizer one of %zu", name,
                         (long long)packed->params.shape.vocab, pq_tokenizer_vocab(tokenizer));
    if (status == PQ_OK) status = generate(cli, packed, tokenizer, err);
    pq_tokenizer_destroy(tokenizer);
    pq_packed_close(packed);
    return status;
}

static const char details[] =
    "Continues a text, token by token, and prints it as it is made: the prompt, then what follows. "
    "MODEL is a run folder (its best), RUN@last, RUN@N, a checkpoint .h5, a packed .safetensors or a "
    "Hugging Face folder; a "
    "checkpoint is packed in memory first, so that what speaks is always the quantized model.\n"
    "\n"
    "Without --prompt the text starts after a newline, which is not printed; --prompt - reads it "
    "from standard input. A prompt longer than the context is read from its end. When the context is "
    "full the window slides: the last context/2 tokens are read anew, and generation goes on from "
    "there.\n"
    "\n"
    "The same model, prompt, options and seed give the same text. --temperature 0 and --greedy take "
    "the most likely token each time (of equals the lowest id). --top-k keeps the K most likely "
    "tokens, --top-p then the fewest of those whose share of the probability reaches P.\n"
    "\n"
    "--act int8 is the fast way: inputs of quantized matrices become whole numbers, token by token, and the "
    "text is the same on every CPU; fp32 is what training evaluates.\n"
    "\n"
    "With --json one object is printed at the end: model, prompt, text, tokens (ids) and the "
    "sampling; prompt and text are left out where they are not UTF-8.\n"
    "\n"
    "--pairs BASE writes to the folder -o what BASE and MODEL say behind the same prompts, for scores that "
    "compare "
    "texts: prompts.txt, references.txt (how the text goes on), baseline.txt (BASE) and quantized.txt "
    "(MODEL), whose "
    "lines belong together (line breaks become blanks, as PyPI's bert-score reads them), the same as objects "
    "in "
    "pairs.jsonl, and settings.json. Prompts are spread evenly over the split that the model's config "
    "evaluates, or "
    "over --data's. Draw d of prompt p has seed S + p x draws + d with both models. The default lengths and "
    "--top-k are those of the papers, whose temperature is 0.5 or 0.8; experiments/bertscore has the "
    "scores.\n"
    "\n"
    "EXAMPLES\n"
    "    potqat generate runs/char-qat --prompt 'ROMEO:' --tokens 300\n"
    "    potqat generate char.safetensors --greedy\n"
    "    potqat generate char.safetensors --prompt - --temperature 1 --top-p 0.9 --seed 7 < start.txt\n"
    "    potqat generate q.h5 --pairs gpt2.h5 --data val.txt --temperature 0.5 --draws 10 -o pairs";

static const pq_flag flags[] = {
    {.name = "prompt",
     .value = "TEXT",
     .help = "the text to continue; -: standard input (default: a newline)"},
    {.name = "tokens", .value = "N", .help = "how many tokens to add (500; with --pairs 64)"},
    {.name = "temperature", .value = "T", .help = "above 1 bolder, below 1 safer, 0 greedy (0.8)"},
    {.name = "top-k", .value = "K", .help = "draw from the K most likely tokens; 0: from all (200)"},
    {.name = "top-p",
     .value = "P",
     .help = "draw from the most likely tokens that hold P of the probability (1)"},
    {.name = "seed", .value = "S", .help = "start of the random numbers (1337)"},
    {.name = "greedy", .help = "the most likely token each time, as --temperature 0"},
    {.name = "pairs",
     .value = "BASE",
     .help = "write continuations by this model and by MODEL to the folder -o"},
    {.name = "data",
     .value = "P",
     .help = "the text of the prompts, as data.path; default: what MODEL learned from"},
    {.name = "prompts", .value = "N", .help = "how many prompts (100)"},
    {.name = "prompt-tokens", .value = "N", .help = "tokens of each (64)"},
    {.name = "draws", .value = "N", .help = "continuations of each prompt by each model (1)"},
    PQ_ENGINE_FLAGS("fp32"),
    {0},
};

const pq_command pq_cmd_generate = {
    .verb = "generate",
    .synopsis = "MODEL [--prompt TEXT|-] [--tokens N] [--temperature T] [--top-k K] [--top-p P] [--seed S] "
                "[--greedy] [--act fp32|int8] [--pairs BASE -o FOLDER]",
    .summary = "continue a text",
    .details = details,
    .flags = flags,
    .writes = true,
    .least = 1,
    .most = 1,
    .run = run,
};
