/* Owns products in whole numbers: digits of values, sums at load, tiles of rows over threads, and the way
 * from integer sums to outputs. */
#include "infer/int8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "infer/parts.h"

enum {
    DIGIT_BITS = 7,     /* digits count 128 */
    LARGEST_DIGIT = 64, /* 255 x 64 x 2 fits the 16 bits of maddubs */
    TILE_BYTES = 24576, /* codes of a tile: it stays in the nearest cache while tokens go by */
    MOST_TILE_ROWS = 64,
    ROW_STEP = 8,
    CHUNK =
        16 /* vectors of bytes that go through a tile together: a token has one, or two where it is wide */
};

/* value as digits from -64 to 64; how many there are. */
static int split(double value, int8_t *digit, size_t stride) {
    int64_t rest = (int64_t)value;
    int count = 0;
    for (; rest != 0; count++) {
        int64_t low = rest;
        if (low > LARGEST_DIGIT || low < -LARGEST_DIGIT)
            low = ((rest + LARGEST_DIGIT) & ((1 << DIGIT_BITS) - 1)) - LARGEST_DIGIT;
        digit[(size_t)count * stride] = (int8_t)low;
        rest = (rest - low) / (1 << DIGIT_BITS);
    }
    return count;
}

/* Columns a scale spans as the kernels count: 0 for whole rows. */
static size_t kernel_group(const pq_int8_matrix *m) {
    return m->groups == 1 ? 0 : m->tensor->group;
}

static void dots(const pq_int8_matrix *m, int digit, size_t first, size_t count, const uint8_t *const *x,
                 size_t n, int32_t *out, size_t stride) {
    const int bits = m->tensor->codebook->bits;
    const uint8_t *codes = m->tensor->codes + first * m->blocks * 16 * (size_t)bits;
    pq_kernels_get()->packed_dots(bits, m->digit[digit], codes, count, m->blocks, kernel_group(m), x, n, out,
                                  stride);
}

typedef struct summing {
    pq_int8_matrix *matrix;
    const uint8_t *ones;
    size_t parts, groups; /* groups: as the kernel counts, with those of the padding */
} summing;

/* Groups of the padding at a row's end, which the kernel counts, too, are dropped. */
static void sum_part(void *context, size_t part) {
    const summing *s = context;
    const pq_int8_matrix *m = s->matrix;
    for (int d = 0; d < m->digits; d++)
        for (size_t r = part * m->rows / s->parts; r < (part + 1) * m->rows / s->parts; r++) {
            int32_t *out = m->sums + ((size_t)d * m->rows + r) * m->groups;
            if (s->groups == m->groups) {
                size_t end = (part + 1) * m->rows / s->parts;
                dots(m, d, r, end - r, &s->ones, 1, out, 0);
                break;
            }
            int32_t row[4 * 1024];
            dots(m, d, r, 1, &s->ones, 1, row, 0);
            memcpy(out, row, m->groups * sizeof *out);
        }
}

static size_t groups_with_padding(const pq_int8_matrix *m) {
    return m->groups == 1 ? 1 : m->blocks * 128 / m->tensor->group;
}

pq_status pq_int8_matrix_init(const pq_packed_tensor *tensor, pq_int8_matrix *out, pq_error *err) {
    enum { MOST_BLOCKS = 1024, PARTS = 16 };
    const size_t columns = tensor->param->columns;
    *out = (pq_int8_matrix){.tensor = tensor,
                            .rows = tensor->param->rows,
                            .blocks = (columns + 127) / 128,
                            .groups = tensor->group < columns ? columns / tensor->group : 1,
                            .digits = 1};
    if (out->blocks > MOST_BLOCKS)
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "%s has %zu columns: 8-bit activations need at most %d, fp32 ones have no such limit",
                       tensor->param->name, columns, MOST_BLOCKS * 128);
    for (int code = 0; code < 1 << tensor->codebook->bits; code++) {
        const double value = (double)tensor->codebook->value[code];
        const int digits = isnan(value) ? 0 : split(value, &out->digit[0][code], PQ_MOST_CODES);
        if (digits > out->digits) out->digits = digits;
    }
    const size_t count = out->rows * out->groups;
    uint8_t *ones;
    PQ_TRY(pq_calloc((size_t)out->digits * count, sizeof *out->sums, "sums of weights", &out->sums, err));
    PQ_TRY(pq_calloc(count, sizeof *out->scales, "scales", &out->scales, err));
    PQ_TRY(pq_calloc(out->blocks * 128, 1, "sums of weights", &ones, err));
    memset(ones, 1, columns);
    for (size_t i = 0; i < count; i++)
        out->scales[i] = pq_packed_scale(tensor, tensor->group < columns ? i : i * columns / tensor->group);
    summing s = {out, ones, PARTS, groups_with_padding(out)};
    pq_tasks(PARTS, out->rows * out->blocks * 16, sum_part, &s);
    free(ones);
    return PQ_OK;
}

void pq_int8_matrix_deinit(pq_int8_matrix *matrix) {
    free(matrix->sums);
    free(matrix->scales);
    *matrix = (pq_int8_matrix){0};
}

static size_t tile_rows(const pq_int8_matrix *m) {
    size_t rows = TILE_BYTES / (m->blocks * 16 * (size_t)m->tensor->codebook->bits) / ROW_STEP * ROW_STEP;
    return rows < ROW_STEP ? ROW_STEP : rows > MOST_TILE_ROWS ? MOST_TILE_ROWS : rows;
}

size_t pq_int8_scratch(const pq_int8_matrix *matrix) {
    return (size_t)matrix->digits * CHUNK * tile_rows(matrix) * groups_with_padding(matrix);
}

typedef struct taking {
    const float *x;
    size_t columns;
    bool may_widen;
    pq_int8_inputs *out;
} taking;

static void take_one(void *context, size_t t) {
    const taking *k = context;
    uint8_t *low = k->out->bytes + t * k->out->stride;
    pq_kernels_get()->recipe_codes(k->x + t * k->columns, k->columns, k->may_widen, low,
                                   low + k->out->stride / 2, &k->out->rows[t]);
}

void pq_int8_take(const float *x, size_t n, size_t columns, bool may_widen, pq_int8_inputs *out) {
    taking k = {x, columns, may_widen, out};
    pq_tasks(n, n * columns, take_one, &k);
}

typedef struct product {
    const pq_int8_matrix *matrix;
    const float *bias;
    const pq_int8_inputs *inputs;
    size_t n;
    float *out;
    size_t stride;
    int32_t *scratch;
    size_t lane_scratch, step, tiles, lanes;
} product;

/* The whole sum of one row's group: digits, and upper and lower bytes of wide inputs, by their places. */
static int64_t whole_sum(const pq_int8_matrix *m, const pq_int8_row *x, const int32_t *dots, size_t plane,
                         size_t vector, const int32_t *sums) {
    int64_t sum = 0;
    for (int d = m->digits - 1; d >= 0; d--) {
        const int32_t *low = dots + (size_t)d * plane;
        int64_t part = low[0];
        if (x->wide) part += (int64_t)low[vector] * 256;
        part -= (int64_t)x->zero * sums[(size_t)d * m->rows * m->groups];
        sum = sum * (1 << DIGIT_BITS) + part;
    }
    return sum;
}

/* Rows first .. of one token: dots has `vector` sums for each vector of bytes, `plane` for each digit. */
static void finish(const product *p, size_t t, size_t first, size_t count, const int32_t *dots,
                   size_t vector) {
    const pq_int8_matrix *m = p->matrix;
    const pq_int8_row *x = &p->inputs->rows[t];
    const float *bias = p->bias ? p->bias + first : NULL;
    float *out = p->out + t * p->stride + first;
    if (m->digits == 1 && m->groups == 1 && !x->wide) {
        pq_kernels_get()->packed_outputs(dots, m->sums + first, m->scales + first, bias, x, out, count);
        return;
    }
    const size_t padded = groups_with_padding(m);
    for (size_t r = 0; r < count; r++) {
        float total = 0;
        for (size_t g = 0; g < m->groups; g++) {
            const size_t at = (first + r) * m->groups + g;
            total += (float)whole_sum(m, x, dots + r * padded + g, CHUNK * vector, vector, m->sums + at) *
                     m->scales[at];
        }
        const float y = total * x->scale;
        out[r] = bias ? y + bias[r] : y;
    }
}

static size_t vectors_of(const product *p, size_t token) {
    return p->inputs->rows[token].wide ? 2 : 1;
}

static void multiply_tile(const product *p, size_t first, size_t count, int32_t *scratch) {
    const pq_int8_matrix *m = p->matrix;
    const size_t vector = count * groups_with_padding(m);
    for (size_t begin = 0, end = 0; begin < p->n; begin = end) {
        const uint8_t *x[CHUNK];
        size_t vectors = 0, at = 0;
        for (; end < p->n && vectors + vectors_of(p, end) <= CHUNK; end++) {
            const uint8_t *low = p->inputs->bytes + end * p->inputs->stride;
            x[vectors++] = low;
            if (p->inputs->rows[end].wide) x[vectors++] = low + p->inputs->stride / 2;
        }
        for (int d = 0; d < m->digits; d++)
            dots(m, d, first, count, x, vectors, scratch + (size_t)d * CHUNK * vector, vector);
        for (size_t t = begin; t < end; t++) {
            finish(p, t, first, count, scratch + at * vector, vector);
            at += vectors_of(p, t);
        }
    }
}

static void multiply_lane(void *context, size_t lane) {
    const product *p = context;
    for (size_t tile = lane * p->tiles / p->lanes; tile < (lane + 1) * p->tiles / p->lanes; tile++) {
        const size_t first = tile * p->step, left = p->matrix->rows - first;
        multiply_tile(p, first, left < p->step ? left : p->step, p->scratch + lane * p->lane_scratch);
    }
}

void pq_int8_product(const pq_int8_matrix *matrix, const float *bias, const pq_int8_inputs *inputs, size_t n,
                     float *out, size_t stride, int32_t *scratch, size_t lane_scratch) {
    product p = {matrix, bias, inputs, n, out, stride, scratch, lane_scratch, .step = tile_rows(matrix)};
    p.tiles = (matrix->rows + p.step - 1) / p.step;
    p.lanes = p.tiles < PQ_ENGINE_LANES ? p.tiles : PQ_ENGINE_LANES;
    pq_tasks(p.lanes, n * matrix->rows * matrix->blocks * 16, multiply_lane, &p);
}
