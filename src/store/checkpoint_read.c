/* Owns reading checkpoints. The seal is compared before HDF5 sees the file; what HDF5 then finds must have
 * exactly the names, types and shapes that the file's own shape attributes ask for, so that a file made by
 * someone else cannot make us read or allocate anything it does not hold. HDF5 is not thread-safe: one thread
 * at a time may be in this room. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "store/checkpoint.h"
#include "store/layout.h"

typedef struct reader {
    const char *path;
    size_t bytes; /* of the file: an upper bound of everything in it */
    pq_error *err;
} reader;

#define DAMAGED(r, format, ...)                                                                              \
    PQ_FAIL((r)->err, PQ_ERR_FORMAT, "%s is damaged: " format, (r)->path, __VA_ARGS__)

/* Whatever is wrong with what a checkpoint says is damage of the file, not a mistake of the caller. */
static pq_status as_damage(const reader *r, pq_status status) {
    if (status == PQ_OK || status == PQ_ERR_MEMORY) return status;
    if (r->err) r->err->code = PQ_ERR_FORMAT;
    pq_prefix(r->err, PQ_ERR_FORMAT, "%s is damaged", r->path);
    return PQ_ERR_FORMAT;
}

/* ---- the seal ---- */

static pq_status check_head(const char *path, const pq_file_view *file, pq_error *err) {
    static const char first_line[] = PQ_CHECKPOINT_FORMAT "\nversion ";
    const size_t length = sizeof first_line - 1;
    if (file->size >= 8 && memcmp(file->data, "\x89HDF\r\n\x1a\n", 8) == 0)
        return PQ_FAIL(err, PQ_ERR_FORMAT,
                       "%s is an HDF5 file but not a potqat checkpoint, which begins with a seal", path);
    if (memcmp(file->data, first_line, file->size < length ? file->size : length) != 0)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "%s is not a potqat checkpoint: it does not begin with \"%s\"",
                       path, PQ_CHECKPOINT_FORMAT);
    if (file->size < PQ_SEAL_BYTES)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "%s is damaged: it ends after %zu bytes, within its seal", path,
                       file->size);
    long version = strtol(file->data + length, NULL, 10); /* the zeros behind the text end it */
    if (version > PQ_CHECKPOINT_VERSION)
        return PQ_FAIL(err, PQ_ERR_FORMAT,
                       "%s was written by a newer potqat: checkpoint version %ld, this one reads up to %d",
                       path, version, PQ_CHECKPOINT_VERSION);
    return PQ_OK;
}

static pq_status check_seal(const char *path, size_t *bytes, pq_error *err) {
    pq_file_view file;
    char head[PQ_SEAL_BYTES + 1], seal[PQ_SEAL_BYTES];
    uint64_t hash;
    size_t said = 0;
    PQ_TRY(pq_file_map(path, &file, err));
    memset(head, 0, sizeof head);
    memcpy(head, file.data, file.size < PQ_SEAL_BYTES ? file.size : PQ_SEAL_BYTES);
    pq_status status = check_head(path, &(pq_file_view){.data = head, .size = file.size}, err);
    pq_file_view_close(&file);
    PQ_TRY(status);
    PQ_TRY(pq_file_hash(path, PQ_SEAL_BYTES, bytes, &hash, err));
    *bytes += PQ_SEAL_BYTES;
    pq_seal_make(seal, *bytes, hash);
    if (memcmp(head, seal, sizeof seal) == 0) return PQ_OK;
    const char *line = strstr(head, "\nbytes ");
    if (line && sscanf(line, "\nbytes %zu", &said) == 1 && said != *bytes)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "%s is damaged: its seal speaks of %zu bytes, the file has %zu",
                       path, said, *bytes);
    return PQ_FAIL(err, PQ_ERR_FORMAT, "%s is damaged: its bytes do not have the checksum of its seal", path);
}

/* ---- pieces of HDF5 ---- */

static bool has_link(hid_t group, const char *name) {
    return H5Lexists(group, name, H5P_DEFAULT) > 0;
}

/* Soft and external links could lead out of the file. */
static bool is_hard(hid_t group, const char *name) {
    H5L_info_t info;
    return H5Lget_info(group, name, &info, H5P_DEFAULT) >= 0 && info.type == H5L_TYPE_HARD;
}

static pq_status open_group(const reader *r, hid_t parent, const char *name, hid_t *group) {
    *group = is_hard(parent, name) ? H5Gopen2(parent, name, H5P_DEFAULT) : H5I_INVALID_HID;
    return *group >= 0 ? PQ_OK : DAMAGED(r, "expected a group %s, found none", name);
}

/* Together with opening `expected` different names: those names and no others. */
static pq_status check_links(const reader *r, hid_t group, const char *name, size_t expected) {
    H5G_info_t info;
    if (H5Gget_info(group, &info) < 0) return DAMAGED(r, "group %s cannot be read", name);
    if (info.nlinks != expected)
        return DAMAGED(r, "expected %zu entries in group %s, found %llu", expected, name,
                       (unsigned long long)info.nlinks);
    return PQ_OK;
}

static bool read_field(hid_t object, const pq_field *field, void *record) {
    hid_t attribute = H5Aopen(object, field->name, H5P_DEFAULT);
    hid_t space = H5Aget_space(attribute), found = H5Aget_type(attribute);
    hid_t stored = pq_field_stored_type(field->kind), memory = pq_field_memory_type(field->kind);
    hsize_t count = 1;
    const int rank = field->count == 1 ? 0 : 1;
    bool good = attribute >= 0 && H5Sget_simple_extent_ndims(space) == rank &&
                H5Sget_simple_extent_type(space) == (rank ? H5S_SIMPLE : H5S_SCALAR) &&
                (rank == 0 || H5Sget_simple_extent_dims(space, &count, NULL) == 1) && count == field->count &&
                H5Tequal(found, stored) > 0 &&
                H5Aread(attribute, memory, (char *)record + field->offset) >= 0;
    H5Tclose(memory);
    H5Tclose(stored);
    H5Tclose(found);
    H5Sclose(space);
    H5Aclose(attribute);
    if (good && field->kind == PQ_FIELD_TEXT)
        good = memchr((char *)record + field->offset, 0, PQ_FIELD_TEXT_BYTES) != NULL;
    return good;
}

static pq_status read_fields(const reader *r, hid_t object, const char *where, const pq_field *table,
                             size_t count, void *record) {
    H5O_info_t info;
    if (H5Oget_info2(object, &info, H5O_INFO_NUM_ATTRS) < 0) return DAMAGED(r, "%s cannot be read", where);
    if (info.num_attrs != count)
        return DAMAGED(r, "expected %zu attributes of %s, found %llu", count, where,
                       (unsigned long long)info.num_attrs);
    for (size_t i = 0; i < count; i++)
        if (!read_field(object, &table[i], record))
            return DAMAGED(r, "attribute %s of %s is missing or of another type", table[i].name, where);
    return PQ_OK;
}

/* Chunked, Fletcher32 and no other filter, nothing outside the file, every chunk there (HDF5 would fill in
 * zeros for those that are not). */
static bool is_plain(hid_t dataset, size_t bytes) {
    unsigned flags, options[1];
    size_t option_count = 0;
    hid_t properties = H5Dget_create_plist(dataset);
    bool good = H5Pget_layout(properties) == H5D_CHUNKED && H5Pget_nfilters(properties) == 1 &&
                H5Pget_filter2(properties, 0, &flags, &option_count, options, 0, NULL, NULL) ==
                    H5Z_FILTER_FLETCHER32 &&
                H5Dget_storage_size(dataset) >= bytes;
    H5Pclose(properties);
    return good;
}

/* A dataset of exactly this rank and size whose items have `stored` type; closed with H5Dclose. */
static pq_status open_dataset(const reader *r, hid_t parent, const char *name, hid_t stored, int rank,
                              const hsize_t *size, hid_t *dataset) {
    hsize_t found[2] = {0, 0}, items = 1;
    *dataset = is_hard(parent, name) ? H5Dopen2(parent, name, H5P_DEFAULT) : H5I_INVALID_HID;
    if (*dataset < 0) return DAMAGED(r, "expected a dataset %s, found none", name);
    hid_t type = H5Dget_type(*dataset), space = H5Dget_space(*dataset);
    const int found_rank = H5Sget_simple_extent_ndims(space);
    bool good_type = H5Tequal(type, stored) > 0;
    if (found_rank == 1 || found_rank == 2) H5Sget_simple_extent_dims(space, found, NULL);
    H5Sclose(space);
    H5Tclose(type);
    bool good_size = found_rank == rank && found[0] == size[0] && (rank == 1 || found[1] == size[1]);
    for (int d = 0; d < rank; d++) items *= size[d];
    if (good_type && good_size && is_plain(*dataset, (size_t)items * H5Tget_size(stored))) return PQ_OK;
    H5Dclose(*dataset);
    *dataset = H5I_INVALID_HID;
    if (!good_type) return DAMAGED(r, "%s is of another type than expected", name);
    if (good_size) return DAMAGED(r, "%s is stored in another way than expected, or parts are missing", name);
    if (rank == 1)
        return DAMAGED(r, "expected %llu entries in %s, found rank %d, size %llu x %llu",
                       (unsigned long long)size[0], name, found_rank, (unsigned long long)found[0],
                       (unsigned long long)found[1]);
    return DAMAGED(r, "expected shape %llu x %llu of %s, found rank %d, size %llu x %llu",
                   (unsigned long long)size[0], (unsigned long long)size[1], name, found_rank,
                   (unsigned long long)found[0], (unsigned long long)found[1]);
}

static pq_status read_floats(const reader *r, hid_t parent, const char *name, int rank, const hsize_t *size,
                             float *out) {
    hid_t dataset;
    size_t count = (size_t)size[0] * (rank == 2 ? (size_t)size[1] : 1);
    PQ_TRY(open_dataset(r, parent, name, H5T_IEEE_F32LE, rank, size, &dataset));
    herr_t result = H5Dread(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, out);
    H5Dclose(dataset);
    if (result < 0) return DAMAGED(r, "%s does not have its checksum", name);
    for (size_t i = 0; i < count; i++)
        if (!isfinite(out[i])) return DAMAGED(r, "%s holds %g at element %zu", name, (double)out[i], i);
    return PQ_OK;
}

/* *out stays NULL where the file has no such text. */
static pq_status read_text(const reader *r, hid_t parent, const char *name, char **out) {
    const hsize_t one = 1;
    pq_status status = PQ_OK;
    *out = NULL;
    if (!has_link(parent, name)) return PQ_OK;
    hid_t dataset = is_hard(parent, name) ? H5Dopen2(parent, name, H5P_DEFAULT) : H5I_INVALID_HID;
    hid_t found = H5Dget_type(dataset);
    size_t bytes = dataset >= 0 && H5Tget_class(found) == H5T_STRING ? H5Tget_size(found) : 0;
    H5Tclose(found);
    H5Dclose(dataset);
    if (bytes == 0 || bytes > r->bytes) return DAMAGED(r, "%s is not a text", name);
    char *text = malloc(bytes + 1);
    hid_t type = pq_text_type(bytes);
    if (!text) status = PQ_FAIL(r->err, PQ_ERR_MEMORY, "%s: %zu bytes of %s", r->path, bytes, name);
    if (status == PQ_OK) status = open_dataset(r, parent, name, type, 1, &one, &dataset);
    if (status == PQ_OK) {
        if (H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, text) < 0)
            status = DAMAGED(r, "%s does not have its checksum", name);
        H5Dclose(dataset);
        text[bytes] = 0;
        if (status == PQ_OK && strlen(text) != bytes && !(bytes == 1 && *text == 0))
            status = DAMAGED(r, "the text of %s has a zero byte in it", name);
    }
    H5Tclose(type);
    if (status == PQ_OK)
        *out = text;
    else
        free(text);
    return status;
}

static pq_status read_parameters(const reader *r, hid_t parent, const char *name, const pq_params *params,
                                 float *out) {
    hid_t group;
    PQ_TRY(open_group(r, parent, name, &group));
    pq_status status = check_links(r, group, name, params->count);
    for (size_t i = 0; i < params->count && status == PQ_OK; i++) {
        const pq_param *p = &params->list[i];
        const hsize_t size[2] = {p->rows ? p->rows : p->columns, p->columns};
        status = read_floats(r, group, p->name, p->rows ? 2 : 1, size, out + p->offset);
    }
    H5Gclose(group);
    return status;
}

/* ---- quantizers ---- */

/* A codebook is made again from its few parameters and must come out as it was saved. Whether it was asked
 * for by its levels or by its range is the quantizer's affair: the one that gives the same back is right. */
static bool make_codebook(const pq_quant_fields *fields, pq_codebook *codebook) {
    pq_rounding rounding;
    const pq_quantizer *type = pq_quantizer_find(fields->quantizer);
    if (!type || type->wire_id != fields->wire_id || !pq_rounding_parse(fields->rounding, &rounding))
        return false;
    for (int by_range = 0; by_range < 2; by_range++)
        if (pq_codebook_init(codebook, fields->quantizer, fields->levels, by_range ? fields->range : NULL,
                             rounding, NULL) == PQ_OK &&
            codebook->levels == fields->levels && codebook->bits == fields->bits &&
            codebook->range[0] == fields->range[0] && codebook->range[1] == fields->range[1])
            return true;
    return false;
}

static pq_status read_quantizer(const reader *r, hid_t group, pq_model *model, size_t index) {
    const char *name = model->params.list[index].name;
    pq_quant_fields fields;
    pq_codebook codebook;
    PQ_TRY(check_links(r, group, name, 1));
    PQ_TRY(read_fields(r, group, name, pq_quant_table, PQ_QUANT_FIELDS, &fields));
    if (!make_codebook(&fields, &codebook))
        return DAMAGED(r, "no quantizer %s (id %llu) with %lld levels in [%g, %g], %s, as %s has it",
                       fields.quantizer, (unsigned long long)fields.wire_id, (long long)fields.levels,
                       fields.range[0], fields.range[1], fields.rounding, name);
    PQ_TRY(as_damage(r, pq_model_quantize_param(model, index, &codebook, fields.granularity, r->err)));
    pq_param_quant *quant = &model->quant[index];
    if (fields.group != (int64_t)quant->group)
        return DAMAGED(r, "%s has %lld weights a scale, expected %zu by its granularity %s", name,
                       (long long)fields.group, quant->group, fields.granularity);
    const hsize_t size = quant->scale_count;
    PQ_TRY(read_floats(r, group, "scales", 1, &size, quant->scales));
    for (size_t i = 0; i < quant->scale_count; i++)
        if (quant->scales[i] <= 0)
            return DAMAGED(r, "scale %zu of %s is %g, expected a positive number", i, name,
                           (double)quant->scales[i]);
    return PQ_OK;
}

static pq_status read_quantizers(const reader *r, hid_t file, pq_model *model) {
    hid_t quant, group;
    size_t found = 0;
    PQ_TRY(open_group(r, file, "quant", &quant));
    pq_status status = PQ_OK;
    for (size_t i = 0; i < model->params.count && status == PQ_OK; i++) {
        const char *name = model->params.list[i].name;
        if (!has_link(quant, name)) continue;
        found++;
        status = open_group(r, quant, name, &group);
        if (status != PQ_OK) break;
        status = read_quantizer(r, group, model, i);
        H5Gclose(group);
    }
    if (status == PQ_OK) status = check_links(r, quant, "quant", found);
    H5Gclose(quant);
    return status;
}

/* ---- activations ---- */

static pq_status read_ranges(const reader *r, hid_t group, pq_model *model) {
    const hsize_t size[2] = {pq_model_sites(model), 2};
    PQ_TRY(read_floats(r, group, "ranges", 2, size, &model->ranges[0][0]));
    for (size_t i = 0; i < pq_model_sites(model); i++)
        PQ_TRY(as_damage(r, pq_model_set_range(model, i, model->ranges[i][0], model->ranges[i][1], r->err)));
    return PQ_OK;
}

static pq_status read_activations(const reader *r, hid_t file, pq_model *model) {
    hid_t group;
    pq_activations kind;
    pq_activation_fields fields;
    if (!has_link(file, "activations")) return PQ_OK;
    PQ_TRY(open_group(r, file, "activations", &group));
    pq_status status =
        read_fields(r, group, "activations", pq_activation_table, PQ_ACTIVATION_FIELDS, &fields);
    if (status == PQ_OK && (!pq_activations_parse(fields.kind, &kind) || kind == PQ_ACTIVATIONS_NONE))
        status = DAMAGED(r, "activations are of a kind %s, expected int8-token or int8-affine", fields.kind);
    if (status == PQ_OK) status = pq_model_quantize_activations(model, kind, r->err);
    if (status == PQ_OK) status = check_links(r, group, "activations", model->ranges ? 1 : 0);
    if (status == PQ_OK && model->ranges) status = read_ranges(r, group, model);
    H5Gclose(group);
    return status;
}

/* ---- the whole ---- */

static pq_status read_root(const reader *r, hid_t file, pq_root_fields *root, pq_gpt2_shape *shape) {
    PQ_TRY(read_fields(r, file, "the root", pq_root_table, PQ_ROOT_FIELDS, root));
    if (strcmp(root->format, PQ_CHECKPOINT_FORMAT) != 0 || root->version != PQ_CHECKPOINT_VERSION)
        return DAMAGED(r, "its root speaks of %s, version %lld", root->format, (long long)root->version);
    bool tanh = strcmp(root->gelu, "tanh") == 0;
    if ((!tanh && strcmp(root->gelu, "erf") != 0) || root->bias < 0 || root->bias > 1 || root->iter < 0)
        return DAMAGED(r, "expected gelu erf or tanh, bias 0 or 1, iter >= 0, found %s, %lld, %lld",
                       root->gelu, (long long)root->bias, (long long)root->iter);
    *shape = (pq_gpt2_shape){.layers = root->layers,
                             .heads = root->heads,
                             .width = root->width,
                             .context = root->context,
                             .vocab = root->vocab,
                             .bias = root->bias == 1,
                             .gelu_tanh = tanh};
    return PQ_OK;
}

/* A model whose weights, at 4 bytes each, cannot be in the file is not allocated. */
static pq_status create_model(const reader *r, const pq_gpt2_shape *shape, pq_model **out) {
    pq_params params;
    PQ_TRY(as_damage(r, pq_params_init(shape, &params, r->err)));
    double bytes = 0;
    for (size_t i = 0; i < params.count; i++)
        bytes +=
            4.0 * (params.list[i].rows ? (double)params.list[i].rows : 1.0) * (double)params.list[i].columns;
    pq_params_deinit(&params);
    if (bytes > (double)r->bytes)
        return DAMAGED(r, "its shape asks for %.0f bytes of weights, the file has %zu", bytes, r->bytes);
    return pq_model_create(shape, out, r->err);
}

static pq_status read_moments(const reader *r, hid_t file, const pq_params *params,
                              pq_training_state *state) {
    hid_t moments;
    pq_status status;
    PQ_TRY(open_group(r, file, "moments", &moments));
    PQ_TRY_TO(status, done, check_links(r, moments, "moments", 2));
    PQ_TRY_TO(status, done, pq_calloc(params->elements, sizeof(float), "moments", &state->m, r->err));
    PQ_TRY_TO(status, done, pq_calloc(params->elements, sizeof(float), "moments", &state->v, r->err));
    PQ_TRY_TO(status, done, read_parameters(r, moments, "m", params, state->m));
    PQ_TRY_TO(status, done, read_parameters(r, moments, "v", params, state->v));
done:
    H5Gclose(moments);
    return status;
}

/* ---- state of the training methods ---- */

/* Name, type and size of entry `index`, as the file has them; sizes that the file cannot hold are refused. */
static pq_status describe_array(const reader *r, hid_t group, size_t index, pq_state_array *out) {
    hsize_t size = 0;
    ssize_t length = H5Lget_name_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, index, out->name,
                                        sizeof out->name, H5P_DEFAULT);
    if (length <= 0 || (size_t)length >= sizeof out->name || !pq_array_name_valid(out->name))
        return DAMAGED(r, "entry %zu of group arrays has a name that no training method uses", index);
    hid_t dataset = is_hard(group, out->name) ? H5Dopen2(group, out->name, H5P_DEFAULT) : H5I_INVALID_HID;
    if (dataset < 0) return DAMAGED(r, "expected a dataset %s, found none", out->name);
    hid_t type = H5Dget_type(dataset), space = H5Dget_space(dataset);
    bool f32 = H5Tequal(type, H5T_IEEE_F32LE) > 0, u8 = H5Tequal(type, H5T_STD_U8LE) > 0;
    if (H5Sget_simple_extent_ndims(space) == 1) H5Sget_simple_extent_dims(space, &size, NULL);
    H5Sclose(space);
    H5Tclose(type);
    H5Dclose(dataset);
    if ((!f32 && !u8) || size == 0 || size > r->bytes / (f32 ? sizeof(float) : 1))
        return DAMAGED(r, "%s is not a list of floats or bytes that the file could hold", out->name);
    out->type = f32 ? PQ_ARRAY_F32 : PQ_ARRAY_U8;
    out->count = (size_t)size;
    return PQ_OK;
}

static pq_status read_array(const reader *r, hid_t group, pq_state_array *array) {
    const hsize_t size = array->count;
    hid_t dataset;
    bool f32 = array->type == PQ_ARRAY_F32;
    PQ_TRY(pq_calloc(array->count, f32 ? sizeof(float) : 1, array->name, &array->data, r->err));
    if (f32) return read_floats(r, group, array->name, 1, &size, array->data);
    PQ_TRY(open_dataset(r, group, array->name, H5T_STD_U8LE, 1, &size, &dataset));
    herr_t result = H5Dread(dataset, H5T_NATIVE_UCHAR, H5S_ALL, H5S_ALL, H5P_DEFAULT, array->data);
    H5Dclose(dataset);
    return result < 0 ? DAMAGED(r, "%s does not have its checksum", array->name) : PQ_OK;
}

/* Each array fits into the file by itself; so must all of them, or they share what they are stored in. */
static pq_status read_arrays(const reader *r, hid_t file, pq_training_state *state) {
    H5G_info_t info;
    hid_t group;
    size_t bytes = 0;
    pq_status status = PQ_OK;
    if (!has_link(file, "arrays")) return PQ_OK;
    PQ_TRY(open_group(r, file, "arrays", &group));
    if (H5Gget_info(group, &info) < 0 || info.nlinks == 0 || info.nlinks > PQ_MOST_ARRAYS)
        status = DAMAGED(r, "expected 1 to %d entries in group arrays", PQ_MOST_ARRAYS);
    if (status == PQ_OK)
        status =
            pq_calloc((size_t)info.nlinks, sizeof *state->arrays, "state arrays", &state->arrays, r->err);
    for (size_t i = 0; status == PQ_OK && i < info.nlinks; i++) {
        pq_state_array *array = &state->arrays[i];
        status = describe_array(r, group, i, array);
        if (status != PQ_OK) break;
        state->array_count = i + 1;
        bytes += array->count * (array->type == PQ_ARRAY_F32 ? sizeof(float) : 1);
        status = bytes <= r->bytes
                     ? read_array(r, group, array)
                     : DAMAGED(r, "group arrays speaks of %zu bytes, the file has %zu", bytes, r->bytes);
    }
    H5Gclose(group);
    return status;
}

static pq_status read_file(const reader *r, hid_t file, pq_model **out, pq_training_state *state) {
    pq_root_fields root;
    pq_gpt2_shape shape;
    const bool has_moments = has_link(file, "moments");
    PQ_TRY(check_links(r, file, "/",
                       2 + (size_t)has_link(file, "config") + (size_t)has_link(file, "tokenizer") +
                           (size_t)has_link(file, "state") + (size_t)has_link(file, "arrays") +
                           (size_t)has_link(file, "activations") + (size_t)has_moments));
    PQ_TRY(read_root(r, file, &root, &shape));
    PQ_TRY(create_model(r, &shape, out));
    pq_model *model = *out;
    model->iter = root.iter;
    model->val_loss = root.val_loss;
    PQ_TRY(read_text(r, file, "config", &model->config));
    PQ_TRY(read_text(r, file, "tokenizer", &model->tokenizer));
    uint64_t hash = model->tokenizer ? pq_hash(model->tokenizer, strlen(model->tokenizer)) : 0;
    if (hash != root.tokenizer_hash)
        return DAMAGED(r, "its tokenizer has hash %016llx, expected %016llx", (unsigned long long)hash,
                       (unsigned long long)root.tokenizer_hash);
    PQ_TRY(read_parameters(r, file, "weights", &model->params, model->weights));
    PQ_TRY(read_quantizers(r, file, model));
    PQ_TRY(read_activations(r, file, model));
    if (!state) return PQ_OK;
    PQ_TRY(read_text(r, file, "state", &state->state));
    PQ_TRY(read_arrays(r, file, state));
    return has_moments ? read_moments(r, file, &model->params, state) : PQ_OK;
}

pq_status pq_checkpoint_read(const char *path, pq_model **model, pq_training_state *state, pq_error *err) {
    reader r = {.path = path, .err = err};
    pq_hdf5_settings saved;
    *model = NULL;
    if (state) *state = (pq_training_state){0};
    PQ_TRY(check_seal(path, &r.bytes, err));
    pq_hdf5_begin(&saved);
    hid_t access = pq_hdf5_access();
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, access);
    H5Pclose(access);
    pq_status status = file >= 0 ? read_file(&r, file, model, state)
                                 : DAMAGED(&r, "%s", "HDF5 finds no data behind its seal");
    H5Fclose(file);
    pq_hdf5_end(&saved);
    if (status != PQ_OK) {
        pq_model_destroy(*model);
        *model = NULL;
        if (state) pq_training_state_deinit(state);
    }
    return status;
}

void pq_training_state_deinit(pq_training_state *state) {
    free(state->m);
    free(state->v);
    free(state->state);
    for (size_t i = 0; i < state->array_count; i++)
        if (!state->arrays[i].borrowed) free(state->arrays[i].data);
    free(state->arrays);
    *state = (pq_training_state){0};
}
