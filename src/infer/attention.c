/* Owns causal attention over the key/value cache: exact by matrix products, one head a task, or as the
 * integer recipe has it, a few queries together. */
#include <math.h>

#include "infer/parts.h"
#include "kernels/gemm.h"
#include "kernels/kernels.h"

typedef struct attention {
    const float *q, *keys, *values;
    float *out, *scratch;
    size_t stride, first, n, heads, head_size;
} attention;

/* Probabilities of the first `valid` of row[length] in place; what lies beyond is the future: 0. */
static void softmax(float *row, size_t valid, size_t length) {
    float largest = row[0];
    double sum = 0;
    for (size_t i = 1; i < valid; i++) largest = row[i] > largest ? row[i] : largest;
    for (size_t i = 0; i < valid; i++) sum += row[i] = expf(row[i] - largest);
    const float factor = (float)(1 / sum);
    for (size_t i = 0; i < valid; i++) row[i] *= factor;
    for (size_t i = valid; i < length; i++) row[i] = 0;
}

static void attend_head(const attention *a, size_t head, float *scores) {
    const size_t length = a->first + a->n, width = a->heads * a->head_size, at = head * a->head_size;
    const float factor = 1.0f / sqrtf((float)a->head_size);
    pq_gemm_serial(&(pq_float_product){.transpose_b = true,
                                       .M = a->n,
                                       .N = length,
                                       .K = a->head_size,
                                       .lda = a->stride,
                                       .ldb = width,
                                       .ldc = length,
                                       .A = a->q + at,
                                       .B = a->keys + at,
                                       .C = scores});
    for (size_t t = 0; t < a->n; t++) {
        float *row = scores + t * length;
        for (size_t i = 0; i <= a->first + t; i++) row[i] *= factor;
        softmax(row, a->first + t + 1, length);
    }
    pq_gemm_serial(&(pq_float_product){.M = a->n,
                                       .N = a->head_size,
                                       .K = length,
                                       .lda = length,
                                       .ldb = width,
                                       .ldc = width,
                                       .A = scores,
                                       .B = a->values + at,
                                       .C = a->out + at});
}

static void attend_lane(void *context, size_t lane) {
    const attention *a = context;
    for (size_t head = lane; head < a->heads; head += PQ_ENGINE_LANES)
        attend_head(a, head, a->scratch + lane * a->n * (a->first + a->n));
}

void pq_cached_attention(const float *q, size_t stride, const float *keys, const float *values, size_t first,
                         size_t n, size_t heads, size_t head_size, float *out, float *scratch) {
    attention a = {q, keys, values, out, scratch, stride, first, n, heads, head_size};
    pq_tasks(heads < PQ_ENGINE_LANES ? heads : PQ_ENGINE_LANES, n * (first + n) * heads * head_size / 4,
             attend_lane, &a);
}

typedef struct recipe_attention {
    const float *q;
    size_t stride;
    const pq_cache_view *views;
    bool half;
    size_t n, heads, head_size;
    float *out, *scratch;
    size_t lane_scratch;
} recipe_attention;

/* Every PQ_ENGINE_LANES-th pair of a view and a head: lanes take turns, since later queries see more. */
static void recipe_lane(void *context, size_t lane) {
    const recipe_attention *a = context;
    const size_t D = a->head_size, bytes = a->half ? sizeof(uint16_t) : sizeof(float);
    for (size_t i = lane; i < a->n * a->heads; i += PQ_ENGINE_LANES) {
        const size_t at = i % a->heads * D, width = a->heads * D;
        const pq_cache_view *view = &a->views[i / a->heads];
        pq_kernels_get()->recipe_attention(
            a->q + view->first * a->stride + at, a->stride, view->queries,
            (const char *)view->keys + at * bytes, (const char *)view->values + at * bytes, a->half, width,
            view->count, D, a->out + view->first * width + at, width, a->scratch + lane * a->lane_scratch);
    }
}

void pq_recipe_attention(const float *q, size_t stride, const pq_cache_view *views, bool half, size_t n,
                         size_t heads, size_t head_size, float *out, float *scratch, size_t lane_scratch) {
    recipe_attention a = {q, stride, views, half, n, heads, head_size, out, scratch, lane_scratch};
    const size_t items = n * heads;
    size_t keys = 0;
    for (size_t i = 0; i < n; i++) keys += views[i].queries * views[i].count;
    pq_tasks(items < PQ_ENGINE_LANES ? items : PQ_ENGINE_LANES, keys * heads * head_size, recipe_lane, &a);
}
