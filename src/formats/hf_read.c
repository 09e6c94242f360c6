/* Owns Hugging Face's folder: which settings of config.json we can be, and which files hold the tensors. */
#include <jansson.h>
#include <math.h>
#include <potqat/tokenizer.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "formats/origin.h"

#define CONFIG      "config.json"
#define WEIGHTS     "model.safetensors"
#define INDEX       "model.safetensors.index.json"
#define INDEX_LIMIT ((size_t)64 << 20) /* bytes of a JSON file */

bool pq_hf_looks_like(const char *folder) {
    char *path = pq_path_join(folder, CONFIG);
    bool found = path && pq_file_exists(path);
    free(path);
    return found;
}

/* The object in folder/name. */
static pq_status read_json(const char *folder, const char *name, json_t **out, pq_error *err) {
    pq_file_view view;
    json_error_t reason;
    char *path = pq_path_join(folder, name);
    *out = NULL;
    if (!path) return PQ_FAIL(err, PQ_ERR_MEMORY, "a file name could not be allocated");
    pq_status status = pq_file_map(path, &view, err);
    if (status == PQ_OK) {
        if (view.size > INDEX_LIMIT)
            status =
                PQ_FAIL(err, PQ_ERR_FORMAT, "%s: %zu bytes are too many for a description", path, view.size);
        else if (!(*out = json_loadb(view.data, view.size, JSON_REJECT_DUPLICATES, &reason)))
            status =
                PQ_FAIL(err, PQ_ERR_FORMAT, "%s is not JSON: %s (line %d)", path, reason.text, reason.line);
        else if (!json_is_object(*out))
            status = PQ_FAIL(err, PQ_ERR_FORMAT, "%s: expected a JSON object", path);
        pq_file_view_close(&view);
    }
    if (status != PQ_OK) {
        json_decref(*out);
        *out = NULL;
    }
    free(path);
    return status;
}

/* ---- config.json ---- */

typedef struct settings {
    const char *folder;
    const json_t *json;
} settings;

/* The value as it stands in the file, for a sentence. */
static pq_status refuse(const settings *s, const char *key, const char *expected, pq_error *err) {
    const json_t *value = json_object_get(s->json, key);
    char *text = value ? json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    pq_status status = PQ_FAIL(err, PQ_ERR_USAGE, "%s/" CONFIG ": %s: expected %s, found %.80s", s->folder,
                               key, expected, text ? text : "nothing");
    free(text);
    return status;
}

static pq_status count(const settings *s, const char *key, int64_t *out, pq_error *err) {
    const json_t *value = json_object_get(s->json, key);
    *out = json_integer_value(value);
    return json_is_integer(value) && *out >= 1 && *out <= INT32_MAX
               ? PQ_OK
               : refuse(s, key, "a whole number from 1", err);
}

/* A switch must have the value with which GPT-2 is our function; absent it has. */
static pq_status check_switches(const settings *s, pq_error *err) {
    static const struct {
        const char *key;
        bool wanted;
    } switches[] = {{"scale_attn_weights", true},
                    {"scale_attn_by_inverse_layer_idx", false},
                    {"add_cross_attention", false}};
    for (size_t i = 0; i < sizeof switches / sizeof *switches; i++) {
        const json_t *value = json_object_get(s->json, switches[i].key);
        if (value && (!json_is_boolean(value) || json_is_true(value) != switches[i].wanted))
            return refuse(s, switches[i].key, switches[i].wanted ? "true" : "false", err);
    }
    return PQ_OK;
}

static pq_status check_settings(const settings *s, int64_t width, pq_error *err) {
    const json_t *type = json_object_get(s->json, "model_type"),
                 *epsilon = json_object_get(s->json, "layer_norm_epsilon"),
                 *inner = json_object_get(s->json, "n_inner"),
                 *quantized = json_object_get(s->json, "quantization_config");
    if (!json_is_string(type) || strcmp(json_string_value(type), "gpt2") != 0)
        return refuse(s, "model_type", "\"gpt2\"", err);
    if (epsilon && (!json_is_number(epsilon) || fabs(json_number_value(epsilon) - 1e-5) > 1e-12))
        return refuse(s, "layer_norm_epsilon", "1e-5", err);
    if (inner && !json_is_null(inner) && json_integer_value(inner) != 4 * width)
        return refuse(s, "n_inner", "null or 4 times n_embd", err);
    if (quantized && !json_is_null(quantized))
        return refuse(s, "quantization_config", "weights that are not quantized", err);
    return check_switches(s, err);
}

static pq_status read_gelu(const settings *s, bool *tanh, pq_error *err) {
    const json_t *value = json_object_get(s->json, "activation_function");
    const char *name = value ? json_string_value(value) : "gelu_new"; /* GPT2Config's default */
    *tanh = name && strcmp(name, "gelu_new") == 0;
    return *tanh || (name && strcmp(name, "gelu") == 0)
               ? PQ_OK
               : refuse(s, "activation_function", "gelu_new or gelu", err);
}

static pq_status read_config(const char *folder, pq_gpt2_shape *shape, bool *tied, pq_error *err) {
    json_t *json;
    PQ_TRY(read_json(folder, CONFIG, &json, err));
    const settings s = {folder, json};
    pq_status status;
    *shape = (pq_gpt2_shape){.bias = true};
    PQ_TRY_TO(status, done, count(&s, "n_embd", &shape->width, err));
    PQ_TRY_TO(status, done, check_settings(&s, shape->width, err));
    PQ_TRY_TO(status, done, count(&s, "n_layer", &shape->layers, err));
    PQ_TRY_TO(status, done, count(&s, "n_head", &shape->heads, err));
    PQ_TRY_TO(status, done, count(&s, "vocab_size", &shape->vocab, err));
    PQ_TRY_TO(
        status, done,
        count(&s, json_object_get(json, "n_positions") ? "n_positions" : "n_ctx", &shape->context, err));
    status = read_gelu(&s, &shape->gelu_tanh, err);
    *tied = !json_is_false(json_object_get(json, "tie_word_embeddings"));
done:
    json_decref(json);
    return status;
}

/* ---- files ---- */

typedef struct paths {
    char **list; /* [count] */
    size_t count;
} paths;

static void paths_deinit(paths *p) {
    for (size_t i = 0; i < p->count; i++) free(p->list[i]);
    free(p->list);
}

/* Files lie in the folder itself: a name that leads elsewhere is refused. */
static pq_status check_name(const char *folder, const char *name, pq_error *err) {
    if (name && *name && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 &&
        strlen(name) < 256)
        return PQ_OK;
    return PQ_FAIL(err, PQ_ERR_FORMAT,
                   "%s/" INDEX ": weight_map: expected names of files in this folder, found \"%.80s\"",
                   folder, name ? name : "?");
}

static bool is_path_of(const char *path, const char *name) {
    const char *slash = strrchr(path, '/');
    return strcmp(slash ? slash + 1 : path, name) == 0;
}

static pq_status add_path(const char *folder, const char *name, paths *out, pq_error *err) {
    for (size_t i = 0; i < out->count; i++)
        if (is_path_of(out->list[i], name)) return PQ_OK;
    char *path = pq_path_join(folder, name);
    if (!path) return PQ_FAIL(err, PQ_ERR_MEMORY, "a file name could not be allocated");
    out->list[out->count++] = path;
    return PQ_OK;
}

enum { MOST_SHARDS = 4096 };

static pq_status read_map(const char *folder, const json_t *map, paths *out, pq_error *err) {
    const char *tensor;
    json_t *value;
    json_object_foreach((json_t *)map, tensor, value) {
        const char *name = json_string_value(value);
        PQ_TRY(check_name(folder, name, err));
        if (out->count == MOST_SHARDS)
            return PQ_FAIL(err, PQ_ERR_FORMAT, "%s/" INDEX ": more than %d files", folder, MOST_SHARDS);
        PQ_TRY(add_path(folder, name, out, err));
    }
    return PQ_OK;
}

/* The index and the files must agree, tensor by tensor. */
static pq_status check_map(const char *folder, const json_t *map, const pq_tensors *tensors, pq_error *err) {
    size_t found = 0;
    for (size_t f = 0; f < tensors->file_count; f++) {
        const struct pq_tensors_file *file = &tensors->files[f];
        for (size_t i = 0; i < file->parsed.count; i++, found++) {
            const char *tensor = file->parsed.tensors[i].name,
                       *said = json_string_value(json_object_get(map, tensor));
            if (!said || !is_path_of(file->path, said))
                return PQ_FAIL(err, PQ_ERR_FORMAT, "%s holds tensor %s, which " INDEX " says is in %.80s",
                               file->path, tensor, said ? said : "no file");
        }
    }
    if (found == json_object_size(map)) return PQ_OK;
    const char *tensor;
    json_t *value;
    json_object_foreach((json_t *)map, tensor, value) {
        bool there = false;
        for (size_t f = 0; f < tensors->file_count && !there; f++)
            there = pq_safetensors_find(&tensors->files[f].parsed, tensor) != NULL;
        if (!there)
            return PQ_FAIL(err, PQ_ERR_FORMAT, "%s/%.80s lacks tensor %.80s, which " INDEX " says it holds",
                           folder, json_string_value(value), tensor);
    }
    return PQ_OK;
}

static pq_status open_shards(const char *folder, pq_tensors *out, pq_error *err) {
    json_t *index;
    paths files = {0};
    pq_status status;
    PQ_TRY(read_json(folder, INDEX, &index, err));
    const json_t *map = json_object_get(index, "weight_map");
    if (!json_is_object(map)) {
        status = PQ_FAIL(err, PQ_ERR_FORMAT, "%s/" INDEX ": expected an object weight_map", folder);
        goto done;
    }
    PQ_TRY_TO(status, done, pq_calloc(MOST_SHARDS, sizeof *files.list, "file names", &files.list, err));
    PQ_TRY_TO(status, done, read_map(folder, map, &files, err));
    PQ_TRY_TO(status, done, pq_tensors_open((const char *const *)files.list, files.count, out, err));
    status = check_map(folder, map, out, err);
    if (status != PQ_OK) pq_tensors_close(out);
done:
    paths_deinit(&files);
    json_decref(index);
    return status;
}

static pq_status open_tensors(const char *folder, pq_tensors *out, pq_error *err) {
    char *whole = pq_path_join(folder, WEIGHTS), *index = pq_path_join(folder, INDEX);
    pq_status status;
    if (!whole || !index)
        status = PQ_FAIL(err, PQ_ERR_MEMORY, "a file name could not be allocated");
    else if (pq_file_exists(whole)) /* first, as transformers has it */
        status = pq_tensors_open((const char *const *)&whole, 1, out, err);
    else if (pq_file_exists(index))
        status = open_shards(folder, out, err);
    else
        status = PQ_FAIL(err, PQ_ERR_IO,
                         "folder %s has a " CONFIG " but neither " WEIGHTS " nor " INDEX
                         "; docs/formats.md turns PyTorch's .bin files into safetensors",
                         folder);
    free(whole);
    free(index);
    return status;
}

/* What config.json says against what the tensors say. */
static pq_status check_folder(const char *folder, pq_gpt2_shape *shape, bool tied, const pq_tensors *tensors,
                              pq_error *err) {
    pq_gpt2_shape found = {0};
    PQ_TRY(pq_tensors_shape(tensors, folder, &found, err));
    if (found.vocab != shape->vocab)
        return PQ_FAIL(err, PQ_ERR_FORMAT,
                       "%s: " CONFIG " has a vocab_size of %lld, tensor wte.weight %lld rows", folder,
                       (long long)shape->vocab, (long long)found.vocab);
    if (!tied && !pq_tensors_find(tensors, "lm_head.weight"))
        return PQ_FAIL(err, PQ_ERR_FORMAT,
                       "%s: " CONFIG " says that the head is not tied, but tensor lm_head.weight is missing",
                       folder);
    shape->bias = found.bias; /* without any, transformers would start them at zero: the same function */
    return PQ_OK;
}

pq_status pq_hf_open(const char *folder, pq_gpt2_shape *shape, pq_tensors *tensors, pq_error *err) {
    bool tied = true;
    if (!pq_hf_looks_like(folder))
        return PQ_FAIL(err, PQ_ERR_USAGE, "folder %s is no Hugging Face model: it has no " CONFIG, folder);
    PQ_TRY(read_config(folder, shape, &tied, err));
    PQ_TRY(open_tensors(folder, tensors, err));
    pq_status status = check_folder(folder, shape, tied, tensors, err);
    if (status != PQ_OK) pq_tensors_close(tensors);
    return status;
}

/* The tokenizer's JSON text (heap): of the folder's files, else of ours that came along; NULL: neither. */
static pq_status read_tokenizer(const char *folder, const pq_tensors *tensors, char **out, pq_error *err) {
    pq_tokenizer *tokenizer;
    if (!pq_tokenizer_is_in(folder))
        return pq_copy_text(pq_safetensors_metadata(&tensors->files[0].parsed, PQ_HF_TOKENIZER), out, err);
    PQ_TRY(pq_tokenizer_open(folder, &tokenizer, err));
    *out = pq_tokenizer_to_json(tokenizer);
    pq_tokenizer_destroy(tokenizer);
    return *out ? PQ_OK : PQ_FAIL(err, PQ_ERR_MEMORY, "the tokenizer's text could not be allocated");
}

pq_status pq_hf_read(const char *folder, bool bare, pq_model **out, pq_error *err) {
    pq_gpt2_shape shape;
    pq_tensors tensors;
    *out = NULL;
    PQ_TRY(pq_hf_open(folder, &shape, &tensors, err));
    pq_status status = pq_tensors_to_model(&tensors, folder, &shape, true, out, err);
    if (status == PQ_OK && !bare) status = read_tokenizer(folder, &tensors, &(*out)->tokenizer, err);
    pq_tensors_close(&tensors);
    return status; /* a model without its text goes to the caller, who destroys it */
}
