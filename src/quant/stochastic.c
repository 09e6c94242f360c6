/* Owns stochastic rounding: the forward pass of training that draws between two values. */
#include <math.h>
#include <stdlib.h>

#include "base/random.h"
#include "quant/quantizer.h"

typedef struct values {
    float sorted[256];
    int count;
} values;

static int rising(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void sort_values(const pq_codebook *codebook, values *out) {
    out->count = 0;
    for (int code = 0; code < 256; code++)
        if (!isnan(codebook->value[code])) out->sorted[out->count++] = codebook->value[code];
    qsort(out->sorted, (size_t)out->count, sizeof *out->sorted, rising);
}

/* u is from [0, 1), of 24 bits: with probability (a - low) / (high - low) it is below that. */
static float draw(const values *v, float a, float u) {
    int below = 0, above = v->count - 1;
    if (!(a < v->sorted[above])) return v->sorted[above];
    if (a <= v->sorted[0]) return v->sorted[0];
    while (above - below > 1) {
        int middle = (below + above) / 2;
        if (v->sorted[middle] <= a)
            below = middle;
        else
            above = middle;
    }
    float low = v->sorted[below], high = v->sorted[above];
    return u * (high - low) < a - low ? high : low;
}

void pq_fake_quantize_stochastic(const pq_codebook *codebook, const float *w, float scale,
                                 const pq_draws *draws, uint64_t first, float *out, size_t n) {
    values v;
    uint32_t block[4];
    sort_values(codebook, &v);
    for (size_t i = 0; i < n; i++) {
        uint64_t at = first + i;
        if (i == 0 || at % 4 == 0)
            pq_random4(draws->seed, PQ_STREAM_ROUNDING, draws->iter | (uint64_t)draws->tensor << 40, at / 4,
                       block);
        float u = (float)(block[at % 4] >> 8) * 0x1p-24f;
        out[i] = draw(&v, w[i] / scale, u) * scale + 0.0f; /* no -0 */
    }
}
