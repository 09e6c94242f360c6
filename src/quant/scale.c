/* Owns the search for scales: absmax and least squared error, on a grid of floats.
 *
 * The squared error of n weights against scale s is a parabola for fixed values q, least at s = sum(w q) /
 * sum(q^2), and jumps from one to the next as weights change their level. So: scan the scales at a fixed
 * ratio, follow the best few to the bottom of their parabolas, and judge the neighbours on the grid by their
 * true error. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/memory.h"
#include "base/threads.h"
#include "kernels/kernels.h"
#include "quant/table.h"

enum { TILE = 16384, KEPT = 4, ROUNDS = 2, FEW = 16, SOME = 128, MANY = 2048 };

/* Ratios of neighbouring scales in a search: 2^(1/128), 2^(1/32), 2^(1/8). */
static const double steps[] = {0x1.0163da9fb3335p+0, 0x1.059b0d3158574p+0, 0x1.172b83c7d517bp+0};

/* Where errors jump: how far apart the scales are that are looked into, and how far around each. */
static const double APART = 1.15, REACH = 1.25;

static const float LEAST = 0x1p-126f; /* the least normal float: below it levels lose bits */

float pq_scale_to_grid(float scale, pq_scale_grid grid) {
    uint32_t bits = pq_bits_of_float(scale);
    if (!(scale > 0) || grid == PQ_GRID_FP32) return scale;
    if (grid == PQ_GRID_BF16) {
        bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000;
        if (bits >= 0x7F800000) bits = 0x7F7F0000;
        return pq_float_of_bits(bits ? bits : 0x00010000);
    }
    /* Nearest in the log domain: 2 m >= sqrt(2) goes up. */
    int exponent;
    float m = frexpf(scale, &exponent);
    if (pq_bits_of_float(m) < 0x3F3504F4) exponent--;
    return exponent > 127 ? 0x1p127f : ldexpf(1, exponent < -149 ? -149 : exponent);
}

/* The next scale of the grid above (or below) one that lies on it. */
static float next_on_grid(float scale, pq_scale_grid grid, bool up) {
    if (grid == PQ_GRID_POT) return up ? scale * 2 : scale / 2;
    uint32_t step = grid == PQ_GRID_BF16 ? 0x10000 : 1;
    return pq_float_of_bits(up ? pq_bits_of_float(scale) + step : pq_bits_of_float(scale) - step);
}

/* One fit: the weights, what is known of them, and where the scale may lie. */
typedef struct fit {
    const pq_codebook *codebook;
    const pq_scale_options *options;
    const float *w;
    size_t n, tiles;
    const float *importance; /* NULL: all 1 */
    size_t period;
    struct sums {
        double s[3];
        uint32_t largest;
    } * partial, one;
    float *running; /* NULL: not a moving average */
    float scale;    /* being tried */
    pq_scale_limits limits;
    double apart; /* the best are kept where no better one is within this ratio */
} fit;

static size_t tile_length(const fit *f, size_t tile) {
    return f->n - tile * TILE < TILE ? f->n - tile * TILE : TILE;
}

/* The importance of weights i and after, and for how many (at most n) it lies in a row. */
static const float *importance_at(const fit *f, size_t i, size_t *n) {
    size_t at = i % f->period;
    if (*n > f->period - at) *n = f->period - at;
    return f->importance + at;
}

static void weighted_tile(fit *f, size_t tile) {
    enum { CHUNK = 1024 };
    float values[CHUNK];
    struct sums *total = &f->partial[tile];
    *total = (struct sums){0};
    size_t end = tile * TILE + tile_length(f, tile);
    for (size_t i = tile * TILE, n; i < end; i += n) {
        n = end - i < CHUNK ? end - i : CHUNK;
        const float *m = importance_at(f, i, &n);
        double s[3];
        pq_fake_quantize(f->codebook, f->w + i, f->scale, values, n);
        pq_kernels_get()->weighted_error(f->w + i, values, m, 1 / f->scale, s, n);
        for (int k = 0; k < 3; k++) total->s[k] += s[k];
    }
}

static void error_tile(void *context, size_t tile) {
    fit *f = context;
    if (f->importance)
        weighted_tile(f, tile);
    else
        f->codebook->type->error_sums(f->codebook, f->w + tile * TILE, f->scale, f->partial[tile].s,
                                      tile_length(f, tile));
}

/* Otherwise by the largest magnitude, and the others do not count. */
static bool by_error(const fit *f) {
    return !f->running && (f->options->method == PQ_SCALE_MSE || f->options->method == PQ_SCALE_LEARNED);
}

static void magnitude_tile(void *context, size_t tile) {
    fit *f = context;
    double *sum = by_error(f) ? f->partial[tile].s : NULL;
    pq_kernels_get()->magnitudes(f->w + tile * TILE, &f->partial[tile].largest, sum, tile_length(f, tile));
}

/* A scale on the grid with its squared error. Errors that are undefined lose every comparison. */
typedef struct candidate {
    float scale;
    double error;
    double bottom; /* the best scale for the values chosen here */
} candidate;

/* On the grid, between the least and the greatest scale. */
static float place(const fit *f, double scale) {
    if (!(scale > (double)f->limits.least)) return f->limits.least;
    if (scale >= (double)f->limits.greatest) return f->limits.greatest;
    float s = pq_scale_to_grid((float)scale, f->options->grid);
    return s < f->limits.least ? f->limits.least : s > f->limits.greatest ? f->limits.greatest : s;
}

/* Try the scale of the grid next to `scale`, and put it among the best, which are sorted. */
static void consider(fit *f, double scale, candidate *best) {
    double s[3] = {0};
    float placed = place(f, scale);
    if (placed == f->scale) return; /* as in the step before */
    f->scale = placed;
    for (int i = 0; i < KEPT; i++)
        if (best[i].scale == f->scale) return;
    pq_parallel_for(f->tiles, error_tile, f);
    for (size_t i = 0; i < f->tiles; i++)
        for (int k = 0; k < 3; k++) s[k] += f->partial[i].s[k];
    double unit = (double)f->scale;
    candidate c = {.scale = f->scale, .error = unit * unit * s[0], .bottom = unit};
    if (s[2] > 0) c.bottom = unit * (1 + s[1] / s[2]);
    for (int i = 0; i < KEPT && f->apart > 1; i++) {
        double ratio = unit / (double)best[i].scale;
        if (!(ratio < f->apart && ratio > 1 / f->apart)) continue;
        if (!(c.error < best[i].error)) return;
        memmove(best + i, best + i + 1, (size_t)(KEPT - 1 - i) * sizeof *best);
        best[KEPT - 1] = (candidate){.error = INFINITY};
        break;
    }
    for (int i = 0; i < KEPT; i++) {
        if (!(c.error < best[i].error)) continue;
        candidate moved = best[i];
        best[i] = c;
        c = moved;
    }
}

/* Where errors jump as the scale moves, the best scale lies beside a jump and no parabola leads there: try
 * all of the neighbourhood, in steps finer than the grid's or than the jumps of few weights are apart. */
static void comb(fit *f, candidate *best) {
    static const double steps_of[] = {0x1.00058ba01fba0p+0, 0x1.00162f3904052p+0, 0x1.00b1afa5abcbfp+0};
    int fine = f->options->grid != PQ_GRID_FP32 ? 2 : f->n <= 2 * SOME ? 0 : f->n <= MANY ? 1 : 2;
    double step = steps_of[fine]; /* 8192, 2048 or 256 an octave */
    f->apart = 1;
    candidate centres[KEPT];
    memcpy(centres, best, sizeof centres);
    for (int i = 0; i < KEPT && centres[i].error < INFINITY; i++) {
        if (centres[i].error > 1.2 * centres[0].error) break; /* far from the best */
        double centre = (double)centres[i].scale;
        for (double s = centre / REACH; s <= centre * REACH; s *= step) consider(f, s, best);
    }
}

/* Try scales around each of the best: `count` steps of ratio `step` to either side. */
static void look_around(fit *f, double step, int count, candidate *best) {
    candidate centres[KEPT];
    memcpy(centres, best, sizeof centres);
    for (int i = 0; i < KEPT && centres[i].error < INFINITY; i++) {
        double up = (double)centres[i].scale, down = up;
        for (int k = 0; k < count; k++) {
            consider(f, up *= step, best);
            consider(f, down /= step, best);
        }
    }
}

/* At any optimum the largest level is at least a third of the mean magnitude (over a wide asymmetric range:
 * less by the ratio of its sides): below that, the error of the clipped weights pulls the scale up more than
 * all the others can pull it down. Above twice the largest weight, levels only go unused. */
static float least_error_scale(fit *f, double absmax, double mean) {
    const pq_codebook *b = f->codebook;
    double largest = pq_codebook_largest(b), ratio = largest / fmin(b->range[1], -b->range[0]);
    double low = fmin(mean, absmax) / (2.5 + ratio / 2) / largest, high = 2 * absmax / largest;
    candidate best[KEPT];
    for (int i = 0; i < KEPT; i++) best[i] = (candidate){.error = INFINITY};
    consider(f, absmax / largest, best);
    /* Few weights make a ragged curve, many a smooth one: 128, 32 or 8 steps an octave. */
    int level = f->n <= FEW ? 0 : f->n <= SOME ? 1 : 2;
    if (b->jumps && level > 0 && f->n <= MANY) level--; /* more ragged still */
    f->apart = b->jumps ? APART : 1;
    for (double s = low; s <= high * steps[level]; s *= steps[level]) consider(f, s, best);
    for (int i = level; i-- > 0;) look_around(f, steps[i], 3, best);
    if (b->jumps) comb(f, best);
    for (int round = 0; round < ROUNDS; round++) {
        candidate centres[KEPT];
        memcpy(centres, best, sizeof centres);
        for (int i = 0; i < KEPT && centres[i].error < INFINITY; i++) consider(f, centres[i].bottom, best);
    }
    return best[0].error < INFINITY ? best[0].scale : place(f, absmax / largest);
}

/* The mean magnitude as the importance has it. Where all that counts is 0, importance is forgotten. */
static pq_status weighted_mean(fit *f, double *mean, pq_error *err) {
    double sum = 0, total = 0;
    for (size_t i = 0, n; i < f->n; i += n) {
        n = f->n - i;
        const float *m = importance_at(f, i, &n);
        for (size_t k = 0; k < n; k++) {
            if (!(m[k] >= 0 && m[k] <= FLT_MAX))
                return PQ_FAIL(err, PQ_ERR_USAGE, "importance %zu is %g, expected 0 or more, and finite", k,
                               (double)m[k]);
            sum += (double)m[k] * (double)fabsf(f->w[i + k]);
            total += (double)m[k];
        }
    }
    if (sum > 0)
        *mean = sum / total;
    else
        f->importance = NULL;
    return PQ_OK;
}

/* The magnitude of the percentile: its bits from the highest byte down, by counting those that agree so far.
 */
static float percentile_of(const fit *f) {
    double rank = ceil(f->options->percentile * (double)f->n / 100 * (1 - 1e-15));
    size_t below = rank < 1 ? 0 : rank >= (double)f->n ? f->n - 1 : (size_t)rank - 1;
    uint32_t found = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        size_t count[256] = {0}, digit = 0;
        uint32_t known = shift == 24 ? 0 : 0xFFFFFFFFu << (shift + 8);
        for (size_t i = 0; i < f->n; i++) {
            uint32_t bits = pq_bits_of_float(f->w[i]) & 0x7FFFFFFF;
            if ((bits & known) == found) count[bits >> shift & 255]++;
        }
        while (below >= count[digit]) below -= count[digit++];
        found |= (uint32_t)digit << shift;
    }
    return pq_float_of_bits(found);
}

/* The magnitude that the largest level stands for. */
static float end_of(fit *f, float absmax) {
    if (f->running) {
        float before = *f->running;
        return *f->running = isnan(before) ? absmax : before + 0.01f * (absmax - before);
    }
    float end = f->options->method == PQ_SCALE_PERCENTILE ? percentile_of(f) : absmax;
    return end > 0 ? end : absmax;
}

static pq_status fit_scale(fit *f, float *scale, pq_error *err) {
    uint32_t largest = 0;
    double sum = 0;
    pq_parallel_for(f->tiles, magnitude_tile, f);
    for (size_t i = 0; i < f->tiles; i++) {
        sum += f->partial[i].s[0];
        if (f->partial[i].largest > largest) largest = f->partial[i].largest;
    }
    if (largest >= 0x7F800000) {
        size_t i = 0;
        while (isfinite(f->w[i])) i++;
        return PQ_FAIL(err, PQ_ERR_USAGE, "weights must be finite to be quantized; weight %zu is %g", i,
                       (double)f->w[i]);
    }
    float absmax = pq_float_of_bits(largest);
    double mean = sum / (double)f->n;
    if (f->importance) PQ_TRY(weighted_mean(f, &mean, err));
    if (!by_error(f))
        *scale = place(f, (double)f->codebook->type->absmax_scale(f->codebook, end_of(f, absmax)));
    else
        *scale = absmax == 0 ? f->limits.least : least_error_scale(f, (double)absmax, mean);
    return PQ_OK;
}

pq_status pq_scale_limits_of(const pq_codebook *codebook, const pq_scale_options *options,
                             pq_scale_limits *out, pq_error *err) {
    const pq_scale_grid grid = options->grid;
    const double most = (double)FLT_MAX / pq_codebook_largest(codebook);
    const float least = options->least > LEAST ? options->least : LEAST;
    out->greatest = pq_scale_to_grid((float)most, grid);
    while ((double)out->greatest > most) out->greatest = next_on_grid(out->greatest, grid, false);
    if (!((double)least <= (double)out->greatest))
        return PQ_FAIL(err, PQ_ERR_USAGE, "scale_eps: expected at most %g for this codebook, found %g",
                       (double)out->greatest, (double)options->least);
    out->least = pq_scale_to_grid(least, grid);
    if (out->least < least) out->least = next_on_grid(out->least, grid, true);
    if (out->least > out->greatest) out->least = out->greatest;
    return PQ_OK;
}

pq_status pq_scale_fit(const pq_codebook *codebook, const pq_scale_options *options, const float *w, size_t n,
                       float *scale, pq_error *err) {
    pq_scale_limits limits;
    PQ_TRY(pq_scale_limits_of(codebook, options, &limits, err));
    return pq_scale_follow(codebook, options, &limits, w, n, NULL, scale, err);
}

pq_status pq_scale_follow(const pq_codebook *codebook, const pq_scale_options *options,
                          const pq_scale_limits *limits, const float *w, size_t n, float *running,
                          float *scale, pq_error *err) {
    fit f = {.codebook = codebook,
             .options = options,
             .limits = *limits,
             .w = w,
             .n = n,
             .tiles = (n + TILE - 1) / TILE,
             .running = running};
    f.partial = &f.one;
    if (by_error(&f)) f.importance = options->importance;
    f.period = options->period ? options->period : n;
    if (f.tiles > 1) PQ_TRY(pq_calloc(f.tiles, sizeof *f.partial, "sums of a scale fit", &f.partial, err));
    pq_status status = fit_scale(&f, scale, err);
    if (f.tiles > 1) free(f.partial);
    return status;
}
