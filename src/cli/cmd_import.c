/* potqat import: a model of another program becomes a checkpoint. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/load.h"
#include "store/model_read.h"

/* The tokenizer that --tokenizer names, else the one that came along; its ids are the rows of wte. */
static pq_status give_tokenizer(const char *spec, pq_model *model, pq_error *err) {
    pq_tokenizer *tokenizer;
    char *json = model->tokenizer;
    if (!spec && !json) return PQ_OK;
    pq_status status = spec ? pq_load_tokenizer(spec, &tokenizer, err)
                            : pq_tokenizer_from_json(json, strlen(json), &tokenizer, err);
    if (status != PQ_OK) return pq_prefix(err, status, spec ? "--tokenizer" : "the model's own tokenizer");
    free(json);
    model->tokenizer = pq_tokenizer_to_json(tokenizer);
    if (!model->tokenizer)
        status = PQ_FAIL(err, PQ_ERR_MEMORY, "the tokenizer's text could not be allocated");
    else if (pq_tokenizer_vocab(tokenizer) != (size_t)model->params.shape.vocab)
        status = PQ_FAIL(err, PQ_ERR_USAGE, "%s has %zu ids, the model a vocabulary of %lld",
                         spec ? spec : "its tokenizer", pq_tokenizer_vocab(tokenizer),
                         (long long)model->params.shape.vocab);
    pq_tokenizer_destroy(tokenizer);
    return status;
}

static pq_status print_result(const pq_cli *cli, const pq_model *model, const char *out, pq_error *err) {
    const pq_gpt2_shape *s = &model->params.shape;
    const char *gelu = s->gelu_tanh ? "tanh" : "erf";
    if (!pq_cli_json(cli)) {
        printf("%s: %lld layers, %lld heads, width %lld, context %lld, vocabulary %lld, %s, GELU %s\n"
               "  %zu parameters in fp32; %s\n",
               out, (long long)s->layers, (long long)s->heads, (long long)s->width, (long long)s->context,
               (long long)s->vocab, s->bias ? "biases" : "no biases", gelu, model->params.weights,
               model->tokenizer ? "with tokenizer" : "no tokenizer");
        return PQ_OK;
    }
    json_t *json = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:b, s:s, s:I, s:b}", "path", out, "layers",
                             (json_int_t)s->layers, "heads", (json_int_t)s->heads, "width",
                             (json_int_t)s->width, "context", (json_int_t)s->context, "vocab",
                             (json_int_t)s->vocab, "bias", s->bias, "gelu", gelu, "parameters",
                             (json_int_t)model->params.weights, "tokenizer", model->tokenizer != NULL);
    char *line = json ? json_dumps(json, JSON_COMPACT) : NULL;
    json_decref(json);
    if (!line) return PQ_FAIL(err, PQ_ERR_MEMORY, "the result could not be allocated");
    printf("%s\n", line);
    free(line);
    return PQ_OK;
}

static pq_status run(const pq_cli *cli, pq_error *err) {
    const char *source = pq_cli_at(cli, 0), *out = pq_cli_text(cli, "out");
    const bool overwrite = pq_cli_has(cli, "overwrite");
    pq_foreign_options options = {.gelu = pq_cli_text(cli, "gelu")};
    pq_model *model;
    long long heads;
    if (!out) return PQ_FAIL(err, PQ_ERR_USAGE, "potqat import needs -o FILE.h5, the checkpoint to write");
    PQ_TRY(pq_cli_int(cli, "heads", 0, 1, 65536, &heads, err));
    options.heads = heads;
    options.bare = pq_cli_has(cli, "tokenizer");
    if (!overwrite && pq_file_exists(out))
        return PQ_FAIL(err, PQ_ERR_USAGE, "%s exists already; --overwrite replaces it", out);
    if (pq_file_same(source, out))
        return PQ_FAIL(err, PQ_ERR_USAGE, "%s is the model to be read; choose another -o", out);
    PQ_TRY(pq_model_import(source, &options, &model, err));
    pq_status status = give_tokenizer(pq_cli_text(cli, "tokenizer"), model, err);
    if (status == PQ_OK) status = pq_checkpoint_write(out, overwrite, model, NULL, err);
    if (status == PQ_OK) status = print_result(cli, model, out, err);
    if (status == PQ_OK && !model->tokenizer)
        pq_log(
            PQ_LOG_WARNING,
            "%s carries no tokenizer: eval and generate need one (import again with --tokenizer), training "
            "takes the data's",
            out);
    pq_model_destroy(model);
    return status;
}

static const char details[] =
    "Reads the weights of a GPT-2 model that another program wrote and writes a checkpoint (.h5) that every "
    "command reads. SRC is one of:\n"
    "\n"
    "  a Hugging Face folder: config.json with model.safetensors, or with model.safetensors.index.json and "
    "its "
    "files. Every command takes such a folder as MODEL too, without import.\n"
    "  a .safetensors file with nanoGPT's names (transformer.h.0.attn.c_attn.weight; a prefix _orig_mod. is "
    "left out). No tensor says how many heads there are: --heads N, or heads in its __metadata__. GELU is "
    "erf, unless --gelu or gelu in its __metadata__ says tanh.\n"
    "  an llm.c checkpoint .bin, in fp32 or bf16.\n"
    "\n"
    "Tensors may be F32, F16 or BF16. A tensor that is missing, unexpected, of another shape, or not finite "
    "is "
    "an error that names it; so is a setting of config.json that makes another function than GPT-2's. The "
    "head "
    "is wte: lm_head.weight must equal it. Models without biases stay without. docs/formats.md turns "
    "PyTorch's "
    ".bin and .pt files into safetensors.\n"
    "\n"
    "The vocabulary is the number of rows of wte. A checkpoint carries its tokenizer: that of a Hugging Face "
    "folder (tokenizer.json, or vocab.json and merges.txt), or what --tokenizer names, a tokenizer.json, a "
    "folder with a tokenizer's files, a MODEL, byte, or a text (a file, or a name such as tinyshakespeare) "
    "whose characters it is made of. Without one the checkpoint can be trained on, "
    "quantized and exported.\n"
    "\n"
    "EXAMPLES\n"
    "    potqat import gpt2 -o gpt2.h5\n"
    "    potqat import nano.safetensors --heads 4 --tokenizer tinyshakespeare -o nano.h5\n"
    "    potqat import gpt2_124M.bin -o gpt2.h5 --json";

static const pq_flag flags[] = {
    {.name = "tokenizer",
     .value = "SRC",
     .help = "tokenizer.json, a folder with one, MODEL, byte, or a text"},
    {.name = "heads", .value = "N", .help = "attention heads, where the file does not say"},
    {.name = "gelu", .value = "KIND", .help = "erf or tanh, where the file does not say (erf)"},
    {0},
};

const pq_command pq_cmd_import = {
    .verb = "import",
    .synopsis = "SRC -o x.h5 [--heads N] [--tokenizer SRC]",
    .summary = "read a model of Hugging Face, nanoGPT or llm.c",
    .details = details,
    .flags = flags,
    .writes = true,
    .least = 1,
    .most = 1,
    .run = run,
};
