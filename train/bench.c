/* Owns the shapes that are timed and how an iteration's time is taken. */
#include "train/bench.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/random.h"
#include "kernels/gemm.h"
#include "train/ptq/ptq.h"
#include "train/session.h"

static const pq_bench_shape shapes[] = {
    {"char", {.layers = 4, .heads = 4, .width = 128, .context = 64, .vocab = 65}, 12, 64, 65},
    {"baby", {.layers = 6, .heads = 6, .width = 384, .context = 256, .vocab = 65}, 64, 256, 65},
    {"124M",
     {.layers = 12,
      .heads = 12,
      .width = 768,
      .context = 1024,
      .vocab = 50304,
      .bias = true,
      .gelu_tanh = true},
     4,
     512,
     50257},
};

const pq_bench_shape *pq_bench_shapes(size_t *count) {
    *count = sizeof shapes / sizeof *shapes;
    return shapes;
}

const pq_bench_shape *pq_bench_shape_find(const char *name) {
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (strcmp(shapes[i].name, name) == 0) return &shapes[i];
    return NULL;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void draw_tokens(pq_session *session, int64_t iter, int64_t below) {
    for (size_t i = 0; i < session->graph->tokens * session->options.accumulate; i++) {
        uint32_t r[4];
        pq_random4(0, PQ_STREAM_BATCH, (uint64_t)iter, i, r);
        session->tokens[i] = (uint16_t)pq_random_below(r[0], r[1], (uint64_t)below);
        session->targets[i] = (int32_t)pq_random_below(r[2], r[3], (uint64_t)below);
    }
}

static pq_status time_iterations(pq_session *session, const pq_bench *b, double *median, pq_error *err) {
    enum { WARM_UP = 2 };
    double *seconds;
    PQ_TRY(pq_calloc((size_t)b->iters, sizeof *seconds, "timings", &seconds, err));
    for (int64_t i = 0; i < b->iters + WARM_UP; i++) {
        if (i == WARM_UP) {
            pq_graph_reset_times(session->graph);
            pq_profile_start(&session->profile);
        }
        draw_tokens(session, i, b->shape->tokens);
        pq_profile_end(&session->profile, PQ_PHASE_LOADER);
        double start = pq_seconds();
        pq_session_iterate(session, i, b->config->train.lr);
        if (i >= WARM_UP) seconds[i - WARM_UP] = pq_seconds() - start;
    }
    qsort(seconds, (size_t)b->iters, sizeof *seconds, ascending);
    *median = (seconds[(b->iters - 1) / 2] + seconds[b->iters / 2]) / 2;
    free(seconds);
    return PQ_OK;
}

/* With a distill.from, whatever it names: other random weights of the same shape. */
static pq_status make_teacher(const pq_bench *b, const pq_gpt2_shape *shape, pq_teacher **out,
                              pq_error *err) {
    pq_model *model;
    *out = NULL;
    if (!b->config->distill.from) return PQ_OK;
    PQ_TRY(pq_model_create(shape, &model, err));
    pq_gpt2_initialise(model, 1);
    pq_status status = pq_teacher_create(model, b->config, (size_t)shape->vocab, NULL, (size_t)b->batch,
                                         (size_t)b->context, out, err);
    pq_model_destroy(model);
    return status;
}

static pq_status run_session(const pq_bench *b, pq_model *model, double *seconds, pq_error *err) {
    const pq_config *c = b->config;
    pq_session_options options = {.batch = (size_t)b->batch,
                                  .accumulate = (size_t)c->train.accumulate,
                                  .context = (size_t)b->context,
                                  .dropout = c->train.dropout,
                                  .recompute = c->train.recompute,
                                  .bf16 = strcmp(c->train.precision, "bf16") == 0,
                                  .grad_clip = c->train.grad_clip,
                                  .config = c};
    pq_adamw adamw = {.beta1 = c->train.beta1,
                      .beta2 = c->train.beta2,
                      .epsilon = c->train.adam_eps,
                      .weight_decay = c->train.weight_decay};
    pq_session *session = NULL;
    pq_gpt2_initialise(model, 0);
    PQ_TRY(pq_ptq_scale_options(c, &options.scale, err));
    PQ_TRY(pq_ptq_rtn(c, NULL, model, err));
    PQ_TRY(make_teacher(b, &model->params.shape, &options.teacher, err));
    pq_status status = pq_session_create(model, &options, &adamw, true, &session, err);
    if (status == PQ_OK) status = time_iterations(session, b, seconds, err);
    if (status == PQ_OK && b->profile) pq_profile_print(session, b->profile);
    pq_session_destroy(session);
    pq_teacher_destroy(options.teacher);
    return status;
}

pq_status pq_bench_train(const pq_bench *b, double *seconds, pq_error *err) {
    pq_model *model;
    pq_gpt2_shape shape = b->shape->shape;
    shape.context = b->context;
    pq_gemm_threads host_threads = pq_gemm_threads_take();
    pq_status status = pq_gemm_check(err);
    if (status == PQ_OK) status = pq_precision_check(b->config, err);
    if (status == PQ_OK) status = pq_model_create(&shape, &model, err);
    if (status == PQ_OK) {
        status = run_session(b, model, seconds, err);
        pq_model_destroy(model);
    }
    pq_gemm_threads_restore(host_threads);
    return status;
}

pq_status pq_bench_random_packed(const pq_bench_shape *shape, const pq_config *config, pq_packed **out,
                                 pq_error *err) {
    pq_model *model;
    *out = NULL;
    PQ_TRY(pq_model_create(&shape->shape, &model, err));
    pq_gpt2_initialise(model, 0);
    pq_status status = pq_ptq_rtn(config, NULL, model, err);
    if (status == PQ_OK) status = pq_packed_from_model(model, out, err);
    pq_model_destroy(model);
    return status;
}
