/* Owns GGUF's element types: how the values of a block become bytes, and what those bytes stand for. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/threads.h"
#include "formats/gguf_parts.h"
#include "formats/half.h"

static void encode_f32(const float *x, float scale, uint8_t *out) {
    (void)scale;
    memcpy(out, x, sizeof *x);
}

static void decode_f32(const uint8_t *in, float *out) {
    memcpy(out, in, sizeof *out);
}

static void encode_f16(const float *x, float scale, uint8_t *out) {
    const uint16_t half = pq_f16_from_float(*x);
    (void)scale;
    memcpy(out, &half, sizeof half);
}

static void decode_f16(const uint8_t *in, float *out) {
    uint16_t half;
    memcpy(&half, in, sizeof half);
    *out = pq_f16_to_float(half);
}

/* ---- q8_0: a scale in half precision, then 32 int8 ---- */

enum { Q8_MOST = 127, Q8_DOUBLINGS = 7 };

/* The codes of x in units of `d`, or false where one is no such multiple. */
static bool multiples(const float *x, float d, int8_t *codes) {
    for (size_t i = 0; i < PQ_GGUF_BLOCK; i++) {
        const float q = x[i] / d;
        if (!(fabsf(q) <= Q8_MOST) || q != rintf(q) || q * d != x[i]) return false;
        codes[i] = (int8_t)q;
    }
    return true;
}

/* The nearest codes, as ggml makes them. */
static void round_to_codes(const float *x, uint16_t *half, int8_t *codes) {
    float most = 0;
    for (size_t i = 0; i < PQ_GGUF_BLOCK; i++) most = fmaxf(most, fabsf(x[i]));
    const float d = most / Q8_MOST, inverse = d > 0 ? 1 / d : 0;
    *half = pq_f16_from_float(d);
    for (size_t i = 0; i < PQ_GGUF_BLOCK; i++)
        codes[i] = isfinite(inverse) ? (int8_t)roundf(x[i] * inverse) : 0;
}

/* A scale below half precision may still do when it is doubled: where the block has none of the least levels.
 */
static void encode_q8(const float *x, float scale, uint8_t *out) {
    int8_t *codes = (int8_t *)out + 2;
    uint16_t half = 0;
    bool found = false;
    for (int k = 0; !found && scale > 0 && k < Q8_DOUBLINGS; k++, scale *= 2) {
        half = pq_f16_from_float(scale);
        found = pq_f16_to_float(half) == scale && multiples(x, scale, codes);
    }
    if (!found) round_to_codes(x, &half, codes);
    memcpy(out, &half, sizeof half);
}

static void decode_q8(const uint8_t *in, float *out) {
    float d;
    decode_f16(in, &d);
    for (size_t i = 0; i < PQ_GGUF_BLOCK; i++) out[i] = d * (float)(int8_t)in[2 + i];
}

/* ---- mxfp4: an exponent, then 32 floats of 4 bits (sign, two bits of exponent, one of mantissa) ---- */

static const float magnitudes[8] = {0, 1, 2, 3, 4, 6, 8, 12}; /* in units of 2^(byte - 128) */

/* With the largest magnitude in [8, 16) units: a block that is exact in larger units is so in these. */
static void encode_mxfp4(const float *x, float scale, uint8_t *out) {
    float most = 0;
    int exponent;
    (void)scale;
    for (size_t i = 0; i < PQ_GGUF_BLOCK; i++) most = fmaxf(most, fabsf(x[i]));
    frexpf(most, &exponent); /* most = [0.5, 1) 2^exponent */
    exponent = most > 0 ? exponent - 4 + 128 : 0;
    if (exponent < 0) exponent = 0;
    memset(out, 0, 1 + PQ_GGUF_BLOCK / 2);
    out[0] = (uint8_t)exponent;
    for (size_t i = 0; i < PQ_GGUF_BLOCK; i++) {
        const float units = ldexpf(fabsf(x[i]), 128 - exponent);
        unsigned code = 0;
        for (unsigned c = 1; c < 8; c++)
            if (fabsf(magnitudes[c] - units) < fabsf(magnitudes[code] - units)) code = c;
        if (x[i] < 0 && code) code |= 8;
        out[1 + i % 16] |= (uint8_t)(code << (i / 16 * 4));
    }
}

static void decode_mxfp4(const uint8_t *in, float *out) {
    for (size_t i = 0; i < PQ_GGUF_BLOCK; i++) {
        const unsigned code = in[1 + i % 16] >> (i / 16 * 4) & 15u;
        const float value = ldexpf(magnitudes[code & 7], (int)in[0] - 128);
        out[i] = code & 8 ? -value : value;
    }
}

/* From the smallest on: that is the order in which an exact one is looked for. */
static const pq_gguf_type types[] = {{"mxfp4", 39, 38, 32, 17, encode_mxfp4, decode_mxfp4},
                                     {"q8_0", 8, 7, 32, 34, encode_q8, decode_q8},
                                     {"fp16", 1, 1, 1, 2, encode_f16, decode_f16},
                                     {"fp32", 0, 0, 1, 4, encode_f32, decode_f32}};

const pq_gguf_type *pq_gguf_type_at(size_t index) {
    return index < sizeof types / sizeof *types ? &types[index] : NULL;
}

const pq_gguf_type *pq_gguf_type_find(const char *name) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].name, name) == 0) return &types[i];
    return NULL;
}

const pq_gguf_type *pq_gguf_type_find_id(uint32_t id) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].id == id) return &types[i];
    return NULL;
}

typedef struct encoding {
    const pq_gguf_type *type;
    const float *x, *scales;
    size_t columns, group;
    uint8_t *out;
    double *error; /* largest of each row */
} encoding;

static void encode_row(void *context, size_t row) {
    const encoding *e = context;
    const size_t blocks = e->columns / e->type->block;
    uint8_t *out = e->out + row * blocks * e->type->bytes;
    float decoded[PQ_GGUF_BLOCK];
    double worst = 0;
    for (size_t b = 0; b < blocks; b++, out += e->type->bytes) {
        const size_t at = row * e->columns + b * e->type->block;
        e->type->encode(e->x + at, e->scales ? e->scales[at / e->group] : 0, out);
        e->type->decode(out, decoded);
        for (size_t i = 0; i < e->type->block; i++)
            worst = fmax(worst, fabs((double)decoded[i] - (double)e->x[at + i]));
    }
    e->error[row] = worst;
}

pq_status pq_gguf_encode(const pq_gguf_type *type, const float *x, size_t rows, size_t columns,
                         const float *scales, size_t group, uint8_t *out, double *largest_error,
                         pq_error *err) {
    encoding e = {type, x, scales, columns, group, out, NULL};
    PQ_TRY(pq_calloc(rows, sizeof *e.error, "rows", &e.error, err));
    pq_parallel_for(rows, encode_row, &e);
    *largest_error = 0;
    for (size_t i = 0; i < rows; i++) *largest_error = fmax(*largest_error, e.error[i]);
    free(e.error);
    return PQ_OK;
}
