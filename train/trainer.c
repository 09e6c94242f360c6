/* Owns the training loop: what happens at which iteration, and in which order things reach the disk.
 *
 * At iteration N (N updates done): evaluation if due, checkpoint if due, then the next update. So a
 * checkpoint of iteration N stands behind every line of metrics.jsonl up to N, and resuming from it writes
 * the same bytes. */
#include "potqat/trainer.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/threads.h"
#include "kernels/gemm.h"
#include "store/checkpoint.h"
#include "store/run.h"
#include "train/job.h"
#include "train/matrix_stats.h"
#include "train/metrics.h"
#include "train/progress.h"
#include "train/report/report.h"
#include "train/run_info.h"

typedef struct loop {
    pq_job *job;
    const pq_train_options *options;
    const char *dir;
    pq_metrics *metrics;
    pq_progress *progress;
    pq_run_info info;
    double start, last_save; /* seconds on the monotonic clock */
    double before;           /* seconds that the run had taken before it was resumed */
    double last_loss, last_se;
    int64_t saved_iter, evaluated_iter;
    bool out_of_patience;
} loop;

/* ---- saving ---- */

static pq_status save_model(loop *l, const char *path, bool with_state, pq_error *err) {
    pq_training_state state = {0};
    const pq_session *session = l->job->session;
    pq_model model = *pq_session_evaluated(session);
    model.iter = l->job->counters.iter;
    model.val_loss = l->job->model->val_loss;
    model.tokenizer = l->job->model->tokenizer;
    model.config = l->job->model->config;
    if (with_state) {
        state = (pq_training_state){.m = session->m,
                                    .v = session->v,
                                    .arrays = session->qat->arrays,
                                    .array_count = session->qat->array_count};
        PQ_TRY(pq_counters_write(l->job, &state.state, err));
    }
    pq_status status = pq_checkpoint_write(path, true, &model, with_state ? &state : NULL, err);
    free(state.state);
    return status;
}

static pq_profile *profile(const loop *l) {
    return &l->job->session->profile;
}

static pq_status save_checkpoint(loop *l, pq_error *err) {
    char *path = pq_run_checkpoint_path(l->dir, l->job->counters.iter);
    if (!path) return PQ_FAIL(err, PQ_ERR_MEMORY, "a file name could not be allocated");
    pq_progress_pause(l->progress);
    pq_profile_pause(profile(l), PQ_PHASE_REST);
    pq_status status = pq_metrics_sync(l->metrics, err);
    if (status == PQ_OK) status = save_model(l, path, true, err);
    if (status == PQ_OK) status = pq_run_prune(l->dir, (size_t)l->job->config->save.keep, err);
    pq_profile_end(profile(l), PQ_PHASE_SAVE);
    pq_progress_continue(l->progress);
    free(path);
    l->saved_iter = l->job->counters.iter;
    l->last_save = pq_seconds();
    return status;
}

static pq_status save_best(loop *l, pq_error *err) {
    char *path = pq_run_path(l->dir, "best.h5");
    if (!path) return PQ_FAIL(err, PQ_ERR_MEMORY, "a file name could not be allocated");
    pq_profile_pause(profile(l), PQ_PHASE_EVALUATE);
    pq_status status = save_model(l, path, false, err);
    pq_profile_end(profile(l), PQ_PHASE_SAVE);
    free(path);
    return status;
}

/* ---- evaluating ---- */

/* A line of each quantized matrix. */
static pq_status write_matrices(loop *l, pq_error *err) {
    const pq_session *session = l->job->session;
    const pq_model *model = pq_session_evaluated(session);
    float *hard = session->activations;
    pq_status status = PQ_OK;
    if (!l->job->config->log.matrices || !pq_job_quantized_parameters(l->job)) return PQ_OK;
    for (size_t i = 0; i < model->params.count && status == PQ_OK; i++) {
        if (!model->quant[i].quantized) continue;
        pq_model_effective(model, i, hard);
        status = pq_metrics_write(l->metrics, pq_matrix_line(session, i, l->job->counters.iter, hard), err);
    }
    pq_watch_restart(session->qat);
    return status;
}

static pq_status write_windows(loop *l, const pq_evaluation *e, const char *name, pq_error *err) {
    char *path = pq_run_path(l->dir, name);
    if (!path) return PQ_FAIL(err, PQ_ERR_MEMORY, "a file name could not be allocated");
    pq_status status = pq_evaluation_write_windows(e, &l->job->eval, path, true, err);
    free(path);
    return status;
}

static pq_status keep_if_best(loop *l, const pq_evaluation *e, pq_error *err) {
    pq_counters *c = &l->job->counters;
    const int64_t patience = l->job->config->train.patience;
    if (isfinite(e->loss) && e->loss < c->best_loss) {
        c->best_loss = e->loss;
        c->best_se = e->loss_se;
        c->best_iter = c->iter;
        c->evaluations_since_best = 0;
        PQ_TRY(save_best(l, err));
        return write_windows(l, e, "windows-best.csv", err);
    }
    c->evaluations_since_best++;
    l->out_of_patience = patience > 0 && c->evaluations_since_best >= patience;
    return PQ_OK;
}

static pq_status evaluate(loop *l, pq_error *err) {
    pq_evaluation e;
    pq_counters *c = &l->job->counters;
    pq_lent lent = pq_session_lend(l->job->session);
    pq_evaluation_options options = l->job->eval;
    options.lent = &lent;
    pq_progress_pause(l->progress);
    pq_profile_pause(profile(l), PQ_PHASE_REST);
    PQ_TRY(write_matrices(l, err)); /* of the gradients, too, which are lent */
    PQ_TRY(pq_evaluate(pq_session_evaluated(l->job->session), l->job->dataset, &options, &e, err));
    const char *split = pq_split_name(l->job->eval.split), *protocol = pq_protocol_name(&l->job->eval);
    l->last_loss = e.loss, l->last_se = e.loss_se, l->evaluated_iter = c->iter;
    l->job->model->val_loss = e.loss;
    pq_progress_note(l->progress, "iter %lld  %s loss %s  perplexity %.3f  (%s, %zu tokens, %.1f s)",
                     (long long)c->iter, split, pq_format_loss(e.loss, e.loss_se).text, exp(e.loss), protocol,
                     e.tokens, e.seconds);
    json_t *line =
        json_pack("{s:I, s:s, s:s, s:I, s:o, s:o, s:I}", "iter", (json_int_t)c->iter, "split", split,
                  "protocol", protocol, "context", (json_int_t)l->job->eval.context, "loss",
                  pq_json_real(e.loss), "loss_se", pq_json_real(e.loss_se), "tokens", (json_int_t)e.tokens);
    pq_status status = pq_metrics_write(l->metrics, line, err);
    if (status == PQ_OK) status = write_windows(l, &e, "windows-last.csv", err);
    if (status == PQ_OK) status = keep_if_best(l, &e, err);
    pq_evaluation_deinit(&e);
    pq_profile_end(profile(l), PQ_PHASE_EVALUATE);
    pq_progress_continue(l->progress);
    return status;
}

/* ---- iterating ---- */

static pq_status write_training_line(loop *l, double lr, double norm, pq_error *err) {
    pq_counters *c = &l->job->counters;
    json_t *kl = l->job->teacher ? pq_json_real(c->targets > 0 ? c->divergence_sum / c->targets : NAN) : NULL;
    json_t *line =
        json_pack("{s:I, s:s, s:o, s:o*, s:I, s:f, s:o}", "iter", (json_int_t)c->iter, "split", "train",
                  "loss", pq_json_real(c->targets > 0 ? c->loss_sum / c->targets : NAN), "kl", kl, "tokens",
                  (json_int_t)c->targets, "lr", lr, "grad_norm", pq_json_real(norm));
    json_t *timing =
        json_pack("{s:I, s:f, s:f}", "iter", (json_int_t)c->iter, "tokens_per_s",
                  pq_progress_rate(l->progress), "elapsed_s", l->before + pq_seconds() - l->start);
    c->loss_sum = c->divergence_sum = c->targets = 0;
    pq_status status = pq_metrics_write(l->metrics, line, err);
    if (status != PQ_OK) {
        json_decref(timing);
        return status;
    }
    return pq_metrics_write_timing(l->metrics, timing, err);
}

static pq_status note_bad_iteration(loop *l, const pq_iteration *done, pq_error *err) {
    pq_counters *c = &l->job->counters;
    const char *what = isfinite(done->objective) ? "the gradient's norm" : "the loss";
    double value = isfinite(done->objective) ? done->norm : done->objective;
    char reason[64];
    c->bad_iters++;
    snprintf(reason, sizeof reason, "%s is %s", what, isnan(value) ? "NaN" : "infinite");
    pq_progress_note(l->progress, "iter %lld skipped: %s", (long long)c->iter, reason);
    PQ_TRY(pq_metrics_write(
        l->metrics,
        json_pack("{s:I, s:s, s:s}", "iter", (json_int_t)c->iter, "event", "skipped", "reason", reason),
        err));
    if (c->bad_iters <= l->job->config->train.max_bad_iters) return PQ_OK;
    return PQ_FAIL(err, PQ_DIVERGED,
                   "training diverged at iteration %lld: %s, %lld iterations in a row (train.max_bad_iters "
                   "is %lld); the "
                   "last good weights are saved",
                   (long long)c->iter, reason, (long long)c->bad_iters,
                   (long long)l->job->config->train.max_bad_iters);
}

static int64_t next_multiple(int64_t iter, int64_t every, int64_t end) {
    int64_t next = every > 0 ? (iter / every + 1) * every : end;
    return next < end ? next : end;
}

static pq_status iterate(loop *l, pq_error *err) {
    pq_counters *c = &l->job->counters;
    const pq_config *config = l->job->config;
    double lr = pq_schedule_rate(&l->job->schedule, c->iter);
    if (pq_qat_levels_change(config, c->iter)) /* losses so far were those of an easier codebook */
        c->best_loss = INFINITY, c->best_se = NAN, c->best_iter = -1, c->evaluations_since_best = 0;
    pq_profile_pause(profile(l), PQ_PHASE_REST);
    pq_job_draw(l->job, c->iter);
    pq_profile_end(profile(l), PQ_PHASE_LOADER);
    pq_iteration done = pq_session_iterate(l->job->session, c->iter, lr);
    c->iter++;
    if (done.updated) {
        c->bad_iters = 0;
        c->loss_sum += done.loss * (double)done.targets;
        c->divergence_sum += done.divergence * (double)done.targets;
        c->targets += (double)done.targets;
    }
    size_t tokens = l->job->session->graph->tokens * l->job->session->options.accumulate;
    pq_progress_step(l->progress, c->iter, done.loss, (double)tokens, config->log.every,
                     next_multiple(c->iter, config->save.every, config->train.max_iters));
    if (!done.updated) PQ_TRY(note_bad_iteration(l, &done, err));
    return c->iter % config->log.every == 0 ? write_training_line(l, lr, done.norm, err) : PQ_OK;
}

/* ---- the loop ---- */

static bool stop_asked(const loop *l) {
    double minutes = l->job->config->run.max_minutes;
    if (l->options->cancelled && l->options->cancelled(l->options->user)) return true;
    return minutes > 0 && pq_seconds() - l->start > 60 * minutes;
}

static bool save_due(const loop *l) {
    const pq_config *c = l->job->config;
    int64_t iter = l->job->counters.iter;
    if (iter == l->saved_iter) return false;
    if (iter == c->train.max_iters || l->out_of_patience) return true;
    if (c->save.every > 0 && iter % c->save.every == 0) return true;
    return c->save.every_minutes > 0 && pq_seconds() - l->last_save > 60 * c->save.every_minutes;
}

static pq_status run_loop(loop *l, bool resumed, pq_error *err) {
    const pq_config *config = l->job->config;
    pq_counters *c = &l->job->counters;
    bool first = !resumed; /* a resumed run has evaluated its first iteration already */
    if (resumed) {
        l->saved_iter = l->evaluated_iter = c->iter;
        const int64_t patience = config->train.patience;
        l->out_of_patience = patience > 0 && c->evaluations_since_best >= patience;
    }
    for (;;) {
        bool last = c->iter >= config->train.max_iters;
        if (c->iter != l->evaluated_iter && (first || last || c->iter % config->eval.every == 0))
            PQ_TRY(evaluate(l, err));
        first = false;
        bool stop = !last && !l->out_of_patience && stop_asked(l);
        if (save_due(l) || (stop && c->iter != l->saved_iter)) PQ_TRY(save_checkpoint(l, err));
        if (last || l->out_of_patience) return PQ_OK;
        if (stop)
            return PQ_FAIL(
                err, PQ_STOPPED,
                "stopped at iteration %lld of %lld and saved; go on with: potqat train --resume %s",
                (long long)c->iter, (long long)config->train.max_iters, l->dir);
        pq_status status = iterate(l, err);
        if (status == PQ_DIVERGED && save_checkpoint(l, NULL) != PQ_OK)
            pq_log(PQ_LOG_WARNING, "the last good weights could not be saved");
        if (status != PQ_OK) return status;
    }
}

/* ---- files around the loop ---- */

static pq_status write_config(const loop *l, pq_error *err) {
    char *path = pq_run_path(l->dir, "config.yaml"), *text = pq_config_to_yaml(l->job->config, false);
    pq_status status = PQ_OK;
    if (!path || !text) status = PQ_FAIL(err, PQ_ERR_MEMORY, "no memory for config.yaml");
    if (status == PQ_OK) status = pq_file_put(path, true, text, strlen(text), err);
    free(path);
    free(text);
    return status;
}

static void write_report(const loop *l) {
    pq_error err;
    char *path = pq_run_path(l->dir, "report.html");
    if (path && pq_report_html(&l->dir, 1, path, true, &err) != PQ_OK)
        pq_log(PQ_LOG_WARNING, "the report could not be made: %s", err.message);
    else
        pq_progress_note(l->progress, "report: %s", path);
    free(path);
}

static void say_start(loop *l, bool resumed) {
    const pq_job *job = l->job;
    const pq_config *c = job->config;
    pq_progress_note(l->progress, "data: %s", pq_dataset_source(job->dataset));
    if (!isnan(pq_dataset_floor(job->dataset)))
        pq_progress_note(l->progress, "no model goes below %.4f nats a token on this corpus",
                         pq_dataset_floor(job->dataset));
    pq_progress_note(l->progress, "model: %zu parameters, %zu quantized (%s); memory %.0f MiB",
                     job->model->params.weights, pq_job_quantized_parameters(job), l->info.quant,
                     (double)job->session->memory.total / (1 << 20));
    pq_progress_note(l->progress, "machine: %s, %d threads, kernels %s, %s", l->info.cpu, pq_threads_get(),
                     pq_kernels_get()->name, pq_gemm_describe());
    pq_progress_note(l->progress, "%s at iteration %lld of %lld; saves every %lld iterations to %s",
                     resumed ? "resumed" : "starting", (long long)job->counters.iter,
                     (long long)c->train.max_iters, (long long)c->save.every, l->dir);
}

static void fill_result(const loop *l, pq_train_result *result) {
    const pq_counters *c = &l->job->counters;
    *result = (pq_train_result){.iter = c->iter,
                                .loss = l->last_loss,
                                .loss_se = l->last_se,
                                .best_iter = c->best_iter,
                                .best_loss = c->best_iter < 0 ? NAN : c->best_loss,
                                .best_loss_se = c->best_se,
                                .tokens_per_s = pq_progress_rate(l->progress)};
}

/* elapsed_s of the last line of timing.jsonl. */
static double seconds_before(const char *dir) {
    char *path = pq_run_path(dir, "timing.jsonl");
    json_t *lines = NULL;
    double seconds = 0;
    if (path && pq_metrics_read(path, &lines, NULL) == PQ_OK && json_array_size(lines))
        seconds = json_number_value(
            json_object_get(json_array_get(lines, json_array_size(lines) - 1), "elapsed_s"));
    json_decref(lines);
    free(path);
    return seconds;
}

static pq_status train_job(loop *l, bool resumed, pq_train_result *result, pq_error *err) {
    static const char *const endings[] = {
        [PQ_OK] = "done", [PQ_STOPPED] = "stopped", [PQ_DIVERGED] = "diverged"};
    pq_status status, closed;
    l->start = l->last_save = pq_seconds();
    l->last_loss = l->last_se = NAN;
    l->saved_iter = l->evaluated_iter = -1;
    pq_run_info_fill(&l->info, l->job, l->options->arguments, l->options->argument_count);
    PQ_TRY(write_config(l, err));
    PQ_TRY(pq_run_info_write(&l->info, l->job, l->dir, "running", l->last_loss, l->last_se, err));
    PQ_TRY(pq_metrics_open(l->dir, resumed ? l->job->counters.iter : -1, &l->metrics, err));
    if (resumed) l->before = seconds_before(l->dir);
    l->progress =
        pq_progress_create(l->job->counters.iter, l->job->config->train.max_iters, l->options->quiet);
    say_start(l, resumed);
    status = l->job->config->log.tensorboard ? pq_metrics_add_tensorboard(l->metrics, l->dir, err) : PQ_OK;
    pq_profile_start(profile(l));
    if (status == PQ_OK) status = run_loop(l, resumed, err);
    pq_profile_pause(profile(l), PQ_PHASE_REST);
    closed = pq_metrics_close(l->metrics, status == PQ_OK ? err : NULL);
    if (status == PQ_OK) status = closed;
    const bool ended = status == PQ_OK || status == PQ_STOPPED || status == PQ_DIVERGED;
    if (ended) {
        pq_error second;
        if (pq_run_info_write(&l->info, l->job, l->dir, endings[status], l->last_loss, l->last_se, &second) !=
            PQ_OK)
            pq_log(PQ_LOG_WARNING, "%s", second.message);
        if (result) fill_result(l, result);
        write_report(l);
    }
    pq_progress_destroy(l->progress);
    if (ended && l->options->profile) pq_profile_print(l->job->session, l->options->profile);
    return status;
}

/* The newest checkpoint of a run; heap. */
static pq_status newest_checkpoint(const char *dir, char **path, pq_error *err) {
    int64_t *iters;
    size_t count;
    PQ_TRY(pq_run_checkpoints(dir, &iters, &count, err));
    *path = count ? pq_run_checkpoint_path(dir, iters[count - 1]) : NULL;
    free(iters);
    if (!count)
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "%s has no checkpoint to resume from (its first save had not come yet)", dir);
    return *path ? PQ_OK : PQ_FAIL(err, PQ_ERR_MEMORY, "a file name could not be allocated");
}

static pq_status train_in_folder(pq_config *config, const pq_train_options *options, pq_train_result *result,
                                 pq_error *err) {
    loop l = {.options = options, .dir = config->run.dir};
    char *checkpoint = NULL;
    int lock = -1;
    pq_status status = PQ_OK;
    if (options->resume) {
        PQ_TRY_TO(status, done, pq_run_check(l.dir, err));
        PQ_TRY_TO(status, done, pq_run_lock(l.dir, &lock, err));
        PQ_TRY_TO(status, done, newest_checkpoint(l.dir, &checkpoint, err));
        PQ_TRY_TO(status, done, pq_job_prepare(config, checkpoint, true, &l.job, err));
        if (l.job->counters.iter > config->train.max_iters) {
            status =
                PQ_FAIL(err, PQ_ERR_USAGE, "train.max_iters: the run stands at iteration %lld, beyond %lld",
                        (long long)l.job->counters.iter, (long long)config->train.max_iters);
            goto done;
        }
        if (l.job->counters.iter == config->train.max_iters) {
            pq_log(PQ_LOG_INFO, "%s has its %lld iterations already; train.max_iters=N asks for more", l.dir,
                   (long long)config->train.max_iters);
            l.last_loss = l.last_se = NAN;
            if (result) fill_result(&l, result);
            goto done;
        }
    } else {
        /* The folder is made last: a config that cannot run leaves nothing behind. */
        PQ_TRY_TO(status, done, pq_job_prepare(config, NULL, true, &l.job, err));
        PQ_TRY_TO(status, done, pq_run_create(l.dir, options->overwrite, err));
        PQ_TRY_TO(status, done, pq_run_lock(l.dir, &lock, err));
    }
    status = train_job(&l, options->resume, result, err);
done:
    if (lock >= 0) close(lock);
    pq_job_destroy(l.job);
    free(checkpoint);
    return status;
}

pq_status pq_train(pq_config *config, const pq_train_options *options, pq_train_result *result,
                   pq_error *err) {
    if (!config->run.dir)
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "run.dir: a folder for the run is needed, for example run.dir=runs/first");
    if (config->run.threads > 0) pq_threads_set((int)config->run.threads);
    pq_gemm_threads host_threads = pq_gemm_threads_take();
    pq_status status = pq_gemm_check(err);
    if (status == PQ_OK) status = train_in_folder(config, options, result, err);
    pq_gemm_threads_restore(host_threads);
    return status;
}
