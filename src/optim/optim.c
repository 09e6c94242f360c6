/* Owns the update loop over fixed tiles and the schedules. */
#include "optim/optim.h"

#include <math.h>

#include "base/threads.h"
#include "kernels/kernels.h"

enum { TILE = 16384, GROUP = 64 };

/* Tiles of all spans, numbered through; tile i of a span starts at offset + i * TILE. */
typedef struct place {
    size_t offset, count;
    bool decay;
} place;

static size_t tiles_of(const pq_span *span) {
    return (span->count + TILE - 1) / TILE;
}

/* Step *span and *tile on to the next tile. */
static place next_tile(const pq_span *spans, size_t *span, size_t *tile) {
    while (*tile >= tiles_of(&spans[*span])) (*span)++, *tile = 0;
    const pq_span *s = &spans[*span];
    size_t first = *tile * TILE, left = s->count - first;
    (*tile)++;
    return (place){.offset = s->offset + first, .count = left < TILE ? left : TILE, .decay = s->decay};
}

static size_t count_tiles(const pq_span *spans, size_t count) {
    size_t tiles = 0;
    for (size_t s = 0; s < count; s++) tiles += tiles_of(&spans[s]);
    return tiles;
}

/* Work is given out in GROUP fixed runs of tiles; each walks to its first tile by itself. */
typedef struct work {
    const pq_span *spans;
    size_t tiles;
    const float *g;
    float *w, *m, *v;
    double sums[GROUP];
    pq_adamw_step step;
    float decay;
} work;

static void walk_to(const pq_span *spans, size_t number, size_t *span, size_t *tile) {
    *span = 0;
    while (number > 0 && number >= tiles_of(&spans[*span])) number -= tiles_of(&spans[(*span)++]);
    *tile = number;
}

static void sum_group(void *context, size_t i) {
    work *w = context;
    size_t first = i * w->tiles / GROUP, end = (i + 1) * w->tiles / GROUP, span, tile;
    const pq_kernels *kernels = pq_kernels_get();
    if (first == end) return;
    walk_to(w->spans, first, &span, &tile);
    for (; first < end; first++) {
        place p = next_tile(w->spans, &span, &tile);
        double sum;
        kernels->sum_squares(w->g + p.offset, &sum, p.count);
        w->sums[i] += sum;
    }
}

double pq_gradient_norm(const float *g, const pq_span *spans, size_t count) {
    work w = {.spans = spans, .tiles = count_tiles(spans, count), .g = g};
    double total = 0;
    pq_parallel_for(GROUP, sum_group, &w);
    for (int i = 0; i < GROUP; i++) total += w.sums[i];
    return sqrt(total);
}

static void update_group(void *context, size_t i) {
    const work *w = context;
    size_t first = i * w->tiles / GROUP, end = (i + 1) * w->tiles / GROUP, span, tile;
    const pq_kernels *kernels = pq_kernels_get();
    if (first == end) return;
    walk_to(w->spans, first, &span, &tile);
    for (; first < end; first++) {
        place p = next_tile(w->spans, &span, &tile);
        pq_adamw_step step = w->step;
        step.decay = p.decay ? w->decay : 0.0f;
        kernels->adamw(w->w + p.offset, w->g + p.offset, w->m + p.offset, w->v + p.offset, p.count, &step);
    }
}

void pq_adamw_update(pq_adamw *adamw, float *w, const float *g, float *m, float *v, const pq_span *spans,
                     size_t count, double lr, double gradient_scale) {
    adamw->step++;
    work job = {.spans = spans, .tiles = count_tiles(spans, count), .g = g, .w = w, .m = m, .v = v};
    job.decay = (float)adamw->weight_decay;
    job.step = (pq_adamw_step){.lr = (float)lr,
                               .beta1 = (float)adamw->beta1,
                               .beta2 = (float)adamw->beta2,
                               .epsilon = (float)adamw->epsilon,
                               .gradient_scale = (float)gradient_scale,
                               .correction1 = (float)(1.0 - pow(adamw->beta1, (double)adamw->step)),
                               .correction2 = (float)(1.0 - pow(adamw->beta2, (double)adamw->step))};
    pq_parallel_for(GROUP, update_group, &job);
}

double pq_schedule_rate(const pq_schedule *s, int64_t iter) {
    if (iter < s->warmup_iters) return s->lr * (double)(iter + 1) / (double)s->warmup_iters;
    if (!s->cosine) return s->lr;
    if (iter >= s->decay_iters) return s->min_lr;
    double span = (double)(s->decay_iters - s->warmup_iters);
    double part = (double)(iter - s->warmup_iters) / (span > 1 ? span : 1);
    return s->min_lr + 0.5 * (s->lr - s->min_lr) * (1.0 + cos(3.14159265358979323846 * part));
}
