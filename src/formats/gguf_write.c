/* Owns the way from a model to a GGUF file: names, the type of each tensor, writing, and comparing what was
 * written with what was meant. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "formats/gguf_parts.h"
#include "formats/origin.h"

/* llama.cpp's names; the layer where there is one. */
static const char *const names[PQ_PARAM_IDS] = {[PQ_PARAM_WTE] = "token_embd.weight",
                                                [PQ_PARAM_WPE] = "position_embd.weight",
                                                [PQ_PARAM_LN_1_WEIGHT] = "blk.%d.attn_norm.weight",
                                                [PQ_PARAM_LN_1_BIAS] = "blk.%d.attn_norm.bias",
                                                [PQ_PARAM_C_ATTN_WEIGHT] = "blk.%d.attn_qkv.weight",
                                                [PQ_PARAM_C_ATTN_BIAS] = "blk.%d.attn_qkv.bias",
                                                [PQ_PARAM_ATTN_C_PROJ_WEIGHT] = "blk.%d.attn_output.weight",
                                                [PQ_PARAM_ATTN_C_PROJ_BIAS] = "blk.%d.attn_output.bias",
                                                [PQ_PARAM_LN_2_WEIGHT] = "blk.%d.ffn_norm.weight",
                                                [PQ_PARAM_LN_2_BIAS] = "blk.%d.ffn_norm.bias",
                                                [PQ_PARAM_C_FC_WEIGHT] = "blk.%d.ffn_up.weight",
                                                [PQ_PARAM_C_FC_BIAS] = "blk.%d.ffn_up.bias",
                                                [PQ_PARAM_MLP_C_PROJ_WEIGHT] = "blk.%d.ffn_down.weight",
                                                [PQ_PARAM_MLP_C_PROJ_BIAS] = "blk.%d.ffn_down.bias",
                                                [PQ_PARAM_LN_F_WEIGHT] = "output_norm.weight",
                                                [PQ_PARAM_LN_F_BIAS] = "output_norm.bias"};

/* One export. */
typedef struct job {
    const pq_model *model;
    pq_params params;         /* with all biases, whether the model has them or not */
    const pq_gguf_type *type; /* of the matrices, NULL: the smallest exact one of each */
    bool lossy;
    pq_gguf_tensor *tensors; /* [params.count] */
    double *errors;          /* [params.count] largest of each */
    float *scratch;          /* a parameter's values */
    uint8_t *image;          /* its bytes in the file */
    pq_export_summary *summary;
} job;

static void job_deinit(job *j) {
    pq_params_deinit(&j->params);
    free(j->tensors);
    free(j->errors);
    free(j->scratch);
    free(j->image);
}

static pq_status job_init(job *j, pq_error *err) {
    size_t most;
    PQ_TRY(pq_origin_with_biases(j->model, &j->params, &most, err));
    const size_t count = j->params.count;
    PQ_TRY(pq_calloc(count, sizeof *j->tensors, "tensors", &j->tensors, err));
    PQ_TRY(pq_calloc(count, sizeof *j->errors, "errors", &j->errors, err));
    PQ_TRY(pq_calloc(most, sizeof *j->scratch, "weights", &j->scratch, err));
    return pq_calloc(most, sizeof *j->scratch, "weights", &j->image, err);
}

static const float *values_of(const job *j, size_t i) {
    return pq_origin_values(j->model, &j->params.list[i], j->scratch);
}

/* ---- the types ---- */

static pq_status encode(const job *j, size_t i, const pq_gguf_type *type, pq_error *err) {
    const pq_param *p = &j->params.list[i],
                   *own = pq_params_at(&j->model->params, p->id, p->layer); /* NULL: a bias it has not */
    const pq_param_quant *q = own ? &j->model->quant[own - j->model->params.list] : NULL;
    const bool scaled = q && q->quantized;
    return pq_gguf_encode(type, values_of(j, i), p->rows ? p->rows : 1, p->columns, scaled ? q->scales : NULL,
                          scaled ? q->group : 1, j->image, &j->errors[i], err);
}

/* The position table is added, not multiplied: llama.cpp has it in F32. */
static bool is_free(const pq_param *p) {
    return p->quantizable && p->id != PQ_PARAM_WPE;
}

static pq_status find_exact(const job *j, size_t i, pq_error *err) {
    const pq_gguf_type *type;
    for (size_t k = 0; (type = pq_gguf_type_at(k)); k++) {
        j->tensors[i].type = type;
        if (j->params.list[i].columns % type->block != 0) continue;
        PQ_TRY(encode(j, i, type, err));
        if (j->errors[i] == 0) break;
    }
    return PQ_OK;
}

static pq_status check_values(const job *j, size_t i, pq_error *err) {
    const pq_param *p = &j->params.list[i];
    const size_t bad = pq_first_bad(values_of(j, i), p->count);
    if (bad < p->count)
        return PQ_FAIL(err, PQ_ERR_USAGE, "weight %zu of %s is not finite: it cannot be exported", bad,
                       p->name);
    if (is_free(p) && j->type && p->columns % j->type->block != 0)
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "%s has rows of %zu weights; %s needs a multiple of %zu, fp16 and fp32 do not",
                       p->name, p->columns, j->type->name, j->type->block);
    return PQ_OK;
}

static pq_status choose_types(job *j, pq_error *err) {
    for (size_t i = 0; i < j->params.count; i++) {
        const pq_param *p = &j->params.list[i];
        pq_gguf_tensor *t = &j->tensors[i];
        snprintf(t->name, sizeof t->name, names[p->id], p->layer);
        t->rows = p->rows;
        t->columns = p->columns;
        PQ_TRY(check_values(j, i, err));
        t->type = is_free(p) ? j->type : pq_gguf_type_find("fp32");
        if (!t->type) PQ_TRY(find_exact(j, i, err));
    }
    return PQ_OK;
}

/* The type that most weights of matrices have: for the file's own number and the summary. */
static const pq_gguf_type *main_type(const job *j) {
    const pq_gguf_type *type, *best = pq_gguf_type_find("fp32");
    size_t most = 0;
    for (size_t k = 0; (type = pq_gguf_type_at(k)); k++) {
        size_t weights = 0;
        for (size_t i = 0; i < j->params.count; i++)
            if (is_free(&j->params.list[i]) && j->tensors[i].type == type) weights += j->params.list[i].count;
        if (weights > most) {
            most = weights;
            best = type;
        }
    }
    return best;
}

/* ---- the metadata ---- */

static pq_status add_metadata(const job *j, pq_gguf_metadata *m, pq_error *err) {
    const pq_gpt2_shape *s = &j->params.shape;
    const struct {
        const char *key;
        int64_t value;
    } numbers[] = {{"general.file_type", main_type(j)->file_type},
                   {"general.quantization_version", 2},
                   {"general.alignment", PQ_GGUF_ALIGNMENT},
                   {"gpt2.context_length", s->context},
                   {"gpt2.embedding_length", s->width},
                   {"gpt2.feed_forward_length", 4 * s->width},
                   {"gpt2.block_count", s->layers},
                   {"gpt2.attention.head_count", s->heads}};
    pq_gguf_add_text(m, "general.architecture", "gpt2");
    pq_gguf_add_text(m, "general.name", "potqat");
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        pq_gguf_add_u32(m, numbers[i].key, (uint32_t)numbers[i].value);
    pq_gguf_add_f32(m, "gpt2.attention.layer_norm_epsilon", 1e-5f);
    pq_gguf_add_text(m, "potqat.gelu", s->gelu_tanh ? "tanh" : "erf");
    if (j->model->activations != PQ_ACTIVATIONS_NONE)
        pq_gguf_add_text(m, "potqat.activations", pq_activations_name(j->model->activations));
    if (j->model->tokenizer) pq_gguf_add_text(m, "potqat.tokenizer", j->model->tokenizer);
    return pq_gguf_add_tokenizer(m, j->model->tokenizer, (size_t)s->vocab, err);
}

/* ---- the file ---- */

static pq_status write_tensor(const job *j, size_t i, pq_file_writer *writer, pq_error *err) {
    static const char zeros[PQ_GGUF_ALIGNMENT];
    const pq_gguf_tensor *t = &j->tensors[i];
    PQ_TRY(encode(j, i, t->type, err));
    PQ_TRY(
        pq_export_note_error(j->summary, j->params.list[i].name, t->type->name, j->errors[i], j->lossy, err));
    j->summary->bytes += t->bytes;
    PQ_TRY(pq_file_write(writer, j->image, t->bytes, err));
    return pq_file_write(writer, zeros, pq_round_up(t->bytes, PQ_GGUF_ALIGNMENT) - t->bytes, err);
}

static pq_status write_all(job *j, pq_file_writer *writer, pq_error *err) {
    pq_gguf_metadata metadata;
    char *header;
    size_t bytes;
    PQ_TRY(choose_types(j, err));
    PQ_TRY(pq_gguf_metadata_init(&metadata, err));
    pq_status status = add_metadata(j, &metadata, err);
    if (status == PQ_OK)
        status = pq_gguf_header(&metadata, j->tensors, j->params.count, &header, &bytes, err);
    pq_gguf_metadata_deinit(&metadata);
    PQ_TRY(status);
    status = pq_file_write(writer, header, bytes, err);
    free(header);
    for (size_t i = 0; status == PQ_OK && i < j->params.count; i++) status = write_tensor(j, i, writer, err);
    if (status == PQ_OK && fflush(writer->stream) != 0)
        status = PQ_FAIL(err, PQ_ERR_IO, "%s could not be written: %s", writer->path, strerror(errno));
    return status;
}

static pq_status compare_tensor(const job *j, size_t i, const pq_gguf_tensor *t, const char *data,
                                pq_error *err) {
    const float *values = values_of(j, i);
    const uint8_t *at = (const uint8_t *)data + t->offset;
    const pq_param *p = &j->params.list[i];
    float decoded[PQ_GGUF_BLOCK];
    bool same = strcmp(t->name, j->tensors[i].name) == 0 && t->rows == p->rows && t->columns == p->columns &&
                t->type == j->tensors[i].type;
    for (size_t k = 0; same && k < p->count; k += t->type->block, at += t->type->bytes) {
        t->type->decode(at, decoded);
        for (size_t n = 0; n < t->type->block; n++)
            same = same && fabs((double)decoded[n] - (double)values[k + n]) <= j->errors[i];
    }
    return same ? PQ_OK
                : PQ_FAIL(err, PQ_ERR_IO, "%s reads back differently from the model's weights", p->name);
}

static pq_status compare(const job *j, const char *path, pq_error *err) {
    pq_file_view view;
    pq_gguf_tensor *tensors;
    size_t count, data;
    PQ_TRY(pq_file_map(path, &view, err));
    pq_status status = pq_gguf_parse(view.data, view.size, &tensors, &count, &data, err);
    if (status == PQ_OK) {
        if (count != j->params.count) status = PQ_FAIL(err, PQ_ERR_IO, "it has %zu tensors", count);
        for (size_t i = 0; status == PQ_OK && i < count; i++)
            status = compare_tensor(j, i, &tensors[i], view.data + data, err);
        free(tensors);
    }
    pq_file_view_close(&view);
    return status;
}

static pq_status write_file(job *j, const char *path, bool overwrite, pq_error *err) {
    pq_file_writer writer;
    PQ_TRY(job_init(j, err));
    PQ_TRY(pq_file_create(path, overwrite, &writer, err));
    pq_status status = write_all(j, &writer, err);
    if (status == PQ_OK && (status = compare(j, writer.temporary, err)) != PQ_OK)
        pq_prefix(err, status, "%s was not written", path);
    return pq_file_end(&writer, status, err);
}

pq_status pq_gguf_write(const char *path, bool overwrite, const pq_model *model, const char *dtype,
                        bool lossy, pq_export_summary *out, pq_error *err) {
    job j = {.model = model, .lossy = lossy, .summary = out};
    *out = (pq_export_summary){0};
    if (dtype && !(j.type = pq_gguf_type_find(dtype)))
        return PQ_FAIL(err, PQ_ERR_USAGE, "--dtype: expected fp32, fp16, q8_0 or mxfp4, found %.60s", dtype);
    pq_status status = write_file(&j, path, overwrite, err);
    if (status == PQ_OK) snprintf(out->dtype, sizeof out->dtype, "%s", main_type(&j)->name);
    job_deinit(&j);
    return status;
}
