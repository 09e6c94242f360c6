/* Owns the choice of one level count a matrix within a budget. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "train/ptq/sensitivity.h"

/* A choice for the matrices so far. Only those count that no smaller one beats: sorted by bytes, their rises
 * fall. Sizes are sums of a few ones, so there are few such states, and the best is found exactly. */
typedef struct state {
    size_t bytes, before; /* `before`: the state that it goes on from */
    double rise;
    const pq_sensitivity_row *row;
} state;

typedef struct layer {
    state *states;
    size_t count;
} layer;

static int smaller_first(const void *a, const void *b) {
    const state *x = a, *y = b;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    if (x->rise != y->rise) return x->rise < y->rise ? -1 : 1;
    if (x->row->levels != y->row->levels) return x->row->levels < y->row->levels ? -1 : 1;
    return x->before < y->before ? -1 : x->before > y->before;
}

/* The states behind matrix `index`. `left`: bytes that it and those before it may take. */
static pq_status extend(const layer *before, const pq_sensitivity *table, size_t index, size_t left,
                        layer *out, pq_error *err) {
    size_t rows = 0, n = 0;
    for (size_t k = 0; k < table->count; k++) rows += table->rows[k].index == index;
    PQ_TRY(pq_calloc(before->count * rows, sizeof *out->states, "allocations", &out->states, err));
    for (size_t s = 0; s < before->count; s++)
        for (size_t k = 0; k < table->count; k++) {
            const pq_sensitivity_row *row = &table->rows[k];
            const state *from = &before->states[s];
            if (row->index != index || from->bytes + row->bytes > left) continue;
            out->states[n++] = (state){from->bytes + row->bytes, s, from->rise + row->rise, row};
        }
    qsort(out->states, n, sizeof *out->states, smaller_first);
    for (size_t i = 0; i < n; i++)
        if (out->count == 0 || out->states[i].rise < out->states[out->count - 1].rise)
            out->states[out->count++] = out->states[i];
    return PQ_OK;
}

static size_t least_bytes(const pq_sensitivity *table, size_t index) {
    size_t least = 0;
    for (size_t k = 0; k < table->count; k++)
        if (table->rows[k].index == index && (least == 0 || table->rows[k].bytes < least))
            least = table->rows[k].bytes;
    return least; /* 0: not in the table */
}

static pq_status choose(const pq_sensitivity *table, const pq_params *params, size_t budget, layer *layers,
                        const pq_sensitivity_row **chosen, pq_error *err) {
    state start = {0};
    layer first = {&start, 1};
    const layer *last = &first;
    size_t fixed = 0, later = 0;
    for (size_t i = 0; i < params->count; i++) {
        size_t least = least_bytes(table, i);
        if (least)
            later += least;
        else
            fixed += params->list[i].count * sizeof(float);
    }
    if (fixed + later > budget)
        return PQ_FAIL(err, PQ_ERR_USAGE, "--budget: the model takes at least %zu bytes; found %zu",
                       fixed + later, budget);
    for (size_t i = 0; i < params->count; i++) {
        size_t least = least_bytes(table, i);
        if (!least) continue;
        later -= least;
        PQ_TRY(extend(last, table, i, budget - fixed - later, &layers[i], err));
        last = &layers[i];
    }
    /* The last state has the least rise. */
    for (size_t i = params->count, at = last->count - 1; i-- > 0;) {
        if (!layers[i].states) continue;
        chosen[i] = layers[i].states[at].row;
        at = layers[i].states[at].before;
    }
    return PQ_OK;
}

pq_status pq_sensitivity_allocate(const pq_sensitivity *table, const pq_model *model, size_t budget,
                                  const pq_sensitivity_row **chosen, pq_error *err) {
    const pq_params *params = &model->params;
    layer *layers;
    PQ_TRY(pq_calloc(params->count, sizeof *layers, "allocations", &layers, err));
    for (size_t i = 0; i < params->count; i++) chosen[i] = NULL;
    pq_status status = choose(table, params, budget, layers, chosen, err);
    for (size_t i = 0; i < params->count; i++) free(layers[i].states);
    free(layers);
    return status;
}

pq_status pq_sensitivity_override(const pq_model *model, const pq_sensitivity_row *const *chosen, char **text,
                                  pq_error *err) {
    size_t size = 0;
    const char *comma = "";
    FILE *out = open_memstream(text, &size);
    if (!out) return PQ_FAIL(err, PQ_ERR_MEMORY, "no memory for quant.overrides");
    fputs("quant.overrides=[", out);
    for (size_t i = 0; i < model->params.count; i++) {
        if (!chosen[i]) continue;
        fprintf(out, "%s{match: %s, levels: %d}", comma, model->params.list[i].name, chosen[i]->levels);
        comma = ", ";
    }
    fputs("]", out);
    if (fclose(out) == 0) return PQ_OK;
    free(*text);
    return PQ_FAIL(err, PQ_ERR_MEMORY, "no memory for quant.overrides");
}
