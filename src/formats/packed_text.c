/* Owns the JSON texts of a packed model's metadata. A codebook is written with its values, so that readers
 * need no potqat, and read by making it anew and comparing the values, so that a text cannot lie. */
#include "formats/packed_text.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* The text of `json`, whose reference is taken (NULL is passed on as NULL). */
static char *take_text(json_t *json) {
    char *text = json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY);
    json_decref(json);
    return text;
}

/* Parse `text`, which stands under `what` in the metadata. */
static pq_status parse(const char *text, const char *what, json_t **out, pq_error *err) {
    json_error_t json_error;
    *out = json_loads(text, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &json_error);
    if (!*out) return PQ_FAIL(err, PQ_ERR_FORMAT, "its %s is not JSON: %s", what, json_error.text);
    return PQ_OK;
}

char *pq_packed_number_text(double value) {
    return take_text(isnan(value) ? json_null() : json_real(value));
}

pq_status pq_packed_read_number(const char *text, double *value, pq_error *err) {
    json_t *json;
    PQ_TRY(parse(text, "number", &json, err));
    bool good = json_is_number(json) || json_is_null(json);
    *value = json_is_null(json) ? NAN : json_number_value(json);
    json_decref(json);
    return good ? PQ_OK : PQ_FAIL(err, PQ_ERR_FORMAT, "it has %.40s where a number is expected", text);
}

char *pq_packed_shape_text(const pq_gpt2_shape *shape) {
    return take_text(json_pack("{s:I, s:I, s:I, s:I, s:I, s:b, s:s}", "layers", (json_int_t)shape->layers,
                               "heads", (json_int_t)shape->heads, "width", (json_int_t)shape->width,
                               "context", (json_int_t)shape->context, "vocab", (json_int_t)shape->vocab,
                               "bias", shape->bias, "gelu", shape->gelu_tanh ? "tanh" : "erf"));
}

pq_status pq_packed_read_shape(const char *text, pq_gpt2_shape *shape, pq_error *err) {
    json_t *json;
    json_int_t layers, heads, width, context, vocab;
    int bias;
    const char *gelu;
    PQ_TRY(parse(text, "shape", &json, err));
    bool good = json_unpack(json, "{s:I, s:I, s:I, s:I, s:I, s:b, s:s !}", "layers", &layers, "heads", &heads,
                            "width", &width, "context", &context, "vocab", &vocab, "bias", &bias, "gelu",
                            &gelu) == 0 &&
                (strcmp(gelu, "erf") == 0 || strcmp(gelu, "tanh") == 0);
    if (good)
        *shape = (pq_gpt2_shape){.layers = layers,
                                 .heads = heads,
                                 .width = width,
                                 .context = context,
                                 .vocab = vocab,
                                 .bias = bias,
                                 .gelu_tanh = strcmp(gelu, "tanh") == 0};
    json_decref(json);
    if (good) return PQ_OK;
    return PQ_FAIL(err, PQ_ERR_FORMAT,
                   "its shape needs layers, heads, width, context, vocab, bias and gelu (erf or tanh), found "
                   "%.200s",
                   text);
}

static json_t *values_json(const pq_codebook *codebook) {
    json_t *values = json_array();
    for (int code = 0; code < 1 << codebook->bits; code++)
        json_array_append_new(values,
                              isnan(codebook->value[code]) ? json_null() : json_real(codebook->value[code]));
    return values;
}

static json_t *codebook_json(const pq_codebook *codebook) {
    return json_pack("{s:s, s:I, s:i, s:[f, f], s:s, s:i, s:o}", "quantizer", codebook->type->name, "wire_id",
                     (json_int_t)codebook->type->wire_id, "levels", codebook->levels, "range",
                     codebook->range[0], codebook->range[1], "rounding", pq_rounding_name(codebook->rounding),
                     "bits", codebook->bits, "values", values_json(codebook));
}

/* The same meaning: made by the same quantizer and equal in every value. */
static bool same_values(const pq_codebook *a, const pq_codebook *b) {
    if (a->type != b->type || a->bits != b->bits || a->rounding != b->rounding) return false;
    for (int code = 0; code < 1 << a->bits; code++)
        if (!(a->value[code] == b->value[code] || (isnan(a->value[code]) && isnan(b->value[code]))))
            return false;
    return true;
}

char *pq_packed_codebooks_text(const pq_model *model) {
    json_t *books = json_array(), *params = json_object();
    const pq_codebook **unique = calloc(model->params.count, sizeof *unique);
    size_t count = 0;
    for (size_t i = 0; unique && i < model->params.count; i++) {
        const pq_param_quant *q = &model->quant[i];
        size_t index = 0;
        if (!q->quantized) continue;
        while (index < count && !same_values(unique[index], &q->codebook)) index++;
        if (index == count) {
            unique[count++] = &q->codebook;
            json_array_append_new(books, codebook_json(&q->codebook));
        }
        const pq_param *p = &model->params.list[i];
        json_object_set_new(params, p->name,
                            json_pack("{s:I, s:I, s:I}", "codebook", (json_int_t)index, "group",
                                      (json_int_t)q->group, "columns", (json_int_t)p->columns));
    }
    json_t *all = json_pack("{s:o, s:o}", "codebooks", books, "params", params);
    char *text = unique ? take_text(all) : NULL;
    free(unique);
    return text;
}

/* Whether the file's list of values is this codebook's. */
static bool values_agree(const pq_codebook *codebook, const json_t *values) {
    if (json_array_size(values) != (size_t)1 << codebook->bits) return false;
    for (int code = 0; code < 1 << codebook->bits; code++) {
        const json_t *value = json_array_get(values, (size_t)code);
        if (isnan(codebook->value[code])
                ? !json_is_null(value)
                : !json_is_number(value) || json_number_value(value) != (double)codebook->value[code])
            return false;
    }
    return true;
}

static pq_status read_codebook(json_t *json, size_t index, pq_codebook *out, pq_error *err) {
    const char *name, *rounding_name;
    json_int_t wire_id;
    int levels, bits;
    double range[2];
    pq_rounding rounding;
    json_t *values;
    if (json_unpack(json, "{s:s, s:I, s:i, s:[F, F!], s:s, s:i, s:o !}", "quantizer", &name, "wire_id",
                    &wire_id, "levels", &levels, "range", &range[0], &range[1], "rounding", &rounding_name,
                    "bits", &bits, "values", &values) != 0 ||
        !pq_rounding_parse(rounding_name, &rounding))
        return PQ_FAIL(err, PQ_ERR_FORMAT,
                       "codebook %zu needs quantizer, wire_id, levels, range, rounding, bits and values",
                       index);
    const pq_quantizer *type = pq_quantizer_find(name);
    if (!type || type->wire_id != wire_id)
        return PQ_FAIL(err, PQ_ERR_FORMAT,
                       "codebook %zu is of quantizer %.40s (%lld), which this build lacks", index, name,
                       (long long)wire_id);
    /* A quantizer is configured by its levels or by its range; whichever gives the file's values. */
    const double *ranges[] = {NULL, range};
    for (size_t i = 0; i < 2; i++)
        if (pq_codebook_init(out, name, levels, ranges[i], rounding, NULL) == PQ_OK && out->bits == bits &&
            out->levels == levels && out->range[0] == range[0] && out->range[1] == range[1] &&
            values_agree(out, values))
            return PQ_OK;
    return PQ_FAIL(err, PQ_ERR_FORMAT, "codebook %zu is not what quantizer %s with %d levels makes", index,
                   name, levels);
}

static pq_status read_coding(json_t *json, const char *name, const pq_params *params,
                             const pq_codebook *codebooks, size_t count, pq_packed_coding *codings,
                             pq_error *err) {
    const pq_param *p = pq_params_find(params, name);
    json_int_t index, group, columns;
    if (!p || !p->quantizable)
        return PQ_FAIL(err, PQ_ERR_FORMAT,
                       "%.64s, which is said to be quantized, is not a matrix of this shape", name);
    if (json_unpack(json, "{s:I, s:I, s:I !}", "codebook", &index, "group", &group, "columns", &columns) !=
            0 ||
        index < 0 || (size_t)index >= count)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "%s needs a codebook below %zu, a group and columns", name, count);
    if ((size_t)columns != p->columns)
        return PQ_FAIL(err, PQ_ERR_FORMAT,
                       "%s has rows of %zu weights by its shape, of %lld by its codebooks text", name,
                       p->columns, (long long)columns);
    bool in_row = (group == 32 || group == 64 || group == 128) && p->columns % (size_t)group == 0;
    bool rows = group > 0 && (size_t)group <= p->count && (size_t)group % p->columns == 0 &&
                p->count % (size_t)group == 0;
    if (!in_row && !rows)
        return PQ_FAIL(
            err, PQ_ERR_FORMAT,
            "%s has one scale for %lld weights: expected 32, 64, 128, or rows of %zu that divide the "
            "whole matrix",
            name, (long long)group, p->columns);
    codings[p - params->list] = (pq_packed_coding){&codebooks[index], (size_t)group};
    return PQ_OK;
}

static pq_status read_codebooks(json_t *json, const pq_params *params, pq_codebook **codebooks,
                                pq_packed_coding *codings, pq_error *err) {
    json_t *books, *map, *coding;
    const char *name;
    if (json_unpack(json, "{s:o, s:o !}", "codebooks", &books, "params", &map) != 0 ||
        !json_is_array(books) || !json_is_object(map))
        return PQ_FAIL(err, PQ_ERR_FORMAT, "its codebooks text needs a list codebooks and an object params");
    size_t count = json_array_size(books);
    if (count > params->count)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "it has %zu codebooks for %zu parameters", count, params->count);
    PQ_TRY(pq_calloc(count, sizeof **codebooks, "codebooks", codebooks, err));
    for (size_t i = 0; i < count; i++)
        PQ_TRY(read_codebook(json_array_get(books, i), i, &(*codebooks)[i], err));
    json_object_foreach(map, name, coding)
        PQ_TRY(read_coding(coding, name, params, *codebooks, count, codings, err));
    return PQ_OK;
}

pq_status pq_packed_read_codebooks(const char *text, const pq_params *params, pq_codebook **codebooks,
                                   pq_packed_coding *codings, pq_error *err) {
    json_t *json;
    PQ_TRY(parse(text, "codebooks text", &json, err));
    pq_status status = read_codebooks(json, params, codebooks, codings, err);
    json_decref(json);
    return status;
}
