/* Owns how a config becomes a model and a session: parent, tokenizer, shape, quantizers, schedule. */
#include "train/job.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "store/model_read.h"
#include "train/metrics.h"
#include "train/ptq/ptq.h"

/* ---- the parent ---- */

static pq_status load_parent(const char *spec, bool with_moments, pq_model **model, pq_training_state *state,
                             pq_error *err) {
    pq_status status = pq_model_read(spec, model, with_moments ? state : NULL, err);
    if (status != PQ_OK) return pq_prefix(err, status, "init.from");
    if (with_moments && !state->m)
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "init.optimizer: %s holds no AdamW moments to keep (RUN@last does, best.h5 does not)",
                       spec);
    return PQ_OK;
}

static pq_status open_data(const pq_config *config, const pq_model *parent, pq_dataset **out, pq_error *err) {
    pq_tokenizer *tokenizer = NULL;
    pq_data_options options = {.path = config->data.path,
                               .field = config->data.field,
                               .tokenizer = config->data.tokenizer,
                               .by_document = strcmp(config->data.split_by, "document") == 0};
    for (size_t i = 0; i < 3; i++) options.split[i] = config->data.split.items[i];
    if (parent && parent->tokenizer)
        PQ_TRY(pq_tokenizer_from_json(parent->tokenizer, strlen(parent->tokenizer), &tokenizer, err));
    options.parent = tokenizer;
    pq_status status = pq_dataset_open(&options, out, err);
    pq_tokenizer_destroy(tokenizer);
    return status;
}

/* ---- the shape ---- */

/* Each key of model.*: taken from the parent where null, else it must agree (a smaller context crops). */
static pq_status agree(int64_t *key, int64_t parent, const char *name, bool may_shrink, pq_error *err) {
    if (*key == PQ_UNSET) *key = parent;
    if (*key == parent || (may_shrink && *key < parent)) return PQ_OK;
    return PQ_FAIL(err, PQ_ERR_USAGE, "model.%s: the parent (init.from) has %lld, the config says %lld", name,
                   (long long)parent, (long long)*key);
}

static pq_status resolve_shape(pq_config *config, const pq_model *parent, size_t vocab, pq_gpt2_shape *shape,
                               pq_error *err) {
    if (parent) {
        const pq_gpt2_shape *p = &parent->params.shape;
        const char *gelu = p->gelu_tanh ? "tanh" : "erf";
        PQ_TRY(agree(&config->model.layers, p->layers, "layers", false, err));
        PQ_TRY(agree(&config->model.heads, p->heads, "heads", false, err));
        PQ_TRY(agree(&config->model.width, p->width, "width", false, err));
        PQ_TRY(agree(&config->model.context, p->context, "context", true, err));
        PQ_TRY(agree(&config->model.bias, p->bias, "bias", false, err));
        if (!config->model.gelu) config->model.gelu = gelu;
        if (strcmp(config->model.gelu, gelu) != 0)
            return PQ_FAIL(err, PQ_ERR_USAGE, "model.gelu: the parent (init.from) has %s, the config says %s",
                           gelu, config->model.gelu);
        if ((size_t)p->vocab != vocab)
            return PQ_FAIL(err, PQ_ERR_USAGE,
                           "the parent (init.from) has %lld tokens, the data's tokenizer %zu",
                           (long long)p->vocab, vocab);
    }
    *shape = (pq_gpt2_shape){.layers = config->model.layers,
                             .heads = config->model.heads,
                             .width = config->model.width,
                             .context = config->model.context,
                             .vocab = (int64_t)vocab,
                             .bias = config->model.bias == 1,
                             .gelu_tanh = strcmp(config->model.gelu, "tanh") == 0};
    if (config->train.context == PQ_UNSET) config->train.context = config->model.context;
    if (config->train.context > config->model.context)
        return PQ_FAIL(err, PQ_ERR_USAGE, "train.context: %lld tokens are more than model.context, %lld",
                       (long long)config->train.context, (long long)config->model.context);
    return PQ_OK;
}

/* Values laid out for `from` put in their places of `to`; rows of wpe beyond a smaller context are left out.
 */
static void copy_values(const pq_params *from, const float *values, const pq_params *to, float *out) {
    for (size_t i = 0; i < to->count; i++)
        memcpy(out + to->list[i].offset, values + from->list[i].offset, to->list[i].count * sizeof *out);
}

/* ---- the model ---- */

static pq_status make_model(pq_job *job, const pq_model *parent, pq_error *err) {
    pq_config *config = job->config;
    pq_gpt2_shape shape;
    PQ_TRY(
        resolve_shape(config, parent, pq_tokenizer_vocab(pq_dataset_tokenizer(job->dataset)), &shape, err));
    PQ_TRY(pq_model_create(&shape, &job->model, err));
    if (parent)
        copy_values(&parent->params, parent->weights, &job->model->params, job->model->weights);
    else
        pq_gpt2_initialise(job->model, (uint64_t)config->train.seed);
    PQ_TRY(pq_ptq_rtn(config, parent, job->model, err));
    if (parent && strcmp(config->init.iter, "keep") == 0) job->counters.iter = parent->iter;
    job->parent_loss = parent ? parent->val_loss : NAN;
    return PQ_OK;
}

static pq_status open_teacher(pq_job *job, pq_error *err) {
    const pq_config *c = job->config;
    const pq_tokenizer *tokenizer = pq_dataset_tokenizer(job->dataset);
    pq_model *model;
    if (!c->distill.from) return PQ_OK;
    pq_status status = pq_model_read(c->distill.from, &model, NULL, err);
    if (status != PQ_OK) return pq_prefix(err, status, "distill.from");
    status = pq_teacher_create(model, c, pq_tokenizer_vocab(tokenizer), tokenizer, (size_t)c->train.batch,
                               (size_t)c->train.context, &job->teacher, err);
    pq_model_destroy(model);
    return status;
}

/* `iter`: the iteration whose codebooks the model is to have: the first one, or the last one of a run that
 * goes on. */
static pq_status make_session(pq_job *job, int64_t iter, bool allocate, pq_error *err) {
    const pq_config *c = job->config;
    pq_session_options options = {.batch = (size_t)c->train.batch,
                                  .accumulate = (size_t)c->train.accumulate,
                                  .context = (size_t)c->train.context,
                                  .dropout = c->train.dropout,
                                  .recompute = c->train.recompute,
                                  .bf16 = strcmp(c->train.precision, "bf16") == 0,
                                  .grad_clip = c->train.grad_clip,
                                  .seed = (uint64_t)c->train.seed,
                                  .config = c,
                                  .iter = iter};
    pq_adamw adamw = {.beta1 = c->train.beta1,
                      .beta2 = c->train.beta2,
                      .epsilon = c->train.adam_eps,
                      .weight_decay = c->train.weight_decay};
    PQ_TRY(pq_ptq_scale_options(c, &options.scale, err));
    job->schedule = (pq_schedule){.cosine = strcmp(c->train.schedule, "cosine") == 0,
                                  .lr = c->train.lr,
                                  .min_lr = c->train.min_lr,
                                  .warmup_iters = c->train.warmup_iters,
                                  .decay_iters = c->train.decay_iters == PQ_UNSET ? c->train.max_iters
                                                                                  : c->train.decay_iters};
    job->order = strcmp(c->data.order, "epoch") == 0 ? PQ_ORDER_EPOCH : PQ_ORDER_RANDOM;
    PQ_TRY(pq_dataset_check(job->dataset, PQ_TRAIN, (size_t)c->train.context, err));
    PQ_TRY(pq_evaluation_options_make(c, (size_t)c->train.context, &job->eval, err));
    PQ_TRY(pq_dataset_check(job->dataset, job->eval.split, job->eval.context, err));
    PQ_TRY(pq_evaluation_plan(job->model, job->dataset, &job->eval, &options.least, err));
    PQ_TRY(open_teacher(job, err));
    options.teacher = job->teacher;
    return pq_session_create(job->model, &options, &adamw, allocate, &job->session, err);
}

static pq_status replace_text(char **slot, char *text, pq_error *err) {
    if (!text) return PQ_FAIL(err, PQ_ERR_MEMORY, "no memory for the config's or tokenizer's text");
    free(*slot);
    *slot = text;
    return PQ_OK;
}

/* A new run. */
static pq_status start(pq_job *job, bool allocate, pq_error *err) {
    pq_config *c = job->config;
    pq_model *parent = NULL;
    pq_training_state state = {0};
    pq_status status = PQ_OK;
    bool keep = c->init.from && strcmp(c->init.optimizer, "keep") == 0;
    if (c->init.from) {
        PQ_TRY_TO(status, done, pq_copy_text(c->init.from, &job->parent, err));
        PQ_TRY_TO(status, done, load_parent(c->init.from, keep, &parent, &state, err));
    }
    PQ_TRY_TO(status, done, open_data(c, parent, &job->dataset, err));
    PQ_TRY_TO(status, done, make_model(job, parent, err));
    PQ_TRY_TO(status, done, make_session(job, job->counters.iter, allocate, err));
    if (job->counters.iter >= c->train.max_iters) {
        status = PQ_FAIL(err, PQ_ERR_USAGE,
                         "train.max_iters: %lld iterations, but the parent's %lld are kept (init.iter: keep)",
                         (long long)c->train.max_iters, (long long)job->counters.iter);
        goto done;
    }
    if (keep && allocate) {
        copy_values(&parent->params, state.m, &job->model->params, job->session->m);
        copy_values(&parent->params, state.v, &job->model->params, job->session->v);
        pq_counters kept = job->counters;
        if (state.state) PQ_TRY_TO(status, done, pq_counters_read(state.state, job, err)); /* AdamW's step */
        job->counters = kept;
    }
done:
    pq_training_state_deinit(&state);
    pq_model_destroy(parent);
    return status;
}

/* A run that goes on. */
static pq_status continue_from(pq_job *job, const char *checkpoint, bool allocate, pq_error *err) {
    pq_training_state state = {0};
    pq_gpt2_shape shape;
    pq_status status = pq_checkpoint_read(checkpoint, &job->model, &state, err);
    if (status != PQ_OK) return status;
    if (!state.m || !state.state) {
        status = PQ_FAIL(err, PQ_ERR_FORMAT, "%s holds no training state to resume from", checkpoint);
        goto done;
    }
    PQ_TRY_TO(status, done, open_data(job->config, job->model, &job->dataset, err));
    PQ_TRY_TO(status, done,
              resolve_shape(job->config, job->model, pq_tokenizer_vocab(pq_dataset_tokenizer(job->dataset)),
                            &shape, err));
    PQ_TRY_TO(status, done, make_session(job, job->model->iter - 1, allocate, err));
    PQ_TRY_TO(status, done, pq_counters_read(state.state, job, err));
    PQ_TRY_TO(status, done, pq_qat_restore(job->session->qat, &state, err));
    PQ_TRY_TO(status, done, pq_copy_text(job->config->init.from, &job->parent, err)); /* for run.json alone */
    if (allocate) {
        memcpy(job->session->m, state.m, job->model->params.elements * sizeof(float));
        memcpy(job->session->v, state.v, job->model->params.elements * sizeof(float));
    }
done:
    pq_training_state_deinit(&state);
    return status;
}

pq_status pq_job_prepare(pq_config *config, const char *checkpoint, bool allocate, pq_job **out,
                         pq_error *err) {
    pq_job *job;
    *out = NULL;
    PQ_TRY(pq_precision_check(config, err));
    PQ_TRY(pq_calloc(1, sizeof *job, "job", &job, err));
    job->config = config;
    job->parent_loss = NAN;
    job->counters = (pq_counters){.best_iter = -1, .best_loss = INFINITY, .best_se = NAN};
    pq_status status = checkpoint ? continue_from(job, checkpoint, allocate, err) : start(job, allocate, err);
    if (status == PQ_OK)
        status = replace_text(&job->model->tokenizer,
                              pq_tokenizer_to_json(pq_dataset_tokenizer(job->dataset)), err);
    if (status == PQ_OK) status = replace_text(&job->model->config, pq_config_to_yaml(config, true), err);
    if (status != PQ_OK)
        pq_job_destroy(job);
    else
        *out = job;
    return status;
}

void pq_job_destroy(pq_job *job) {
    if (!job) return;
    pq_session_destroy(job->session);
    pq_teacher_destroy(job->teacher);
    pq_model_destroy(job->model);
    pq_dataset_close(job->dataset);
    free(job->parent);
    free(job);
}

/* ---- counters ---- */

pq_status pq_counters_write(const pq_job *job, char **text, pq_error *err) {
    const pq_counters *c = &job->counters;
    char hash[24];
    snprintf(hash, sizeof hash, "%016" PRIx64, pq_dataset_hash(job->dataset));
    json_t *object = json_pack("{s:I, s:I, s:I, s:o, s:o, s:I, s:I, s:f, s:f, s:s}", "iter",
                               (json_int_t)c->iter, "adam_step", (json_int_t)job->session->adamw.step,
                               "best_iter", (json_int_t)c->best_iter, "best_loss", pq_json_real(c->best_loss),
                               "best_loss_se", pq_json_real(c->best_se), "evaluations_since_best",
                               (json_int_t)c->evaluations_since_best, "bad_iters", (json_int_t)c->bad_iters,
                               "loss_sum", c->loss_sum, "targets", c->targets, "data_hash", hash);
    if (job->teacher) {
        snprintf(hash, sizeof hash, "%016" PRIx64, job->teacher->hash);
        json_object_set_new(object, "teacher_hash", json_string(hash));
        json_object_set_new(object, "divergence_sum", json_real(c->divergence_sum));
    }
    *text = object ? json_dumps(object, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(object);
    return *text ? PQ_OK : PQ_FAIL(err, PQ_ERR_MEMORY, "no memory for the training state");
}

/* `hash`: of the teacher of the run so far, NULL where there was none. */
static pq_status check_teacher(const pq_job *job, const char *hash, pq_error *err) {
    char now[24] = "";
    if (job->teacher) snprintf(now, sizeof now, "%016" PRIx64, job->teacher->hash);
    if (strcmp(now, hash ? hash : "") == 0) return PQ_OK;
    if (!hash)
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "distill.from: the run was trained without a teacher, now %s is one",
                       job->config->distill.from);
    if (!job->teacher)
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "distill.from: the run was trained with a teacher (hash %s), now it is null", hash);
    return PQ_FAIL(
        err, PQ_ERR_USAGE,
        "distill.from: the run was trained with another teacher (hash %s) than %s is now (hash %s)", hash,
        job->config->distill.from, now);
}

pq_status pq_counters_read(const char *text, pq_job *job, pq_error *err) {
    pq_counters c = {0};
    json_error_t reason;
    json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, &reason), *loss = NULL, *se = NULL;
    json_int_t iter, step, best, since, bad;
    const char *hash, *teacher = NULL;
    char expected[24];
    int failed = json_unpack_ex(
        object, &reason, 0, "{s:I, s:I, s:I, s:o, s:o, s:I, s:I, s:F, s:F, s:s, s?s, s?F}", "iter", &iter,
        "adam_step", &step, "best_iter", &best, "best_loss", &loss, "best_loss_se", &se,
        "evaluations_since_best", &since, "bad_iters", &bad, "loss_sum", &c.loss_sum, "targets", &c.targets,
        "data_hash", &hash, "teacher_hash", &teacher, "divergence_sum", &c.divergence_sum);
    pq_status status = PQ_OK;
    snprintf(expected, sizeof expected, "%016" PRIx64, pq_dataset_hash(job->dataset));
    if (!object || failed)
        status = PQ_FAIL(err, PQ_ERR_FORMAT, "the checkpoint's training state is not as expected: %s",
                         reason.text);
    else if (strcmp(hash, expected) != 0 && !job->parent)
        status = PQ_FAIL(err, PQ_ERR_USAGE,
                         "data.path: the run was trained on other tokens (hash %s) than %s gives (hash %s)",
                         hash, pq_dataset_source(job->dataset), expected);
    if (status == PQ_OK && !job->parent) status = check_teacher(job, teacher, err);
    if (status == PQ_OK) {
        c.iter = iter, c.best_iter = best, c.evaluations_since_best = since, c.bad_iters = bad;
        c.best_loss = json_is_number(loss) ? json_number_value(loss) : INFINITY;
        c.best_se = json_is_number(se) ? json_number_value(se) : NAN;
        job->counters = c;
        job->session->adamw.step = step;
    }
    json_decref(object);
    return status;
}

/* ---- small answers ---- */

size_t pq_job_quantized_parameters(const pq_job *job) {
    size_t count = 0;
    for (size_t i = 0; i < job->model->params.count; i++)
        if (job->model->quant[i].quantized) count += job->model->params.list[i].count;
    return count;
}

void pq_job_describe_quant(const pq_job *job, char *text, size_t bytes) {
    const pq_config *c = job->config;
    int levels = 0;
    for (size_t i = 0; i < job->model->params.count; i++)
        if (job->model->quant[i].quantized) levels = job->model->quant[i].codebook.levels;
    if (!levels)
        snprintf(text, bytes, "none");
    else
        snprintf(text, bytes, "%s, %d levels, %s, %s%s%s", c->quant.quantizer, levels, c->quant.granularity,
                 c->quant.scale, job->model->activations ? ", activations " : "",
                 job->model->activations ? c->quant.activations : "");
}

void pq_job_draw(pq_job *job, int64_t iter) {
    pq_session *s = job->session;
    size_t T = s->options.context, sequences = s->options.batch * s->options.accumulate;
    bool last_only = strcmp(job->config->train.loss, "last-token") == 0;
    uint16_t next[1];
    for (size_t i = 0; i < sequences; i++) {
        size_t start = pq_dataset_window(job->dataset, job->order, (uint64_t)job->config->train.seed,
                                         (uint64_t)iter, sequences, i, T);
        uint16_t *tokens = s->tokens + i * T;
        pq_dataset_read(job->dataset, PQ_TRAIN, start, T, tokens);
        pq_dataset_read(job->dataset, PQ_TRAIN, start + T, 1, next);
        for (size_t t = 0; t < T; t++)
            s->targets[i * T + t] =
                last_only && t + 1 < T ? -1 : (int32_t)(t + 1 < T ? tokens[t + 1] : next[0]);
    }
    for (size_t i = 0; i < sequences;
         i++) /* what the next iteration reads comes from the disk during this one */
        pq_dataset_prefetch(job->dataset, PQ_TRAIN,
                            pq_dataset_window(job->dataset, job->order, (uint64_t)job->config->train.seed,
                                              (uint64_t)iter + 1, sequences, i, T),
                            T + 1);
}
