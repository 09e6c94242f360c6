/* Owns the loops over whole matrices: tiles of fixed size over the threads, so that nothing depends on how
 * many run. A matrix is a flat array here: since a group divides a row or is a number of whole rows, weight i
 * has scale i / group. */
#include <stdatomic.h>
#include <stdint.h>

#include "base/threads.h"
#include "kernels/kernels.h"
#include "quant/quantizer.h"

enum { TILE = 8192 }; /* weights */

typedef struct matrix {
    const pq_codebook *codebook;
    const float *w;
    size_t first, count, group; /* the part from weight `first` on */
    const float *scales;
    float *out; /* of that part: values, or the gradient */
    uint8_t *codes;
    pq_gradient kind;
    const pq_draws *draws; /* NULL: the nearest value */
    size_t columns;        /* of a fit, as what follows */
    const pq_scale_options *options;
    pq_scale_limits limits;
    float *fitted;
    float *running;        /* NULL: not a moving average */
    _Atomic size_t failed; /* the first group that has no fit */
} matrix;

size_t pq_scale_count(size_t rows, size_t columns, size_t group) {
    if (group > columns) return rows * columns / group;
    return rows * ((columns + group - 1) / group);
}

/* Call `run` for each stretch of weights of tile `index` of the part that shares a scale. */
static void for_stretches(const matrix *m, size_t index,
                          void (*run)(const matrix *m, size_t first, size_t n)) {
    size_t end = m->first + ((index + 1) * TILE < m->count ? (index + 1) * TILE : m->count);
    for (size_t first = m->first + index * TILE, stop; first < end; first = stop) {
        stop = (first / m->group + 1) * m->group;
        if (stop > end) stop = end;
        run(m, first, stop - first);
    }
}

static void over_tiles(matrix *m, void (*tile)(void *context, size_t index)) {
    pq_kernels_get(); /* chosen before there are threads */
    if (m->count) pq_parallel_for((m->count + TILE - 1) / TILE, tile, m);
}

static void fake_stretch(const matrix *m, size_t first, size_t n) {
    const float *w = m->w + first, scale = m->scales[first / m->group];
    float *out = m->out + (first - m->first);
    if (m->draws)
        pq_fake_quantize_stochastic(m->codebook, w, scale, m->draws, first, out, n);
    else
        pq_fake_quantize(m->codebook, w, scale, out, n);
}

static void fake_tile(void *context, size_t index) {
    for_stretches(context, index, fake_stretch);
}

void pq_matrix_fake_quantize_part(const pq_codebook *codebook, const float *w, size_t first, size_t n,
                                  size_t group, const float *scales, const pq_draws *draws, float *out) {
    matrix m = {.codebook = codebook,
                .w = w,
                .first = first,
                .count = n,
                .group = group,
                .scales = scales,
                .draws = draws,
                .out = out};
    over_tiles(&m, fake_tile);
}

void pq_matrix_fake_quantize(const pq_codebook *codebook, const float *w, size_t rows, size_t columns,
                             size_t group, const float *scales, float *out) {
    pq_matrix_fake_quantize_part(codebook, w, 0, rows * columns, group, scales, NULL, out);
}

static void surrogate_stretch(const matrix *m, size_t first, size_t n) {
    pq_surrogate(m->codebook, m->kind, m->w + first, m->scales[first / m->group], m->out + first, n);
}

static void surrogate_tile(void *context, size_t index) {
    for_stretches(context, index, surrogate_stretch);
}

void pq_matrix_surrogate(const pq_codebook *codebook, pq_gradient kind, const float *w, size_t rows,
                         size_t columns, size_t group, const float *scales, float *gradient) {
    matrix m = {.codebook = codebook,
                .w = w,
                .count = rows * columns,
                .group = group,
                .scales = scales,
                .out = gradient,
                .kind = kind};
    over_tiles(&m, surrogate_tile);
}

static void encode_stretch(const matrix *m, size_t first, size_t n) {
    pq_encode(m->codebook, m->w + first, m->scales[first / m->group], m->codes + first, n);
}

static void encode_tile(void *context, size_t index) {
    for_stretches(context, index, encode_stretch);
}

void pq_matrix_encode(const pq_codebook *codebook, const float *w, size_t rows, size_t columns, size_t group,
                      const float *scales, uint8_t *codes) {
    matrix m = {.codebook = codebook,
                .w = w,
                .count = rows * columns,
                .group = group,
                .scales = scales,
                .codes = codes};
    over_tiles(&m, encode_tile);
}

/* Groups that one tile of a fit takes. */
static size_t tile_groups(const matrix *m) {
    return m->group < TILE ? TILE / m->group : 1;
}

/* Group i of the matrix. Importance is one a column: a group inside a row has its part of it, a larger one
 * repeats it. */
static pq_status fit_group(const matrix *m, size_t i, pq_error *err) {
    const float *w = m->w + i * m->group;
    pq_scale_options options = *m->options;
    if (options.importance && m->group < m->columns) options.importance += i * m->group % m->columns;
    options.period = m->columns;
    return pq_scale_follow(m->codebook, &options, &m->limits, w, m->group, m->running ? &m->running[i] : NULL,
                           &m->fitted[i], err);
}

static void fit_tile(void *context, size_t index) {
    matrix *m = context;
    size_t all = (m->first + m->count) / m->group, first = m->first / m->group + index * tile_groups(m);
    for (size_t i = first; i < first + tile_groups(m) && i < all; i++) {
        if (fit_group(m, i, NULL) == PQ_OK) continue;
        size_t failed = m->failed;
        while (i < failed && !atomic_compare_exchange_weak(&m->failed, &failed, i)) continue;
    }
}

pq_status pq_matrix_fit_part(const pq_codebook *codebook, const pq_scale_options *options, const float *w,
                             size_t first, size_t n, size_t columns, size_t group, float *running,
                             float *scales, pq_error *err) {
    matrix m = {.codebook = codebook,
                .w = w,
                .first = first,
                .count = n,
                .group = group,
                .columns = columns,
                .options = options,
                .running = running,
                .fitted = scales,
                .failed = SIZE_MAX};
    if (n == 0) return PQ_OK;
    PQ_TRY(pq_scale_limits_of(codebook, options, &m.limits, err));
    pq_kernels_get();
    pq_parallel_for((n / group + tile_groups(&m) - 1) / tile_groups(&m), fit_tile, &m);
    if (m.failed == SIZE_MAX) return PQ_OK;
    pq_status status = fit_group(&m, m.failed, err);
    return pq_prefix(err, status, "row %zu", m.failed * group / columns);
}

pq_status pq_matrix_fit(const pq_codebook *codebook, const pq_scale_options *options, const float *w,
                        size_t rows, size_t columns, size_t group, float *scales, pq_error *err) {
    return pq_matrix_fit_part(codebook, options, w, 0, rows * columns, columns, group, NULL, scales, err);
}
