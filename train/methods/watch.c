/* Owns what is counted about the levels of quantized weights from one iteration to the next (log.matrices).
 * It only looks on. Its state is in checkpoints, so that a resumed run writes the same lines. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/threads.h"
#include "train/matrix_stats.h"
#include "train/methods/rows.h"

enum { TILE = 8192 }; /* weights */

static bool watch_wanted(const pq_config *config) {
    return config->log.matrices && strcmp(config->quant.quantizer, "none") != 0;
}

/* Whole numbers, kept as an array of bytes. */
typedef struct totals {
    uint64_t seen;             /* 1: last and before hold the ranks of an iteration */
    uint64_t lines;            /* 1: a line was written */
    uint64_t steps;            /* comparisons since that line */
    pq_rank_changes changes[]; /* [quantized matrices] */
} totals;

typedef struct watch {
    int8_t *last, *before; /* [quantized weights] */
    float *scales;         /* [scales of all matrices] as they were at the last line */
    totals *totals;
    struct place {
        size_t weight, scale, matrix; /* before those of this matrix */
    } * places;                       /* [parameters] */
    pq_rank_changes *tiles;           /* [tiles of the largest matrix] */
    bool counting;                    /* this iteration has one to be compared with */
} watch;

static pq_status make_places(watch *w, const pq_model *model, struct place *end, pq_error *err) {
    size_t most = 1;
    PQ_TRY(pq_calloc(model->params.count, sizeof *w->places, "matrix statistics", &w->places, err));
    for (size_t i = 0; i < model->params.count; i++) {
        w->places[i] = *end;
        if (!model->quant[i].quantized) continue;
        end->weight += model->params.list[i].count;
        end->scale += model->quant[i].scale_count;
        end->matrix++;
        if (model->params.list[i].count > most) most = model->params.list[i].count;
    }
    return pq_calloc((most + TILE - 1) / TILE, sizeof *w->tiles, "matrix statistics", &w->tiles, err);
}

static void take_scales(const pq_model *model, watch *w) {
    for (size_t i = 0; i < model->params.count; i++)
        if (model->quant[i].quantized)
            memcpy(w->scales + w->places[i].scale, model->quant[i].scales,
                   model->quant[i].scale_count * sizeof *w->scales);
}

static pq_status watch_create(pq_qat *qat, void **self, pq_error *err) {
    watch *w;
    struct place end = {0};
    void *last, *before, *scales, *sums;
    PQ_TRY(pq_calloc(1, sizeof *w, "matrix statistics", &w, err));
    *self = w;
    PQ_TRY(make_places(w, qat->model, &end, err));
    if (end.matrix == 0) return PQ_OK;
    PQ_TRY(pq_qat_array(qat, "watch.last", PQ_ARRAY_U8, end.weight, NULL, &last, err));
    PQ_TRY(pq_qat_array(qat, "watch.before", PQ_ARRAY_U8, end.weight, NULL, &before, err));
    PQ_TRY(pq_qat_array(qat, "watch.scales", PQ_ARRAY_F32, end.scale, NULL, &scales, err));
    PQ_TRY(pq_qat_array(qat, "watch.totals", PQ_ARRAY_U8,
                        sizeof *w->totals + end.matrix * sizeof *w->totals->changes, NULL, &sums, err));
    w->last = last, w->before = before, w->scales = scales, w->totals = sums;
    take_scales(qat->model, w);
    return PQ_OK;
}

static void watch_destroy(void *self) {
    watch *w = self;
    if (!w) return;
    free(w->places);
    free(w->tiles);
    free(w);
}

/* Ranks of another codebook can't be compared, nor can its scales. */
static void watch_begin(pq_qat *qat, void *self) {
    watch *w = self;
    if (!w->totals) return;
    w->counting = w->totals->seen && !qat->restarted;
    w->totals->seen = 1;
    w->totals->steps += w->counting;
    if (qat->restarted) take_scales(qat->model, w);
}

typedef struct work {
    const pq_param_quant *quant;
    const pq_ranks *ranks;
    const float *shown;  /* hard values, or NULL: */
    const float *latent; /* they are made from these */
    int8_t *last, *before;
    size_t count;
    bool counting;
    pq_rank_changes *tiles;
} work;

static void watch_tile(void *context, size_t tile) {
    const work *k = context;
    const size_t first = tile * TILE, end = first + TILE < k->count ? first + TILE : k->count;
    const size_t group = k->quant->group;
    int8_t now[TILE];
    float hard[TILE];
    k->tiles[tile] = (pq_rank_changes){0};
    for (size_t i = first, stop; i < end; i = stop) {
        stop = (i / group + 1) * group < end ? (i / group + 1) * group : end;
        const float scale = k->quant->scales[i / group], *values = k->shown ? k->shown + i : hard;
        if (!k->shown) pq_fake_quantize(&k->quant->codebook, k->latent + i, scale, hard, stop - i);
        pq_ranks_of(k->ranks, values, scale, now + (i - first), stop - i);
    }
    if (k->counting) {
        pq_rank_changes_add(now, k->last + first, k->before + first, end - first, &k->tiles[tile]);
    } else {
        memcpy(k->last + first, now, end - first);
        memcpy(k->before + first, now, end - first);
    }
}

static void watch_forward(pq_qat *qat, void *self, size_t index, float *shown) {
    const watch *w = self;
    const pq_param *p = &qat->model->params.list[index];
    const struct place *at = &w->places[index];
    const bool hard = qat->hardness == 1 && strcmp(qat->config->quant.rounding, "stochastic") != 0;
    pq_ranks ranks;
    pq_ranks_init(&ranks, &qat->model->quant[index].codebook);
    work k = {.quant = &qat->model->quant[index],
              .ranks = &ranks,
              .shown = hard ? shown : NULL,
              .latent = qat->model->weights + p->offset,
              .last = w->last + at->weight,
              .before = w->before + at->weight,
              .count = p->count,
              .counting = w->counting,
              .tiles = w->tiles};
    const size_t tiles = (p->count + TILE - 1) / TILE;
    pq_parallel_for(tiles, watch_tile, &k);
    pq_rank_changes *sum = &w->totals->changes[at->matrix];
    for (size_t i = 0; i < tiles; i++) {
        sum->changed += w->tiles[i].changed;
        sum->flipped_back += w->tiles[i].flipped_back;
        sum->sign_flips += w->tiles[i].sign_flips;
    }
}

const pq_method pq_method_watch = {.name = "watch",
                                   .wanted = watch_wanted,
                                   .create = watch_create,
                                   .begin = watch_begin,
                                   .forward = watch_forward,
                                   .destroy = watch_destroy};

/* ---- for the lines ---- */

static watch *find(const pq_qat *qat) {
    for (size_t k = 0; k < qat->active_count; k++)
        if (qat->active[k] == &pq_method_watch && ((watch *)qat->own[k])->totals) return qat->own[k];
    return NULL;
}

pq_watched pq_watch_read(const pq_qat *qat, size_t index) {
    const watch *w = find(qat);
    const pq_param_quant *q = &qat->model->quant[index];
    pq_watched out = {.changed = NAN, .flipped_back = NAN, .sign_flips = NAN, .scale_drift = NAN};
    if (!w) return out;
    const struct place *at = &w->places[index];
    out.trained = w->totals->seen != 0;
    if (w->totals->lines) out.scale_drift = pq_scale_drift(q->scales, w->scales + at->scale, q->scale_count);
    if (w->totals->steps == 0) return out;
    const pq_rank_changes *sum = &w->totals->changes[at->matrix];
    const double all = (double)w->totals->steps * (double)qat->model->params.list[index].count;
    out.changed = (double)sum->changed / all;
    out.flipped_back = (double)sum->flipped_back / all;
    out.sign_flips = (double)sum->sign_flips / all;
    return out;
}

void pq_watch_restart(pq_qat *qat) {
    watch *w = find(qat);
    if (!w) return;
    w->totals->steps = 0;
    w->totals->lines = 1;
    for (size_t i = 0; i < qat->model->params.count; i++)
        if (qat->model->quant[i].quantized) w->totals->changes[w->places[i].matrix] = (pq_rank_changes){0};
    take_scales(qat->model, w);
}
