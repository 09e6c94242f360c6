/* Fake quantization of activations, for the inputs of quantized matrix products: a grid for each token, or
 * one range a site that follows the batches. Recomputed for the backward pass, where the range is still the
 * one of the forward pass. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "ops/ops.h"
#include "ops/tiles.h"

enum { X, OUT = 0, ROW_TILE = 64, TILE = 8192 };

typedef struct work {
    const pq_graph *graph;
    const pq_tensor *x, *out;
    pq_tiles tiles;
    pq_affine grid;
    bool known, accumulate; /* a range is known; the input has a gradient already */
} work;

static work make_work(const pq_graph *graph, const pq_node *node) {
    work w = {.graph = graph,
              .x = &graph->tensors[node->inputs[X]],
              .out = &graph->tensors[node->outputs[OUT]],
              .accumulate = node->accumulate[X]};
    w.tiles = pq_tiles_cut(graph->tokens * w.x->columns, TILE, 16);
    return w;
}

/* dx (+)= what stands in `from`, which may be dx itself. */
static void pass_tile(void *context, size_t i) {
    const work *w = context;
    size_t first = pq_tile_first(&w->tiles, i), n = pq_tile_length(&w->tiles, i);
    const float *dout = (const float *)w->out->gradient + first;
    float *dx = (float *)w->x->gradient + first;
    if (w->accumulate)
        w->graph->kernels->add(dx, dout, dx, n);
    else if (dx != dout)
        memcpy(dx, dout, n * sizeof *dx);
}

static bool in_place(const pq_node *node, int input) {
    (void)node, (void)input;
    return true;
}

static pq_status check_type(const pq_graph *graph, int x, pq_error *err) {
    if (graph->tensors[x].type == PQ_F32) return PQ_OK;
    return PQ_FAIL(err, PQ_ERR_USAGE, "activations are quantized in fp32 alone, not in bf16");
}

/* ---- a grid for each token ---- */

static void token_tile(void *context, size_t i) {
    const work *w = context;
    size_t first = pq_tile_first(&w->tiles, i) * w->x->columns;
    w->graph->kernels->int8_rows((const float *)w->x->value + first, (float *)w->out->value + first,
                                 pq_tile_length(&w->tiles, i), w->x->columns);
}

static void token_forward(const pq_graph *graph, const pq_node *node) {
    work w = make_work(graph, node);
    w.tiles = pq_tiles_cut(graph->tokens, ROW_TILE, 1);
    pq_parallel_for(w.tiles.count, token_tile, &w);
}

static void token_backward(const pq_graph *graph, const pq_node *node) {
    work w = make_work(graph, node);
    if (w.accumulate || w.x->gradient != w.out->gradient) pq_parallel_for(w.tiles.count, pass_tile, &w);
}

static const pq_op token_op = {.name = "int8-token",
                               .forward = token_forward,
                               .backward = token_backward,
                               .cheap = true,
                               .gradient_in_place = in_place};

pq_status pq_op_int8_token(pq_graph *graph, int x, int *out, pq_error *err) {
    PQ_TRY(check_type(graph, x, err));
    PQ_TRY(pq_graph_add_activation(graph, graph->tensors[x].columns, false, out, err));
    pq_node node = {
        .op = &token_op, .inputs = {x, PQ_NONE, PQ_NONE, PQ_NONE}, .outputs = {*out, PQ_NONE, PQ_NONE}};
    return pq_graph_add_node(graph, &node, err);
}

/* ---- one range a site ---- */

static void extremes_tile(void *context, size_t i) {
    const work *w = context;
    float *both = w->graph->scratch + 2 * i;
    w->graph->kernels->extremes((const float *)w->x->value + pq_tile_first(&w->tiles, i), &both[0], &both[1],
                                pq_tile_length(&w->tiles, i));
}

/* The first batch sets the range; one that is not finite leaves it as it is. */
static void observe(const work *w, float *range) {
    pq_parallel_for(w->tiles.count, extremes_tile, (void *)(uintptr_t)w);
    float low = w->graph->scratch[0], high = w->graph->scratch[1];
    for (size_t i = 0; i < w->tiles.count; i++) {
        const float *both = w->graph->scratch + 2 * i;
        if (!isfinite(both[0])) return;
        if (both[0] < low) low = both[0];
        if (both[1] > high) high = both[1];
    }
    bool first = range[0] > range[1];
    range[0] = first ? low : range[0] + PQ_RANGE_SHARE * (low - range[0]);
    range[1] = first ? high : range[1] + PQ_RANGE_SHARE * (high - range[1]);
}

static void set_grid(work *w, const float *range) {
    w->known = range[0] <= range[1];
    if (w->known) w->grid = pq_affine_make(range[0], range[1], -128, 127, FLT_EPSILON);
}

static void affine_tile(void *context, size_t i) {
    const work *w = context;
    size_t first = pq_tile_first(&w->tiles, i), n = pq_tile_length(&w->tiles, i);
    const float *x = (const float *)w->x->value + first;
    if (w->known)
        w->graph->kernels->affine_round(x, &w->grid, (float *)w->out->value + first, n);
    else
        memcpy((float *)w->out->value + first, x, n * sizeof *x);
}

static void affine_forward(const pq_graph *graph, const pq_node *node) {
    work w = make_work(graph, node);
    float *range = graph->ranges[node->attributes.site];
    if (graph->run->observe && !graph->again) observe(&w, range);
    set_grid(&w, range);
    pq_parallel_for(w.tiles.count, affine_tile, &w);
}

static void mask_tile(void *context, size_t i) {
    const work *w = context;
    size_t first = pq_tile_first(&w->tiles, i), n = pq_tile_length(&w->tiles, i);
    float *dout = (float *)w->out->gradient + first; /* used up: nothing reads it later */
    if (w->known) w->graph->kernels->affine_mask((const float *)w->x->value + first, &w->grid, dout, dout, n);
    pass_tile(context, i);
}

static void affine_backward(const pq_graph *graph, const pq_node *node) {
    work w = make_work(graph, node);
    set_grid(&w, graph->ranges[node->attributes.site]);
    pq_parallel_for(w.tiles.count, mask_tile, &w);
}

static const pq_op affine_op = {.name = "int8-affine",
                                .forward = affine_forward,
                                .backward = affine_backward,
                                .reads_inputs = 1u << X,
                                .cheap = true,
                                .gradient_in_place = in_place};

pq_status pq_op_int8_affine(pq_graph *graph, int x, size_t site, int *out, pq_error *err) {
    size_t columns = graph->tensors[x].columns;
    PQ_TRY(check_type(graph, x, err));
    PQ_TRY(pq_graph_add_activation(graph, columns, false, out, err));
    pq_node node = {.op = &affine_op,
                    .inputs = {x, PQ_NONE, PQ_NONE, PQ_NONE},
                    .outputs = {*out, PQ_NONE, PQ_NONE},
                    .attributes = {.site = site},
                    .scratch = pq_tiles_cut(graph->tokens * columns, TILE, 16).count * 2 * sizeof(float)};
    return pq_graph_add_node(graph, &node, err);
}
