/* Owns what is counted about the levels of quantized weights from one iteration to the next (log.matrices).
 * It only looks on. Its state is in checkpoints, so that a resumed run writes the same lines. */
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "train/matrix_stats.h"
#include "train/methods/rows.h"

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
    pq_ranks *ranks;                  /* [quantized matrices], of this iteration's codebooks */
    pthread_mutex_t lock;             /* of totals->changes */
    bool counting;                    /* this iteration has one to be compared with */
} watch;

static pq_status make_places(watch *w, const pq_model *model, struct place *end, pq_error *err) {
    PQ_TRY(pq_calloc(model->params.count, sizeof *w->places, "matrix statistics", &w->places, err));
    for (size_t i = 0; i < model->params.count; i++) {
        w->places[i] = *end;
        if (!model->quant[i].quantized) continue;
        end->weight += model->params.list[i].count;
        end->scale += model->quant[i].scale_count;
        end->matrix++;
    }
    return pq_calloc(end->matrix, sizeof *w->ranks, "matrix statistics", &w->ranks, err);
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
    pthread_mutex_init(&w->lock, NULL);
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
    free(w->ranks);
    pthread_mutex_destroy(&w->lock);
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
    for (size_t i = 0; i < qat->model->params.count; i++)
        if (qat->model->quant[i].quantized)
            pq_ranks_init(&w->ranks[w->places[i].matrix], &qat->model->quant[i].codebook);
}

static void watch_forward(pq_qat *qat, void *self, size_t index, size_t first, size_t n, float *shown) {
    watch *w = self;
    const pq_param_quant *q = &qat->model->quant[index];
    const float *latent = qat->model->weights + qat->model->params.list[index].offset;
    const struct place *at = &w->places[index];
    const bool hard = qat->hardness == 1 && strcmp(qat->config->quant.rounding, "stochastic") != 0;
    int8_t now[PQ_SHOWN_TILE], *last = w->last + at->weight + first, *before = w->before + at->weight + first;
    float made[PQ_SHOWN_TILE];
    const float *values = hard ? shown : made;
    pq_rank_changes changes = {0};
    if (!hard) pq_matrix_fake_quantize_part(&q->codebook, latent, first, n, q->group, q->scales, NULL, made);
    for (size_t i = first, end; i < first + n; i = end) {
        end = (i / q->group + 1) * q->group < first + n ? (i / q->group + 1) * q->group : first + n;
        pq_ranks_of(&w->ranks[at->matrix], values + (i - first), q->scales[i / q->group], now + (i - first),
                    end - i);
    }
    if (!w->counting) {
        memcpy(last, now, n);
        memcpy(before, now, n);
        return;
    }
    pq_rank_changes_add(now, last, before, n, &changes);
    pq_rank_changes *sum = &w->totals->changes[at->matrix];
    pthread_mutex_lock(&w->lock);
    sum->changed += changes.changed;
    sum->flipped_back += changes.flipped_back;
    sum->sign_flips += changes.sign_flips;
    pthread_mutex_unlock(&w->lock);
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
