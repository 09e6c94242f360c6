/* Owns the names inside a run folder, its lock, and what a MODEL argument means. */
#include "store/run.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "formats/foreign.h"

/* config.yaml last: while it stands the folder is known as a run, so a removal that was cut short goes on. */
static const char *const run_files[] = {
    "best.h5",     "run.json",         "metrics.jsonl",    "timing.jsonl",
    "report.html", "windows-best.csv", "windows-last.csv", "events.out.tfevents.potqat",
    "config.yaml"};
enum { RUN_FILES = sizeof run_files / sizeof *run_files };

/* ---- names ---- */

char *pq_run_path(const char *dir, const char *name) {
    return pq_path_join(dir, name);
}

char *pq_run_checkpoint_path(const char *dir, int64_t iter) {
    char name[40];
    snprintf(name, sizeof name, "ckpt-%" PRId64 ".h5", iter);
    return pq_path_join(dir, name);
}

/* A plain decimal number in text[length], without sign or leading zeros. */
static bool parse_number(const char *text, size_t length, int64_t *out) {
    if (length < 1 || length > 18 || (length > 1 && text[0] == '0')) return false;
    *out = 0;
    for (size_t i = 0; i < length; i++) {
        if (!isdigit((unsigned char)text[i])) return false;
        *out = *out * 10 + (text[i] - '0');
    }
    return true;
}

static bool parse_checkpoint(const char *name, size_t length, int64_t *iter) {
    return length > 8 && memcmp(name, "ckpt-", 5) == 0 && memcmp(name + length - 3, ".h5", 3) == 0 &&
           parse_number(name + 5, length - 8, iter);
}

/* A run's file that was being written by process `writer`: NAME.tmp-PID, as base/file.c names them. */
static bool parse_temporary(const char *name, int64_t *writer) {
    int64_t iter;
    const char *mark = strstr(name, ".tmp-");
    if (!mark || !parse_number(mark + 5, strlen(mark + 5), writer)) return false;
    size_t length = (size_t)(mark - name);
    for (size_t i = 0; i < RUN_FILES; i++)
        if (strlen(run_files[i]) == length && memcmp(name, run_files[i], length) == 0) return true;
    return parse_checkpoint(name, length, &iter);
}

/* ---- what is in a folder ---- */

typedef struct listing {
    int64_t *iters; /* of ckpt-N.h5, ascending */
    size_t count;
    char **temporary; /* left over by processes that are gone */
    size_t temporary_count;
    bool has_config, has_best;
    bool has_trace; /* besides config.yaml something else that only a run makes */
    bool empty;     /* nothing but a lock and left-over temporary files */
} listing;

static void listing_deinit(listing *l) {
    for (size_t i = 0; i < l->temporary_count; i++) free(l->temporary[i]);
    free(l->temporary);
    free(l->iters);
    *l = (listing){0};
}

static int compare_iters(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static pq_status append(void *list_pointer, size_t count, size_t size, pq_error *err) {
    void **list = list_pointer;
    if (count & (count - 1)) return PQ_OK; /* capacities are powers of two */
    void *grown = realloc(*list, (count ? 2 * count : 1) * size);
    if (!grown) return PQ_FAIL(err, PQ_ERR_MEMORY, "a folder's list could not be allocated");
    *list = grown;
    return PQ_OK;
}

static pq_status note_entry(listing *l, const char *name, pq_error *err) {
    int64_t number;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) return PQ_OK;
    if (strcmp(name, "lock") == 0) {
        l->has_trace = true;
        return PQ_OK;
    }
    if (parse_checkpoint(name, strlen(name), &number)) {
        l->empty = false;
        l->has_trace = true;
        PQ_TRY(append(&l->iters, l->count, sizeof *l->iters, err));
        l->iters[l->count++] = number;
        return PQ_OK;
    }
    if (parse_temporary(name, &number)) {
        /* Ours, too, is left over: a process that writes does not list at the same time. */
        bool alive = number != getpid() && number <= INT32_MAX && number > 0 &&
                     (kill((pid_t)number, 0) == 0 || errno == EPERM);
        l->empty &= !alive; /* a run that was killed while it wrote its first file has left nothing else */
        if (alive) return PQ_OK;
        PQ_TRY(append(&l->temporary, l->temporary_count, sizeof *l->temporary, err));
        PQ_TRY(pq_copy_text(name, &l->temporary[l->temporary_count], err));
        l->temporary_count++;
        return PQ_OK;
    }
    const bool config = strcmp(name, "config.yaml") == 0;
    l->empty = false;
    l->has_config |= config;
    l->has_best |= strcmp(name, "best.h5") == 0;
    for (size_t i = 0; i < RUN_FILES && !config; i++) l->has_trace |= strcmp(name, run_files[i]) == 0;
    return PQ_OK;
}

static pq_status list_folder(const char *dir, listing *out, pq_error *err) {
    pq_status status = PQ_OK;
    *out = (listing){.empty = true};
    DIR *stream = opendir(dir);
    if (!stream) return PQ_FAIL(err, PQ_ERR_IO, "folder %s could not be read: %s", dir, strerror(errno));
    for (struct dirent *entry; status == PQ_OK && (entry = readdir(stream));)
        status = note_entry(out, entry->d_name, err);
    closedir(stream);
    if (out->count) qsort(out->iters, out->count, sizeof *out->iters, compare_iters);
    if (status != PQ_OK) listing_deinit(out);
    return status;
}

static pq_status remove_file(const char *dir, const char *name, pq_error *err) {
    pq_status status = PQ_OK;
    char *path = pq_path_join(dir, name);
    if (!path) return PQ_FAIL(err, PQ_ERR_MEMORY, "a file name could not be allocated");
    if (unlink(path) != 0 && errno != ENOENT)
        status = PQ_FAIL(err, PQ_ERR_IO, "%s could not be removed: %s", path, strerror(errno));
    free(path);
    return status;
}

static pq_status remove_checkpoints(const char *dir, const int64_t *iters, size_t count, pq_error *err) {
    for (size_t i = 0; i < count; i++) {
        char name[40];
        snprintf(name, sizeof name, "ckpt-%" PRId64 ".h5", iters[i]);
        PQ_TRY(remove_file(dir, name, err));
    }
    return PQ_OK;
}

/* ---- run folders ---- */

/* Only while nobody trains in it. */
static pq_status empty_run(const char *dir, const listing *found, pq_error *err) {
    int lock;
    pq_status status;
    PQ_TRY(pq_run_lock(dir, &lock, err));
    PQ_TRY_TO(status, done, remove_checkpoints(dir, found->iters, found->count, err));
    for (size_t i = 0; i < found->temporary_count; i++)
        PQ_TRY_TO(status, done, remove_file(dir, found->temporary[i], err));
    for (size_t i = 0; i < RUN_FILES; i++) PQ_TRY_TO(status, done, remove_file(dir, run_files[i], err));
done:
    close(lock);
    return status;
}

pq_status pq_run_create(const char *dir, bool overwrite, pq_error *err) {
    listing found;
    pq_status status = PQ_OK;
    if (!pq_file_exists(dir)) return pq_folder_create(dir, err);
    if (!pq_folder_exists(dir))
        return PQ_FAIL(err, PQ_ERR_USAGE, "run.dir: %s is a file, expected a new folder", dir);
    PQ_TRY(list_folder(dir, &found, err));
    if (found.empty)
        status = PQ_OK;
    else if (!found.has_config)
        status = PQ_FAIL(
            err, PQ_ERR_USAGE,
            "run.dir: folder %s holds other files and no run (no config.yaml); name a new folder", dir);
    else if (!found.has_trace)
        status = PQ_FAIL(
            err, PQ_ERR_USAGE,
            "run.dir: folder %s holds a config.yaml but nothing else of a run; name a new folder", dir);
    else if (!overwrite && found.count)
        status = PQ_FAIL(err, PQ_ERR_USAGE,
                         "run.dir: %s is a run already, saved at iter %" PRId64
                         "; --resume continues it, --overwrite starts anew",
                         dir, found.iters[found.count - 1]);
    else if (!overwrite)
        status = PQ_FAIL(err, PQ_ERR_USAGE,
                         "run.dir: %s is a run already, without a checkpoint; --overwrite starts anew", dir);
    else
        status = empty_run(dir, &found, err);
    listing_deinit(&found);
    return status;
}

pq_status pq_run_lock(const char *dir, int *descriptor, pq_error *err) {
    char text[24] = "";
    char *path = pq_path_join(dir, "lock");
    *descriptor = -1;
    if (!path) return PQ_FAIL(err, PQ_ERR_MEMORY, "a file name could not be allocated");
    int lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    pq_status status = PQ_OK;
    if (lock < 0)
        status = PQ_FAIL(err, PQ_ERR_IO, "%s could not be opened: %s", path, strerror(errno));
    else if (flock(lock, LOCK_EX | LOCK_NB) != 0) {
        int reason = errno;
        ssize_t got = pread(lock, text, sizeof text - 1, 0);
        text[got > 0 ? got : 0] = 0;
        text[strcspn(text, "\n")] = 0;
        close(lock);
        status = reason == EWOULDBLOCK
                     ? PQ_FAIL(err, PQ_ERR_USAGE, "run %s is in use by another process (%s)", dir, text)
                     : PQ_FAIL(err, PQ_ERR_IO, "%s could not be locked: %s", path, strerror(reason));
    } else {
        /* The number is for the sentence above alone; the lock holds without it. */
        int length = snprintf(text, sizeof text, "%ld\n", (long)getpid());
        if (ftruncate(lock, 0) != 0 || pwrite(lock, text, (size_t)length, 0) != length) {
            status = PQ_FAIL(err, PQ_ERR_IO, "%s could not be written: %s", path, strerror(errno));
            close(lock);
        } else {
            *descriptor = lock;
        }
    }
    free(path);
    return status;
}

pq_status pq_run_check(const char *dir, pq_error *err) {
    if (!pq_file_exists(dir)) return PQ_FAIL(err, PQ_ERR_USAGE, "run folder %s does not exist", dir);
    if (!pq_folder_exists(dir)) return PQ_FAIL(err, PQ_ERR_USAGE, "%s is a file, expected a run folder", dir);
    char *config = pq_path_join(dir, "config.yaml");
    if (!config) return PQ_FAIL(err, PQ_ERR_MEMORY, "a file name could not be allocated");
    bool found = pq_file_exists(config);
    free(config);
    if (!found) return PQ_FAIL(err, PQ_ERR_USAGE, "folder %s is not a run: it has no config.yaml", dir);
    return PQ_OK;
}

pq_status pq_run_checkpoints(const char *dir, int64_t **iters, size_t *count, pq_error *err) {
    listing found;
    *iters = NULL;
    *count = 0;
    PQ_TRY(list_folder(dir, &found, err));
    /* A folder that may only be read keeps them. */
    for (size_t i = 0; i < found.temporary_count; i++) (void)remove_file(dir, found.temporary[i], NULL);
    *iters = found.iters;
    *count = found.count;
    found.iters = NULL;
    listing_deinit(&found);
    return PQ_OK;
}

pq_status pq_run_prune(const char *dir, size_t keep, pq_error *err) {
    int64_t *iters;
    size_t count;
    PQ_TRY(pq_run_checkpoints(dir, &iters, &count, err));
    pq_status status = count > keep ? remove_checkpoints(dir, iters, count - keep, err) : PQ_OK;
    free(iters);
    return status;
}

/* ---- MODEL arguments ---- */

/* "best.h5, ckpt-500.h5": what a sentence about a missing one offers; the last ones where there are many. */
static void describe(const listing *l, char *out, size_t bytes) {
    const size_t shown = l->count < 8 ? l->count : 8;
    size_t used = (size_t)snprintf(out, bytes, "%s", l->has_best ? "best" : "");
    if (shown < l->count)
        used += (size_t)snprintf(out + used, bytes - used, "%s%zu older checkpoints", used ? ", " : "",
                                 l->count - shown);
    for (size_t i = l->count - shown; i < l->count; i++)
        used += (size_t)snprintf(out + used, bytes - used, "%s%" PRId64, used ? ", " : "", l->iters[i]);
    if (!used) snprintf(out, bytes, "no checkpoint at all");
}

/* `which`: best, last, N. */
static pq_status locate_in_run(const char *dir, const char *which, char **path, pq_error *err) {
    listing found;
    char offer[256], name[40] = "";
    int64_t iter = -1;
    pq_status status = PQ_OK;
    PQ_TRY(list_folder(dir, &found, err));
    describe(&found, offer, sizeof offer);
    const bool best = strcmp(which, "best") == 0, last = strcmp(which, "last") == 0;
    if (last && found.count) iter = found.iters[found.count - 1];
    if (!best && !last && !parse_number(which, strlen(which), &iter))
        status = PQ_FAIL(err, PQ_ERR_USAGE,
                         "%s@%s: expected @best, @last or @ITER behind a run folder; this one has %s", dir,
                         which, offer);
    else if (!found.has_config && !found.has_best && !found.count)
        status = PQ_FAIL(err, PQ_ERR_USAGE, "folder %s is not a run: it has no config.yaml", dir);
    else if (best && found.has_best)
        snprintf(name, sizeof name, "best.h5");
    else {
        for (size_t i = 0; i < found.count && !*name; i++)
            if (found.iters[i] == iter) snprintf(name, sizeof name, "ckpt-%" PRId64 ".h5", iter);
        if (!*name)
            status = PQ_FAIL(err, PQ_ERR_IO, "run %s has no checkpoint %s; it has %s", dir, which, offer);
    }
    listing_deinit(&found);
    PQ_TRY(status);
    *path = pq_path_join(dir, name);
    return *path ? PQ_OK : PQ_FAIL(err, PQ_ERR_MEMORY, "a file name could not be allocated");
}

static bool ends_with(const char *text, const char *end) {
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

pq_status pq_model_locate(const char *spec, char **path, pq_model_kind *kind, pq_error *err) {
    char *dir;
    *path = NULL;
    *kind = PQ_MODEL_CHECKPOINT;
    if (pq_folder_exists(spec)) {
        if (pq_run_check(spec, NULL) == PQ_OK || !pq_hf_looks_like(spec))
            return locate_in_run(spec, "best", path, err);
        *kind = PQ_MODEL_HF;
        return pq_copy_text(spec, path, err);
    }
    if (pq_file_exists(spec)) {
        if (ends_with(spec, ".safetensors"))
            *kind = PQ_MODEL_PACKED;
        else if (!ends_with(spec, ".h5"))
            return PQ_FAIL(
                err, PQ_ERR_USAGE,
                "%s is no MODEL: expected a run folder, RUN@best, RUN@last, RUN@ITER, a checkpoint "
                "(.h5), a packed model (.safetensors) or a Hugging Face folder",
                spec);
        return pq_copy_text(spec, path, err);
    }
    const char *mark = strrchr(spec, '@');
    if (!mark || mark == spec) return PQ_FAIL(err, PQ_ERR_IO, "there is no file or run folder %s", spec);
    PQ_TRY(pq_copy_text(spec, &dir, err));
    dir[mark - spec] = 0;
    pq_status status = pq_folder_exists(dir)
                           ? locate_in_run(dir, mark + 1, path, err)
                           : PQ_FAIL(err, PQ_ERR_IO, "there is no run folder %s (from %s)", dir, spec);
    free(dir);
    return status;
}
