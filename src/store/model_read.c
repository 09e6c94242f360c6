/* Owns the way from a MODEL argument to a model in memory, and the config of models from other programs. */
#include "store/model_read.h"

#include <stdio.h>
#include <stdlib.h>

#include "config/config.h"
#include "formats/packed.h"

/* So that what is made of the model later (quantize, train) finds its shape in the config. */
static pq_status give_config(pq_model *model, pq_error *err) {
    const pq_gpt2_shape *s = &model->params.shape;
    char texts[6][48];
    const char *overrides[6];
    pq_config *config;
    snprintf(texts[0], sizeof *texts, "model.layers=%lld", (long long)s->layers);
    snprintf(texts[1], sizeof *texts, "model.heads=%lld", (long long)s->heads);
    snprintf(texts[2], sizeof *texts, "model.width=%lld", (long long)s->width);
    snprintf(texts[3], sizeof *texts, "model.context=%lld", (long long)s->context);
    snprintf(texts[4], sizeof *texts, "model.bias=%s", s->bias ? "true" : "false");
    snprintf(texts[5], sizeof *texts, "model.gelu=%s", s->gelu_tanh ? "tanh" : "erf");
    for (size_t i = 0; i < 6; i++) overrides[i] = texts[i];
    PQ_TRY(pq_config_load(NULL, overrides, 6, &config, err));
    model->config = pq_config_to_yaml(config, true);
    pq_config_destroy(config);
    return model->config ? PQ_OK : PQ_FAIL(err, PQ_ERR_MEMORY, "the config's text could not be allocated");
}

pq_status pq_model_import(const char *path, const pq_foreign_options *options, pq_model **out,
                          pq_error *err) {
    PQ_TRY(pq_foreign_read(path, options, out, err));
    pq_status status = give_config(*out, err);
    if (status == PQ_OK) return PQ_OK;
    pq_model_destroy(*out);
    *out = NULL;
    return pq_prefix(err, status, "%s", path);
}

static pq_status read_packed(const char *path, pq_model **out, pq_error *err) {
    pq_packed *packed;
    PQ_TRY(pq_packed_open(path, &packed, err));
    pq_status status = pq_packed_to_model(packed, out, err);
    pq_packed_close(packed);
    return status;
}

pq_status pq_model_read(const char *spec, pq_model **out, pq_training_state *state, pq_error *err) {
    char *path;
    pq_model_kind kind;
    pq_status status = PQ_OK;
    *out = NULL;
    if (state) *state = (pq_training_state){0};
    PQ_TRY(pq_model_locate(spec, &path, &kind, err));
    switch (kind) {
    case PQ_MODEL_CHECKPOINT:
        status = pq_checkpoint_read(path, out, state, err);
        break;
    case PQ_MODEL_PACKED:
        status = read_packed(path, out, err);
        break;
    case PQ_MODEL_HF:
        status = pq_model_import(path, NULL, out, err);
        break;
    }
    free(path);
    return status;
}
