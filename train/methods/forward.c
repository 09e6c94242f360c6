/* Owns what the graph sees: the hard values, those drawn by chance, and their blend with the latent weights
 * (qat.start_iter, qat.anneal_iters). */
#include <string.h>

#include "train/methods/rows.h"

static bool quantizes(const pq_config *config) {
    return strcmp(config->quant.quantizer, "none") != 0;
}

static void hard_forward(pq_qat *qat, void *self, size_t index, size_t first, size_t n, float *shown) {
    const float *w = qat->model->weights + qat->model->params.list[index].offset;
    const pq_param_quant *q = &qat->model->quant[index];
    (void)self;
    pq_matrix_fake_quantize_part(&q->codebook, w, first, n, q->group, q->scales, NULL, shown);
}

const pq_method pq_method_hard = {.name = "hard", .wanted = quantizes, .forward = hard_forward};

/* Stochastic rounding: one of the two neighbouring levels, the nearer the more likely, drawn anew each
 * iteration. */
static bool stochastic_wanted(const pq_config *config) {
    return quantizes(config) && strcmp(config->quant.rounding, "stochastic") == 0;
}

static void stochastic_forward(pq_qat *qat, void *self, size_t index, size_t first, size_t n, float *shown) {
    const float *w = qat->model->weights + qat->model->params.list[index].offset;
    const pq_param_quant *q = &qat->model->quant[index];
    pq_draws draws = {
        .seed = (uint64_t)qat->config->train.seed, .iter = (uint64_t)qat->iter, .tensor = (uint32_t)index};
    (void)self;
    pq_matrix_fake_quantize_part(&q->codebook, w, first, n, q->group, q->scales, &draws, shown);
}

const pq_method pq_method_stochastic = {
    .name = "stochastic", .wanted = stochastic_wanted, .forward = stochastic_forward};

/* Soft: w + hardness (q(w) - w); hardness rises from 0 at qat.start_iter to 1 after qat.anneal_iters more. */
static bool soft_wanted(const pq_config *config) {
    return quantizes(config) && (config->qat.start_iter > 0 || config->qat.anneal_iters > 0);
}

static void soft_begin(pq_qat *qat, void *self) {
    int64_t done = qat->iter - qat->config->qat.start_iter, anneal = qat->config->qat.anneal_iters;
    (void)self;
    qat->hardness = done < 0 ? 0 : done >= anneal ? 1 : (double)done / (double)anneal;
}

static void soft_forward(pq_qat *qat, void *self, size_t index, size_t first, size_t n, float *shown) {
    const float *w = qat->model->weights + qat->model->params.list[index].offset + first;
    const float hardness = (float)qat->hardness;
    (void)self;
    for (size_t i = 0; i < n && hardness < 1; i++) shown[i] = w[i] + hardness * (shown[i] - w[i]);
}

const pq_method pq_method_soft = {
    .name = "soft", .wanted = soft_wanted, .begin = soft_begin, .forward = soft_forward};
