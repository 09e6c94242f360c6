/* Owns what happens to the gradients and weights of quantized matrices: the clip mask of the straight-through
 * gradient (Bengio et al., arXiv 1308.3432) and the pull towards the nearest level. */
#include <string.h>

#include "base/threads.h"
#include "train/methods/rows.h"

static bool clip_wanted(const pq_config *config) {
    return config->quant.quantizer[0] != 'n' && strcmp(config->quant.gradient, "clip") == 0;
}

static void clip_backward(pq_qat *qat, void *self, size_t index, float *gradient) {
    const pq_param *p = &qat->model->params.list[index];
    const pq_param_quant *q = &qat->model->quant[index];
    (void)self;
    if (qat->hardness > 0)
        pq_matrix_surrogate(&q->codebook, PQ_GRADIENT_CLIP, qat->model->weights + p->offset, p->rows,
                            p->columns, q->group, q->scales, gradient);
}

const pq_method pq_method_clip = {.name = "clip", .wanted = clip_wanted, .backward = clip_backward};

/* Dampening (after Nagel et al., arXiv 2203.11086), decoupled as AdamW's decay is: w -= lr dampen (w - q(w)),
 * with the level that the iteration has shown. */
static bool dampen_wanted(const pq_config *config) {
    return config->quant.quantizer[0] != 'n' && config->qat.dampen > 0;
}

typedef struct pull {
    const pq_qat *qat;
    size_t index, columns;
    float *w;
    float rate;
} pull;

static void pull_row(void *context, size_t row) {
    const pull *p = context;
    float piece[PQ_SHOWN_PIECE];
    for (size_t i = row * p->columns, end = i + p->columns, n; i < end; i += n) {
        n = end - i < PQ_SHOWN_PIECE ? end - i : PQ_SHOWN_PIECE;
        const float *level = pq_qat_shown(p->qat, p->index, i, n, piece);
        for (size_t k = 0; k < n; k++) p->w[i + k] -= p->rate * (p->w[i + k] - level[k]);
    }
}

static void dampen_updated(pq_qat *qat, void *self) {
    (void)self;
    for (size_t i = 0; i < qat->model->params.count; i++) {
        const pq_param *p = &qat->model->params.list[i];
        pull work = {.qat = qat,
                     .index = i,
                     .w = qat->model->weights + p->offset,
                     .columns = p->columns,
                     .rate = (float)(qat->lr * qat->config->qat.dampen)};
        if (work.rate > 1) work.rate = 1;
        if (qat->model->quant[i].quantized) pq_parallel_for(p->rows, pull_row, &work);
    }
}

const pq_method pq_method_dampen = {
    .name = "dampen", .wanted = dampen_wanted, .reads_shown = true, .updated = dampen_updated};
