/* Owns the match between the tensors of another program's safetensors files and gpt2_params.def. */
#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "formats/origin.h"

#define HEAD "lm_head.weight"

static const char *without_prefixes(const char *name) {
    static const char *const prefixes[] = {"_orig_mod.", "transformer."};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0) name += strlen(prefixes[i]);
    return name;
}

/* h.N.REST: the layer, and where REST begins; NULL for other names. */
static const char *in_block(const char *name, int64_t *layer) {
    char *end;
    if (strncmp(name, "h.", 2) != 0 || !isdigit((unsigned char)name[2]) || strspn(name + 2, "0123456789") > 8)
        return NULL;
    *layer = strtoll(name + 2, &end, 10);
    return *end == '.' ? end + 1 : NULL;
}

/* The causal masks that older files carry. */
static bool is_mask(const char *name) {
    int64_t layer;
    const char *rest = in_block(name, &layer);
    return rest && (strcmp(rest, "attn.bias") == 0 || strcmp(rest, "attn.masked_bias") == 0);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const pq_named *)a)->name, ((const pq_named *)b)->name);
}

static pq_status open_file(const char *path, struct pq_tensors_file *file, pq_error *err) {
    PQ_TRY(pq_copy_text(path, &file->path, err));
    PQ_TRY(pq_file_map(path, &file->view, err));
    return pq_safetensors_parse(file->view.data, file->view.size, path, &file->parsed, err);
}

static pq_status collect(pq_tensors *tensors, pq_error *err) {
    size_t most = 0;
    for (size_t f = 0; f < tensors->file_count; f++) most += tensors->files[f].parsed.count;
    PQ_TRY(pq_calloc(most, sizeof *tensors->list, "tensor names", &tensors->list, err));
    for (size_t f = 0; f < tensors->file_count; f++) {
        const struct pq_tensors_file *file = &tensors->files[f];
        for (size_t i = 0; i < file->parsed.count; i++) {
            const char *name = without_prefixes(file->parsed.tensors[i].name);
            if (!is_mask(name))
                tensors->list[tensors->count++] = (pq_named){name, file->path, &file->parsed.tensors[i]};
        }
    }
    if (tensors->count) qsort(tensors->list, tensors->count, sizeof *tensors->list, by_name);
    for (size_t i = 1; i < tensors->count; i++) {
        const pq_named *a = &tensors->list[i - 1], *b = &tensors->list[i];
        if (strcmp(a->name, b->name) == 0)
            return PQ_FAIL(err, PQ_ERR_FORMAT, "tensor %s comes twice: as %s in %s and as %s in %s", a->name,
                           a->tensor->name, a->file, b->tensor->name, b->file);
    }
    return PQ_OK;
}

pq_status pq_tensors_open(const char *const *paths, size_t count, pq_tensors *out, pq_error *err) {
    pq_status status;
    *out = (pq_tensors){0};
    PQ_TRY(pq_calloc(count, sizeof *out->files, "files", &out->files, err));
    for (size_t i = 0; i < count; i++) {
        out->file_count = i + 1;
        PQ_TRY_TO(status, fail, open_file(paths[i], &out->files[i], err));
    }
    PQ_TRY_TO(status, fail, collect(out, err));
    return PQ_OK;
fail:
    pq_tensors_close(out);
    return status;
}

void pq_tensors_close(pq_tensors *tensors) {
    for (size_t i = 0; i < tensors->file_count; i++) {
        pq_safetensors_deinit(&tensors->files[i].parsed);
        pq_file_view_close(&tensors->files[i].view);
        free(tensors->files[i].path);
    }
    free(tensors->files);
    free(tensors->list);
    *tensors = (pq_tensors){0};
}

const pq_named *pq_tensors_find(const pq_tensors *tensors, const char *name) {
    const pq_named key = {.name = name};
    return tensors->count ? bsearch(&key, tensors->list, tensors->count, sizeof key, by_name) : NULL;
}

/* "[768, 3072]" */
static void shape_text(size_t rank, const uint64_t *shape, char *out, size_t bytes) {
    size_t used = (size_t)snprintf(out, bytes, "[");
    for (size_t i = 0; i < rank && used < bytes; i++)
        used += (size_t)snprintf(out + used, bytes - used, "%s%" PRIu64, i ? ", " : "", shape[i]);
    if (used < bytes) snprintf(out + used, bytes - used, "]");
}

/* ---- shape ---- */

pq_status pq_tensors_dimension(const pq_tensors *tensors, const char *name, size_t d, int64_t *out,
                               pq_error *err) {
    const pq_named *found = pq_tensors_find(tensors, name);
    char text[120];
    if (!found) return PQ_FAIL(err, PQ_ERR_FORMAT, "%s is missing", name);
    shape_text(found->tensor->rank, found->tensor->shape, text, sizeof text);
    if (found->tensor->rank != 2 || found->tensor->shape[d] > INT32_MAX)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "%s: tensor %s: expected two dimensions, found %s", found->file,
                       found->tensor->name, text);
    *out = (int64_t)found->tensor->shape[d];
    return PQ_OK;
}

/* Biases count as wanted when there is any: an odd one out is then an error that names it. */
static bool any_bias(const pq_tensors *tensors) {
    for (size_t i = 0; i < tensors->count; i++) {
        size_t length = strlen(tensors->list[i].name);
        if (length > 5 && strcmp(tensors->list[i].name + length - 5, ".bias") == 0) return true;
    }
    return false;
}

pq_status pq_tensors_shape(const pq_tensors *tensors, const char *what, pq_gpt2_shape *shape, pq_error *err) {
    pq_status status = pq_tensors_dimension(tensors, "wte.weight", 0, &shape->vocab, err);
    if (status == PQ_OK) status = pq_tensors_dimension(tensors, "wte.weight", 1, &shape->width, err);
    if (status == PQ_OK) status = pq_tensors_dimension(tensors, "wpe.weight", 0, &shape->context, err);
    if (status != PQ_OK) return pq_prefix(err, status, "%s", what);
    shape->layers = 0;
    for (size_t i = 0; i < tensors->count; i++) {
        int64_t layer;
        if (in_block(tensors->list[i].name, &layer) && layer >= shape->layers) shape->layers = layer + 1;
    }
    shape->bias = any_bias(tensors);
    return PQ_OK;
}

/* ---- values ---- */

/* The shape a parameter has in the file. */
static size_t file_shape(const pq_param *p, bool transposed, uint64_t shape[2]) {
    if (!p->rows) {
        shape[0] = p->columns;
        return 1;
    }
    shape[0] = transposed ? p->columns : p->rows;
    shape[1] = transposed ? p->rows : p->columns;
    return 2;
}

static pq_status check_tensor(const pq_named *found, const pq_param *p, bool transposed, pq_error *err) {
    uint64_t shape[2];
    char wanted[120], got[120];
    const pq_safetensor *t = found->tensor;
    size_t rank = file_shape(p, transposed, shape);
    bool same = t->rank == rank;
    for (size_t d = 0; same && d < rank; d++) same = t->shape[d] == shape[d];
    if (!same) {
        shape_text(rank, shape, wanted, sizeof wanted);
        shape_text(t->rank, t->shape, got, sizeof got);
        bool turned = rank == 2 && t->rank == 2 && t->shape[0] == shape[1] && t->shape[1] == shape[0];
        return PQ_FAIL(err, PQ_ERR_FORMAT, "%s: tensor %s: expected shape %s, found %s%s", found->file,
                       t->name, wanted, got,
                       !turned ? ""
                       : transposed
                           ? ": Hugging Face's folders hold it transposed"
                           : ": transposed as in Hugging Face's files, which need their config.json");
    }
    if (strcmp(t->dtype, "F32") == 0 || strcmp(t->dtype, "F16") == 0 || strcmp(t->dtype, "BF16") == 0)
        return PQ_OK;
    return PQ_FAIL(err, PQ_ERR_FORMAT, "%s: tensor %s: expected type F32, F16 or BF16, found %s", found->file,
                   t->name, t->dtype);
}

static pq_status check_names(const pq_tensors *tensors, const char *what, const pq_params *params,
                             bool transposed, pq_error *err) {
    for (size_t i = 0; i < params->count; i++) {
        const pq_param *p = &params->list[i];
        const pq_named *found = pq_tensors_find(tensors, p->name);
        char wanted[120];
        uint64_t shape[2];
        bool turned = transposed && pq_stored_transposed(p->id);
        if (found) {
            PQ_TRY(check_tensor(found, p, turned, err));
            continue;
        }
        shape_text(file_shape(p, turned, shape), shape, wanted, sizeof wanted);
        return PQ_FAIL(err, PQ_ERR_FORMAT, "%s: tensor %s is missing: expected shape %s, found none", what,
                       p->name, wanted);
    }
    for (size_t i = 0; i < tensors->count; i++) {
        const pq_named *n = &tensors->list[i];
        char got[120];
        if (strcmp(n->name, HEAD) == 0 || pq_params_find(params, n->name)) continue;
        shape_text(n->tensor->rank, n->tensor->shape, got, sizeof got);
        return PQ_FAIL(err, PQ_ERR_FORMAT,
                       "%s: tensor %s of shape %s is unexpected: it is no parameter of a GPT-2 with %lld "
                       "layers and %s",
                       n->file, n->tensor->name, got, (long long)params->shape.layers,
                       params->shape.bias ? "biases" : "no biases");
    }
    return PQ_OK;
}

static pq_status read_named(const pq_named *n, const pq_param *p, bool transposed, float *out,
                            pq_error *err) {
    const pq_origin origin = {n->file, n->tensor->name, n->tensor->data, n->tensor->dtype, transposed};
    return pq_origin_read(&origin, p, out, err);
}

/* A head of its own would make another function: ours is wte. */
static pq_status check_head(const pq_tensors *tensors, const pq_model *model, pq_error *err) {
    const pq_named *head = pq_tensors_find(tensors, HEAD);
    const pq_param *wte = pq_params_at(&model->params, PQ_PARAM_WTE, -1);
    float *values;
    if (!head) return PQ_OK;
    PQ_TRY(check_tensor(head, wte, false, err));
    PQ_TRY(pq_calloc(wte->count, sizeof *values, "head", &values, err));
    pq_status status = read_named(head, wte, false, values, err);
    if (status == PQ_OK && memcmp(values, model->weights + wte->offset, wte->count * sizeof *values) != 0)
        status = PQ_FAIL(err, PQ_ERR_USAGE,
                         "%s: tensor %s differs from wte.weight: only a tied head, equal to it, is supported",
                         head->file, head->tensor->name);
    free(values);
    return status;
}

pq_status pq_tensors_to_model(const pq_tensors *tensors, const char *what, const pq_gpt2_shape *shape,
                              bool transposed, pq_model **out, pq_error *err) {
    pq_params params;
    pq_model *model = NULL;
    *out = NULL;
    pq_status status = pq_params_init(shape, &params, err);
    if (status != PQ_OK) return pq_prefix(err, status, "%s", what);
    PQ_TRY_TO(status, done, check_names(tensors, what, &params, transposed, err));
    PQ_TRY_TO(status, done, pq_model_create(shape, &model, err)); /* not before the file proves its size */
    for (size_t i = 0; i < model->params.count; i++) {
        const pq_param *p = &model->params.list[i];
        PQ_TRY_TO(status, done,
                  read_named(pq_tensors_find(tensors, p->name), p, transposed && pq_stored_transposed(p->id),
                             model->weights + p->offset, err));
    }
    PQ_TRY_TO(status, done, check_head(tensors, model, err));
    *out = model;
    model = NULL;
done:
    pq_model_destroy(model);
    pq_params_deinit(&params);
    return status;
}
