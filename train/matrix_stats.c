/* Owns the numbers about a quantized matrix and the line that they make. */
#include "train/matrix_stats.h"

#include <math.h>
#include <string.h>

#include "base/bits.h"
#include "train/metrics.h"
#include "train/ptq/ptq.h"

enum { RANKED = PQ_RANKED_MAGNITUDES };
enum { BLOCK = 64 }; /* loops of fixed length: what the compiler turns into vectors by itself */

/* ---- ranks ---- */

void pq_ranks_init(pq_ranks *ranks, const pq_codebook *codebook) {
    *ranks = (pq_ranks){.powers = codebook->exponents > 0,
                        .most = (float)fmax(codebook->range[1], -codebook->range[0])};
    for (int code = 0; code < 256 && !ranks->powers && ranks->most > 127; code++)
        if (codebook->value[code] > 0)
            for (int larger = (int)codebook->value[code]; larger < RANKED; larger++)
                ranks->of[larger]++; /* how many levels are not above it */
}

/* ±2^k s has the exponent of s plus k, and its mantissa. */
static inline void power_ranks(const float *restrict values, float up, uint32_t below, int8_t *restrict out,
                               size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = pq_bits_of_float(values[i] * up);
        uint32_t magnitude = ((bits >> 23) & 0xFF) - below, sign = -(bits >> 31);
        if ((bits << 1) == 0) magnitude = 0;
        out[i] = (int8_t)((magnitude ^ sign) - sign);
    }
}

/* Adding 1.5 x 2^23 leaves the nearest whole number in the lowest bits. */
static inline void number_ranks(const float *restrict values, float up, float inverse, int8_t *restrict out,
                                size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = pq_bits_of_float(values[i] * up * inverse + 0x1.8p23f);
        out[i] = (int8_t)(bits - 0x4B400000);
    }
}

static void table_ranks(const int8_t of[RANKED], const float *values, float up, float inverse, int8_t *out,
                        size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = pq_bits_of_float(values[i] * up * inverse + 0x1.8p23f);
        uint32_t number = bits - 0x4B400000, sign = -(number >> 31);
        uint32_t rank = (uint32_t)of[((number ^ sign) - sign) % RANKED];
        out[i] = (int8_t)((rank ^ sign) - sign);
    }
}

void pq_ranks_of(const pq_ranks *ranks, const float *values, float scale, int8_t *out, size_t n) {
    /* Multiplied by a power of two the least scales, too, are normal, and so are their inverses. */
    const float up = scale < 0x1p-63f ? 0x1p64f : 1, inverse = 1 / (scale * up);
    int exponent;
    frexpf(scale * up, &exponent);
    const uint32_t below = (uint32_t)(exponent + 125); /* the exponent's bits of s, less one */
    size_t i = 0;
    if (ranks->powers) {
        for (; i + BLOCK <= n; i += BLOCK) power_ranks(values + i, up, below, out + i, BLOCK);
        power_ranks(values + i, up, below, out + i, n - i);
    } else if (ranks->most <= 127) {
        for (; i + BLOCK <= n; i += BLOCK) number_ranks(values + i, up, inverse, out + i, BLOCK);
        number_ranks(values + i, up, inverse, out + i, n - i);
    } else {
        table_ranks(ranks->of, values, up, inverse, out, n);
    }
}

/* ---- changes ---- */

/* The sum of BLOCK bytes that are 0 or 1. */
static inline uint64_t sum_flags(const uint8_t *flags) {
    uint64_t sum = 0, word;
    for (size_t i = 0; i < BLOCK; i += sizeof word) {
        memcpy(&word, flags + i, sizeof word);
        sum += word; /* eight sums side by side, each at most BLOCK / 8 */
    }
    return (sum * 0x0101010101010101u) >> 56;
}

/* Byte by byte without branches: BLOCK of them at once become vectors. */
static inline void add_block(const int8_t *restrict now, int8_t *restrict last, int8_t *restrict before,
                             size_t n, pq_rank_changes *sums) {
    uint8_t changed[BLOCK] = {0}, back[BLOCK] = {0}, flips[BLOCK] = {0};
    for (size_t i = 0; i < n; i++) {
        const int8_t r = now[i], l = last[i], b = before[i];
        const uint8_t differs = r != l;
        changed[i] = differs;
        back[i] = differs & (uint8_t)(r == b);
        flips[i] = (uint8_t)((r ^ l) < 0) & (uint8_t)(r != 0) & (uint8_t)(l != 0);
        before[i] = differs ? l : b;
        last[i] = r;
    }
    sums->changed += sum_flags(changed);
    sums->flipped_back += sum_flags(back);
    sums->sign_flips += sum_flags(flips);
}

void pq_rank_changes_add(const int8_t *now, int8_t *last, int8_t *before, size_t n, pq_rank_changes *sums) {
    size_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        if (memcmp(now + i, last + i, BLOCK) != 0) add_block(now + i, last + i, before + i, BLOCK, sums);
    add_block(now + i, last + i, before + i, n - i, sums);
}

/* ---- numbers ---- */

double pq_scale_drift(const float *now, const float *then, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += fabs((double)now[i] - (double)then[i]) / (double)then[i];
    return sum / (double)n;
}

void pq_level_shares(const pq_codebook *codebook, const float *hard, size_t group, const float *scales,
                     size_t n, double *shares) {
    enum { ZERO = 128, RANKS = 256 };
    uint64_t counts[RANKS] = {0};
    bool is_level[RANKS] = {0};
    int8_t rank[BLOCK];
    pq_ranks ranks;
    pq_ranks_init(&ranks, codebook);
    for (int code = 0; code < 256; code++) {
        if (isnan(codebook->value[code])) continue;
        pq_ranks_of(&ranks, &codebook->value[code], 1, rank, 1);
        is_level[ZERO + rank[0]] = true;
    }
    for (size_t i = 0, stop; i < n; i = stop) {
        stop = i + BLOCK < n ? i + BLOCK : n;
        if (stop > (i / group + 1) * group) stop = (i / group + 1) * group;
        pq_ranks_of(&ranks, hard + i, scales[i / group], rank, stop - i);
        for (size_t k = 0; k < stop - i; k++) counts[ZERO + rank[k]]++;
    }
    for (size_t r = 0, level = 0; r < RANKS && level < (size_t)codebook->levels; r++)
        if (is_level[r]) shares[level++] = (double)counts[r] / (double)n;
}

/* ---- the line ---- */

json_t *pq_matrix_line(const pq_session *session, size_t index, int64_t iter, const float *hard) {
    const pq_model *model = pq_session_evaluated(session);
    const pq_param *p = &model->params.list[index];
    const pq_param_quant *q = &model->quant[index];
    const pq_watched seen = pq_watch_read(session->qat, index);
    const pq_span span = {.offset = p->offset, .count = p->count};
    const double norm = seen.trained ? pq_gradient_norm(session->gradients, &span, 1) : NAN;
    pq_matrix_error e = pq_ptq_measure(model, index, hard);
    double shares[256];
    pq_level_shares(&q->codebook, hard, q->group, q->scales, p->count, shares);
    json_t *histogram = json_array();
    for (int level = 0; level < q->codebook.levels; level++)
        json_array_append_new(histogram, json_real(shares[level]));
    return json_pack("{s:I, s:s, s:o, s:f, s:o, s:o, s:o, s:o, s:o, s:o}", "iter", (json_int_t)iter, "matrix",
                     p->name, "sqnr_db", pq_json_real(10 * log10(e.signal / e.noise)), "zeros",
                     (double)e.zeros / (double)p->count, "histogram", histogram, "changed",
                     pq_json_real(seen.changed), "flipped_back", pq_json_real(seen.flipped_back),
                     "sign_flips", pq_json_real(seen.sign_flips), "scale_drift",
                     pq_json_real(seen.scale_drift), "grad_norm", pq_json_real(norm));
}
