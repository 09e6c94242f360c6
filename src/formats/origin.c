/* Owns the conversion of one parameter between our fp32 rows and another program's type and order. Tiles
 * depend on the shape alone. */
#include "formats/origin.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/threads.h"
#include "formats/half.h"

enum { TILE = 64, RUN = 1 << 16 }; /* rows of a transposed tile; values of a run in order */

bool pq_stored_transposed(pq_param_id id) {
    return id == PQ_PARAM_C_ATTN_WEIGHT || id == PQ_PARAM_ATTN_C_PROJ_WEIGHT || id == PQ_PARAM_C_FC_WEIGHT ||
           id == PQ_PARAM_MLP_C_PROJ_WEIGHT;
}

/* out[count] = values from `first` on. */
static void decode(const char *dtype, const void *data, size_t first, size_t count, float *out) {
    const char *at = (const char *)data + first * (*dtype == 'F' && dtype[1] == '3' ? 4 : 2);
    uint16_t half;
    if (strcmp(dtype, "F32") == 0) {
        memcpy(out, at, count * sizeof *out);
    } else if (strcmp(dtype, "BF16") == 0) {
        for (size_t i = 0; i < count; i++) {
            memcpy(&half, at + 2 * i, sizeof half);
            out[i] = pq_bf16_to_float(half);
        }
    } else {
        for (size_t i = 0; i < count; i++) {
            memcpy(&half, at + 2 * i, sizeof half);
            out[i] = pq_f16_to_float(half);
        }
    }
}

/* All are summed first: x - x is 0 for each finite x, NaN for the others. */
size_t pq_first_bad(const float *values, size_t count) {
    float sum[8] = {0};
    size_t i = 0;
    for (; i + 8 <= count; i += 8)
        for (size_t k = 0; k < 8; k++) sum[k] += values[i + k] - values[i + k];
    for (; i < count; i++) sum[0] += values[i] - values[i];
    for (size_t k = 1; k < 8; k++) sum[0] += sum[k];
    if (sum[0] == 0) return count;
    for (i = 0; i < count && isfinite(values[i]);) i++;
    return i;
}

typedef struct reading {
    const pq_origin *origin;
    size_t rows, columns; /* ours */
    float *out;
    size_t *bad; /* for each tile: the first bad place, or SIZE_MAX */
} reading;

static void read_run(void *context, size_t tile) {
    const reading *r = context;
    size_t first = tile * RUN, count = r->rows * r->columns - first;
    if (count > RUN) count = RUN;
    decode(r->origin->dtype, r->origin->data, first, count, r->out + first);
    const size_t item = pq_safetensors_dtype_bytes(r->origin->dtype);
    pq_pages_drop((const char *)r->origin->data + first * item, count * item);
    size_t bad = pq_first_bad(r->out + first, count);
    r->bad[tile] = bad < count ? first + bad : SIZE_MAX;
}

/* TILE of our rows; theirs are read TILE values at a time, so that both sides stay in the cache. */
static void read_transposed(void *context, size_t tile) {
    const reading *r = context;
    const size_t first = tile * TILE, rows = r->rows - first < TILE ? r->rows - first : TILE;
    float block[TILE][TILE];
    r->bad[tile] = SIZE_MAX;
    for (size_t c = 0; c < r->columns; c += TILE) {
        size_t columns = r->columns - c < TILE ? r->columns - c : TILE;
        for (size_t k = 0; k < columns; k++) {
            decode(r->origin->dtype, r->origin->data, (c + k) * r->rows + first, rows, block[k]);
            size_t bad = pq_first_bad(block[k], rows);
            if (bad < rows && r->bad[tile] == SIZE_MAX) r->bad[tile] = (c + k) * r->rows + first + bad;
        }
        for (size_t i = 0; i < rows; i++) {
            float *row = r->out + (first + i) * r->columns + c;
            for (size_t k = 0; k < columns; k++) row[k] = block[k][i];
        }
    }
}

pq_status pq_origin_read(const pq_origin *origin, const pq_param *param, float *out, pq_error *err) {
    reading r = {.origin = origin, .rows = param->rows ? param->rows : 1, .columns = param->columns};
    size_t tiles = origin->transposed ? (r.rows + TILE - 1) / TILE : (param->count + RUN - 1) / RUN;
    size_t bad = SIZE_MAX;
    r.out = out;
    PQ_TRY(pq_calloc(tiles, sizeof *r.bad, "tiles", &r.bad, err));
    pq_parallel_for(tiles, origin->transposed ? read_transposed : read_run, &r);
    for (size_t i = 0; i < tiles; i++)
        if (r.bad[i] < bad) bad = r.bad[i];
    free(r.bad);
    pq_pages_drop(origin->data, param->count * pq_safetensors_dtype_bytes(origin->dtype));
    if (bad == SIZE_MAX) return PQ_OK;
    return PQ_FAIL(err, PQ_ERR_FORMAT, "%s: value %zu of %s is not a finite number", origin->file, bad,
                   origin->name);
}

typedef struct writing {
    const char *dtype;
    const float *values;
    size_t rows, columns; /* ours */
    bool transposed;
    char *out;
    double *error; /* largest of each tile */
} writing;

/* One value to its place; its error. */
static double encode(const writing *w, float value, size_t place) {
    if (w->dtype[0] == 'F' && w->dtype[1] == '3') {
        memcpy(w->out + 4 * place, &value, sizeof value);
        return 0;
    }
    bool bf16 = w->dtype[0] == 'B';
    uint16_t half = bf16 ? pq_bf16_from_float(value) : pq_f16_from_float(value);
    memcpy(w->out + 2 * place, &half, sizeof half);
    return fabs((double)(bf16 ? pq_bf16_to_float(half) : pq_f16_to_float(half)) - (double)value);
}

static void write_tile(void *context, size_t tile) {
    const writing *w = context;
    const size_t first = tile * TILE, last = first + TILE < w->rows ? first + TILE : w->rows;
    double worst = 0;
    for (size_t c = 0; c < w->columns; c += TILE) {
        size_t end = c + TILE < w->columns ? c + TILE : w->columns;
        for (size_t i = first; i < last; i++) {
            for (size_t k = c; k < end; k++) {
                size_t at = i * w->columns + k;
                double error = encode(w, w->values[at], w->transposed ? k * w->rows + i : at);
                if (error > worst) worst = error;
            }
        }
    }
    w->error[tile] = worst;
}

pq_status pq_origin_write(const char *dtype, bool transposed, const pq_param *param, const float *values,
                          void *out, double *largest_error, pq_error *err) {
    writing w = {dtype, values, param->rows ? param->rows : 1, param->columns, transposed, out, NULL};
    size_t tiles = (w.rows + TILE - 1) / TILE;
    PQ_TRY(pq_calloc(tiles, sizeof *w.error, "tiles", &w.error, err));
    pq_parallel_for(tiles, write_tile, &w);
    *largest_error = 0;
    for (size_t i = 0; i < tiles; i++)
        if (w.error[i] > *largest_error) *largest_error = w.error[i];
    free(w.error);
    return PQ_OK;
}

pq_status pq_origin_with_biases(const pq_model *model, pq_params *out, size_t *largest, pq_error *err) {
    pq_gpt2_shape shape = model->params.shape;
    shape.bias = true;
    PQ_TRY(pq_params_init(&shape, out, err));
    *largest = 0;
    for (size_t i = 0; i < out->count; i++)
        if (out->list[i].count > *largest) *largest = out->list[i].count;
    return PQ_OK;
}

const float *pq_origin_values(const pq_model *model, const pq_param *param, float *scratch) {
    const pq_param *p = pq_params_at(&model->params, param->id, param->layer);
    if (!p) { /* a bias that the model does not have */
        memset(scratch, 0, param->count * sizeof *scratch);
        return scratch;
    }
    const pq_param_quant *q = &model->quant[p - model->params.list];
    const float *weights = model->weights + p->offset;
    if (!q->quantized) return weights;
    pq_matrix_fake_quantize(&q->codebook, weights, p->rows, p->columns, q->group, q->scales, scratch);
    return scratch;
}

pq_status pq_export_note_error(pq_export_summary *summary, const char *name, const char *dtype, double error,
                               bool lossy, pq_error *err) {
    if (isinf(error))
        return PQ_FAIL(err, PQ_ERR_USAGE, "%s has a weight beyond the range of %s", name, dtype);
    if (error > 0 && !lossy)
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "%s has weights that %s cannot hold (error up to %.3g); --lossy rounds them", name,
                       dtype, error);
    if (error > summary->largest_error) {
        summary->largest_error = error;
        snprintf(summary->worst, sizeof summary->worst, "%s", name);
    }
    return PQ_OK;
}
