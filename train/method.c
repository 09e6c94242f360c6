/* Owns the methods: straight-through with and without a clip mask (Bengio et al., arXiv 1308.3432). */
#include "train/method.h"

#include <string.h>

static void hard_forward(const pq_model *model, float *quantized) {
    for (size_t i = 0; i < model->params.count; i++) {
        const pq_param *p = &model->params.list[i];
        const pq_param_quant *q = &model->quant[i];
        if (q->quantized)
            pq_matrix_fake_quantize(&q->codebook, model->weights + p->offset, p->rows, p->columns, q->group,
                                    q->scales, quantized + p->offset);
    }
}

static void identity_backward(const pq_model *model, float *gradients) {
    (void)model, (void)gradients;
}

static void clip_backward(const pq_model *model, float *gradients) {
    for (size_t i = 0; i < model->params.count; i++) {
        const pq_param *p = &model->params.list[i];
        const pq_param_quant *q = &model->quant[i];
        if (q->quantized)
            pq_matrix_surrogate(&q->codebook, PQ_GRADIENT_CLIP, model->weights + p->offset, p->rows,
                                p->columns, q->group, q->scales, gradients + p->offset);
    }
}

static const pq_method methods[] = {
    {.name = "ste", .forward = hard_forward, .backward = identity_backward},
    {.name = "clip", .forward = hard_forward, .backward = clip_backward},
};

const pq_method *pq_method_find(const char *name) {
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        if (strcmp(methods[i].name, name) == 0) return &methods[i];
    return NULL;
}
