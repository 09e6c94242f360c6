/* Owns llm.c's checkpoint: 256 int32, then each kind of parameter of all layers in the order of
 * gpt2_params.def, in the rows of PyTorch's Linear (not transposed). wte is padded to a rounder vocabulary;
 * the padding is left out. */
#include <string.h>

#include "formats/origin.h"

enum { HEADER = 256, MAGIC = 20240326, MOST = 1 << 24 };

static const struct version {
    int32_t number;
    bool padded; /* the header has the padded vocabulary */
    const char *dtype;
} versions[] = {{1, false, "F32"}, {3, true, "F32"}, {5, true, "BF16"}};

static const struct version *find_version(int32_t number) {
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++)
        if (versions[i].number == number) return &versions[i];
    return NULL;
}

static pq_status read_header(const pq_file_view *view, const char *path, pq_gpt2_shape *shape,
                             int64_t *padded, const struct version **version, pq_error *err) {
    int32_t header[HEADER];
    if (view->size < sizeof header)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "%s: expected llm.c's header of %zu bytes, found %zu", path,
                       sizeof header, view->size);
    memcpy(header, view->data, sizeof header);
    if (header[0] != MAGIC)
        return PQ_FAIL(err, PQ_ERR_FORMAT,
                       "%s is no llm.c checkpoint: expected the magic number %d, found %d; PyTorch's own "
                       ".bin and .pt files have to become safetensors first (docs/formats.md)",
                       path, MAGIC, header[0]);
    *version = find_version(header[1]);
    if (!*version)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "%s: expected llm.c's version 1 or 3 (fp32) or 5 (bf16), found %d",
                       path, header[1]);
    *shape = (pq_gpt2_shape){.context = header[2],
                             .vocab = header[3],
                             .layers = header[4],
                             .heads = header[5],
                             .width = header[6],
                             .bias = true,
                             .gelu_tanh = true};
    *padded = (*version)->padded ? header[7] : header[3];
    if (*padded < shape->vocab || *padded > MOST)
        return PQ_FAIL(err, PQ_ERR_FORMAT,
                       "%s: its padded vocabulary is %lld: expected %lld (its vocabulary) to %d", path,
                       (long long)*padded, (long long)shape->vocab, MOST);
    return PQ_OK;
}

static pq_status read_values(const pq_file_view *view, const char *path, const struct version *version,
                             int64_t padded, pq_model *model, pq_error *err) {
    const size_t item = pq_safetensors_dtype_bytes(version->dtype);
    const char *at = view->data + HEADER * sizeof(int32_t);
    for (int id = 0; id < PQ_PARAM_IDS; id++) {
        int64_t layers = model->params.shape.layers;
        bool outside = pq_params_at(&model->params, (pq_param_id)id, -1) != NULL;
        for (int64_t layer = outside ? -1 : 0; layer < (outside ? 0 : layers); layer++) {
            const pq_param *p = pq_params_at(&model->params, (pq_param_id)id, (int)layer);
            const pq_origin origin = {path, p->name, at, version->dtype, false};
            PQ_TRY(pq_origin_read(&origin, p, model->weights + p->offset, err));
            at += item * (id == PQ_PARAM_WTE ? (size_t)padded * p->columns : p->count);
        }
    }
    return PQ_OK;
}

static pq_status read_view(const pq_file_view *view, const char *path, pq_model **out, pq_error *err) {
    const struct version *version = NULL;
    pq_gpt2_shape shape;
    pq_params params;
    int64_t padded = 0;
    PQ_TRY(read_header(view, path, &shape, &padded, &version, err));
    pq_status status = pq_params_init(&shape, &params, err);
    if (status != PQ_OK) return pq_prefix(err, status, "%s", path);
    size_t values = params.weights + (size_t)(padded - shape.vocab) * (size_t)shape.width;
    size_t expected = HEADER * sizeof(int32_t) + pq_safetensors_dtype_bytes(version->dtype) * values;
    pq_params_deinit(&params);
    if (view->size != expected)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "%s: expected %zu bytes for its shape, found %zu", path, expected,
                       view->size);
    PQ_TRY(pq_model_create(&shape, out, err));
    status = read_values(view, path, version, padded, *out, err);
    if (status != PQ_OK) {
        pq_model_destroy(*out);
        *out = NULL;
    }
    return status;
}

pq_status pq_llmc_read(const char *path, pq_model **out, pq_error *err) {
    pq_file_view view;
    *out = NULL;
    PQ_TRY(pq_file_map(path, &view, err));
    pq_status status = read_view(&view, path, out, err);
    pq_file_view_close(&view);
    return status;
}
