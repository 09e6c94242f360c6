/* Owns the reading of packed models: every claim of a file is checked before anything is used. */
#include "formats/packed.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/threads.h"
#include "formats/packed_layout.h"
#include "formats/packed_text.h"

/* What stands behind a pq_packed. */
typedef struct storage {
    pq_file_view view;
    pq_safetensors file;
} storage;

void pq_packed_hash_text(const void *data, size_t bytes, char out[PQ_HASH_TEXT]) {
    snprintf(out, PQ_HASH_TEXT, "%016" PRIx64, pq_hash(data, bytes));
}

static int by_key(const void *a, const void *b) {
    return strcmp(((const pq_safetensors_text *)a)->key, ((const pq_safetensors_text *)b)->key);
}

pq_status pq_packed_header_hash(const pq_safetensor *tensors, size_t count, const pq_safetensors_text *texts,
                                size_t text_count, char out[PQ_HASH_TEXT], pq_error *err) {
    char *text = NULL;
    size_t bytes = 0;
    pq_safetensors_text *sorted;
    PQ_TRY(pq_calloc(text_count, sizeof *sorted, "metadata", &sorted, err));
    FILE *stream = open_memstream(&text, &bytes);
    bool good = stream != NULL;
    memcpy(sorted, texts, text_count * sizeof *sorted);
    qsort(sorted, text_count, sizeof *sorted, by_key);
    for (size_t i = 0; stream && i < text_count; i++)
        if (strcmp(sorted[i].key, "header_hash") != 0)
            fprintf(stream, "%s%c%s%c", sorted[i].key, 0, sorted[i].value, 0);
    for (size_t i = 0; stream && i < count; i++) {
        fprintf(stream, "%s%c%s%c", tensors[i].name, 0, tensors[i].dtype, 0);
        for (size_t d = 0; d < tensors[i].rank; d++) fprintf(stream, "%" PRIu64 "%c", tensors[i].shape[d], 0);
        fputc(0, stream);
    }
    good = good && !ferror(stream);
    if (stream && fclose(stream) != 0) good = false;
    if (good) pq_packed_hash_text(text, bytes, out);
    free(text);
    free(sorted);
    return good ? PQ_OK : PQ_FAIL(err, PQ_ERR_MEMORY, "no memory for a packed model's header");
}

/* Is it ours, of this version, and undamaged? */
static pq_status check_identity(const pq_safetensors *file, pq_error *err) {
    const char *format = pq_safetensors_metadata(file, "format"),
               *version = pq_safetensors_metadata(file, "version"),
               *data_hash = pq_safetensors_metadata(file, "data_hash"),
               *header_hash = pq_safetensors_metadata(file, "header_hash");
    char found[PQ_HASH_TEXT];
    if (!format || strcmp(format, PQ_PACKED_FORMAT) != 0)
        return PQ_FAIL(
            err, PQ_ERR_FORMAT,
            "a safetensors file, but not a packed model: its format is \"%.40s\" instead of \"%s\"",
            format ? format : "", PQ_PACKED_FORMAT);
    if (!version || strcmp(version, PQ_PACKED_VERSION) != 0)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "packed model of version %.40s; this build reads version %s",
                       version ? version : "(none)", PQ_PACKED_VERSION);
    PQ_TRY(pq_packed_header_hash(file->tensors, file->count, file->texts, file->text_count, found, err));
    if (!header_hash || strcmp(header_hash, found) != 0)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "damaged: its header has hash %s, recorded is %.40s", found,
                       header_hash ? header_hash : "none");
    pq_packed_hash_text(file->data, file->data_bytes, found);
    if (!data_hash || strcmp(data_hash, found) != 0)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "damaged: its weights have hash %s, recorded is %.40s", found,
                       data_hash ? data_hash : "none");
    return PQ_OK;
}

static pq_status text_of(const pq_safetensors *file, const char *key, const char **out, pq_error *err) {
    *out = pq_safetensors_metadata(file, key);
    return *out ? PQ_OK : PQ_FAIL(err, PQ_ERR_FORMAT, "its metadata lacks %s", key);
}

static pq_status read_metadata(const pq_safetensors *file, pq_packed *out, pq_packed_coding **codings,
                               pq_error *err) {
    const char *text, *tokenizer = pq_safetensors_metadata(file, "tokenizer");
    pq_gpt2_shape shape;
    double iter;
    char found[PQ_HASH_TEXT];
    PQ_TRY(text_of(file, "shape", &text, err));
    PQ_TRY(pq_packed_read_shape(text, &shape, err));
    if (shape.layers > (int64_t)file->count) /* before anything is allocated for so many */
        return PQ_FAIL(err, PQ_ERR_FORMAT, "it claims %" PRId64 " layers in %zu tensors", shape.layers,
                       file->count);
    if (pq_params_init(&shape, &out->params, err) != PQ_OK)
        return err ? err->code = PQ_ERR_FORMAT : PQ_ERR_FORMAT;
    PQ_TRY(pq_calloc(out->params.count, sizeof **codings, "codings", codings, err));
    PQ_TRY(text_of(file, "codebooks", &text, err));
    PQ_TRY(pq_packed_read_codebooks(text, &out->params, &out->codebooks, *codings, err));
    text = pq_safetensors_metadata(file, "activations");
    if (text && (!pq_activations_parse(text, &out->activations) || out->activations != PQ_ACTIVATIONS_TOKEN))
        return PQ_FAIL(err, PQ_ERR_FORMAT, "its activations are %.40s, expected int8-token or no such text",
                       text);
    PQ_TRY(text_of(file, "iter", &text, err));
    PQ_TRY(pq_packed_read_number(text, &iter, err));
    if (!(iter >= 0 && iter < 0x1p53 && iter == floor(iter)))
        return PQ_FAIL(err, PQ_ERR_FORMAT, "its iter is %.40s, which is not a whole number from 0", text);
    out->iter = (int64_t)iter;
    PQ_TRY(text_of(file, "val_loss", &text, err));
    PQ_TRY(pq_packed_read_number(text, &out->val_loss, err));
    PQ_TRY(pq_copy_text(pq_safetensors_metadata(file, "config"), &out->config, err));
    PQ_TRY(pq_copy_text(tokenizer, &out->tokenizer, err));
    if (!tokenizer) return PQ_OK;
    pq_packed_hash_text(tokenizer, strlen(tokenizer), found);
    PQ_TRY(text_of(file, "tokenizer_hash", &text, err));
    if (strcmp(text, found) != 0)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "its tokenizer has hash %s, recorded is %.40s", found, text);
    return PQ_OK;
}

/* The tensor `name``suffix`, whose shape must be [rows][columns] ([columns] with rows = 0) and whose dtype
 * one of the two. */
static pq_status take_tensor(const pq_safetensors *file, const char *name, const char *suffix,
                             const char *dtype, const char *other, size_t rows, size_t columns,
                             const pq_safetensor **out, pq_error *err) {
    char full[sizeof(((pq_param *)0)->name) + 16];
    snprintf(full, sizeof full, "%s%s", name, suffix);
    const pq_safetensor *tensor = pq_safetensors_find(file, full);
    if (!tensor) return PQ_FAIL(err, PQ_ERR_FORMAT, "its tensor %s is missing", full);
    bool shaped = rows ? tensor->rank == 2 && tensor->shape[0] == rows && tensor->shape[1] == columns
                       : tensor->rank == 1 && tensor->shape[0] == columns;
    if (!shaped)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "its tensor %s is not of the shape [%zu, %zu]", full,
                       rows ? rows : 1, columns);
    if (strcmp(tensor->dtype, dtype) != 0 && strcmp(tensor->dtype, other) != 0)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "its tensor %s is %s, expected %s", full, tensor->dtype, dtype);
    if ((uintptr_t)tensor->data % pq_safetensors_dtype_bytes(tensor->dtype) != 0)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "its tensor %s does not start at a multiple of its element size",
                       full);
    *out = tensor;
    return PQ_OK;
}

enum { CHECK_PARTS = 64 };

/* Checks of one matrix's codes, cut into parts of rows. */
typedef struct code_check {
    const pq_packed_tensor *tensor;
    size_t bad_row[CHECK_PARTS]; /* SIZE_MAX: none */
} code_check;

static void check_part(void *context, size_t part) {
    code_check *check = context;
    size_t rows = check->tensor->param->rows, end = (part + 1) * rows / CHECK_PARTS;
    const size_t columns = check->tensor->param->columns,
                 row_bytes = pq_packed_row_bytes(check->tensor->codebook->bits, columns);
    check->bad_row[part] = SIZE_MAX;
    for (size_t row = part * rows / CHECK_PARTS; row < end; row++)
        if (!pq_packed_row_valid(check->tensor->codebook, check->tensor->codes + row * row_bytes, columns)) {
            check->bad_row[part] = row;
            return;
        }
}

static pq_status check_values(const pq_packed_tensor *tensor, pq_error *err) {
    const char *name = tensor->param->name;
    for (size_t i = 0; tensor->dense && i < tensor->param->count; i++)
        if (!isfinite(tensor->dense[i]))
            return PQ_FAIL(err, PQ_ERR_FORMAT, "weight %zu of its %s is not finite", i, name);
    if (tensor->dense) return PQ_OK;
    const double largest = fmax(-tensor->codebook->range[0], tensor->codebook->range[1]);
    for (size_t i = 0; i < tensor->scale_count; i++) {
        float scale = pq_packed_scale(tensor, i);
        if (!(scale > 0) || !isfinite((float)(scale * largest)))
            return PQ_FAIL(err, PQ_ERR_FORMAT,
                           "scale %zu of its %s is %g, expected a positive number that keeps weights finite",
                           i, name, (double)scale);
    }
    code_check check = {.tensor = tensor};
    pq_parallel_for(CHECK_PARTS, check_part, &check);
    for (size_t part = 0; part < CHECK_PARTS; part++)
        if (check.bad_row[part] != SIZE_MAX)
            return PQ_FAIL(err, PQ_ERR_FORMAT, "row %zu of its %s has a code outside the codebook",
                           check.bad_row[part], name);
    return PQ_OK;
}

static pq_status read_tensor(const pq_safetensors *file, const pq_param *p, const pq_packed_coding *coding,
                             pq_packed_tensor *out, pq_error *err) {
    const pq_safetensor *codes, *scales, *dense;
    *out = (pq_packed_tensor){.param = p, .codebook = coding->codebook, .group = coding->group};
    if (!coding->codebook) {
        PQ_TRY(take_tensor(file, p->name, "", "F32", "F32", p->rows, p->columns, &dense, err));
        out->dense = dense->data;
    } else {
        const int bits = coding->codebook->bits;
        out->scale_count = pq_scale_count(p->rows, p->columns, coding->group);
        size_t per_row = pq_packed_scales_per_row(p->columns, coding->group);
        PQ_TRY(take_tensor(file, p->name, ".codes", "U8", "U8", p->rows,
                           pq_packed_row_bytes(bits, p->columns), &codes, err));
        PQ_TRY(take_tensor(file, p->name, ".scales", "BF16", "F32", out->scale_count / per_row, per_row,
                           &scales, err));
        out->codes = codes->data;
        if (strcmp(scales->dtype, "F32") == 0)
            out->scales_fp32 = scales->data;
        else
            out->scales_bf16 = scales->data;
    }
    return check_values(out, err);
}

static pq_status read_all(const pq_safetensors *file, pq_packed *out, pq_error *err) {
    pq_packed_coding *codings = NULL;
    pq_status status;
    size_t expected = 0;
    PQ_TRY(check_identity(file, err));
    PQ_TRY_TO(status, done, read_metadata(file, out, &codings, err));
    PQ_TRY_TO(status, done,
              pq_calloc(out->params.count, sizeof *out->tensors, "tensors", &out->tensors, err));
    for (size_t i = 0; i < out->params.count; i++) {
        PQ_TRY_TO(status, done, read_tensor(file, &out->params.list[i], &codings[i], &out->tensors[i], err));
        expected += codings[i].codebook ? 2 : 1;
    }
    if (file->count != expected)
        status = PQ_FAIL(err, PQ_ERR_FORMAT, "it has %zu tensors, its shape has %zu", file->count, expected);
    out->weight_bytes = file->data_bytes;
done:
    free(codings);
    return status;
}

pq_status pq_packed_from_view(pq_file_view *view, const char *name, pq_packed **out, pq_error *err) {
    pq_packed *packed = NULL;
    storage *held = NULL;
    pq_status status;
    *out = NULL;
    PQ_TRY_TO(status, fail, pq_calloc(1, sizeof *packed, "packed model", &packed, err));
    PQ_TRY_TO(status, fail, pq_calloc(1, sizeof *held, "packed model", &held, err));
    packed->storage = held;
    held->view = *view;
    *view = (pq_file_view){0};
    PQ_TRY_TO(status, fail, pq_safetensors_parse(held->view.data, held->view.size, name, &held->file, err));
    status = read_all(&held->file, packed, err);
    if (status != PQ_OK) {
        pq_prefix(err, status, "%s", name);
        goto fail;
    }
    *out = packed;
    return PQ_OK;
fail:
    pq_file_view_close(view);
    pq_packed_close(packed);
    return status;
}

pq_status pq_packed_open(const char *path, pq_packed **out, pq_error *err) {
    pq_file_view view;
    *out = NULL;
    PQ_TRY(pq_file_map(path, &view, err));
    return pq_packed_from_view(&view, path, out, err);
}

void pq_packed_close(pq_packed *packed) {
    if (!packed) return;
    storage *held = packed->storage;
    if (held) {
        pq_safetensors_deinit(&held->file);
        pq_file_view_close(&held->view);
    }
    free(held);
    free(packed->tensors);
    free(packed->codebooks);
    free(packed->tokenizer);
    free(packed->config);
    pq_params_deinit(&packed->params);
    free(packed);
}

pq_gpt2_shape pq_packed_shape(const pq_packed *packed) {
    return packed->params.shape;
}

size_t pq_packed_weight_bytes(const pq_packed *packed) {
    return packed->weight_bytes;
}

const char *pq_packed_tokenizer(const pq_packed *packed) {
    return packed->tokenizer;
}

void pq_packed_decode_rows(const pq_packed_tensor *tensor, size_t first, size_t count, float *out) {
    const size_t columns = tensor->param->columns;
    uint8_t codes[PQ_PACKED_BLOCK];
    if (tensor->dense) {
        memcpy(out, tensor->dense + first * columns, count * columns * sizeof *out);
        return;
    }
    const size_t block_bytes = 16 * (size_t)tensor->codebook->bits;
    const size_t run = tensor->group < PQ_PACKED_BLOCK ? tensor->group : PQ_PACKED_BLOCK;
    for (size_t row = first; row < first + count; row++) {
        const uint8_t *packed = tensor->codes + row * pq_packed_row_bytes(tensor->codebook->bits, columns);
        for (size_t block = 0; block < columns; block += PQ_PACKED_BLOCK, packed += block_bytes) {
            size_t n = columns - block < PQ_PACKED_BLOCK ? columns - block : PQ_PACKED_BLOCK;
            pq_unpack_row(tensor->codebook->bits, packed, n, codes);
            for (size_t i = 0; i < n; i += run)
                pq_decode(tensor->codebook, codes + i,
                          pq_packed_scale(tensor, (row * columns + block + i) / tensor->group), out + i,
                          n - i < run ? n - i : run);
            out += n;
        }
    }
}
