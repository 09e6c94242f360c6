/* Owns the order of an iteration: quantize, forward and backward a micro-batch at a time, surrogate gradient,
 * norm, update. */
#include "train/session.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/threads.h"
#include "kernels/gemm_bf16.h"

static size_t buffer_bytes(const pq_session *s) {
    return s->model->params.elements * sizeof(float);
}

/* Does the graph see other values of parameter i than the latent weights? */
static bool shown(const pq_session *s, size_t i) {
    return s->model->params.list[i].rows && (s->options.bf16 || s->model->quant[i].quantized);
}

/* Must these values stand apart from the gradients? Else they are in the place of their gradient, which is
 * written when they have been read for the last time: not so where micro-batches follow, where a method reads
 * them later, and for the table that the head reads slice by slice. */
static bool stands_apart(const pq_session *s, size_t i) {
    return shown(s, i) &&
           (s->options.accumulate > 1 || s->qat->reads_shown || s->model->params.list[i].id == PQ_PARAM_WTE);
}

static pq_type type_of(const pq_session *s) {
    return s->options.bf16 ? PQ_BF16 : PQ_F32;
}

static size_t apart_bytes(const pq_session *s) {
    size_t elements = 0;
    for (size_t i = 0; i < s->model->params.count; i++)
        elements += stands_apart(s, i) ? s->model->params.list[i].count : 0;
    return elements * pq_type_bytes(type_of(s));
}

/* In fp32: the activations have room for any matrix, on its way to bf16 or to be looked at. */
static size_t largest_matrix_bytes(const pq_session *s) {
    size_t most = 0;
    for (size_t i = 0; i < s->model->params.count; i++)
        if (s->model->params.list[i].count > most) most = s->model->params.list[i].count;
    return most * sizeof(float);
}

static pq_status place_shown(pq_session *s, pq_error *err) {
    const pq_params *params = &s->model->params;
    PQ_TRY(pq_calloc(params->count, sizeof *s->places, "places of what is shown", &s->places, err));
    char *next = s->apart;
    for (size_t i = 0; i < params->count; i++) {
        const pq_param *p = &params->list[i];
        if (!shown(s, i)) continue;
        bool apart = stands_apart(s, i);
        s->places[i] = apart ? (void *)next : s->gradients + p->offset;
        if (apart) next += p->count * pq_type_bytes(type_of(s));
        pq_graph_bind_matrix(s->graph, p->offset, s->places[i]);
    }
    return PQ_OK;
}

static size_t method_bytes(const pq_qat *qat) {
    size_t bytes = qat->average ? qat->average->params.elements * sizeof(float) : 0;
    for (size_t i = 0; i < qat->array_count; i++)
        if (!qat->arrays[i].borrowed)
            bytes += qat->arrays[i].count * (qat->arrays[i].type == PQ_ARRAY_F32 ? sizeof(float) : 1);
    return bytes;
}

static pq_status allocate_buffers(pq_session *s, pq_error *err) {
    size_t bytes = buffer_bytes(s), sequences = s->options.batch * s->options.accumulate;
    size_t tokens = sequences * s->options.context;
    if (s->memory.shown) PQ_TRY(pq_pages_reserve(s->memory.shown, "quantized weights", &s->apart, err));
    PQ_TRY(pq_pages_reserve(bytes, "gradients", &s->gradients, err));
    PQ_TRY(pq_pages_reserve(bytes, "first moments", &s->m, err));
    PQ_TRY(pq_pages_reserve(bytes, "second moments", &s->v, err));
    PQ_TRY(pq_pages_reserve(s->memory.activations, "activations", &s->activations, err));
    PQ_TRY(pq_pages_reserve(s->memory.scratch, "scratch", &s->scratch, err));
    PQ_TRY(pq_calloc(tokens, sizeof *s->tokens, "tokens", &s->tokens, err));
    PQ_TRY(pq_calloc(tokens, sizeof *s->targets, "targets", &s->targets, err));
    PQ_TRY(pq_calloc(tokens, sizeof *s->losses, "losses", &s->losses, err));
    if (s->model->ranges)
        PQ_TRY(pq_calloc(pq_model_sites(s->model), sizeof *s->ranges, "ranges", &s->ranges, err));
    if (s->options.teacher) {
        PQ_TRY(pq_calloc(tokens, sizeof *s->divergences, "divergences", &s->divergences, err));
        PQ_TRY(pq_teacher_place(s->options.teacher, s->activations, s->scratch, err));
    }
    pq_graph_place(s->graph, s->activations, s->scratch);
    pq_graph_bind(s->graph, s->model->weights, s->model->weights, s->gradients);
    return place_shown(s, err);
}

static pq_status build(pq_session *s, bool allocate, pq_error *err) {
    const pq_params *params = &s->model->params;
    pq_plan_size plan;
    PQ_TRY(pq_gpt2_graph(s->model, type_of(s), s->options.batch, s->options.context, s->options.dropout,
                         &s->graph, err));
    PQ_TRY(pq_graph_plan(s->graph, true, s->options.recompute, &plan, err));
    size_t bytes = buffer_bytes(s);
    const pq_teacher *teacher = s->options.teacher; /* its forward pass ends before the student's begins */
    if (teacher && teacher->plan.activations > plan.activations) plan.activations = teacher->plan.activations;
    if (teacher && teacher->plan.scratch > plan.scratch) plan.scratch = teacher->plan.scratch;
    if (plan.activations < largest_matrix_bytes(s)) plan.activations = largest_matrix_bytes(s);
    if (plan.activations < s->options.least.activations) plan.activations = s->options.least.activations;
    if (plan.scratch < s->options.least.scratch) plan.scratch = s->options.least.scratch;
    PQ_TRY(pq_qat_create(s->model, s->options.config, &s->options.scale, s->options.iter, &s->qat, err));
    s->memory = (pq_session_memory){.weights = bytes,
                                    .shown = apart_bytes(s),
                                    .gradients = bytes,
                                    .moments = 2 * bytes,
                                    .methods = method_bytes(s->qat),
                                    .teacher = teacher ? teacher->bytes : 0,
                                    .activations = plan.activations,
                                    .scratch = plan.scratch};
    s->memory.total = s->memory.weights + s->memory.shown + s->memory.gradients + s->memory.moments +
                      s->memory.methods + s->memory.teacher + s->memory.activations + s->memory.scratch;
    PQ_TRY(pq_calloc(params->count, sizeof *s->spans, "decay groups", &s->spans, err));
    s->span_count = params->count;
    for (size_t i = 0; i < params->count; i++)
        s->spans[i] = (pq_span){
            .offset = params->list[i].offset, .count = params->list[i].count, .decay = params->list[i].decay};
    return allocate ? allocate_buffers(s, err) : PQ_OK;
}

pq_status pq_precision_check(const pq_config *config, pq_error *err) {
    bool train = strcmp(config->train.precision, "bf16") == 0,
         eval = strcmp(config->eval.precision, "bf16") == 0;
    pq_status status = train || eval ? pq_gemm_bf16_check(err) : PQ_OK;
    return status == PQ_OK ? status : pq_prefix(err, status, "%s.precision", train ? "train" : "eval");
}

pq_status pq_session_create(pq_model *model, const pq_session_options *options, const pq_adamw *adamw,
                            bool allocate, pq_session **out, pq_error *err) {
    pq_session *s;
    *out = NULL;
    PQ_TRY(pq_calloc(1, sizeof *s, "session", &s, err));
    s->options = *options;
    s->model = model;
    s->adamw = *adamw;
    pq_status status = build(s, allocate, err);
    if (status != PQ_OK) {
        pq_session_destroy(s);
        return status;
    }
    *out = s;
    return PQ_OK;
}

void pq_session_destroy(pq_session *s) {
    if (!s) return;
    size_t bytes = buffer_bytes(s);
    pq_pages_release(s->apart, s->memory.shown);
    pq_pages_release(s->gradients, bytes);
    pq_pages_release(s->m, bytes);
    pq_pages_release(s->v, bytes);
    pq_pages_release(s->activations, s->memory.activations);
    pq_pages_release(s->scratch, s->memory.scratch);
    free(s->tokens);
    free(s->targets);
    free(s->losses);
    free(s->divergences);
    free(s->places);
    free(s->ranges);
    free(s->spans);
    pq_graph_destroy(s->graph);
    pq_qat_destroy(s->qat);
    free(s);
}

const pq_model *pq_session_evaluated(const pq_session *s) {
    return s->qat->average ? s->qat->average : s->model;
}

pq_lent pq_session_lend(const pq_session *s) {
    return (pq_lent){.weights = s->gradients,
                     .activations = s->activations,
                     .scratch = s->scratch,
                     .activation_bytes = s->memory.activations,
                     .scratch_bytes = s->memory.scratch};
}

/* The mean over `targets` of what stands in `sums`. */
static double mean(const float *sums, size_t count, size_t targets) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) sum += sums[i];
    return sum / (double)(targets ? targets : 1);
}

/* The gradients of one iteration, its losses, and the number of targets. */
static void gradients(pq_session *s, int64_t iter, pq_iteration *result) {
    pq_teacher *teacher = s->options.teacher;
    size_t tokens = s->graph->tokens, all = tokens * s->options.accumulate, targets = 0;
    for (size_t i = 0; i < all; i++) targets += s->targets[i] >= 0;
    for (size_t micro = 0; micro < s->options.accumulate; micro++) {
        pq_batch batch = {.tokens = s->tokens + micro * tokens,
                          .targets = s->targets + micro * tokens,
                          .losses = s->losses + micro * tokens,
                          .loss_scale = targets ? 1.0f / (float)targets : 0.0f,
                          .training = true,
                          .first = micro == 0,
                          .seed = s->options.seed,
                          .iter = (uint64_t)iter,
                          .sequence = micro * s->options.batch,
                          .observe = true};
        if (teacher) {
            batch.teacher = pq_teacher_run(teacher, batch.tokens, s->divergences + micro * tokens);
            pq_profile_end(&s->profile, PQ_PHASE_TEACHER);
        }
        pq_graph_forward(s->graph, &batch);
        pq_graph_backward(s->graph, &batch);
        pq_profile_end(&s->profile, PQ_PHASE_GRAPH);
    }
    result->targets = targets;
    result->loss = result->objective = mean(s->losses, all, targets);
    if (!teacher) return;
    double weight = (double)teacher->targets.weight, T = (double)teacher->targets.temperature;
    result->divergence = mean(s->divergences, all, targets);
    result->objective = (1 - weight) * result->loss + weight * T * T * result->divergence;
}

static void copy_ranges(const pq_session *s, float (*from)[2], float (*to)[2]) {
    if (s->ranges) memcpy(to, from, pq_model_sites(s->model) * sizeof *to);
}

pq_iteration pq_session_iterate(pq_session *s, int64_t iter, double lr) {
    pq_iteration result = {0};
    pq_shown shown = {.type = type_of(s), .places = s->places};
    pq_qat_show(s->qat, iter, lr, &shown);
    copy_ranges(s, s->model->ranges, s->ranges);
    pq_profile_end(&s->profile, PQ_PHASE_QUANTIZE);
    gradients(s, iter, &result);
    pq_qat_gradient(s->qat, s->gradients);
    pq_profile_pause(&s->profile, PQ_PHASE_METHODS);
    result.norm = pq_gradient_norm(s->gradients, s->spans, s->span_count);
    pq_profile_end(&s->profile, PQ_PHASE_CLIP);
    if (!isfinite(result.objective) || !isfinite(result.norm)) {
        copy_ranges(s, s->ranges, s->model->ranges);
        return result;
    }
    double clip = s->options.grad_clip;
    pq_adamw_update(&s->adamw, s->model->weights, s->gradients, s->m, s->v, s->spans, s->span_count, lr,
                    clip > 0 && result.norm > clip ? clip / result.norm : 1.0);
    pq_profile_end(&s->profile, PQ_PHASE_ADAMW);
    pq_qat_updated(s->qat);
    pq_profile_end(&s->profile, PQ_PHASE_METHODS);
    result.updated = true;
    return result;
}
