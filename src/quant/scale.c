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

#include "base/memory.h"
#include "base/threads.h"
#include "kernels/kernels.h"
#include "quant/table.h"

enum { TILE = 16384, KEPT = 4, ROUNDS = 4 };

static const float LEAST = 0x1p-126f; /* the least normal float: below it levels lose bits */

static uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

float pq_scale_to_grid(float scale, pq_scale_grid grid) {
    uint32_t bits = bits_of(scale);
    if (!(scale > 0) || grid == PQ_GRID_FP32) return scale;
    if (grid == PQ_GRID_BF16) {
        bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000;
        if (bits >= 0x7F800000) bits = 0x7F7F0000;
        return float_of(bits ? bits : 0x00010000);
    }
    /* Nearest in the log domain: 2 m >= sqrt(2) goes up. */
    int exponent;
    float m = frexpf(scale, &exponent);
    if (bits_of(m) < 0x3F3504F4) exponent--;
    return exponent > 127 ? 0x1p127f : ldexpf(1, exponent < -149 ? -149 : exponent);
}

/* The next scale of the grid above (or below) one that lies on it. */
static float next_on_grid(float scale, pq_scale_grid grid, bool up) {
    if (grid == PQ_GRID_POT) return up ? scale * 2 : scale / 2;
    uint32_t step = grid == PQ_GRID_BF16 ? 0x10000 : 1;
    return float_of(up ? bits_of(scale) + step : bits_of(scale) - step);
}

/* One fit: the weights, what is known of them, and where the scale may lie. */
typedef struct fit {
    const pq_codebook *codebook;
    const pq_scale_options *options;
    const float *w;
    size_t n, tiles;
    struct sums {
        double s[3];
        uint32_t largest;
    } * partial, one;
    float scale;           /* being tried */
    float least, greatest; /* both on the grid */
} fit;

static size_t tile_length(const fit *f, size_t tile) {
    return f->n - tile * TILE < TILE ? f->n - tile * TILE : TILE;
}

static void error_tile(void *context, size_t tile) {
    fit *f = context;
    f->codebook->type->error_sums(f->codebook, f->w + tile * TILE, f->scale, f->partial[tile].s,
                                  tile_length(f, tile));
}

static void magnitude_tile(void *context, size_t tile) {
    fit *f = context;
    pq_kernels_get()->magnitudes(f->w + tile * TILE, &f->partial[tile].largest, f->partial[tile].s,
                                 tile_length(f, tile));
}

/* Squared error at `scale` (*here) and the least one of the values chosen there, with its scale. Too large or
 * undefined errors come out as NaN or infinity and lose every comparison. */
typedef struct candidate {
    double error, scale;
} candidate;

static candidate try_scale(fit *f, float scale, double *here) {
    double s[3] = {0};
    f->scale = scale;
    pq_parallel_for(f->tiles, error_tile, f);
    for (size_t i = 0; i < f->tiles; i++)
        for (int k = 0; k < 3; k++) s[k] += f->partial[i].s[k];
    double square = (double)scale * (double)scale, move = s[2] > 0 ? s[1] / s[2] : 0;
    if (here) *here = square * s[0];
    double least = s[0] - move * s[1];
    return (candidate){.error = square * (least > 0 ? least : 0), .scale = scale * (1 + move)};
}

/* On the grid, between the least and the greatest scale. */
static float place(const fit *f, double scale) {
    if (!(scale > (double)f->least)) return f->least;
    if (scale >= (double)f->greatest) return f->greatest;
    float s = pq_scale_to_grid((float)scale, f->options->grid);
    return s < f->least ? f->least : s > f->greatest ? f->greatest : s;
}

/* Judge a scale of the grid by its true error. */
static void judge(fit *f, float scale, float *best, double *best_error) {
    double error;
    if (scale < f->least || scale > f->greatest) return;
    try_scale(f, scale, &error);
    if (!(error < *best_error)) return;
    *best_error = error;
    *best = scale;
}

static void keep(candidate *kept, candidate c) {
    for (size_t i = 0; i < KEPT; i++) {
        if (!(c.error < kept[i].error)) continue;
        candidate moved = kept[i];
        kept[i] = c;
        c = moved;
    }
}

/* At any optimum the largest level is at least a third of the mean magnitude (over a wide asymmetric range:
 * less by the ratio of its sides): below that, the error of the clipped weights pulls the scale up more than
 * all the others can pull it down. Above twice the largest weight, levels only go unused. */
static float least_error_scale(fit *f, double absmax, double mean) {
    const pq_codebook *b = f->codebook;
    double largest = pq_codebook_largest(b), ratio = largest / fmin(b->range[1], -b->range[0]);
    double low = fmax(fmin(mean, absmax) / (2.5 + ratio / 2) / largest, (double)f->least);
    double high = fmin(2 * absmax / largest, (double)f->greatest), best_error = INFINITY;
    float best = place(f, absmax / largest);
    if (f->options->grid == PQ_GRID_POT) { /* few enough to try each */
        for (float s = place(f, low / 2); (double)s <= 2 * high; s = next_on_grid(s, PQ_GRID_POT, true))
            judge(f, s, &best, &best_error);
        return best;
    }
    /* Few weights make a ragged curve, many a smooth one: 64 or 12 steps an octave. */
    double step = f->n <= 256 ? 0x1.02c9a3e778061p+0 : 0x1.0f38f92d97963p+0;
    candidate kept[KEPT];
    for (size_t i = 0; i < KEPT; i++) kept[i] = (candidate){INFINITY, 0};
    for (double s = low; s <= high * step; s *= step) keep(kept, try_scale(f, (float)s, NULL));
    for (size_t i = 0; i < KEPT && kept[i].error < INFINITY; i++) {
        candidate c = kept[i];
        for (int round = 0; round < ROUNDS; round++) {
            candidate next = try_scale(f, (float)c.scale, NULL);
            if (!(next.error < c.error)) break;
            c = next;
        }
        float s = place(f, c.scale);
        judge(f, s, &best, &best_error);
        judge(f, next_on_grid(s, f->options->grid, true), &best, &best_error);
        judge(f, next_on_grid(s, f->options->grid, false), &best, &best_error);
    }
    return best;
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
    float absmax = float_of(largest);
    if (absmax == 0)
        *scale = f->least;
    else if (f->options->method == PQ_SCALE_MSE)
        *scale = least_error_scale(f, (double)absmax, sum / (double)f->n);
    else
        *scale = place(f, (double)f->codebook->type->absmax_scale(f->codebook, absmax));
    return PQ_OK;
}

pq_status pq_scale_fit(const pq_codebook *codebook, const pq_scale_options *options, const float *w, size_t n,
                       float *scale, pq_error *err) {
    fit f = {.codebook = codebook, .options = options, .w = w, .n = n, .tiles = (n + TILE - 1) / TILE};
    pq_scale_grid grid = options->grid;
    f.partial = &f.one;
    /* The largest level must stay finite, and the least scale must not fall below what was asked for. */
    double largest = pq_codebook_largest(codebook), most = (double)FLT_MAX / largest;
    f.greatest = pq_scale_to_grid((float)most, grid);
    while ((double)f.greatest > most) f.greatest = next_on_grid(f.greatest, grid, false);
    float least = options->least > LEAST ? options->least : LEAST;
    if (!((double)least <= (double)f.greatest))
        return PQ_FAIL(err, PQ_ERR_USAGE, "scale_eps: expected at most %g for this codebook, found %g",
                       (double)f.greatest, (double)options->least);
    f.least = pq_scale_to_grid(least, grid);
    if (f.least < least) f.least = next_on_grid(f.least, grid, true);
    if (f.least > f.greatest) f.least = f.greatest;
    if (f.tiles > 1) PQ_TRY(pq_calloc(f.tiles, sizeof *f.partial, "sums of a scale fit", &f.partial, err));
    pq_status status = fit_scale(&f, scale, err);
    if (f.tiles > 1) free(f.partial);
    return status;
}
