/* Owns the safetensors container: what its header says and whether that can be true. */
#include "formats/safetensors.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

#define HEADER_LIMIT 100000000u /* bytes; the limit of the reference implementation */
#define DATA_START   64         /* tensors start at a multiple of this */

static const struct {
    const char *name;
    size_t bytes;
} dtypes[] = {
    {"F32", 4}, {"BF16", 2}, {"F16", 2}, {"U8", 1},  {"I8", 1},  {"BOOL", 1},    {"I32", 4},     {"U32", 4},
    {"I16", 2}, {"U16", 2},  {"F64", 8}, {"I64", 8}, {"U64", 8}, {"F8_E4M3", 1}, {"F8_E5M2", 1},
};

size_t pq_safetensors_dtype_bytes(const char *dtype) {
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (strcmp(dtype, dtypes[i].name) == 0) return dtypes[i].bytes;
    return 0;
}

/* Bytes of a tensor by its dtype and shape; false when they overflow or the dtype is unknown. */
static bool tensor_bytes(const pq_safetensor *tensor, size_t *bytes) {
    *bytes = pq_safetensors_dtype_bytes(tensor->dtype);
    if (*bytes == 0) return false;
    for (size_t i = 0; i < tensor->rank; i++)
        if (__builtin_mul_overflow(*bytes, tensor->shape[i], bytes)) return false;
    return true;
}

/* A JSON number that is a count: an integer from 0. */
static bool read_count(const json_t *value, uint64_t *out) {
    if (!json_is_integer(value) || json_integer_value(value) < 0) return false;
    *out = (uint64_t)json_integer_value(value);
    return true;
}

/* One entry of the header; the tensor's data is left as its offset, which `span` gets as [begin, end). */
static pq_status read_tensor(const char *file, const char *name, const json_t *entry, pq_safetensor *out,
                             uint64_t span[2], pq_error *err) {
    const json_t *dtype = json_object_get(entry, "dtype"), *shape = json_object_get(entry, "shape"),
                 *offsets = json_object_get(entry, "data_offsets");
    size_t bytes;
    *out = (pq_safetensor){.name = name};
    if (!dtype || !shape || !offsets || json_object_size(entry) != 3)
        return PQ_FAIL(err, PQ_ERR_FORMAT,
                       "%s: tensor %s does not have exactly dtype, shape and data_offsets", file, name);
    if (!json_is_string(dtype) || !pq_safetensors_dtype_bytes(json_string_value(dtype)))
        return PQ_FAIL(err, PQ_ERR_FORMAT, "%s: tensor %s has the unknown dtype \"%s\"", file, name,
                       json_is_string(dtype) ? json_string_value(dtype) : "?");
    out->dtype = json_string_value(dtype);
    out->rank = json_array_size(shape);
    if (!json_is_array(shape) || out->rank > PQ_SAFETENSORS_RANK)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "%s: the shape of tensor %s is not a list of up to %d numbers",
                       file, name, PQ_SAFETENSORS_RANK);
    for (size_t i = 0; i < out->rank; i++)
        if (!read_count(json_array_get(shape, i), &out->shape[i]))
            return PQ_FAIL(err, PQ_ERR_FORMAT, "%s: dimension %zu of tensor %s is not a whole number from 0",
                           file, i, name);
    if (json_array_size(offsets) != 2 || !read_count(json_array_get(offsets, 0), &span[0]) ||
        !read_count(json_array_get(offsets, 1), &span[1]) || span[0] > span[1])
        return PQ_FAIL(err, PQ_ERR_FORMAT, "%s: data_offsets of tensor %s are not [begin, end]", file, name);
    if (!tensor_bytes(out, &bytes) || bytes != span[1] - span[0])
        return PQ_FAIL(err, PQ_ERR_FORMAT,
                       "%s: tensor %s has %" PRIu64 " bytes, which its shape and dtype disagree with", file,
                       name, span[1] - span[0]);
    out->bytes = bytes;
    return PQ_OK;
}

static pq_status read_metadata(const char *file, json_t *entry, pq_safetensors *out, pq_error *err) {
    const char *key;
    json_t *value;
    if (!json_is_object(entry)) return PQ_FAIL(err, PQ_ERR_FORMAT, "%s: __metadata__ is not an object", file);
    PQ_TRY(pq_calloc(json_object_size(entry), sizeof *out->texts, "metadata", &out->texts, err));
    json_object_foreach(entry, key, value) {
        if (!json_is_string(value))
            return PQ_FAIL(err, PQ_ERR_FORMAT, "%s: __metadata__ %s is not a string", file, key);
        out->texts[out->text_count++] = (pq_safetensors_text){key, json_string_value(value)};
    }
    return PQ_OK;
}

static int by_data(const void *a, const void *b) {
    const pq_safetensor *x = a, *y = b;
    if (x->data != y->data) return (uintptr_t)x->data < (uintptr_t)y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes); /* empty tensors first, then nothing overlaps */
}

static pq_status read_header(const char *file, json_t *header, pq_safetensors *out, pq_error *err) {
    const char *key;
    json_t *value;
    const char *at = out->data;
    uint64_t span[2] = {0};
    PQ_TRY(pq_calloc(json_object_size(header), sizeof *out->tensors, "tensor list", &out->tensors, err));
    json_object_foreach(header, key, value) {
        if (strcmp(key, "__metadata__") == 0) {
            PQ_TRY(read_metadata(file, value, out, err));
            continue;
        }
        pq_safetensor *tensor = &out->tensors[out->count++];
        PQ_TRY(read_tensor(file, key, value, tensor, span, err));
        if (span[1] > out->data_bytes)
            return PQ_FAIL(err, PQ_ERR_FORMAT,
                           "%s: tensor %s ends at byte %" PRIu64
                           " of %zu bytes of data: the file is cut or lies",
                           file, key, span[1], out->data_bytes);
        tensor->data = (const char *)out->data + span[0];
    }
    qsort(out->tensors, out->count, sizeof *out->tensors, by_data);
    for (size_t i = 0; i < out->count; i++) {
        if (out->tensors[i].data != at)
            return PQ_FAIL(err, PQ_ERR_FORMAT, "%s: there is %s before the data of tensor %s", file,
                           (const char *)out->tensors[i].data > at ? "a hole" : "an overlap",
                           out->tensors[i].name);
        at += out->tensors[i].bytes;
    }
    size_t used = (size_t)(at - (const char *)out->data);
    if (used != out->data_bytes)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "%s: %zu bytes follow the last tensor", file,
                       out->data_bytes - used);
    return PQ_OK;
}

pq_status pq_safetensors_parse(const void *image, size_t bytes, const char *name, pq_safetensors *out,
                               pq_error *err) {
    const unsigned char *head = image;
    uint64_t length = 0;
    json_error_t json_error;
    *out = (pq_safetensors){0};
    for (size_t i = 0; i < 8 && i < bytes; i++) length |= (uint64_t)head[i] << (8 * i);
    if (bytes < 8 || length > bytes - 8 || length > HEADER_LIMIT || length < 2 || head[8] != '{')
        return PQ_FAIL(err, PQ_ERR_FORMAT,
                       "%s is not a safetensors file: %zu bytes cannot hold its header of %" PRIu64 " bytes",
                       name, bytes, length);
    json_t *header = json_loadb((const char *)head + 8, (size_t)length, JSON_REJECT_DUPLICATES, &json_error);
    if (!header)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "%s: the safetensors header is not JSON: %s (byte %d)", name,
                       json_error.text, json_error.position);
    out->json = header;
    out->data = head + 8 + length;
    out->data_bytes = bytes - 8 - (size_t)length;
    pq_status status = read_header(name, header, out, err);
    if (status != PQ_OK) pq_safetensors_deinit(out);
    return status;
}

void pq_safetensors_deinit(pq_safetensors *file) {
    free(file->tensors);
    free(file->texts);
    json_decref(file->json);
    *file = (pq_safetensors){0};
}

const pq_safetensor *pq_safetensors_find(const pq_safetensors *file, const char *name) {
    for (size_t i = 0; i < file->count; i++)
        if (strcmp(file->tensors[i].name, name) == 0) return &file->tensors[i];
    return NULL;
}

const char *pq_safetensors_metadata(const pq_safetensors *file, const char *key) {
    for (size_t i = 0; i < file->text_count; i++)
        if (strcmp(file->texts[i].key, key) == 0) return file->texts[i].value;
    return NULL;
}

/* Put `value` (its reference is taken) under `key`; false on lack of memory, text that is not UTF-8, or a key
 * given twice. */
static bool put(json_t *object, const char *key, json_t *value) {
    if (json_object_get(object, key)) {
        json_decref(value);
        return false;
    }
    return json_object_set_new(object, key, value) == 0;
}

static json_t *header_json(pq_safetensor *tensors, size_t count, const pq_safetensors_text *texts,
                           size_t text_count) {
    json_t *header = json_object(), *metadata = json_object();
    bool good = true;
    json_int_t begin = 0;
    for (size_t i = 0; i < text_count; i++) good &= put(metadata, texts[i].key, json_string(texts[i].value));
    good &= put(header, "__metadata__", metadata);
    for (size_t i = 0; i < count; i++) {
        json_t *shape = json_array();
        good &= tensor_bytes(&tensors[i], &tensors[i].bytes);
        for (size_t d = 0; d < tensors[i].rank; d++)
            good &= json_array_append_new(shape, json_integer((json_int_t)tensors[i].shape[d])) == 0;
        json_int_t end = begin + (json_int_t)tensors[i].bytes;
        good &= put(header, tensors[i].name,
                    json_pack("{s:s, s:o, s:[I, I]}", "dtype", tensors[i].dtype, "shape", shape,
                              "data_offsets", begin, end));
        begin = end;
    }
    if (good) return header;
    json_decref(header);
    return NULL;
}

pq_status pq_safetensors_header(pq_safetensor *tensors, size_t count, const pq_safetensors_text *texts,
                                size_t text_count, char **header, size_t *header_bytes, pq_error *err) {
    *header = NULL;
    json_t *json = header_json(tensors, count, texts, text_count);
    size_t length = json ? json_dumpb(json, NULL, 0, JSON_COMPACT) : 0;
    size_t total = pq_round_up(8 + length, DATA_START);
    pq_status status = PQ_OK;
    if (length == 0 || total - 8 > HEADER_LIMIT)
        status = PQ_FAIL(err, PQ_ERR_USAGE,
                         "a safetensors header cannot be made: a text is not UTF-8, a name comes twice, "
                         "a dtype is unknown, or it is over %u bytes",
                         HEADER_LIMIT);
    if (status == PQ_OK) status = pq_calloc(total, 1, "safetensors header", header, err);
    if (status == PQ_OK) {
        for (size_t i = 0; i < 8; i++) (*header)[i] = (char)((total - 8) >> (8 * i) & 0xff);
        json_dumpb(json, *header + 8, length, JSON_COMPACT);
        memset(*header + 8 + length, ' ', total - 8 - length);
        *header_bytes = total;
    }
    json_decref(json);
    return status;
}
