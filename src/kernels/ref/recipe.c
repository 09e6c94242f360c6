/* The floating-point steps of the integer recipe (docs/formats.md), readable: every operation rounds once, in
 * this order, so that x86/recipe.c and exported programs give the same bits. */
#include <math.h>
#include <string.h>

#include "kernels/kernels.h"

enum { LANES = 16 };

static float fold(float *lane) {
    for (int h = LANES / 2; h > 0; h /= 2)
        for (int l = 0; l < h; l++) lane[l] += lane[l + h];
    return lane[0];
}

void pq_recipe_norm_ref(const float *x, const float *gain, const float *bias, float *out, size_t rows,
                        size_t width) {
    for (size_t r = 0; r < rows; r++, x += width, out += width) {
        float sum[LANES] = {0}, squares[LANES] = {0};
        for (size_t i = 0; i < width; i++) sum[i % LANES] += x[i];
        const float mean = fold(sum) / (float)width;
        for (size_t i = 0; i < width; i++) {
            float d = x[i] - mean;
            squares[i % LANES] += d * d;
        }
        const float rstd = 1.0f / sqrtf(fold(squares) / (float)width + 1e-5f);
        for (size_t i = 0; i < width; i++) {
            float y = (x[i] - mean) * rstd * gain[i];
            out[i] = bias ? y + bias[i] : y;
        }
    }
}

static bool has_outliers(const float *x, size_t n, float span) {
    float sum[LANES] = {0};
    for (size_t i = 0; i < n; i++) sum[i % LANES] += fabsf(x[i]);
    return span > PQ_WIDE_SPAN * (fold(sum) / (float)n);
}

void pq_recipe_codes_ref(const float *x, size_t n, bool may_widen, uint8_t *low, uint8_t *high,
                         pq_int8_row *row) {
    const size_t padded = (n + 127) / 128 * 128;
    float least, most;
    pq_extremes_ref(x, &least, &most, n);
    const float span = (most > 0 ? most : 0) - (least < 0 ? least : 0);
    const bool wide = may_widen && has_outliers(x, n, span);
    const float top = wide ? 65535 : 255;
    const pq_affine grid = pq_affine_make(least, most, 0, top, PQ_INT8_ROW_LEAST);
    *row = (pq_int8_row){.scale = grid.scale, .wide = wide};
    memset(low, 0, padded);
    if (wide) memset(high, 0, padded);
    if (!isfinite(grid.scale)) return;
    row->zero = (int32_t)grid.zero;
    for (size_t i = 0; i < n; i++) {
        float q = rintf(x[i] * grid.inverse) + grid.zero;
        unsigned u = (unsigned)(q < 0 ? 0 : q > top ? top : q);
        low[i] = (uint8_t)(u & 255);
        if (wide) high[i] = (uint8_t)(u >> 8);
    }
}

static float power_of_e(float x) {
    static const float c[] = {1.34004317e-3f, 9.61799453e-3f, 5.55032722e-2f,
                              2.40226515e-1f, 6.93147207e-1f, 1.0f};
    if (isnan(x)) return x;
    if (x < -87.33f) return 0;
    if (x > 88.0f) x = 88.0f;
    const float k = rintf(x * 1.44269504f);
    float f = x - k * 0.693359375f, p = 1.54780177e-4f;
    f = f + k * 2.12194440e-4f;
    f = f * 1.44269504f;
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) p = p * f + c[i];
    return p * ldexpf(1, (int)k);
}

void pq_recipe_exp_ref(const float *x, float *out, size_t n) {
    for (size_t i = 0; i < n; i++) out[i] = power_of_e(x[i]);
}

void pq_recipe_gelu_erf_ref(const float *x, float *out, size_t n) {
    static const float near[] = {-0.0008020841277289003f, 0.0051895353390879456f, -0.026854444591790965f,
                                 0.11283600176254961f,    -0.37612627135965626f,  1.1283791659137499f};
    static const float far[] = {-1.7235043969776598e-07f, 4.447709670785116e-06f,  -6.808352191001177e-05f,
                                0.000693075533490628f,    -0.0050007253885269165f, 0.02673581801354885f,
                                -0.11017752438783646f,    -0.6320866942405701f,    -1.1299138069152832f,
                                0.00020808780391234905f};
    for (size_t i = 0; i < n; i++) {
        const float t = fabsf(x[i]) * 0.70710678f, s = t * t, m = t > 9.4f ? 9.4f : t;
        float low, p = 7.889119522911749e-05f, q = 2.98592506275952e-09f;
        for (size_t k = 0; k < sizeof near / sizeof *near; k++) p = p * s + near[k];
        for (size_t k = 0; k < sizeof far / sizeof *far; k++) q = q * m + far[k];
        if (t < 1)
            low = 0.5f - p * (t * 0.5f);
        else
            low = 0.5f * power_of_e(q);
        out[i] = x[i] * (x[i] < 0 ? low : 1.0f - low);
    }
}

void pq_recipe_gelu_tanh_ref(const float *x, float *out, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const float w = x[i] * (x[i] * x[i] * 0.0713548162726f + 1.59576912161f);
        out[i] = x[i] * (1.0f / (1.0f + power_of_e(-w)));
    }
}

static float from_half(uint16_t h) {
    const int exponent = h >> 10 & 31, fraction = h & 1023;
    const float magnitude = exponent == 31  ? (fraction ? NAN : INFINITY)
                            : exponent == 0 ? ldexpf((float)fraction, -24)
                                            : ldexpf((float)(1024 + fraction), exponent - 25);
    return h >> 15 ? -magnitude : magnitude;
}

void pq_to_half_ref(const float *x, uint16_t *out, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const unsigned sign = signbit(x[i]) ? 0x8000 : 0;
        const float a = fabsf(x[i]);
        int exponent = -13; /* of subnormals */
        if (isnan(a)) {
            out[i] = (uint16_t)(sign | 0x7E00);
        } else if (a >= 65520.0f) {
            out[i] = (uint16_t)(sign | 0x7C00);
        } else { /* in units of the last place; a carry goes into the exponent by itself */
            if (a >= 0x1p-14f) frexpf(a, &exponent);
            unsigned units = (unsigned)rintf(ldexpf(a, 11 - exponent));
            out[i] = (uint16_t)(sign | (units + ((unsigned)(exponent + 13) << 10)));
        }
    }
}

static float element(const void *array, bool half, size_t i) {
    return half ? from_half(((const uint16_t *)array)[i]) : ((const float *)array)[i];
}

static void attend(const float *q, const void *keys, const void *values, bool half, size_t stride, size_t n,
                   size_t head_size, float *out, float *scores) {
    const float factor = 1.0f / sqrtf((float)head_size);
    float largest = 0, sum[LANES] = {0};
    for (size_t j = 0; j < n; j++) {
        float dot[LANES] = {0};
        for (size_t c = 0; c < head_size; c++) dot[c % LANES] += q[c] * element(keys, half, j * stride + c);
        scores[j] = fold(dot) * factor;
        if (j == 0 || scores[j] > largest) largest = scores[j];
    }
    for (size_t j = 0; j < n; j++) {
        scores[j] = power_of_e(scores[j] - largest);
        sum[j % LANES] += scores[j];
    }
    const float share = 1.0f / fold(sum);
    for (size_t c = 0; c < head_size; c++) {
        float total = 0;
        for (size_t j = 0; j < n; j++) total += scores[j] * element(values, half, j * stride + c);
        out[c] = total * share;
    }
}

void pq_recipe_attention_ref(const float *q, size_t q_stride, size_t queries, const void *keys,
                             const void *values, bool half, size_t stride, size_t n, size_t head_size,
                             float *out, size_t out_stride, float *scores) {
    for (size_t i = 0; i < queries; i++)
        attend(q + i * q_stride, keys, values, half, stride, n + i, head_size, out + i * out_stride, scores);
}
