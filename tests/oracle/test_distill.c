/* Distillation against float64 PyTorch: losses, divergences and every gradient of the mixed loss, from a
 * teacher of another width, depth and kind, quantized, over temperatures, weights and micro-batches. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "fixture.h"
#include "model/gpt2.h"
#include "tests/harness/suite.h"
#include "train/session.h"

enum { MIXES = 6 };
static pq_error err;

static void must(pq_status status) {
    ck_assert_msg(status == PQ_OK, "%s", err.message);
}

static pq_model *make(const fixture *f, const char *prefix, const pq_gpt2_shape *shape) {
    pq_model *model;
    must(pq_model_create(shape, &model, &err));
    for (size_t i = 0; i < model->params.count; i++) {
        const pq_param *p = &model->params.list[i];
        const double *w = fixture_get2(f, prefix, p->name, p->count);
        for (size_t j = 0; j < p->count; j++) model->weights[p->offset + j] = (float)w[j];
    }
    return model;
}

static void quantize(pq_model *model) {
    pq_codebook codebook;
    pq_scale_options options = {.method = PQ_SCALE_ABSMAX, .grid = PQ_GRID_FP32};
    must(pq_codebook_init(&codebook, "pot", 7, NULL, PQ_ROUND_NEAREST, &err));
    for (size_t i = 0; i < model->params.count; i++) {
        const pq_param *p = &model->params.list[i];
        if (!p->quantizable) continue;
        must(pq_model_quantize_param(model, i, &codebook, "row", &err));
        must(pq_matrix_fit(&codebook, &options, model->weights + p->offset, p->rows, p->columns, p->columns,
                           model->quant[i].scales, &err));
    }
}

static pq_teacher *make_teacher(const fixture *f, const pq_config *config, size_t batch) {
    pq_teacher *teacher;
    const double *s = fixture_get(f, "teacher.shape", 7);
    pq_gpt2_shape shape = {.layers = (int64_t)s[0],
                           .heads = (int64_t)s[1],
                           .width = (int64_t)s[2],
                           .context = (int64_t)s[3],
                           .vocab = (int64_t)s[4],
                           .bias = s[5] != 0,
                           .gelu_tanh = s[6] != 0};
    pq_model *model = make(f, "teacher.", &shape);
    quantize(model);
    must(pq_teacher_create(model, config, (size_t)f->vocab, NULL, batch, (size_t)f->length, &teacher, &err));
    pq_model_destroy(model);
    return teacher;
}

static void compare(const fixture *f, const pq_model *model, const float *gradients, int mix) {
    char prefix[16];
    snprintf(prefix, sizeof prefix, "%d.grad.", mix);
    for (size_t i = 0; i < model->params.count; i++) {
        const pq_param *p = &model->params.list[i];
        const double *expected = fixture_get2(f, prefix, p->name, p->count);
        const float *got = gradients + p->offset;
        size_t C = (size_t)f->width;
        double distance =
            p->id == PQ_PARAM_C_ATTN_BIAS /* a key's bias has no gradient, in theory */
                ? fmax(fixture_distance(got, expected, C), fixture_distance(got + 2 * C, expected + 2 * C, C))
                : fixture_distance(got, expected, p->count);
        ck_assert_msg(distance <= 1e-5, "mix %d: %s differs by %g", mix, p->name, distance);
    }
}

/* Loop: mixes, then the same in micro-batches of one sequence. */
START_TEST(mixed_loss_and_gradients) {
    int mix = _i % MIXES, split = _i / MIXES;
    fixture f = fixture_read("distill");
    const double *mixes = fixture_get(&f, "mixes", 2 * MIXES), *losses, *kl;
    size_t batch = split ? 1 : (size_t)f.batch, tokens = (size_t)(f.batch * f.length), valid = 0;
    char weight[64], temperature[64], name[16];
    snprintf(weight, sizeof weight, "distill.weight=%g", mixes[2 * mix]);
    snprintf(temperature, sizeof temperature, "distill.temperature=%g", mixes[2 * mix + 1]);
    pq_config *config;
    must(pq_config_load(NULL, (const char *[]){weight, temperature, "train.dropout=0"}, 3, &config, &err));
    pq_gpt2_shape shape = {.layers = f.layers,
                           .heads = f.heads,
                           .width = f.width,
                           .context = f.context,
                           .vocab = f.vocab,
                           .bias = f.bias,
                           .gelu_tanh = f.gelu_tanh};
    pq_model *model = make(&f, "weight.", &shape);
    pq_session_options options = {.batch = batch,
                                  .accumulate = (size_t)f.batch / batch,
                                  .context = (size_t)f.length,
                                  .config = config,
                                  .teacher = make_teacher(&f, config, batch)};
    pq_adamw adamw = {.beta1 = 0.9, .beta2 = 0.99, .epsilon = 1e-8};
    pq_session *session;
    must(pq_session_create(model, &options, &adamw, true, &session, &err));
    const double *t = fixture_get(&f, "tokens", tokens), *y = fixture_get(&f, "targets", tokens);
    for (size_t i = 0; i < tokens; i++) {
        session->tokens[i] = (uint16_t)t[i];
        session->targets[i] = (int32_t)y[i];
        valid += y[i] >= 0;
    }
    pq_iteration done = pq_session_iterate(session, 0, 0);
    losses = fixture_get(&f, "losses", tokens);
    snprintf(name, sizeof name, "%d.kl", mix);
    kl = fixture_get(&f, name, tokens);
    ck_assert_double_le(fixture_distance(session->losses, losses, tokens), 1e-5);
    ck_assert_double_le(fixture_distance(session->divergences, kl, tokens), 1e-5);
    double w = mixes[2 * mix], T = mixes[2 * mix + 1], objective = 0;
    for (size_t i = 0; i < tokens; i++)
        objective += ((1 - w) * losses[i] + w * T * T * kl[i]) / (double)valid;
    ck_assert_double_le(fabs(done.objective - objective), 1e-5 * objective);
    compare(&f, model, session->gradients, mix);
    pq_session_destroy(session);
    pq_teacher_destroy(options.teacher);
    pq_model_destroy(model);
    pq_config_destroy(config);
    fixture_free(&f);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("distillation oracle");
    TCase *tc = tcase_create("float64 PyTorch");
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, mixed_loss_and_gradients, 0, 2 * MIXES);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
