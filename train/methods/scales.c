/* Owns scales during training: fitted again (quant.refit), or learned (quant.scale: learned). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/threads.h"
#include "train/methods/rows.h"

/* The first scale of matrix `index` among those of all matrices. */
static size_t first_scale(const pq_model *model, size_t index) {
    size_t first = 0;
    for (size_t i = 0; i < index; i++)
        if (model->quant[i].quantized) first += model->quant[i].scale_count;
    return first;
}

/* ---- fitted again ---- */

static bool refit_wanted(const pq_config *config) {
    return config->quant.refit > 0 && config->quant.quantizer[0] != 'n';
}

/* Weights [first, first + n) of a matrix. `self`, for ema-absmax alone: the moving averages of the largest
 * magnitudes, one a scale of all matrices. Weights that an update left finite always fit; a scale stays as it
 * is otherwise. */
static pq_status refit(const pq_qat *qat, void *self, size_t index, size_t first, size_t n, pq_error *err) {
    const pq_param *p = &qat->model->params.list[index];
    const pq_param_quant *q = &qat->model->quant[index];
    float *running = self;
    if (running) running += first_scale(qat->model, index);
    return pq_matrix_fit_part(&q->codebook, &qat->scale, qat->model->weights + p->offset, first, n,
                              p->columns, q->group, running, q->scales, err);
}

static pq_status refit_create(pq_qat *qat, void **self, pq_error *err) {
    size_t count = first_scale(qat->model, qat->model->params.count);
    void *running;
    if (qat->scale.method != PQ_SCALE_EMA_ABSMAX) return PQ_OK;
    PQ_TRY(pq_qat_array(qat, "refit.running", PQ_ARRAY_F32, count, NULL, &running, err));
    *self = running;
    for (size_t i = 0; i < count; i++) ((float *)running)[i] = NAN; /* the first fit sets it */
    for (size_t i = 0; i < qat->model->params.count; i++)
        if (qat->model->quant[i].quantized)
            PQ_TRY(refit(qat, running, i, 0, qat->model->params.list[i].count, err));
    return PQ_OK;
}

static bool refit_due(const pq_qat *qat) {
    return qat->iter % qat->config->quant.refit == 0;
}

/* Groups that lie within a tile wait until it is in the cache. */
static void refit_begin(pq_qat *qat, void *self) {
    if (!refit_due(qat)) return;
    for (size_t i = 0; i < qat->model->params.count; i++)
        if (qat->model->quant[i].quantized && qat->model->quant[i].group > PQ_SHOWN_TILE)
            refit(qat, self, i, 0, qat->model->params.list[i].count, NULL);
}

static void refit_forward(pq_qat *qat, void *self, size_t index, size_t first, size_t n, float *shown) {
    (void)shown;
    if (refit_due(qat) && qat->model->quant[index].group <= PQ_SHOWN_TILE)
        refit(qat, self, index, first, n, NULL);
}

const pq_method pq_method_refit = {.name = "refit",
                                   .wanted = refit_wanted,
                                   .create = refit_create,
                                   .begin = refit_begin,
                                   .forward = refit_forward};

/* ---- learned ----
 * Learned step sizes (LSQ, Esser et al., arXiv 1902.08153) with dq/ds = q(w/s) - w/s inside the range and the
 * end value beyond it. The range ends at the clip mask, the edge of the last cell: for 3 levels this is
 * ParetoQ's stretched quantizer (arXiv 2502.02631), whose levels are +-2/3 alpha and 0 with cells of alpha/3
 * and alpha = 1.5 s. The step is taken in log s, so scales stay positive and move by a share of themselves,
 * at most qat.scale_lr an iteration; Adam (without decay, outside the clip norm) makes LSQ's gradient scale
 * 1 / sqrt(n Q) superfluous. */
enum { ROWS_A_TILE = 16 };
static const double BETA1 = 0.9, BETA2 = 0.99, EPSILON = 1e-12;

typedef struct learned {
    float *log_scale, *m, *v, *steps; /* arrays of the checkpoint; [scales of all matrices], steps [1] */
    float *gradient;                  /* with respect to log_scale; of this iteration */
    size_t count;
} learned;

static bool learned_wanted(const pq_config *config) {
    return strcmp(config->quant.scale, "learned") == 0 && config->quant.quantizer[0] != 'n';
}

static void take_scales(const pq_model *model, learned *l) {
    for (size_t i = 0, at = 0; i < model->params.count; i++)
        for (size_t k = 0; model->quant[i].quantized && k < model->quant[i].scale_count; k++, at++)
            l->log_scale[at] = (float)log((double)model->quant[i].scales[k]);
    memset(l->m, 0, l->count * sizeof *l->m);
    memset(l->v, 0, l->count * sizeof *l->v);
    *l->steps = 0;
}

static pq_status learned_create(pq_qat *qat, void **self, pq_error *err) {
    learned *l;
    PQ_TRY(pq_calloc(1, sizeof *l, "learned scales", &l, err));
    *self = l;
    l->count = first_scale(qat->model, qat->model->params.count);
    struct {
        const char *name;
        float **place;
        size_t count;
    } arrays[] = {{"learned.log_scale", &l->log_scale, l->count},
                  {"learned.m", &l->m, l->count},
                  {"learned.v", &l->v, l->count},
                  {"learned.steps", &l->steps, 1}};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        void *data;
        PQ_TRY(pq_qat_array(qat, arrays[i].name, PQ_ARRAY_F32, arrays[i].count, NULL, &data, err));
        *arrays[i].place = data;
    }
    PQ_TRY(pq_calloc(l->count, sizeof *l->gradient, "gradients of scales", &l->gradient, err));
    take_scales(qat->model, l);
    return PQ_OK;
}

static void learned_destroy(void *self) {
    learned *l = self;
    if (l) free(l->gradient);
    free(l);
}

static void learned_begin(pq_qat *qat, void *self) {
    if (qat->restarted) take_scales(qat->model, self);
}

typedef struct scale_work {
    const pq_qat *qat;
    size_t index;
    const pq_param_quant *quant;
    const float *w, *g;
    float *gradient;
    float softness;
    size_t scales;
} scale_work;

/* d shown / d log s: shown - w inside the range (a blend's share included), what is left of the end value
 * beyond. */
static double sum_group(const scale_work *work, size_t first, float low, float high) {
    enum { LANES = 16 };
    float sums[LANES] = {0};
    double total = 0;
    size_t n = work->quant->group;
    for (size_t at = 0, length; at < n; at += length) {
        float piece[PQ_SHOWN_PIECE]; /* a multiple of LANES */
        length = n - at < PQ_SHOWN_PIECE ? n - at : PQ_SHOWN_PIECE;
        const float *w = work->w + first + at, *g = work->g + first + at;
        const float *shown = pq_qat_shown(work->qat, work->index, first + at, length, piece);
        for (size_t i = 0; i < length; i += LANES)
            for (size_t k = 0; k < LANES && i + k < length; k++) {
                float x = w[i + k], part = x < low || x > high ? work->softness : 1.0f;
                sums[k] += g[i + k] * (shown[i + k] - part * x);
            }
    }
    for (size_t k = 0; k < LANES; k++) total += (double)sums[k];
    return total;
}

static void scale_tile(void *context, size_t tile) {
    const scale_work *work = context;
    const pq_codebook *codebook = &work->quant->codebook;
    for (size_t k = tile * ROWS_A_TILE; k < work->scales && k < (tile + 1) * ROWS_A_TILE; k++) {
        float scale = work->quant->scales[k];
        work->gradient[k] =
            (float)sum_group(work, k * work->quant->group, pq_clip_end(codebook, codebook->range[0], scale),
                             pq_clip_end(codebook, codebook->range[1], scale));
    }
}

static void learned_backward(pq_qat *qat, void *self, size_t index, float *gradient) {
    const learned *l = self;
    const pq_param *p = &qat->model->params.list[index];
    const pq_param_quant *q = &qat->model->quant[index];
    scale_work work = {.qat = qat,
                       .index = index,
                       .quant = q,
                       .w = qat->model->weights + p->offset,
                       .g = gradient,
                       .gradient = l->gradient + first_scale(qat->model, index),
                       .softness = (float)(1 - qat->hardness),
                       .scales = q->scale_count};
    pq_parallel_for((q->scale_count + ROWS_A_TILE - 1) / ROWS_A_TILE, scale_tile, &work);
}

static void learned_updated(pq_qat *qat, void *self) {
    learned *l = self;
    double step = (double)++*l->steps, rate = qat->config->qat.scale_lr * qat->lr / qat->config->train.lr;
    double correction1 = 1 - pow(BETA1, step), correction2 = 1 - pow(BETA2, step);
    for (size_t i = 0, at = 0; i < qat->model->params.count; i++) {
        pq_param_quant *q = &qat->model->quant[i];
        for (size_t k = 0; q->quantized && k < q->scale_count; k++, at++) {
            double g = (double)l->gradient[at];
            l->m[at] = (float)(BETA1 * (double)l->m[at] + (1 - BETA1) * g);
            l->v[at] = (float)(BETA2 * (double)l->v[at] + (1 - BETA2) * g * g);
            double change = (double)l->m[at] / correction1 / (sqrt((double)l->v[at] / correction2) + EPSILON);
            l->log_scale[at] -= (float)(rate * fmax(-1, fmin(1, change)));
            float scale = pq_scale_to_grid((float)exp((double)l->log_scale[at]), qat->scale.grid);
            if (scale >= qat->scale.least && isnormal(scale)) q->scales[k] = scale;
        }
    }
}

const pq_method pq_method_learned = {.name = "learned",
                                     .wanted = learned_wanted,
                                     .reads_shown = true,
                                     .create = learned_create,
                                     .begin = learned_begin,
                                     .backward = learned_backward,
                                     .updated = learned_updated,
                                     .destroy = learned_destroy};
