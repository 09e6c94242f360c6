/* Owns the way from a MODEL argument to a model in memory. */
#include "cli/load.h"

#include <stdlib.h>

#include "store/checkpoint.h"
#include "store/run.h"

pq_status pq_load_model(const char *spec, pq_model **out, pq_error *err) {
    char *path;
    pq_model_kind kind;
    pq_packed *packed;
    pq_status status;
    *out = NULL;
    PQ_TRY(pq_model_locate(spec, &path, &kind, err));
    if (kind == PQ_MODEL_CHECKPOINT) {
        status = pq_checkpoint_read(path, out, NULL, err);
    } else if ((status = pq_packed_open(path, &packed, err)) == PQ_OK) {
        status = pq_packed_to_model(packed, out, err);
        pq_packed_close(packed);
    }
    free(path);
    return status;
}

pq_status pq_load_packed(const char *spec, pq_packed **out, pq_error *err) {
    char *path;
    pq_model_kind kind;
    pq_model *model;
    pq_status status;
    *out = NULL;
    PQ_TRY(pq_model_locate(spec, &path, &kind, err));
    if (kind == PQ_MODEL_PACKED) {
        status = pq_packed_open(path, out, err);
    } else if ((status = pq_checkpoint_read(path, &model, NULL, err)) == PQ_OK) {
        status = pq_packed_from_model(model, out, err);
        pq_model_destroy(model);
    }
    free(path);
    return status;
}
