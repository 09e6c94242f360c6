/* Owns the making of packed models: encode, pack, lay out, and compare what was written with what was meant.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/memory.h"
#include "base/threads.h"
#include "formats/packed_layout.h"
#include "formats/packed_text.h"

enum { MOST_TEXTS = 12, NAME_BYTES = sizeof(((pq_param *)0)->name) + 8 };

/* One tensor to be written: a parameter's fp32 weights, codes or scales. */
struct piece {
    enum piece_kind { DENSE, CODES, SCALES } kind;
    size_t index; /* of the parameter */
    char name[NAME_BYTES];
    size_t roundness; /* largest power of two up to 64 that divides its bytes */
};

/* Everything that becomes a file. */
struct plan {
    const pq_model *model;
    struct piece *pieces;
    pq_safetensor *tensors; /* [count], as the pieces */
    size_t count;
    pq_safetensors_text texts[MOST_TEXTS];
    size_t text_count;
    char *owned[8]; /* texts to free */
    size_t owned_count;
    char iter[24], tokenizer_hash[PQ_HASH_TEXT], data_hash[PQ_HASH_TEXT], header_hash[PQ_HASH_TEXT];
};

static void add_piece(struct plan *plan, enum piece_kind kind, size_t index, const char *suffix,
                      const char *dtype, size_t rows, size_t columns) {
    struct piece *p = &plan->pieces[plan->count++];
    size_t bytes = (rows ? rows : 1) * columns * pq_safetensors_dtype_bytes(dtype);
    *p = (struct piece){.kind = kind, .index = index, .roundness = 64};
    snprintf(p->name, sizeof p->name, "%s%s", plan->model->params.list[index].name, suffix);
    while (bytes % p->roundness != 0) p->roundness /= 2;
    plan->tensors[plan->count - 1] =
        (pq_safetensor){.dtype = dtype, .rank = rows ? 2 : 1, .shape = {rows ? rows : columns, columns}};
}

/* Rounder sizes first, so that every tensor is aligned without padding; otherwise the table's order. */
static void order_pieces(struct plan *plan) {
    for (size_t i = 1; i < plan->count; i++)
        for (size_t j = i; j > 0 && plan->pieces[j - 1].roundness < plan->pieces[j].roundness; j--) {
            struct piece p = plan->pieces[j];
            pq_safetensor t = plan->tensors[j];
            plan->pieces[j] = plan->pieces[j - 1], plan->pieces[j - 1] = p;
            plan->tensors[j] = plan->tensors[j - 1], plan->tensors[j - 1] = t;
        }
    for (size_t i = 0; i < plan->count; i++) plan->tensors[i].name = plan->pieces[i].name;
}

static pq_status plan_tensors(struct plan *plan, pq_error *err) {
    const pq_params *params = &plan->model->params;
    PQ_TRY(pq_calloc(2 * params->count, sizeof *plan->pieces, "packed model", &plan->pieces, err));
    PQ_TRY(pq_calloc(2 * params->count, sizeof *plan->tensors, "packed model", &plan->tensors, err));
    for (size_t i = 0; i < params->count; i++) {
        const pq_param *p = &params->list[i];
        const pq_param_quant *q = &plan->model->quant[i];
        if (!q->quantized) {
            add_piece(plan, DENSE, i, "", "F32", p->rows, p->columns);
            continue;
        }
        size_t per_row = pq_packed_scales_per_row(p->columns, q->group);
        add_piece(plan, CODES, i, ".codes", "U8", p->rows, pq_packed_row_bytes(q->codebook.bits, p->columns));
        add_piece(plan, SCALES, i, ".scales", pq_scales_fit_bf16(q) ? "BF16" : "F32",
                  q->scale_count / per_row, per_row);
    }
    order_pieces(plan);
    return PQ_OK;
}

static void add_text(struct plan *plan, const char *key, const char *value) {
    if (value) plan->texts[plan->text_count++] = (pq_safetensors_text){key, value};
}

static pq_status add_owned(struct plan *plan, const char *key, char *value, pq_error *err) {
    if (!value) return PQ_FAIL(err, PQ_ERR_MEMORY, "no memory for the %s of a packed model", key);
    plan->owned[plan->owned_count++] = value;
    add_text(plan, key, value);
    return PQ_OK;
}

static pq_status plan_texts(struct plan *plan, pq_error *err) {
    const pq_model *model = plan->model;
    add_text(plan, "format", PQ_PACKED_FORMAT);
    add_text(plan, "version", PQ_PACKED_VERSION);
    PQ_TRY(add_owned(plan, "shape", pq_packed_shape_text(&model->params.shape), err));
    PQ_TRY(add_owned(plan, "codebooks", pq_packed_codebooks_text(model), err));
    if (model->activations == PQ_ACTIVATIONS_TOKEN)
        add_text(plan, "activations", pq_activations_name(model->activations));
    add_text(plan, "tokenizer", model->tokenizer);
    if (model->tokenizer) {
        pq_packed_hash_text(model->tokenizer, strlen(model->tokenizer), plan->tokenizer_hash);
        add_text(plan, "tokenizer_hash", plan->tokenizer_hash);
    }
    add_text(plan, "config", model->config);
    snprintf(plan->iter, sizeof plan->iter, "%" PRId64, model->iter);
    add_text(plan, "iter", plan->iter);
    PQ_TRY(add_owned(plan, "val_loss", pq_packed_number_text(model->val_loss), err));
    memset(plan->data_hash, '0', PQ_HASH_TEXT - 1); /* known once the data stands; of the same length */
    memset(plan->header_hash, '0', PQ_HASH_TEXT - 1);
    add_text(plan, "data_hash", plan->data_hash);
    add_text(plan, "header_hash", plan->header_hash);
    return PQ_OK;
}

/* Weights and scales that no codebook has a code for. */
static pq_status check_model(const pq_model *model, pq_error *err) {
    for (size_t i = 0; i < model->params.count; i++) {
        const pq_param *p = &model->params.list[i];
        const pq_param_quant *q = &model->quant[i];
        for (size_t k = 0; k < p->count; k++)
            if (!isfinite(model->weights[p->offset + k]))
                return PQ_FAIL(err, PQ_ERR_USAGE, "weight %zu of %s is not finite: it cannot be packed", k,
                               p->name);
        for (size_t k = 0; q->quantized && k < q->scale_count; k++)
            if (!(q->scales[k] > 0) || !isfinite(q->scales[k]))
                return PQ_FAIL(err, PQ_ERR_USAGE, "scale %zu of %s is %g: it cannot be packed", k, p->name,
                               (double)q->scales[k]);
    }
    return PQ_OK;
}

/* One matrix being encoded and packed. */
typedef struct packing {
    const pq_param *param;
    const pq_param_quant *quant;
    const float *weights;
    uint8_t *out;
} packing;

static void pack_one_row(void *context, size_t row) {
    const packing *k = context;
    const size_t columns = k->param->columns, block_bytes = 16 * (size_t)k->quant->codebook.bits;
    const size_t run = k->quant->group < PQ_PACKED_BLOCK ? k->quant->group : PQ_PACKED_BLOCK;
    uint8_t codes[PQ_PACKED_BLOCK];
    uint8_t *out = k->out + row * pq_packed_row_bytes(k->quant->codebook.bits, columns);
    for (size_t block = 0; block < columns; block += PQ_PACKED_BLOCK, out += block_bytes) {
        size_t n = columns - block < PQ_PACKED_BLOCK ? columns - block : PQ_PACKED_BLOCK;
        for (size_t i = 0; i < n; i += run) {
            size_t at = row * columns + block + i;
            pq_encode(&k->quant->codebook, k->weights + at, k->quant->scales[at / k->quant->group], codes + i,
                      n - i < run ? n - i : run);
        }
        pq_pack_row(k->quant->codebook.bits, codes, n, out);
    }
}

static void fill_piece(const pq_model *model, const struct piece *piece, const pq_safetensor *tensor,
                       void *out) {
    const pq_param *p = &model->params.list[piece->index];
    const pq_param_quant *q = &model->quant[piece->index];
    const float *weights = model->weights + p->offset;
    if (piece->kind == DENSE) {
        memcpy(out, weights, tensor->bytes);
    } else if (piece->kind == CODES) {
        packing k = {p, q, weights, out};
        pq_parallel_for(p->rows, pack_one_row, &k);
    } else if (strcmp(tensor->dtype, "F32") == 0) {
        memcpy(out, q->scales, tensor->bytes);
    } else {
        for (size_t i = 0; i < q->scale_count; i++) /* the upper half of each float */
            ((uint16_t *)out)[i] = (uint16_t)(pq_bits_of_float(q->scales[i]) >> 16);
    }
}

static pq_status make_header(struct plan *plan, char **header, size_t *bytes, pq_error *err) {
    return pq_safetensors_header(plan->tensors, plan->count, plan->texts, plan->text_count, header, bytes,
                                 err);
}

/* The whole file in one block: the header's length is known before its hashes are. */
static pq_status make_image(struct plan *plan, pq_file_view *out, pq_error *err) {
    char *header, *image;
    size_t header_bytes, data_bytes = 0;
    pq_status status;
    PQ_TRY(make_header(plan, &header, &header_bytes, err));
    free(header);
    for (size_t i = 0; i < plan->count; i++) data_bytes += plan->tensors[i].bytes;
    PQ_TRY(pq_calloc(header_bytes + data_bytes, 1, "packed model", &image, err));
    char *at = image + header_bytes;
    for (size_t i = 0; i < plan->count; at += plan->tensors[i++].bytes)
        fill_piece(plan->model, &plan->pieces[i], &plan->tensors[i], at);
    pq_packed_hash_text(image + header_bytes, data_bytes, plan->data_hash);
    status = pq_packed_header_hash(plan->tensors, plan->count, plan->texts, plan->text_count,
                                   plan->header_hash, err);
    if (status == PQ_OK) status = make_header(plan, &header, &header_bytes, err);
    if (status != PQ_OK) {
        free(image);
        return status;
    }
    memcpy(image, header, header_bytes);
    free(header);
    *out = (pq_file_view){.data = image, .size = header_bytes + data_bytes};
    return PQ_OK;
}

static pq_status build(const pq_model *model, pq_file_view *out, pq_error *err) {
    struct plan plan = {.model = model};
    pq_status status;
    *out = (pq_file_view){0};
    PQ_TRY_TO(status, done, check_model(model, err));
    PQ_TRY_TO(status, done, plan_tensors(&plan, err));
    PQ_TRY_TO(status, done, plan_texts(&plan, err));
    status = make_image(&plan, out, err);
done:
    for (size_t i = 0; i < plan.owned_count; i++) free(plan.owned[i]);
    free(plan.pieces);
    free(plan.tensors);
    return status;
}

pq_status pq_packed_from_model(const pq_model *model, pq_packed **out, pq_error *err) {
    pq_file_view view;
    *out = NULL;
    PQ_TRY(build(model, &view, err));
    return pq_packed_from_view(&view, "model", out, err);
}

/* Every weight as the file decodes it against the trainer's own hard weights, bit for bit. */
static pq_status compare(const pq_packed *packed, const pq_model *model, const char *path, pq_error *err) {
    float *meant, *row = NULL;
    size_t widest = 0;
    pq_status status;
    PQ_TRY(pq_calloc(model->params.elements, sizeof *meant, "weights to compare", &meant, err));
    pq_model_effective_weights(model, meant);
    for (size_t i = 0; i < packed->params.count; i++)
        if (packed->params.list[i].columns > widest) widest = packed->params.list[i].columns;
    PQ_TRY_TO(status, done, pq_calloc(widest, sizeof *row, "weights to compare", &row, err));
    for (size_t i = 0; i < packed->params.count; i++) {
        const pq_param *p = &packed->params.list[i];
        for (size_t r = 0; r < p->count / p->columns; r++) {
            pq_packed_decode_rows(&packed->tensors[i], r, 1, row);
            if (memcmp(row, meant + p->offset + r * p->columns, p->columns * sizeof *row) != 0) {
                status = PQ_FAIL(
                    err, PQ_ERR_IO,
                    "%s was not written: row %zu of %s reads back differently from the model's weights", path,
                    r, p->name);
                goto done;
            }
        }
    }
done:
    free(row);
    free(meant);
    return status;
}

pq_status pq_packed_write(const char *path, bool overwrite, const pq_model *model, pq_error *err) {
    pq_file_view image, written = {0};
    pq_file_writer writer = {0};
    pq_packed *packed = NULL;
    pq_status status;
    if (model->activations == PQ_ACTIVATIONS_AFFINE)
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "quant.activations: the model's activations are quantized on fixed ranges "
                       "(int8-affine), which no "
                       "packed model holds; expected none or int8-token");
    PQ_TRY(build(model, &image, err));
    PQ_TRY_TO(status, done, pq_file_create(path, overwrite, &writer, err));
    PQ_TRY_TO(status, done, pq_file_write(&writer, image.data, image.size, err));
    if (fflush(writer.stream) != 0) {
        status = PQ_FAIL(err, PQ_ERR_IO, "%s could not be written: %s", path, strerror(errno));
        goto done;
    }
    PQ_TRY_TO(status, done, pq_file_map(writer.temporary, &written, err));
    PQ_TRY_TO(status, done, pq_packed_from_view(&written, path, &packed, err));
    PQ_TRY_TO(status, done, compare(packed, model, path, err));
    status = pq_file_commit(&writer, err);
done:
    pq_packed_close(packed);
    if (writer.path) pq_file_abort(&writer);
    pq_file_view_close(&image);
    return status;
}

static pq_status fill_model(const pq_packed *packed, pq_model *model, pq_error *err) {
    char text[32];
    for (size_t i = 0; i < packed->params.count; i++) {
        const pq_packed_tensor *tensor = &packed->tensors[i];
        const pq_param *p = &packed->params.list[i];
        pq_packed_decode_rows(tensor, 0, p->count / p->columns, model->weights + p->offset);
        if (!tensor->codebook) continue;
        pq_granularity_name(p, tensor->group, text, sizeof text);
        PQ_TRY(pq_model_quantize_param(model, i, tensor->codebook, text, err));
        for (size_t k = 0; k < tensor->scale_count; k++)
            model->quant[i].scales[k] = pq_packed_scale(tensor, k);
    }
    PQ_TRY(pq_model_quantize_activations(model, packed->activations, err));
    model->iter = packed->iter;
    model->val_loss = packed->val_loss;
    PQ_TRY(pq_copy_text(packed->tokenizer, &model->tokenizer, err));
    return pq_copy_text(packed->config, &model->config, err);
}

pq_status pq_packed_to_model(const pq_packed *packed, pq_model **out, pq_error *err) {
    pq_model *model;
    *out = NULL;
    PQ_TRY(pq_model_create(&packed->params.shape, &model, err));
    pq_status status = fill_model(packed, model, err);
    if (status == PQ_OK)
        *out = model;
    else
        pq_model_destroy(model);
    return status;
}
