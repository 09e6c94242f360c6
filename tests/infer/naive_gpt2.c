#include "naive_gpt2.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>

typedef struct naive {
    const pq_model *model;
    const float *weights; /* effective */
    size_t count, width;
} naive;

/* Element (row, column) of a parameter; 0 where the model has no such bias. */
static double at(const naive *n, pq_param_id id, int layer, size_t row, size_t column) {
    const pq_param *p = pq_params_at(&n->model->params, id, layer);
    return p ? (double)n->weights[p->offset + row * p->columns + column] : 0;
}

static double *room(size_t count) {
    double *x = calloc(count, sizeof *x);
    ck_assert_ptr_nonnull(x);
    return x;
}

/* out[count][rows] = x[count][columns] W^T + b */
static double *linear(const naive *n, pq_param_id weight, pq_param_id bias, int layer, const double *x,
                      size_t rows, size_t columns) {
    double *out = room(n->count * rows);
    for (size_t t = 0; t < n->count; t++)
        for (size_t r = 0; r < rows; r++) {
            double sum = at(n, bias, layer, 0, r);
            for (size_t c = 0; c < columns; c++) sum += at(n, weight, layer, r, c) * x[t * columns + c];
            out[t * rows + r] = sum;
        }
    return out;
}

static double *norm(const naive *n, pq_param_id gain, pq_param_id bias, int layer, const double *x) {
    const size_t C = n->width;
    double *out = room(n->count * C);
    for (size_t t = 0; t < n->count; t++) {
        double mean = 0, variance = 0;
        for (size_t c = 0; c < C; c++) mean += x[t * C + c] / (double)C;
        for (size_t c = 0; c < C; c++) variance += pow(x[t * C + c] - mean, 2) / (double)C;
        for (size_t c = 0; c < C; c++)
            out[t * C + c] = (x[t * C + c] - mean) / sqrt(variance + 1e-5) * at(n, gain, layer, 0, c) +
                             at(n, bias, layer, 0, c);
    }
    return out;
}

/* qkv[count][3 width] -> [count][width] */
static double *attention(const naive *n, const double *qkv) {
    const size_t C = n->width, H = (size_t)n->model->params.shape.heads, D = C / H;
    double *out = room(n->count * C), *p = room(n->count);
    for (size_t h = 0; h < H; h++)
        for (size_t t = 0; t < n->count; t++) {
            double sum = 0;
            for (size_t j = 0; j <= t; j++) {
                double score = 0;
                for (size_t d = 0; d < D; d++)
                    score += qkv[t * 3 * C + h * D + d] * qkv[j * 3 * C + C + h * D + d];
                p[j] = exp(score / sqrt((double)D));
                sum += p[j];
            }
            for (size_t j = 0; j <= t; j++)
                for (size_t d = 0; d < D; d++)
                    out[t * C + h * D + d] += p[j] / sum * qkv[j * 3 * C + 2 * C + h * D + d];
        }
    free(p);
    return out;
}

static void add_and_free(double *x, double *change, size_t count) {
    for (size_t i = 0; i < count; i++) x[i] += change[i];
    free(change);
}

static double gelu(double x, bool by_tanh) {
    const double pi = 3.14159265358979323846;
    return by_tanh ? 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x * x * x)))
                   : 0.5 * x * (1 + erf(x / sqrt(2)));
}

void naive_gpt2(const pq_model *model, const uint16_t *tokens, size_t count, double *logits) {
    const pq_gpt2_shape shape = model->params.shape;
    const size_t C = (size_t)shape.width, V = (size_t)shape.vocab;
    float *weights = malloc(model->params.elements * sizeof *weights);
    ck_assert_ptr_nonnull(weights);
    pq_model_effective_weights(model, weights);
    const naive n = {model, weights, count, C};
    double *x = room(count * C);
    for (size_t t = 0; t < count; t++)
        for (size_t c = 0; c < C; c++)
            x[t * C + c] = at(&n, PQ_PARAM_WTE, -1, tokens[t], c) + at(&n, PQ_PARAM_WPE, -1, t, c);
    for (int l = 0; l < (int)shape.layers; l++) {
        double *a = norm(&n, PQ_PARAM_LN_1_WEIGHT, PQ_PARAM_LN_1_BIAS, l, x);
        double *qkv = linear(&n, PQ_PARAM_C_ATTN_WEIGHT, PQ_PARAM_C_ATTN_BIAS, l, a, 3 * C, C);
        double *y = attention(&n, qkv);
        add_and_free(x, linear(&n, PQ_PARAM_ATTN_C_PROJ_WEIGHT, PQ_PARAM_ATTN_C_PROJ_BIAS, l, y, C, C),
                     count * C);
        double *b = norm(&n, PQ_PARAM_LN_2_WEIGHT, PQ_PARAM_LN_2_BIAS, l, x);
        double *f = linear(&n, PQ_PARAM_C_FC_WEIGHT, PQ_PARAM_C_FC_BIAS, l, b, 4 * C, C);
        for (size_t i = 0; i < count * 4 * C; i++) f[i] = gelu(f[i], shape.gelu_tanh);
        add_and_free(x, linear(&n, PQ_PARAM_MLP_C_PROJ_WEIGHT, PQ_PARAM_MLP_C_PROJ_BIAS, l, f, C, 4 * C),
                     count * C);
        free(a), free(qkv), free(y), free(b), free(f);
    }
    double *last = norm(&n, PQ_PARAM_LN_F_WEIGHT, PQ_PARAM_LN_F_BIAS, -1, x);
    for (size_t t = 0; t < count; t++)
        for (size_t v = 0; v < V; v++) {
            double sum = 0;
            for (size_t c = 0; c < C; c++) sum += at(&n, PQ_PARAM_WTE, -1, v, c) * last[t * C + c];
            logits[t * V + v] = sum;
        }
    free(last);
    free(x);
    free(weights);
}
