/* Owns the writing of a folder that transformers reads: dense weights in Hugging Face's names and order. */
#include <jansson.h>
#include <math.h>
#include <potqat/tokenizer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "formats/origin.h"

#define CONFIG  "config.json"
#define WEIGHTS "model.safetensors"

/* The tokenizer's are there where it is one that other programs read. */
static const char *const files[] = {WEIGHTS,      CONFIG,      "tokenizer.json", "tokenizer_config.json",
                                    "vocab.json", "merges.txt"};
enum { FILES = sizeof files / sizeof *files, TOKENIZER = 2 /* the first of the tokenizer's */ };

/* One export. `params` has all biases, whether the model has them or not. */
typedef struct job {
    const pq_model *model;
    pq_params params;
    const char *dtype;
    bool lossy;
    char (*names)[80];      /* [params.count], with Hugging Face's prefix */
    pq_safetensor *tensors; /* [params.count] */
    double *errors;         /* [params.count] largest of each */
    float *hard, *other;    /* scratch: a parameter's values */
    char *image;            /* scratch: its bytes in the file */
    pq_tokenizer *bpe;      /* the model's where it is a byte-level BPE, else NULL */
    pq_export_summary *summary;
} job;

static void job_deinit(job *j) {
    pq_params_deinit(&j->params);
    free(j->names);
    free(j->tensors);
    free(j->errors);
    free(j->hard);
    free(j->other);
    free(j->image);
    pq_tokenizer_destroy(j->bpe);
}

static bool is_transposed(const pq_param *p) {
    return pq_stored_transposed(p->id);
}

static pq_status take_tokenizer(job *j, pq_error *err) {
    const char *json = j->model->tokenizer;
    if (!json || !strstr(json, "\"kind\":\"bpe\"")) return PQ_OK;
    return pq_tokenizer_from_json(json, strlen(json), &j->bpe, err);
}

static pq_status job_init(job *j, pq_error *err) {
    size_t most;
    PQ_TRY(take_tokenizer(j, err));
    PQ_TRY(pq_origin_with_biases(j->model, &j->params, &most, err));
    const size_t count = j->params.count;
    PQ_TRY(pq_calloc(count, sizeof *j->names, "tensor names", &j->names, err));
    PQ_TRY(pq_calloc(count, sizeof *j->tensors, "tensors", &j->tensors, err));
    PQ_TRY(pq_calloc(count, sizeof *j->errors, "errors", &j->errors, err));
    for (size_t i = 0; i < count; i++) {
        const pq_param *p = &j->params.list[i];
        const bool turned = is_transposed(p);
        const size_t rows = turned ? p->columns : p->rows, columns = turned ? p->rows : p->columns;
        snprintf(j->names[i], sizeof *j->names, "transformer.%s", p->name);
        j->tensors[i] = (pq_safetensor){.name = j->names[i],
                                        .dtype = p->quantizable || j->lossy ? j->dtype : "F32",
                                        .rank = rows ? 2 : 1,
                                        .shape = {rows ? rows : columns, columns}};
    }
    PQ_TRY(pq_calloc(most, sizeof *j->hard, "weights", &j->hard, err));
    PQ_TRY(pq_calloc(most, sizeof *j->other, "weights", &j->other, err));
    return pq_calloc(most, sizeof *j->hard, "weights", &j->image, err);
}

static const float *values_of(const job *j, size_t i) {
    return pq_origin_values(j->model, &j->params.list[i], j->hard);
}

/* ---- model.safetensors ---- */

static pq_status write_tensor(const job *j, size_t i, pq_file_writer *writer, pq_error *err) {
    const pq_param *p = &j->params.list[i];
    const float *values = values_of(j, i);
    size_t bad = pq_first_bad(values, p->count);
    if (bad < p->count)
        return PQ_FAIL(err, PQ_ERR_USAGE, "weight %zu of %s is not finite: it cannot be exported", bad,
                       p->name);
    if (!is_transposed(p) && strcmp(j->tensors[i].dtype, "F32") == 0)
        return pq_file_write(writer, values, p->count * sizeof *values, err);
    PQ_TRY(pq_origin_write(j->tensors[i].dtype, is_transposed(p), p, values, j->image, &j->errors[i], err));
    PQ_TRY(pq_export_note_error(j->summary, p->name, j->dtype, j->errors[i], j->lossy, err));
    return pq_file_write(writer, j->image, j->tensors[i].bytes, err);
}

static pq_status write_weights(const job *j, const char *path, pq_error *err) {
    pq_file_writer writer;
    char *header;
    size_t bytes;
    const pq_safetensors_text texts[] = {{"format", "pt"}, {PQ_HF_TOKENIZER, j->model->tokenizer}};
    PQ_TRY(pq_safetensors_header(j->tensors, j->params.count, texts, j->model->tokenizer && !j->bpe ? 2 : 1,
                                 &header, &bytes, err));
    pq_status status = pq_file_create(path, false, &writer, err);
    if (status == PQ_OK) {
        status = pq_file_write(&writer, header, bytes, err);
        for (size_t i = 0; status == PQ_OK && i < j->params.count; i++) {
            status = write_tensor(j, i, &writer, err);
            j->summary->bytes += j->tensors[i].bytes;
        }
        status = pq_file_end(&writer, status, err);
    }
    free(header);
    return status;
}

/* ---- config.json ---- */

static pq_status write_config(const job *j, const char *path, pq_error *err) {
    const pq_gpt2_shape *s = &j->params.shape;
    /* With tensors of two types, the one that holds both. */
    const char *dtype = !j->lossy || strcmp(j->dtype, "F32") == 0 ? "float32"
                        : strcmp(j->dtype, "F16") == 0            ? "float16"
                                                                  : "bfloat16";
    const json_int_t end_of_text = j->bpe ? pq_tokenizer_end_of_text(j->bpe) : 50256; /* GPT-2's */
    json_t *ends = end_of_text >= 0 && s->vocab > end_of_text ? json_integer(end_of_text) : json_null();
    json_t *json =
        json_pack("{s:s, s:[s], s:s, s:I, s:I, s:I, s:I, s:I, s:n, s:s, s:f, s:b, s:b, s:b, s:O, s:O}",
                  "model_type", "gpt2", "architectures", "GPT2LMHeadModel", "torch_dtype", dtype,
                  "vocab_size", (json_int_t)s->vocab, "n_positions", (json_int_t)s->context, "n_embd",
                  (json_int_t)s->width, "n_layer", (json_int_t)s->layers, "n_head", (json_int_t)s->heads,
                  "n_inner", "activation_function", s->gelu_tanh ? "gelu_new" : "gelu", "layer_norm_epsilon",
                  1e-5, "scale_attn_weights", 1, "scale_attn_by_inverse_layer_idx", 0, "tie_word_embeddings",
                  1, "bos_token_id", ends, "eos_token_id", ends);
    char *text = json ? json_dumps(json, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(ends);
    json_decref(json);
    if (!text) return PQ_FAIL(err, PQ_ERR_MEMORY, CONFIG " could not be allocated");
    pq_status status = pq_file_put(path, false, text, strlen(text), err);
    free(text);
    return status;
}

/* ---- the tokenizer ---- */

static pq_status write_tokenizer_file(const job *j, const char *folder, const char *name, pq_error *err) {
    char *text, *path = pq_path_join(folder, name);
    if (!path) return PQ_FAIL(err, PQ_ERR_MEMORY, "a file name could not be allocated");
    pq_status status = pq_tokenizer_to_file(j->bpe, name, &text, err);
    if (status == PQ_OK) status = pq_file_put(path, false, text, strlen(text), err);
    free(text);
    free(path);
    return status;
}

/* Its files, read again: the ids must be the same. */
static pq_status write_tokenizer(const job *j, const char *folder, pq_error *err) {
    pq_tokenizer *again;
    if (!j->bpe) return PQ_OK;
    for (size_t i = TOKENIZER; i < FILES; i++) PQ_TRY(write_tokenizer_file(j, folder, files[i], err));
    PQ_TRY(pq_tokenizer_open(folder, &again, err));
    const bool same = pq_tokenizer_hash(again) == pq_tokenizer_hash(j->bpe);
    pq_tokenizer_destroy(again);
    return same ? PQ_OK : PQ_FAIL(err, PQ_ERR_IO, "%s: the tokenizer reads back differently", folder);
}

/* ---- reading it back ---- */

static pq_status compare_tensor(const job *j, size_t i, const pq_tensors *tensors, pq_error *err) {
    const pq_param *p = &j->params.list[i];
    const pq_named *n = pq_tensors_find(tensors, p->name);
    if (!n || n->tensor->bytes != j->tensors[i].bytes)
        return PQ_FAIL(err, PQ_ERR_IO, "%s is missing, or of another size", p->name);
    const pq_origin origin = {n->file, n->tensor->name, n->tensor->data, n->tensor->dtype, is_transposed(p)};
    PQ_TRY(pq_origin_read(&origin, p, j->other, err));
    const float *values = values_of(j, i);
    double worst = 0;
    for (size_t k = 0; k < p->count; k++) {
        double error = fabs((double)j->other[k] - (double)values[k]);
        if (error > worst) worst = error;
    }
    bool same = j->errors[i] > 0 || memcmp(j->other, values, p->count * sizeof *values) == 0;
    if (same && worst <= j->errors[i]) return PQ_OK;
    return PQ_FAIL(err, PQ_ERR_IO, "%s reads back differently from the model's weights", p->name);
}

static pq_status compare(const job *j, const char *folder, pq_error *err) {
    pq_gpt2_shape shape;
    pq_tensors tensors;
    PQ_TRY(pq_hf_open(folder, &shape, &tensors, err));
    pq_status status = PQ_OK;
    const pq_gpt2_shape *s = &j->params.shape;
    if (shape.layers != s->layers || shape.heads != s->heads || shape.width != s->width ||
        shape.context != s->context || shape.vocab != s->vocab || shape.gelu_tanh != s->gelu_tanh)
        status = PQ_FAIL(err, PQ_ERR_IO, CONFIG " reads back differently");
    for (size_t i = 0; status == PQ_OK && i < j->params.count; i++)
        status = compare_tensor(j, i, &tensors, err);
    pq_tensors_close(&tensors);
    return status == PQ_OK ? PQ_OK : pq_prefix(err, status, "%s was not written", folder);
}

/* ---- the folder ---- */

static pq_status check_target(const char *folder, bool overwrite, pq_error *err) {
    if (!pq_file_exists(folder)) return PQ_OK;
    if (!overwrite) return PQ_FAIL(err, PQ_ERR_USAGE, "%s exists already; --overwrite replaces it", folder);
    if (!pq_folder_exists(folder) || !(pq_hf_looks_like(folder) || pq_folder_is_empty(folder)))
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "%s exists and is no folder of a Hugging Face model (it has no " CONFIG
                       "); it was left alone",
                       folder);
    return PQ_OK;
}

/* Over an older folder file by file, the weights first: what else lies there stays. */
static pq_status publish(const char *temporary, const char *folder, pq_error *err) {
    pq_status status = PQ_OK;
    if (!pq_file_exists(folder)) return pq_file_publish(temporary, folder, true, err);
    for (size_t i = 0; status == PQ_OK && i < FILES; i++) {
        char *from = pq_path_join(temporary, files[i]), *to = pq_path_join(folder, files[i]);
        if (!from || !to)
            status = PQ_FAIL(err, PQ_ERR_MEMORY, "a file name could not be allocated");
        else if (pq_file_exists(from))
            status = pq_file_publish(from, to, true, err);
        else
            unlink(to); /* an older export's, of another tokenizer */
        free(from);
        free(to);
    }
    return status;
}

static void remove_temporary(const char *temporary) {
    for (size_t i = 0; i < FILES; i++) {
        char *path = pq_path_join(temporary, files[i]);
        if (path) unlink(path);
        free(path);
    }
    rmdir(temporary);
}

static pq_status write_folder(const job *j, const char *temporary, const char *folder, pq_error *err) {
    char *weights = pq_path_join(temporary, WEIGHTS), *config = pq_path_join(temporary, CONFIG);
    pq_status status = weights && config ? pq_folder_create(temporary, err)
                                         : PQ_FAIL(err, PQ_ERR_MEMORY, "a file name could not be allocated");
    if (status == PQ_OK) status = write_weights(j, weights, err);
    if (status == PQ_OK) status = write_config(j, config, err);
    if (status == PQ_OK) status = write_tokenizer(j, temporary, err);
    if (status == PQ_OK) status = compare(j, temporary, err);
    if (status == PQ_OK) status = publish(temporary, folder, err);
    remove_temporary(temporary); /* nothing is left of it when it became the folder */
    free(weights);
    free(config);
    return status;
}

pq_status pq_hf_write(const char *folder, bool overwrite, const pq_model *model, const char *dtype,
                      bool lossy, pq_export_summary *out, pq_error *err) {
    job j = {.model = model, .dtype = dtype, .lossy = lossy, .summary = out};
    size_t length = strlen(folder), bytes = length + 32;
    char *temporary;
    *out = (pq_export_summary){0};
    while (length > 1 && folder[length - 1] == '/') length--;
    if (length == 0) return PQ_FAIL(err, PQ_ERR_USAGE, "the folder's name is empty");
    PQ_TRY(check_target(folder, overwrite, err));
    PQ_TRY(pq_calloc(bytes, 1, "a file name", &temporary, err));
    snprintf(temporary, bytes, "%.*s.tmp-%ld", (int)length, folder, (long)getpid());
    pq_status status = job_init(&j, err);
    if (status == PQ_OK) status = write_folder(&j, temporary, folder, err);
    job_deinit(&j);
    free(temporary);
    return status;
}
