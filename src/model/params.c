/* Owns the layout of a model's parameters: gpt2_params.def expanded for one shape. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/model.h"

#define ALIGN_ELEMENTS (PQ_ALIGNMENT / sizeof(float))

enum initial { NORMAL, RESIDUAL, ONE, ZERO };
enum kind { MATRIX, GAIN, BIAS };

typedef struct row {
    const char *name;
    size_t rows, columns;
    enum initial initial;
    enum kind kind;
} row;

#define MAX_DIMENSION ((int64_t)1 << 24)
#define MAX_LAYERS    ((int64_t)1 << 12)

static pq_status check_shape(const pq_gpt2_shape *s, pq_error *err) {
    const struct {
        const char *name;
        int64_t value, most;
    } sizes[] = {{"layers", s->layers, MAX_LAYERS},
                 {"heads", s->heads, MAX_DIMENSION},
                 {"width", s->width, MAX_DIMENSION},
                 {"context", s->context, MAX_DIMENSION},
                 {"vocab", s->vocab, 65536}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].value < 1 || sizes[i].value > sizes[i].most)
            return PQ_FAIL(err, PQ_ERR_USAGE, "model: %s must be 1 to %lld, found %lld", sizes[i].name,
                           (long long)sizes[i].most, (long long)sizes[i].value);
    if (s->width % s->heads != 0)
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "model: width must be a multiple of heads, found width %lld and %lld heads",
                       (long long)s->width, (long long)s->heads);
    return PQ_OK;
}

static void fill(pq_param *p, const row *r, int id, int layer, int64_t layers) {
    if (layer >= 0) {
        const char *mark = strstr(r->name, "%d");
        snprintf(p->name, sizeof p->name, "%.*s%d%s", (int)(mark - r->name), r->name, layer, mark + 2);
    } else {
        snprintf(p->name, sizeof p->name, "%s", r->name);
    }
    p->id = (pq_param_id)id;
    p->layer = layer;
    p->rows = r->rows;
    p->columns = r->columns;
    p->count = (r->rows ? r->rows : 1) * r->columns;
    p->decay = p->quantizable = r->kind == MATRIX;
    p->initial_std = r->initial == NORMAL     ? 0.02f
                     : r->initial == RESIDUAL ? (float)(0.02 / sqrt(2.0 * (double)layers))
                                              : 0.0f;
    p->initial_value = r->initial == ONE ? 1.0f : 0.0f;
}

pq_status pq_params_init(const pq_gpt2_shape *shape, pq_params *out, pq_error *err) {
    *out = (pq_params){0};
    PQ_TRY(check_shape(shape, err));
    const size_t C = (size_t)shape->width, T = (size_t)shape->context, V = (size_t)shape->vocab;
    const row table[PQ_PARAM_IDS] = {
#define PQ_PARAM(id, name, rows, columns, initial, kind) {name, rows, columns, initial, kind},
#include "model/gpt2_params.def"
#undef PQ_PARAM
    };
    PQ_TRY(pq_calloc((size_t)PQ_PARAM_IDS * (size_t)shape->layers, sizeof *out->list, "parameter table",
                     &out->list, err));
    out->shape = *shape;
    /* The block's rows form one run of the table; it is repeated layer by layer. */
    int first = 0, last;
    while (!strstr(table[first].name, "%d")) first++;
    for (last = first; last < PQ_PARAM_IDS && strstr(table[last].name, "%d");) last++;
    for (int id = 0, layer = -1; id < PQ_PARAM_IDS;) {
        if (id == first && layer < 0) layer = 0;
        if (table[id].kind != BIAS || shape->bias) {
            pq_param *p = &out->list[out->count++];
            fill(p, &table[id], id, layer, shape->layers);
            p->offset = out->elements;
            out->elements += pq_round_up(p->count, ALIGN_ELEMENTS);
            out->weights += p->count;
        }
        if (++id == last && layer >= 0) {
            if (++layer < shape->layers)
                id = first;
            else
                layer = -1;
        }
    }
    return PQ_OK;
}

void pq_params_deinit(pq_params *params) {
    free(params->list);
    *params = (pq_params){0};
}

const pq_param *pq_params_find(const pq_params *params, const char *name) {
    for (size_t i = 0; i < params->count; i++)
        if (strcmp(params->list[i].name, name) == 0) return &params->list[i];
    return NULL;
}

const pq_param *pq_params_at(const pq_params *params, pq_param_id id, int layer) {
    for (size_t i = 0; i < params->count; i++)
        if (params->list[i].id == id && params->list[i].layer == layer) return &params->list[i];
    return NULL;
}
