/* Owns what changes in stages: fewer levels (qat.progressive), and weights that are fixed (qat.freeze). */
#include <math.h>
#include <stdlib.h>

#include "base/memory.h"
#include "train/methods/rows.h"

/* The value of the last stage that has begun, NaN before the first. */
static double stage(const pq_pairs *stages, int64_t iter) {
    double value = NAN;
    for (size_t i = 0; i < stages->count && stages->items[i].iter <= iter; i++)
        value = stages->items[i].value;
    return value;
}

/* ---- fewer levels: the codebook is made anew, and its scales are fitted ---- */

static bool progressive_wanted(const pq_config *config) {
    return config->qat.progressive.count > 0 && config->quant.quantizer[0] != 'n';
}

static pq_status enter_stage(pq_qat *qat, pq_error *err) {
    double levels = stage(&qat->config->qat.progressive, qat->iter);
    bool change = false;
    for (size_t i = 0; !isnan(levels) && i < qat->model->params.count; i++) {
        pq_param_quant *q = &qat->model->quant[i];
        if (!q->quantized || q->codebook.levels == (int)levels) continue;
        PQ_TRY(pq_codebook_init(&q->codebook, q->codebook.type->name, (int64_t)levels, NULL,
                                q->codebook.rounding, err));
        change = true;
    }
    if (!change) return PQ_OK;
    qat->restarted = true;
    return pq_qat_fit_scales(qat->model, &qat->scale, err);
}

static pq_status progressive_create(pq_qat *qat, void **self, pq_error *err) {
    (void)self;
    return enter_stage(qat, err);
}

static void progressive_begin(pq_qat *qat, void *self) {
    (void)self;
    enter_stage(qat, NULL); /* the levels of every stage were checked with the config */
}

const pq_method pq_method_progressive = {.name = "progressive",
                                         .wanted = progressive_wanted,
                                         .create = progressive_create,
                                         .begin = progressive_begin};

bool pq_qat_levels_change(const pq_config *config, int64_t iter) {
    double before = stage(&config->qat.progressive, iter - 1), now = stage(&config->qat.progressive, iter);
    if (!progressive_wanted(config) || isnan(now)) return false;
    return (isnan(before) ? (double)config->quant.levels : before) != now;
}

/* ---- weights that are fixed: incremental network quantization (INQ, Zhou et al., arXiv 1702.03044) ----
 * In each stage the largest weights of a matrix that are still free are set to their levels and stay there.
 */

typedef struct freeze {
    unsigned char *fixed; /* [elements], an array of the checkpoint */
    float *magnitudes;    /* [weights of the largest matrix] */
} freeze;

static bool freeze_wanted(const pq_config *config) {
    return config->qat.freeze.count > 0 && config->quant.quantizer[0] != 'n';
}

static pq_status freeze_create(pq_qat *qat, void **self, pq_error *err) {
    freeze *f;
    size_t most = 1;
    void *fixed;
    PQ_TRY(pq_calloc(1, sizeof *f, "frozen weights", &f, err));
    *self = f;
    for (size_t i = 0; i < qat->model->params.count; i++)
        if (qat->model->params.list[i].count > most) most = qat->model->params.list[i].count;
    PQ_TRY(pq_qat_array(qat, "freeze.fixed", PQ_ARRAY_U8, qat->model->params.elements, NULL, &fixed, err));
    f->fixed = fixed;
    return pq_calloc(most, sizeof *f->magnitudes, "magnitudes of weights", &f->magnitudes, err);
}

static void freeze_destroy(void *self) {
    freeze *f = self;
    if (f) free(f->magnitudes);
    free(f);
}

static int descending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

static void fix(const pq_param_quant *q, unsigned char *fixed, float *w, size_t i) {
    fixed[i] = 1;
    pq_fake_quantize(&q->codebook, w + i, q->scales[i / q->group], w + i, 1);
}

/* Fix weights of one matrix, the largest first (equal ones in their order), until `wanted` are. */
static void fix_largest(const freeze *f, unsigned char *fixed, const pq_param_quant *q, float *w,
                        size_t count, size_t wanted) {
    size_t free_count = 0, already = 0;
    for (size_t i = 0; i < count; i++) {
        already += fixed[i];
        if (!fixed[i]) f->magnitudes[free_count++] = fabsf(w[i]);
    }
    if (already >= wanted) return;
    size_t more = wanted - already;
    qsort(f->magnitudes, free_count, sizeof *f->magnitudes, descending);
    float least = f->magnitudes[more - 1];
    for (size_t i = 0; i < count; i++)
        if (!fixed[i] && fabsf(w[i]) > least) fix(q, fixed, w, i), more--;
    for (size_t i = 0; i < count && more > 0; i++)
        if (!fixed[i] && fabsf(w[i]) == least) fix(q, fixed, w, i), more--;
}

/* A stage that has been entered already finds nothing to do. */
static void freeze_begin(pq_qat *qat, void *self) {
    const freeze *f = self;
    const pq_model *model = qat->model;
    double share = stage(&qat->config->qat.freeze, qat->iter);
    for (size_t i = 0; i < model->params.count && !isnan(share); i++) {
        const pq_param *p = &model->params.list[i];
        if (model->quant[i].quantized)
            fix_largest(f, f->fixed + p->offset, &model->quant[i], model->weights + p->offset, p->count,
                        (size_t)(share * (double)p->count));
    }
}

static void freeze_backward(pq_qat *qat, void *self, size_t index, float *gradient) {
    const unsigned char *fixed = ((freeze *)self)->fixed + qat->model->params.list[index].offset;
    for (size_t i = 0; i < qat->model->params.list[index].count; i++)
        gradient[i] = fixed[i] ? 0.0f : gradient[i];
}

/* Moments and decay have moved fixed weights, too. */
static void freeze_updated(pq_qat *qat, void *self) {
    const freeze *f = self;
    for (size_t index = 0; index < qat->model->params.count; index++) {
        const pq_param *p = &qat->model->params.list[index];
        float *w = qat->model->weights + p->offset, piece[PQ_SHOWN_PIECE];
        for (size_t i = 0, n; qat->model->quant[index].quantized && i < p->count; i += n) {
            n = p->count - i < PQ_SHOWN_PIECE ? p->count - i : PQ_SHOWN_PIECE;
            const float *level = pq_qat_shown(qat, index, i, n, piece);
            for (size_t k = 0; k < n; k++)
                if (f->fixed[p->offset + i + k]) w[i + k] = level[k];
        }
    }
}

const pq_method pq_method_freeze = {.name = "freeze",
                                    .wanted = freeze_wanted,
                                    .reads_shown = true,
                                    .create = freeze_create,
                                    .begin = freeze_begin,
                                    .backward = freeze_backward,
                                    .updated = freeze_updated,
                                    .destroy = freeze_destroy};
