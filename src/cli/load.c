/* Owns the way from a MODEL argument to what commands work on: a model, the engine's form, a tokenizer, data.
 */
#include "cli/load.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "data/dataset.h"
#include "store/model_read.h"

pq_status pq_load_model(const char *spec, pq_model **out, pq_error *err) {
    return pq_model_read(spec, out, NULL, err);
}

pq_status pq_load_packed(const char *spec, pq_packed **out, pq_error *err) {
    char *path;
    pq_model_kind kind;
    pq_model *model;
    pq_status status;
    *out = NULL;
    PQ_TRY(pq_model_locate(spec, &path, &kind, err));
    if (kind == PQ_MODEL_PACKED) {
        status = pq_packed_open(path, out, err);
    } else if ((status = pq_model_read(spec, &model, NULL, err)) == PQ_OK) {
        status = pq_packed_from_model(model, out, err);
        pq_model_destroy(model);
    }
    free(path);
    return status;
}

/* ---- tokenizers ---- */

static pq_status from_model(const char *spec, pq_tokenizer **out, pq_error *err) {
    pq_model *model;
    PQ_TRY(pq_load_model(spec, &model, err));
    pq_status status = model->tokenizer
                           ? pq_tokenizer_from_json(model->tokenizer, strlen(model->tokenizer), out, err)
                           : PQ_FAIL(err, PQ_ERR_USAGE, "%s carries no tokenizer itself", spec);
    pq_model_destroy(model);
    return status;
}

static pq_status from_text(const char *path, pq_tokenizer **out, pq_error *err) {
    pq_dataset *dataset;
    const pq_data_options options = {.path = path, .tokenizer = "char", .split = {0.8, 0.1, 0.1}};
    PQ_TRY(pq_dataset_open(&options, &dataset, err));
    char *json = pq_tokenizer_to_json(pq_dataset_tokenizer(dataset));
    pq_status status = json ? pq_tokenizer_from_json(json, strlen(json), out, err)
                            : PQ_FAIL(err, PQ_ERR_MEMORY, "the tokenizer could not be allocated");
    free(json);
    pq_dataset_close(dataset);
    return status;
}

static bool ends_with(const char *text, const char *end) {
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

pq_status pq_load_tokenizer(const char *spec, pq_tokenizer **out, pq_error *err) {
    *out = NULL;
    if (strcmp(spec, "byte") == 0) return pq_tokenizer_create("byte", "", 0, out, err);
    if (ends_with(spec, ".json") || pq_tokenizer_is_in(spec)) return pq_tokenizer_open(spec, out, err);
    if (pq_folder_exists(spec) || strchr(spec, '@') || ends_with(spec, ".h5") ||
        ends_with(spec, ".safetensors"))
        return from_model(spec, out, err);
    return from_text(spec, out, err);
}

pq_status pq_load_dataset(const pq_model *model, const pq_config *config, const char *path, pq_dataset **out,
                          pq_error *err) {
    pq_tokenizer *tokenizer;
    if (!model->tokenizer)
        return PQ_FAIL(
            err, PQ_ERR_USAGE,
            "the model carries no tokenizer to read a text with; potqat import --tokenizer gives it one");
    PQ_TRY(pq_tokenizer_from_json(model->tokenizer, strlen(model->tokenizer), &tokenizer, err));
    pq_data_options options = {.path = path ? path : config->data.path,
                               .field = config->data.field,
                               .parent = tokenizer,
                               .by_document = strcmp(config->data.split_by, "document") == 0};
    for (size_t i = 0; i < 3; i++) options.split[i] = config->data.split.items[i];
    pq_status status = pq_dataset_open(&options, out, err);
    pq_tokenizer_destroy(tokenizer);
    return status;
}

/* Of two words, is it the second? */
static pq_status read_choice(const char *flag, const char *word, const char *first, const char *second,
                             bool *out, pq_error *err) {
    *out = strcmp(word, second) == 0;
    if (*out || strcmp(word, first) == 0) return PQ_OK;
    return PQ_FAIL(err, PQ_ERR_USAGE, "--%s: expected %s or %s, found %s", flag, first, second, word);
}

pq_status pq_load_engine_options(const pq_cli *cli, const char *otherwise, pq_engine_options *out,
                                 pq_error *err) {
    const char *act = pq_cli_text(cli, "act"), *cache = pq_cli_text(cli, "cache");
    *out = (pq_engine_options){0};
    PQ_TRY(read_choice("act", act ? act : otherwise, "fp32", "int8", &out->int8, err));
    out->half_cache = out->int8;
    return cache ? read_choice("cache", cache, "fp32", "fp16", &out->half_cache, err) : PQ_OK;
}
