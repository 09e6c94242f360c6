/* Owns the training of a sweep's runs: which one is next, its process, and what became of it. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "store/run.h"
#include "train/sweep/sweep.h"

#define ASK_SECONDS   0.02 /* between looks at the processes */
#define RETRY_SECONDS 1.0  /* between looks at a folder that another process trains in */
#define WRITE_SECONDS 30.0 /* between results while runs go on */

const char *pq_sweep_state_name(pq_sweep_state state) {
    static const char *const names[] = {"pending", "running", "done",     "diverged",
                                        "stopped", "failed",  "no-parent"};
    return names[state];
}

/* ---- what stands in the folder ---- */

static pq_status no_memory(pq_error *err) {
    return PQ_FAIL(err, PQ_ERR_MEMORY, "a file name could not be allocated");
}

/* DIR/NAME.yaml, DIR/NAME.log: heap. */
static char *beside(const pq_sweep_run *run, const char *ending) {
    char *path = malloc(strlen(run->dir) + strlen(ending) + 1);
    return path ? strcat(strcpy(path, run->dir), ending) : NULL;
}

static pq_status newest(const pq_sweep_run *run, int64_t *iter, pq_error *err) {
    int64_t *iters;
    size_t count;
    PQ_TRY(pq_run_checkpoints(run->dir, &iters, &count, err));
    *iter = count ? iters[count - 1] : -1;
    free(iters);
    return PQ_OK;
}

/* A run killed between its last checkpoint and its last words is done as well. */
static pq_status read_state(pq_sweep_run *run, pq_error *err) {
    int64_t iter;
    char *path = pq_run_path(run->dir, "run.json");
    if (!path) return no_memory(err);
    json_t *info = json_load_file(path, 0, NULL);
    const char *word = json_string_value(json_object_get(info, "status"));
    run->state = word && strcmp(word, "done") == 0       ? PQ_SWEEP_DONE
                 : word && strcmp(word, "diverged") == 0 ? PQ_SWEEP_DIVERGED
                                                         : PQ_SWEEP_PENDING;
    json_decref(info);
    free(path);
    if (run->state != PQ_SWEEP_PENDING) return PQ_OK;
    PQ_TRY(newest(run, &iter, err));
    if (iter >= run->config->train.max_iters) run->state = PQ_SWEEP_DONE;
    return PQ_OK;
}

static pq_status inspect_run(const pq_sweep *sweep, pq_sweep_run *run, pq_error *err) {
    pq_config *config = NULL;
    char *path = pq_run_path(run->dir, "config.yaml");
    pq_status status = PQ_OK;
    if (!path) return no_memory(err);
    run->state = PQ_SWEEP_PENDING;
    if (pq_file_exists(path)) {
        status = pq_config_load(path, NULL, 0, &config, err);
        if (status == PQ_OK && pq_config_check_same(config, run->config, err) != PQ_OK)
            status =
                pq_prefix(err, PQ_ERR_USAGE,
                          "%.200s: %.200s stands there with another config (change it back, name another "
                          "dir, or remove the folder)",
                          sweep->path, run->dir);
        if (status == PQ_OK) status = read_state(run, err);
    }
    pq_config_destroy(config);
    free(path);
    return status;
}

pq_status pq_sweep_inspect(pq_sweep *sweep, pq_error *err) {
    for (size_t i = 0; i < sweep->count; i++) PQ_TRY(inspect_run(sweep, &sweep->runs[i], err));
    return PQ_OK;
}

/* ---- processes ---- */

typedef struct crew {
    pq_sweep *sweep;
    const pq_sweep_options *options;
    bool *wanted; /* [sweep->count] */
    size_t running;
    double start, written;   /* seconds */
    double work, work_ahead; /* iterations times tokens: finished since the start, and not yet finished */
    bool stopping;
} crew;

static double work_of(const pq_sweep_run *run) {
    const pq_config *c = run->config;
    return (double)c->train.max_iters * (double)(c->train.batch * c->train.accumulate);
}

static bool final(const pq_sweep_run *run) {
    return run->state == PQ_SWEEP_DONE || run->state == PQ_SWEEP_DIVERGED;
}

static pq_status write_config(const pq_sweep_run *run, const char *path, pq_error *err) {
    char *text = pq_config_to_yaml(run->config, false);
    if (!text) return no_memory(err);
    pq_status status = pq_file_put(path, true, text, strlen(text), err);
    free(text);
    return status;
}

/* In the child. Its own process group keeps a terminal's Ctrl-C from it: the first signal, which asks to
 * save, is to come from us alone. Should we be killed, it is told to stop. */
static void become(const char *program, char *const *arguments, int log, pid_t us) {
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != us) _exit(1);
    int nothing = open("/dev/null", O_RDONLY);
    if (nothing < 0 || dup2(nothing, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0) _exit(1);
    execv(program, arguments);
    _exit(127);
}

static pq_status spawn(crew *c, pq_sweep_run *run, bool resume, const char *config, const char *log_path,
                       pq_error *err) {
    char threads[24];
    const char *words[8] = {c->options->program, "train"};
    size_t count = 2;
    words[count++] = resume ? "--resume" : config;
    words[count++] = resume ? run->dir : "--overwrite"; /* of a run that has not saved yet */
    if (run->config->run.threads == 0) {
        long share = c->options->threads / (long)c->options->jobs;
        snprintf(threads, sizeof threads, "%ld", share > 0 ? share : 1);
        words[count++] = "--threads";
        words[count++] = threads;
    }
    int log = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (log < 0) return PQ_FAIL(err, PQ_ERR_IO, "%s could not be opened: %s", log_path, strerror(errno));
    pid_t us = getpid();
    run->pid = fork();
    if (run->pid == 0) become(c->options->program, (char *const *)words, log, us);
    int reason = errno;
    close(log);
    if (run->pid < 0)
        return PQ_FAIL(err, PQ_ERR_IO, "a process for %s could not be started: %s", run->name,
                       strerror(reason));
    run->state = PQ_SWEEP_RUNNING;
    c->running++;
    pq_log(PQ_LOG_INFO, "%s: %s", run->name, resume ? "resumed" : "started");
    return PQ_OK;
}

/* Whether some other process trains in the run's folder. */
static bool busy(const pq_sweep_run *run) {
    int lock;
    if (!pq_folder_exists(run->dir)) return false;
    pq_status status = pq_run_lock(run->dir, &lock, NULL);
    if (status == PQ_OK) close(lock);
    return status == PQ_ERR_USAGE;
}

static void wait_for_other(pq_sweep_run *run) {
    if (!run->announced) pq_log(PQ_LOG_INFO, "%s: another process trains it; waiting", run->name);
    run->announced = true;
    run->state = PQ_SWEEP_PENDING;
    run->retry = pq_seconds() + RETRY_SECONDS;
}

static void count_finished(crew *c, const pq_sweep_run *run) {
    c->work += work_of(run);
    c->work_ahead -= work_of(run);
}

/* Start a run, resumed where it has a checkpoint; another process may have finished it meanwhile. */
static pq_status start_run(crew *c, pq_sweep_run *run, pq_error *err) {
    int64_t iter = -1;
    if (busy(run)) {
        wait_for_other(run);
        return PQ_OK;
    }
    PQ_TRY(inspect_run(c->sweep, run, err));
    if (final(run)) {
        c->work_ahead -= work_of(run);
        pq_log(PQ_LOG_INFO, "%s: %s, by another process", run->name, pq_sweep_state_name(run->state));
        return PQ_OK;
    }
    if (pq_folder_exists(run->dir)) PQ_TRY(newest(run, &iter, err));
    char *config = beside(run, ".yaml"), *log = beside(run, ".log");
    pq_status status = config && log ? PQ_OK : no_memory(err);
    if (status == PQ_OK && iter < 0) status = write_config(run, config, err);
    if (status == PQ_OK) status = spawn(c, run, iter >= 0, config, log, err);
    free(config);
    free(log);
    return status;
}

/* ---- what became of them ---- */

/* "; 3 of 12 runs finished, 2 running, about 0:12:30 to go" */
static void say_progress(const crew *c, const pq_sweep_run *run, const char *what) {
    char left[64] = "";
    size_t finished = 0, wanted = 0;
    for (size_t i = 0; i < c->sweep->count; i++) {
        wanted += c->wanted[i];
        finished += c->wanted[i] && final(&c->sweep->runs[i]);
    }
    if (c->work > 0 && c->work_ahead > 0 && !c->stopping) {
        long long s = (long long)((pq_seconds() - c->start) * c->work_ahead / c->work + 0.5);
        snprintf(left, sizeof left, ", about %lld:%02lld:%02lld to go", s / 3600, s / 60 % 60, s % 60);
    }
    pq_log(PQ_LOG_INFO, "%s: %s; %zu of %zu runs finished, %zu running%s", run->name, what, finished, wanted,
           c->running, left);
}

static void note_end(crew *c, pq_sweep_run *run, int code) {
    char what[80];
    run->pid = 0;
    c->running--;
    snprintf(what, sizeof what, "%s", "done");
    if (WIFEXITED(code) && WEXITSTATUS(code) == 0) {
        run->state = PQ_SWEEP_DONE;
    } else if (WIFEXITED(code) && WEXITSTATUS(code) == 4) {
        run->state = PQ_SWEEP_DIVERGED;
        snprintf(what, sizeof what, "diverged");
    } else if ((WIFEXITED(code) && WEXITSTATUS(code) == 3) || c->stopping) {
        run->state = PQ_SWEEP_STOPPED;
        snprintf(what, sizeof what, "stopped");
    } else if (WIFEXITED(code) && busy(run)) {
        wait_for_other(run);
        return;
    } else {
        run->state = PQ_SWEEP_FAILED;
        snprintf(what, sizeof what, WIFEXITED(code) ? "failed (exit status %d)" : "killed (signal %d)",
                 WIFEXITED(code) ? WEXITSTATUS(code) : WTERMSIG(code));
        pq_log(PQ_LOG_WARNING, "%s: %s; its last words are in %s.log", run->name, what, run->dir);
    }
    if (final(run)) count_finished(c, run);
    say_progress(c, run, what);
}

static pq_status reap(crew *c, pq_error *err) {
    for (size_t i = 0; i < c->sweep->count; i++) {
        pq_sweep_run *run = &c->sweep->runs[i];
        int code;
        if (run->state != PQ_SWEEP_RUNNING) continue;
        pid_t got = waitpid(run->pid, &code, WNOHANG);
        if (got == 0 || (got < 0 && errno == EINTR)) continue;
        if (got < 0)
            return PQ_FAIL(err, PQ_ERR_IO, "the process of %s is lost: %s", run->name, strerror(errno));
        note_end(c, run, code);
    }
    return PQ_OK;
}

static void stop_all(crew *c) {
    c->stopping = true;
    for (size_t i = 0; i < c->sweep->count; i++)
        if (c->sweep->runs[i].state == PQ_SWEEP_RUNNING) kill(c->sweep->runs[i].pid, SIGTERM);
    if (c->running) pq_log(PQ_LOG_INFO, "stopping: %zu runs save what they have", c->running);
}

/* ---- the loop ---- */

/* Whether the run can start now; one whose parent came to nothing never will. */
static bool ready(const crew *c, pq_sweep_run *run) {
    if (run->state != PQ_SWEEP_PENDING) return false;
    if (run->parent != PQ_SWEEP_NONE) {
        pq_sweep_state parent = c->sweep->runs[run->parent].state;
        if (parent == PQ_SWEEP_DIVERGED || parent == PQ_SWEEP_FAILED) run->state = PQ_SWEEP_NO_PARENT;
        if (parent != PQ_SWEEP_DONE) return false;
    }
    return run->retry <= pq_seconds();
}

static bool anything_left(const crew *c) {
    for (size_t i = 0; i < c->sweep->count; i++) {
        const pq_sweep_run *run = &c->sweep->runs[i];
        if (run->state == PQ_SWEEP_RUNNING) return true;
        if (!c->wanted[i] || c->stopping || run->state != PQ_SWEEP_PENDING) continue;
        if (run->parent == PQ_SWEEP_NONE) return true;
        if (c->sweep->runs[run->parent].state != PQ_SWEEP_STOPPED) return true;
    }
    return false;
}

static pq_status oversee(crew *c, pq_error *err) {
    const struct timespec pause = {.tv_nsec = (long)(ASK_SECONDS * 1e9)};
    while (anything_left(c)) {
        if (!c->stopping && c->options->cancelled && c->options->cancelled(c->options->user)) stop_all(c);
        for (size_t i = 0; i < c->sweep->count && !c->stopping && c->running < c->options->jobs; i++)
            if (c->wanted[i] && ready(c, &c->sweep->runs[i])) PQ_TRY(start_run(c, &c->sweep->runs[i], err));
        nanosleep(&pause, NULL);
        PQ_TRY(reap(c, err));
        if (!c->options->point && pq_seconds() - c->written > WRITE_SECONDS) {
            PQ_TRY(pq_sweep_write_results(c->sweep, err));
            c->written = pq_seconds();
        }
    }
    return PQ_OK;
}

static pq_status choose(crew *c, pq_error *err) {
    pq_sweep *sweep = c->sweep;
    size_t point = c->options->point;
    if (point > sweep->count - sweep->first)
        return PQ_FAIL(err, PQ_ERR_USAGE, "expected a point from 1 to %zu, found %zu (%s)",
                       sweep->count - sweep->first, point, sweep->path);
    PQ_TRY(pq_calloc(sweep->count, sizeof *c->wanted, "runs", &c->wanted, err));
    for (size_t i = 0; i < sweep->count; i++) c->wanted[i] = !point;
    if (point) {
        const pq_sweep_run *run = &sweep->runs[sweep->first + point - 1];
        c->wanted[sweep->first + point - 1] = true;
        if (run->parent != PQ_SWEEP_NONE) c->wanted[run->parent] = true;
    }
    for (size_t i = 0; i < sweep->count; i++)
        if (c->wanted[i] && !final(&sweep->runs[i])) c->work_ahead += work_of(&sweep->runs[i]);
    return PQ_OK;
}

static pq_status conclude(const crew *c, pq_error *err) {
    size_t count[PQ_SWEEP_NO_PARENT + 1] = {0}, wanted = 0;
    const char *dir = c->sweep->dir;
    for (size_t i = 0; i < c->sweep->count; i++) {
        if (!c->wanted[i]) continue;
        wanted++;
        count[c->sweep->runs[i].state]++;
    }
    size_t finished = count[PQ_SWEEP_DONE] + count[PQ_SWEEP_DIVERGED];
    if (count[PQ_SWEEP_DIVERGED])
        pq_log(PQ_LOG_WARNING, "%zu of %zu runs in %s diverged", count[PQ_SWEEP_DIVERGED], wanted, dir);
    if (c->stopping || count[PQ_SWEEP_STOPPED])
        return PQ_FAIL(err, PQ_STOPPED,
                       "stopped: %zu of %zu runs in %s are finished; the same command goes on", finished,
                       wanted, dir);
    if (count[PQ_SWEEP_FAILED])
        return PQ_FAIL(
            err, PQ_ERR_IO,
            "%zu of %zu runs in %s failed (their .log files say why); the same command tries them again",
            count[PQ_SWEEP_FAILED], wanted, dir);
    return PQ_OK;
}

pq_status pq_sweep_train(pq_sweep *sweep, const pq_sweep_options *options, pq_error *err) {
    crew c = {.sweep = sweep, .options = options, .start = pq_seconds(), .written = pq_seconds()};
    pq_status status = choose(&c, err);
    if (status == PQ_OK) status = pq_folder_create(sweep->dir, err);
    if (status == PQ_OK) status = oversee(&c, err);
    if (status != PQ_OK) { /* our own trouble: no process may be left behind */
        stop_all(&c);
        for (size_t i = 0; i < sweep->count; i++)
            if (sweep->runs[i].state == PQ_SWEEP_RUNNING) waitpid(sweep->runs[i].pid, NULL, 0);
    }
    if (status == PQ_OK && !options->point) status = pq_sweep_write_results(sweep, err);
    if (status == PQ_OK) status = conclude(&c, err);
    free(c.wanted);
    return status;
}
