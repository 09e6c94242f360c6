/* The whole model against float64 PyTorch: logits, losses, every gradient, ten AdamW steps, and the quantized
 * model. The bound of 1e-5 holds norm-wise for each tensor. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "fixture.h"
#include "model/gpt2.h"
#include "ops/ops.h"
#include "optim/optim.h"
#include "tests/harness/suite.h"

static const char *const names[] = {"gpt2-bias-tanh", "gpt2-erf"};
static const int levels[] = {15, 7};

typedef struct setup {
    fixture f;
    pq_model *model;
    pq_graph *graph;
    float *quantized, *gradients, *losses, *logits;
    void *activations, *scratch;
    uint16_t *tokens;
    int32_t *targets;
    pq_batch batch;
    size_t valid, tokens_count;
} setup;

static void must(pq_status status, const pq_error *err) {
    ck_assert_msg(status == PQ_OK, "%s", err->message);
}

static setup make(int which, bool quantize, bool recompute, size_t micro) {
    pq_error err;
    setup s = {.f = fixture_read(names[which])};
    const fixture *f = &s.f;
    pq_gpt2_shape shape = {.layers = f->layers,
                           .heads = f->heads,
                           .width = f->width,
                           .context = f->context,
                           .vocab = f->vocab,
                           .bias = f->bias,
                           .gelu_tanh = f->gelu_tanh};
    must(pq_model_create(&shape, &s.model, &err), &err);
    pq_codebook codebook;
    must(pq_codebook_init(&codebook, "pot", levels[which], NULL, PQ_ROUND_NEAREST, &err), &err);
    for (size_t i = 0; i < s.model->params.count; i++) {
        const pq_param *p = &s.model->params.list[i];
        const double *w = fixture_get2(f, "weight.", p->name, p->count);
        for (size_t j = 0; j < p->count; j++) s.model->weights[p->offset + j] = (float)w[j];
        if (!quantize || !p->quantizable) continue;
        must(pq_model_quantize_param(s.model, i, &codebook, "row", &err), &err);
        pq_scale_options options = {.method = PQ_SCALE_ABSMAX, .grid = PQ_GRID_FP32};
        must(pq_matrix_fit(&codebook, &options, s.model->weights + p->offset, p->rows, p->columns, p->columns,
                           s.model->quant[i].scales, &err),
             &err);
    }
    size_t batch = micro ? micro : (size_t)f->batch, n = (size_t)f->batch * (size_t)f->length;
    must(pq_gpt2_graph(s.model, PQ_F32, batch, (size_t)f->length, 0, &s.graph, &err), &err);
    pq_plan_size size;
    must(pq_graph_plan(s.graph, true, recompute, &size, &err), &err);
    must(pq_calloc(1, size.activations, "activations", &s.activations, &err), &err);
    must(pq_calloc(1, size.scratch, "scratch", &s.scratch, &err), &err);
    /* What the plan does not write must not matter. */
    memset(s.activations, 0xFF, size.activations);
    memset(s.scratch, 0xFF, size.scratch);
    pq_graph_place(s.graph, s.activations, s.scratch);
    size_t elements = s.model->params.elements;
    must(pq_calloc(elements, sizeof(float), "quantized", &s.quantized, &err), &err);
    must(pq_calloc(elements, sizeof(float), "gradients", &s.gradients, &err), &err);
    memset(s.gradients, 0xFF, elements * sizeof(float));
    must(pq_calloc(n, sizeof(float), "losses", &s.losses, &err), &err);
    must(pq_calloc(n * (size_t)f->vocab, sizeof(float), "logits", &s.logits, &err), &err);
    must(pq_calloc(n, sizeof *s.tokens, "tokens", &s.tokens, &err), &err);
    must(pq_calloc(n, sizeof *s.targets, "targets", &s.targets, &err), &err);
    const double *tokens = fixture_get(f, "tokens", n), *targets = fixture_get(f, "targets", n);
    for (size_t i = 0; i < n; i++) {
        s.tokens[i] = (uint16_t)tokens[i];
        s.targets[i] = (int32_t)targets[i];
        s.valid += targets[i] >= 0;
    }
    pq_graph_bind(s.graph, s.model->weights, s.quantized, s.gradients);
    s.tokens_count = n;
    return s;
}

static void destroy(setup *s) {
    pq_graph_destroy(s->graph);
    pq_model_destroy(s->model);
    free(s->quantized), free(s->gradients), free(s->losses), free(s->logits);
    free(s->activations), free(s->scratch), free(s->tokens), free(s->targets);
    fixture_free(&s->f);
}

/* One iteration's gradients, in as many micro-batches as the graph's batch asks for. */
static double iteration(setup *s, bool training) {
    double loss = 0;
    pq_model_effective_weights(s->model, s->quantized);
    for (size_t first = 0; first < s->tokens_count; first += s->graph->tokens) {
        pq_batch batch = {.tokens = s->tokens + first,
                          .targets = s->targets + first,
                          .losses = s->losses + first,
                          .loss_scale = 1.0f / (float)s->valid,
                          .training = training,
                          .first = first == 0};
        pq_graph_forward(s->graph, &batch);
        if (training) pq_graph_backward(s->graph, &batch);
        if (!training) pq_op_head_logits(s->graph, 0, s->graph->tokens, s->logits + first * s->graph->vocab);
    }
    for (size_t i = 0; i < s->tokens_count; i++) loss += s->losses[i];
    return loss / (double)s->valid;
}

static void compare_gradients(setup *s, const char *prefix) {
    size_t C = (size_t)s->f.width;
    for (size_t i = 0; i < s->model->params.count; i++) {
        const pq_param *p = &s->model->params.list[i];
        const double *expected = fixture_get2(&s->f, prefix, p->name, p->count);
        const float *got = (s->gradients + p->offset);
        double distance;
        if (p->id == PQ_PARAM_C_ATTN_BIAS) /* a key's bias has no gradient, in theory */
            distance =
                fmax(fixture_distance(got, expected, C), fixture_distance(got + 2 * C, expected + 2 * C, C));
        else
            distance = fixture_distance(got, expected, p->count);
        ck_assert_msg(distance <= 1e-5, "%s%s differs by %g", prefix, p->name, distance);
    }
}

/* Loop: model, plain or quantized, micro-batches, recomputation. */
START_TEST(forward_and_gradients) {
    int which = _i & 1, quantize = _i >> 1 & 1, recompute = _i >> 2 & 1, split = _i >> 3 & 1;
    setup s = make(which, quantize, recompute, split ? 1 : 0);
    char prefix[16] = "", name[32];
    if (quantize) snprintf(prefix, sizeof prefix, "pot%d.", levels[which]);
    for (int training = 0; training < 2; training++) {
        double loss = iteration(&s, training);
        snprintf(name, sizeof name, "%sloss", prefix);
        ck_assert_double_le(fabs(loss - fixture_get(&s.f, name, 1)[0]), 1e-6 * loss);
        snprintf(name, sizeof name, "%slosses", prefix);
        ck_assert_double_le(
            fixture_distance(s.losses, fixture_get(&s.f, name, s.tokens_count), s.tokens_count), 1e-5);
    }
    size_t n = s.tokens_count * (size_t)s.f.vocab;
    snprintf(name, sizeof name, "%slogits", prefix);
    ck_assert_double_le(fixture_distance(s.logits, fixture_get(&s.f, name, n), n), 1e-5);
    snprintf(name, sizeof name, "%sgrad.", prefix);
    compare_gradients(&s, name);
    destroy(&s);
}
END_TEST

START_TEST(ten_adamw_steps) {
    setup s = make(_i, false, false, 0);
    pq_error err;
    pq_span *spans;
    float *m, *v;
    size_t elements = s.model->params.elements;
    must(pq_calloc(s.model->params.count, sizeof *spans, "spans", &spans, &err), &err);
    must(pq_calloc(elements, sizeof(float), "m", &m, &err), &err);
    must(pq_calloc(elements, sizeof(float), "v", &v, &err), &err);
    for (size_t i = 0; i < s.model->params.count; i++) {
        const pq_param *p = &s.model->params.list[i];
        spans[i] = (pq_span){.offset = p->offset, .count = p->count, .decay = p->decay};
    }
    pq_adamw adamw = {.beta1 = 0.9, .beta2 = 0.99, .epsilon = 1e-8, .weight_decay = 0.1};
    for (int step = 0; step < 10; step++) {
        iteration(&s, true);
        double norm = pq_gradient_norm(s.gradients, spans, s.model->params.count);
        if (step == 0) ck_assert_double_le(fabs(norm - fixture_get(&s.f, "grad_norm", 1)[0]), 1e-5 * norm);
        pq_adamw_update(&adamw, s.model->weights, s.gradients, m, v, spans, s.model->params.count, 1e-3,
                        norm > 1 ? 1 / norm : 1);
    }
    for (size_t i = 0; i < s.model->params.count; i++) {
        const pq_param *p = &s.model->params.list[i];
        const double *after = fixture_get2(&s.f, "after.", p->name, p->count);
        size_t C = (size_t)s.f.width, skip = p->id == PQ_PARAM_C_ATTN_BIAS ? C : p->count;
        const float *w = s.model->weights + p->offset;
        double distance = fixture_distance(w, after, skip);
        if (skip < p->count) distance = fmax(distance, fixture_distance(w + 2 * C, after + 2 * C, C));
        ck_assert_msg(distance <= 1e-5, "%s after ten steps differs by %g", p->name, distance);
    }
    free(spans), free(m), free(v);
    destroy(&s);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("gpt2 oracle");
    TCase *tc = tcase_create("float64 PyTorch");
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, forward_and_gradients, 0, 16);
    tcase_add_loop_test(tc, ten_adamw_steps, 0, 2);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
