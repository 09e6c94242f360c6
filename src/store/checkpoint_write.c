/* Owns writing checkpoints. HDF5 writes under a temporary name; the seal, fsync and rename come after HDF5
 * has closed the file. HDF5 is not thread-safe: one thread at a time may be in this room. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "store/checkpoint.h"
#include "store/layout.h"
#include "store/sink.h"

/* The first failure sticks and everything after it is skipped. */
typedef struct writer {
    pq_sink sink;
    bool failed;
    char reason[160]; /* HDF5's, where the disk is not to blame */
} writer;

static herr_t take_reason(unsigned n, const H5E_error2_t *error, void *context) {
    writer *w = context;
    if (n == 0)
        snprintf(w->reason, sizeof w->reason, "HDF5: %s", error->desc ? error->desc : "no reason given");
    return 0;
}

/* Wrapped around each HDF5 call, whose results (hid_t and herr_t) are negative on failure. */
static hid_t keep(writer *w, hid_t result) {
    if (result < 0 && !w->failed) H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_reason, w);
    w->failed |= result < 0 || w->sink.reason != 0;
    return result;
}

static void put_fields(writer *w, hid_t object, const pq_field *table, size_t count, const void *record) {
    for (size_t i = 0; i < count && !w->failed; i++) {
        hid_t stored = keep(w, pq_field_stored_type(table[i].kind));
        hid_t memory = keep(w, pq_field_memory_type(table[i].kind));
        hid_t space =
            keep(w, table[i].count == 1 ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, &table[i].count, NULL));
        hid_t attribute = keep(w, H5Acreate2(object, table[i].name, stored, space, H5P_DEFAULT, H5P_DEFAULT));
        if (!w->failed) keep(w, H5Awrite(attribute, memory, (const char *)record + table[i].offset));
        H5Aclose(attribute);
        H5Sclose(space);
        H5Tclose(memory);
        H5Tclose(stored);
    }
}

/* No time stamps: the same state gives the same bytes. */
static hid_t make_group(writer *w, hid_t parent, const char *name) {
    hid_t properties = keep(w, H5Pcreate(H5P_GROUP_CREATE));
    keep(w, H5Pset_obj_track_times(properties, false));
    hid_t group =
        w->failed ? H5I_INVALID_HID : keep(w, H5Gcreate2(parent, name, H5P_DEFAULT, properties, H5P_DEFAULT));
    H5Pclose(properties);
    return group;
}

/* Rows of about a megabyte, evenly cut so that the last chunk wastes little: Fletcher32 needs chunks. */
static void chunk_shape(int rank, const hsize_t *size, size_t item, hsize_t *chunk) {
    hsize_t bytes = item, pieces;
    for (int d = 0; d < rank; d++) bytes *= chunk[d] = size[d];
    pieces = (bytes + (1 << 20) - 1) >> 20;
    if (pieces > size[0]) pieces = size[0];
    chunk[0] = (size[0] + pieces - 1) / pieces;
}

static void put_dataset(writer *w, hid_t parent, const char *name, hid_t stored, hid_t memory, int rank,
                        const hsize_t *size, const void *data) {
    hsize_t chunk[2];
    if (w->failed) return;
    chunk_shape(rank, size, H5Tget_size(stored), chunk);
    hid_t properties = keep(w, H5Pcreate(H5P_DATASET_CREATE));
    keep(w, H5Pset_obj_track_times(properties, false));
    keep(w, H5Pset_chunk(properties, rank, chunk));
    keep(w, H5Pset_fletcher32(properties));
    hid_t space = keep(w, H5Screate_simple(rank, size, NULL));
    hid_t dataset =
        w->failed ? H5I_INVALID_HID
                  : keep(w, H5Dcreate2(parent, name, stored, space, H5P_DEFAULT, properties, H5P_DEFAULT));
    if (!w->failed) keep(w, H5Dwrite(dataset, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, data));
    if (dataset >= 0) keep(w, H5Dclose(dataset));
    H5Sclose(space);
    H5Pclose(properties);
}

/* An empty text is one NUL: HDF5 has no strings of length 0. */
static void put_text(writer *w, hid_t parent, const char *name, const char *text) {
    const hsize_t one = 1;
    if (!text || w->failed) return;
    hid_t type = keep(w, pq_text_type(*text ? strlen(text) : 1));
    put_dataset(w, parent, name, type, type, 1, &one, text);
    H5Tclose(type);
}

/* A group with one dataset a parameter, each of its true shape. */
static void put_parameters(writer *w, hid_t parent, const char *name, const pq_params *params,
                           const float *values) {
    hid_t group = make_group(w, parent, name);
    for (size_t i = 0; i < params->count && !w->failed; i++) {
        const pq_param *p = &params->list[i];
        const hsize_t size[2] = {p->rows ? p->rows : p->columns, p->columns};
        put_dataset(w, group, p->name, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, p->rows ? 2 : 1, size,
                    values + p->offset);
    }
    H5Gclose(group);
}

static void put_quantizer(writer *w, hid_t parent, const pq_param *param, const pq_param_quant *quant) {
    const pq_codebook *codebook = &quant->codebook;
    const hsize_t size = quant->scale_count;
    pq_quant_fields fields = {.wire_id = codebook->type->wire_id,
                              .levels = codebook->levels,
                              .bits = codebook->bits,
                              .range = {codebook->range[0], codebook->range[1]},
                              .group = (int64_t)quant->group};
    snprintf(fields.quantizer, sizeof fields.quantizer, "%s", codebook->type->name);
    snprintf(fields.rounding, sizeof fields.rounding, "%s", pq_rounding_name(codebook->rounding));
    pq_granularity_name(param, quant->group, fields.granularity, sizeof fields.granularity);
    hid_t group = make_group(w, parent, param->name);
    put_fields(w, group, pq_quant_table, PQ_QUANT_FIELDS, &fields);
    put_dataset(w, group, "scales", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, 1, &size, quant->scales);
    H5Gclose(group);
}

/* What the training methods keep, one dataset an array. */
static void put_arrays(writer *w, hid_t file, const pq_training_state *state) {
    if (state->array_count == 0) return;
    hid_t group = make_group(w, file, "arrays");
    for (size_t i = 0; i < state->array_count && !w->failed; i++) {
        const pq_state_array *a = &state->arrays[i];
        const hsize_t size = a->count;
        bool f32 = a->type == PQ_ARRAY_F32;
        put_dataset(w, group, a->name, f32 ? H5T_IEEE_F32LE : H5T_STD_U8LE,
                    f32 ? H5T_NATIVE_FLOAT : H5T_NATIVE_UCHAR, 1, &size, a->data);
    }
    H5Gclose(group);
}

static void put_activations(writer *w, hid_t file, const pq_model *model) {
    pq_activation_fields fields = {{0}};
    const hsize_t size[2] = {pq_model_sites(model), 2};
    if (model->activations == PQ_ACTIVATIONS_NONE) return;
    snprintf(fields.kind, sizeof fields.kind, "%s", pq_activations_name(model->activations));
    hid_t group = make_group(w, file, "activations");
    put_fields(w, group, pq_activation_table, PQ_ACTIVATION_FIELDS, &fields);
    if (model->ranges)
        put_dataset(w, group, "ranges", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, 2, size, model->ranges);
    H5Gclose(group);
}

static void put_model(writer *w, hid_t file, const pq_model *model, const pq_training_state *state) {
    const pq_gpt2_shape *shape = &model->params.shape;
    pq_root_fields fields = {.format = PQ_CHECKPOINT_FORMAT,
                             .version = PQ_CHECKPOINT_VERSION,
                             .layers = shape->layers,
                             .heads = shape->heads,
                             .width = shape->width,
                             .context = shape->context,
                             .vocab = shape->vocab,
                             .bias = shape->bias,
                             .iter = model->iter,
                             .val_loss = model->val_loss,
                             .tokenizer_hash =
                                 model->tokenizer ? pq_hash(model->tokenizer, strlen(model->tokenizer)) : 0};
    snprintf(fields.gelu, sizeof fields.gelu, "%s", shape->gelu_tanh ? "tanh" : "erf");
    put_fields(w, file, pq_root_table, PQ_ROOT_FIELDS, &fields);
    put_text(w, file, "config", model->config);
    put_text(w, file, "tokenizer", model->tokenizer);
    put_parameters(w, file, "weights", &model->params, model->weights);
    hid_t quant = make_group(w, file, "quant");
    for (size_t i = 0; i < model->params.count && !w->failed; i++)
        if (model->quant[i].quantized) put_quantizer(w, quant, &model->params.list[i], &model->quant[i]);
    H5Gclose(quant);
    put_activations(w, file, model);
    if (!state) return;
    put_text(w, file, "state", state->state);
    put_arrays(w, file, state);
    if (!state->m) return;
    hid_t moments = make_group(w, file, "moments");
    put_parameters(w, moments, "m", &model->params, state->m);
    put_parameters(w, moments, "v", &model->params, state->v);
    H5Gclose(moments);
}

/* Everything behind the seal. */
static void put_file(writer *w, const char *path, const pq_model *model, const pq_training_state *state) {
    hid_t creation = keep(w, H5Pcreate(H5P_FILE_CREATE)), access = keep(w, pq_hdf5_access());
    hid_t driver = keep(w, pq_sink_driver());
    keep(w, H5Pset_userblock(creation, PQ_SEAL_BYTES));
    keep(w, H5Pset_obj_track_times(creation, false));
    keep(w, pq_sink_use(access, driver, &w->sink));
    hid_t file = w->failed ? H5I_INVALID_HID : keep(w, H5Fcreate(path, H5F_ACC_TRUNC, creation, access));
    if (file >= 0) {
        put_model(w, file, model, state);
        keep(w, H5Fclose(file));
    }
    H5Pclose(access);
    H5Pclose(creation);
    H5FDunregister(driver);
}

static pq_status check_finite(const pq_params *params, const float *values, const char *what, pq_error *err) {
    for (size_t i = 0; i < params->count; i++) {
        const pq_param *p = &params->list[i];
        for (size_t k = 0; k < p->count; k++)
            if (!isfinite(values[p->offset + k]))
                return PQ_FAIL(err, PQ_DIVERGED, "%s of %s holds %g at element %zu: not saved", what, p->name,
                               (double)values[p->offset + k], k);
    }
    return PQ_OK;
}

static pq_status check_array(const pq_state_array *array, pq_error *err) {
    if (!pq_array_name_valid(array->name) || array->count == 0)
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "state array \"%s\" with %zu items: expected a name and at least one item",
                       array->name, array->count);
    for (size_t k = 0; array->type == PQ_ARRAY_F32 && k < array->count; k++)
        if (!isfinite(((const float *)array->data)[k]))
            return PQ_FAIL(err, PQ_DIVERGED, "%s holds %g at item %zu: not saved", array->name,
                           (double)((const float *)array->data)[k], k);
    return PQ_OK;
}

/* What the reader would refuse must not be written in the first place. */
static pq_status check_contents(const pq_model *model, const pq_training_state *state, pq_error *err) {
    const pq_params *params = &model->params;
    PQ_TRY(check_finite(params, model->weights, "the weight", err));
    if (state && state->m) {
        PQ_TRY(check_finite(params, state->m, "AdamW's first moment", err));
        PQ_TRY(check_finite(params, state->v, "AdamW's second moment", err));
    }
    if (state && state->array_count > PQ_MOST_ARRAYS)
        return PQ_FAIL(err, PQ_ERR_USAGE, "%zu state arrays, expected at most %d", state->array_count,
                       PQ_MOST_ARRAYS);
    for (size_t i = 0; state && i < state->array_count; i++) PQ_TRY(check_array(&state->arrays[i], err));
    for (size_t i = 0; i < params->count; i++)
        for (size_t k = 0; model->quant[i].quantized && k < model->quant[i].scale_count; k++)
            if (!isfinite(model->quant[i].scales[k]) || model->quant[i].scales[k] <= 0)
                return PQ_FAIL(err, PQ_DIVERGED,
                               "scale %zu of %s is %g, expected a positive number: not saved", k,
                               params->list[i].name, (double)model->quant[i].scales[k]);
    for (size_t i = 0; model->ranges && i < pq_model_sites(model); i++)
        if (!pq_range_valid(model->ranges[i][0], model->ranges[i][1]))
            return PQ_FAIL(
                err, PQ_DIVERGED,
                "the range of activations before %s is %g to %g, expected two numbers in order: not saved",
                pq_model_site_param(model, i)->name, (double)model->ranges[i][0],
                (double)model->ranges[i][1]);
    return PQ_OK;
}

pq_status pq_checkpoint_write(const char *path, bool overwrite, const pq_model *model,
                              const pq_training_state *state, pq_error *err) {
    pq_file_writer out;
    pq_hdf5_settings saved;
    pq_status status;
    writer w = {0};
    char seal[PQ_SEAL_BYTES];
    uint64_t hash;
    size_t bytes;
    PQ_TRY(check_contents(model, state, err));
    PQ_TRY(pq_file_create(path, overwrite, &out, err));
    w.sink.descriptor = fileno(out.stream);
    pq_hdf5_begin(&saved);
    put_file(&w, out.temporary, model, state);
    pq_hdf5_end(&saved);
    if (w.failed) {
        status = PQ_FAIL(err, PQ_ERR_IO, "%s could not be written: %s", path,
                         w.sink.reason ? strerror(w.sink.reason) : w.reason);
        goto fail;
    }
    PQ_TRY_TO(status, fail, pq_file_hash(out.temporary, PQ_SEAL_BYTES, &bytes, &hash, err));
    pq_seal_make(seal, PQ_SEAL_BYTES + bytes, hash);
    PQ_TRY_TO(status, fail, pq_file_write(&out, seal, sizeof seal, err));
    return pq_file_commit(&out, err);
fail:
    pq_file_abort(&out);
    return status;
}
