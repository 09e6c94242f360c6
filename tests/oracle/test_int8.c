/* 8-bit activations against PyTorch: values and ranges bit for bit over several batches, losses and gradients
 * norm-wise within 1e-5, whatever is recomputed. */
#include <check.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/threads.h"
#include "fixture.h"
#include "ops/ops.h"
#include "tests/harness/suite.h"

enum { STEPS = 5 };

typedef struct rig {
    fixture f;
    bool affine, again;
    pq_graph *graph;
    int y;
    size_t B, T, C, V, elements;
    float *weights, *gradients, *losses;
    void *activations, *scratch;
    uint16_t *tokens;
    int32_t *targets;
    float ranges[3][2];
} rig;

static pq_error err;
static void must(pq_status status) {
    ck_assert_msg(status == PQ_OK, "%s", err.message);
}

/* wte at 0, wpe (zeros) behind it, then A. */
static void build(rig *r) {
    int wte, wpe, matrix, x, out;
    must(pq_graph_create(r->B, r->T, r->V, &r->graph, &err));
    must(pq_graph_add_parameter(r->graph, r->V, r->C, 0, false, &wte, &err));
    must(pq_graph_add_parameter(r->graph, r->T, r->C, r->V * r->C, false, &wpe, &err));
    must(pq_graph_add_parameter(r->graph, r->C, r->C, (r->V + r->T) * r->C, false, &matrix, &err));
    must(pq_op_embedding(r->graph, wte, wpe, &x, &err));
    r->graph->block = 0;
    if (r->affine)
        must(pq_op_int8_affine(r->graph, x, 1, &r->y, &err));
    else
        must(pq_op_int8_token(r->graph, x, &r->y, &err));
    out = r->y;
    if (r->again) {
        must(pq_op_linear(r->graph, r->y, matrix, PQ_NONE, &out, &err));
        must(pq_op_residual(r->graph, x, out, 0, false, &out, &err));
    }
    r->graph->block = PQ_NONE;
    must(pq_op_head(r->graph, out, wte, &err));
}

static rig make(bool affine, bool again, bool backward, bool recompute) {
    rig r = {.f = fixture_read("int8"), .affine = affine, .again = again};
    pq_plan_size size;
    r.B = (size_t)r.f.batch, r.T = (size_t)r.f.length, r.C = (size_t)r.f.width, r.V = (size_t)r.f.vocab;
    r.elements = (r.V + r.T + r.C) * r.C;
    build(&r);
    must(pq_graph_plan(r.graph, backward, recompute, &size, &err));
    must(pq_calloc(1, size.activations, "activations", &r.activations, &err));
    must(pq_calloc(1, size.scratch, "scratch", &r.scratch, &err));
    memset(r.activations, 0xFF, size.activations);
    memset(r.scratch, 0xFF, size.scratch);
    must(pq_calloc(r.elements, sizeof(float), "weights", &r.weights, &err));
    must(pq_calloc(r.elements, sizeof(float), "gradients", &r.gradients, &err));
    must(pq_calloc(r.B * r.T, sizeof(float), "losses", &r.losses, &err));
    must(pq_calloc(r.B * r.T, sizeof *r.tokens, "tokens", &r.tokens, &err));
    must(pq_calloc(r.B * r.T, sizeof *r.targets, "targets", &r.targets, &err));
    const double *matrix = fixture_get(&r.f, "A", r.C * r.C);
    for (size_t i = 0; i < r.C * r.C; i++) r.weights[(r.V + r.T) * r.C + i] = (float)matrix[i];
    for (int i = 0; i < 3; i++) r.ranges[i][0] = FLT_MAX, r.ranges[i][1] = -FLT_MAX;
    pq_graph_place(r.graph, r.activations, r.scratch);
    pq_graph_bind(r.graph, r.weights, NULL, r.gradients);
    return r;
}

static void destroy(rig *r) {
    pq_graph_destroy(r->graph);
    free(r->activations), free(r->scratch), free(r->weights), free(r->gradients);
    free(r->losses), free(r->tokens), free(r->targets);
    fixture_free(&r->f);
}

static void step(rig *r, int k, bool training, bool observe) {
    size_t n = r->B * r->T;
    const double *wte = fixture_get(&r->f, "wte", r->V * r->C), *growth = fixture_get(&r->f, "growth", STEPS);
    const double *tokens = fixture_get(&r->f, "tokens", STEPS * n),
                 *targets = fixture_get(&r->f, "targets", STEPS * n);
    pq_graph_bind_ranges(r->graph, r->ranges); /* a rig may have been copied */
    for (size_t i = 0; i < r->V * r->C; i++) r->weights[i] = (float)(wte[i] * growth[k]);
    for (size_t i = 0; i < n; i++) {
        r->tokens[i] = (uint16_t)tokens[(size_t)k * n + i];
        r->targets[i] = (int32_t)targets[(size_t)k * n + i];
    }
    pq_batch batch = {.tokens = r->tokens,
                      .targets = r->targets,
                      .losses = r->losses,
                      .loss_scale = 1.0f / (float)n,
                      .training = training,
                      .observe = observe,
                      .first = true};
    pq_graph_forward(r->graph, &batch);
    if (training) pq_graph_backward(r->graph, &batch);
}

static void check_ranges(const rig *r, int k) {
    const double *ranges = r->affine ? fixture_get2(&r->f, "affine.plain.", "ranges", 2 * STEPS) : NULL;
    for (int i = 0; i < 3; i++) /* site 1 alone, and only where ranges are kept */
        if (ranges && i == 1)
            ck_assert_msg(r->ranges[i][0] == ranges[2 * k] && r->ranges[i][1] == ranges[2 * k + 1],
                          "step %d: %.9g to %.9g, expected %.9g to %.9g", k, (double)r->ranges[i][0],
                          (double)r->ranges[i][1], ranges[2 * k], ranges[2 * k + 1]);
        else
            ck_assert(r->ranges[i][0] == FLT_MAX && r->ranges[i][1] == -FLT_MAX);
}

START_TEST(values) {
    rig r = make(_i, false, false, false);
    size_t n = r.B * r.T * r.C;
    const double *expected = fixture_get2(&r.f, _i ? "affine." : "token.", "plain.values", STEPS * n);
    if (_i) { /* no range yet: as it is */
        step(&r, 0, false, false);
        for (size_t i = 0; i < n; i++)
            ck_assert(((const float *)r.graph->tensors[r.y].value)[i] ==
                      r.weights[r.tokens[i / r.C] * r.C + i % r.C]);
    }
    for (int k = 0; k < STEPS; k++)
        for (int observe = 1; observe >= 0; observe--) { /* what is not observed moves nothing */
            pq_threads_set(k + 1);
            step(&r, k, false, observe);
            check_ranges(&r, k);
            const float *y = r.graph->tensors[r.y].value;
            for (size_t i = 0; i < n; i++)
                ck_assert_msg(y[i] == expected[(size_t)k * n + i], "step %d, number %zu: %.9g, expected %.9g",
                              k, i, (double)y[i], expected[(size_t)k * n + i]);
        }
    pq_threads_set(0);
    destroy(&r);
}
END_TEST

/* Loop: kind, form, recomputed blocks. */
START_TEST(gradients) {
    rig r = make(_i & 1, _i & 2, true, _i & 4);
    char prefix[32];
    size_t n = r.B * r.T;
    for (int k = 0; k < STEPS; k++) {
        memset(r.gradients, 0xFF, r.elements * sizeof(float));
        step(&r, k, true, true);
        check_ranges(&r, k);
    }
    snprintf(prefix, sizeof prefix, "%s.%s.", r.affine ? "affine" : "token", r.again ? "again" : "plain");
    ck_assert_double_le(fixture_distance(r.losses, fixture_get2(&r.f, prefix, "losses", n), n), 1e-6);
    double distance = fixture_distance(r.gradients, fixture_get2(&r.f, prefix, "grad", r.V * r.C), r.V * r.C);
    ck_assert_msg(distance <= 1e-5, "%sgrad differs by %g", prefix, distance);
    destroy(&r);
}
END_TEST

/* Batches that are not finite move no range, and their numbers say so. */
START_TEST(not_finite) {
    rig r = make(_i, false, false, false);
    step(&r, 0, false, true);
    float before[3][2];
    memcpy(before, r.ranges, sizeof before);
    fixture_array *wte = NULL;
    for (size_t i = 0; i < r.f.count; i++)
        if (strcmp(r.f.arrays[i].name, "wte") == 0) wte = &r.f.arrays[i];
    ck_assert_ptr_nonnull(wte);
    wte->values[r.tokens[0] * r.C + 3] = NAN;
    step(&r, 0, false, true);
    const float *y = r.graph->tensors[r.y].value;
    ck_assert_mem_eq(before, r.ranges, sizeof before);
    ck_assert(isnan(y[3]));
    ck_assert_int_eq(isnan(y[4]) != 0, !_i); /* the whole token, or that number alone */
    ck_assert(isnan(r.losses[0]));
    destroy(&r);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("int8 oracle");
    TCase *tc = tcase_create("PyTorch");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, values, 0, 2);
    tcase_add_loop_test(tc, gradients, 0, 8);
    tcase_add_loop_test(tc, not_finite, 0, 2);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
