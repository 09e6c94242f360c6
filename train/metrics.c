/* Owns the two line files of a run: every line is written whole by one call to the kernel, so that only the
 * last line can ever be torn. */
#include "train/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "train/tensorboard.h"

typedef struct line_file {
    char *path;
    int descriptor;
} line_file;

struct pq_metrics {
    line_file metrics, timing;
    pq_tensorboard *board; /* NULL where it was not asked for */
};

/* One line of a .jsonl file. */
typedef struct line {
    const char *text;
    size_t bytes;
    size_t number; /* from 1 */
    bool ended;    /* by a newline: only the last line may lack it */
} line;

static bool next_line(const pq_file_view *file, size_t *offset, line *out) {
    if (*offset >= file->size) return false;
    const char *start = file->data + *offset;
    const char *end = memchr(start, '\n', file->size - *offset);
    out->bytes = end ? (size_t)(end - start) : file->size - *offset;
    out->text = start;
    out->ended = end != NULL;
    out->number++;
    *offset += out->bytes + out->ended;
    return true;
}

/* The line as an object with an integer "iter". *object stays NULL, without an error, for a torn last line: a
 * cut JSON object is never a JSON object, so one that lacks only its newline counts as whole. */
static pq_status parse_line(const char *path, const line *text, json_t **object, pq_error *err) {
    json_error_t reason = {0};
    *object = json_loadb(text->text, text->bytes, JSON_REJECT_DUPLICATES, &reason);
    if (*object && json_is_integer(json_object_get(*object, "iter"))) return PQ_OK;
    bool parsed = *object != NULL;
    json_decref(*object);
    *object = NULL;
    if (!text->ended) return PQ_OK;
    return PQ_FAIL(err, PQ_ERR_FORMAT,
                   "%s, line %zu: expected a JSON object with an integer \"iter\", found %s", path,
                   text->number, parsed ? "other JSON" : reason.text);
}

static pq_status close_file(line_file *file, pq_error *err) {
    pq_status status = PQ_OK;
    if (file->descriptor >= 0 && close(file->descriptor) != 0)
        status = PQ_FAIL(err, PQ_ERR_IO, "%s could not be closed: %s", file->path, strerror(errno));
    free(file->path);
    *file = (line_file){.descriptor = -1};
    return status;
}

/* Copy the whole lines of `old` up to resume_iter to `kept`, which holds old->size + 1 bytes. */
static pq_status keep_lines(const char *path, const pq_file_view *old, int64_t resume_iter, char *kept,
                            size_t *bytes, pq_error *err) {
    size_t offset = 0;
    line text = {0};
    *bytes = 0;
    while (next_line(old, &offset, &text)) {
        json_t *object;
        PQ_TRY(parse_line(path, &text, &object, err));
        if (object && json_integer_value(json_object_get(object, "iter")) <= resume_iter) {
            memcpy(kept + *bytes, text.text, text.bytes);
            *bytes += text.bytes;
            kept[(*bytes)++] = '\n';
        }
        json_decref(object);
    }
    return PQ_OK;
}

static pq_status cut(const char *path, int64_t resume_iter, pq_error *err) {
    pq_file_view old;
    char *kept = NULL;
    size_t bytes;
    if (!pq_file_exists(path)) return PQ_OK;
    PQ_TRY(pq_file_read(path, &old, err));
    pq_status status = pq_calloc(old.size + 1, 1, "metrics", &kept, err);
    if (status == PQ_OK) status = keep_lines(path, &old, resume_iter, kept, &bytes, err);
    if (status == PQ_OK && (bytes != old.size || memcmp(kept, old.data, bytes) != 0))
        status = pq_file_put(path, true, kept, bytes, err);
    free(kept);
    pq_file_view_close(&old);
    return status;
}

static pq_status open_file(const char *dir, const char *name, int64_t resume_iter, line_file *out,
                           pq_error *err) {
    out->path = pq_path_join(dir, name);
    if (!out->path) return PQ_FAIL(err, PQ_ERR_MEMORY, "a file name could not be allocated");
    if (resume_iter >= 0) PQ_TRY(cut(out->path, resume_iter, err));
    int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (resume_iter < 0 ? O_TRUNC : 0);
    out->descriptor = open(out->path, flags, 0666);
    if (out->descriptor < 0)
        return PQ_FAIL(err, PQ_ERR_IO, "%s could not be opened for writing: %s", out->path, strerror(errno));
    return PQ_OK;
}

pq_status pq_metrics_open(const char *dir, int64_t resume_iter, pq_metrics **out, pq_error *err) {
    pq_status status;
    pq_metrics *metrics;
    *out = NULL;
    PQ_TRY(pq_calloc(1, sizeof *metrics, "metrics", &metrics, err));
    metrics->metrics.descriptor = metrics->timing.descriptor = -1;
    PQ_TRY_TO(status, fail, open_file(dir, "metrics.jsonl", resume_iter, &metrics->metrics, err));
    PQ_TRY_TO(status, fail, open_file(dir, "timing.jsonl", resume_iter, &metrics->timing, err));
    *out = metrics;
    return PQ_OK;
fail:
    close_file(&metrics->metrics, NULL);
    close_file(&metrics->timing, NULL);
    free(metrics);
    return status;
}

/* All of it or nothing: after a failed write (a full disk) the part already written is taken back, so that
 * the next line does not grow onto it. */
static pq_status append(const line_file *file, const char *data, size_t bytes, pq_error *err) {
    off_t before = lseek(file->descriptor, 0, SEEK_END);
    for (size_t done = 0; done < bytes;) {
        ssize_t wrote = write(file->descriptor, data + done, bytes - done);
        if (wrote >= 0) {
            done += (size_t)wrote;
        } else if (errno != EINTR) {
            int reason = errno;
            const char *left =
                before >= 0 && ftruncate(file->descriptor, before) == 0 ? "" : ", and its last line is torn";
            return PQ_FAIL(err, PQ_ERR_IO, "%s could not be written: %s%s", file->path, strerror(reason),
                           left);
        }
    }
    return PQ_OK;
}

static pq_status write_line(const line_file *file, json_t *object, pq_error *err) {
    if (!json_is_integer(json_object_get(object, "iter"))) {
        json_decref(object);
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "%s: a line must be a JSON object with an integer \"iter\" (JSON has no NaN or Inf)",
                       file->path);
    }
    char *text = json_dumps(object, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
    json_decref(object);
    if (!text) return PQ_FAIL(err, PQ_ERR_MEMORY, "a line of %s could not be made", file->path);
    size_t length = strlen(text);
    text[length] = '\n'; /* in place of the NUL */
    pq_status status = append(file, text, length + 1, err);
    free(text);
    return status;
}

pq_status pq_metrics_add_tensorboard(pq_metrics *metrics, const char *dir, pq_error *err) {
    json_t *lines;
    PQ_TRY(pq_metrics_read(metrics->metrics.path, &lines, err));
    pq_status status = pq_tensorboard_open(dir, lines, &metrics->board, err);
    json_decref(lines);
    return status;
}

pq_status pq_metrics_write(pq_metrics *metrics, json_t *object, pq_error *err) {
    json_incref(object);
    pq_status status = write_line(&metrics->metrics, object, err);
    if (status == PQ_OK && metrics->board) status = pq_tensorboard_write(metrics->board, object, err);
    json_decref(object);
    return status;
}

pq_status pq_metrics_write_timing(pq_metrics *metrics, json_t *object, pq_error *err) {
    return write_line(&metrics->timing, object, err);
}

static pq_status sync_file(const line_file *file, pq_error *err) {
    if (fsync(file->descriptor) == 0) return PQ_OK;
    return PQ_FAIL(err, PQ_ERR_IO, "%s could not be synced: %s", file->path, strerror(errno));
}

pq_status pq_metrics_sync(pq_metrics *metrics, pq_error *err) {
    PQ_TRY(sync_file(&metrics->metrics, err));
    if (metrics->board) PQ_TRY(pq_tensorboard_sync(metrics->board, err));
    return sync_file(&metrics->timing, err);
}

pq_status pq_metrics_close(pq_metrics *metrics, pq_error *err) {
    if (!metrics) return PQ_OK;
    pq_status first = close_file(&metrics->metrics, err);
    pq_status second = close_file(&metrics->timing, first == PQ_OK ? err : NULL);
    if (first == PQ_OK) first = second;
    second = pq_tensorboard_close(metrics->board, first == PQ_OK ? err : NULL);
    free(metrics);
    return first != PQ_OK ? first : second;
}

pq_status pq_metrics_read(const char *path, json_t **array, pq_error *err) {
    pq_file_view file;
    pq_status status = PQ_OK;
    size_t offset = 0;
    line text = {0};
    *array = NULL;
    PQ_TRY(pq_file_read(path, &file, err));
    json_t *lines = json_array();
    while (status == PQ_OK && next_line(&file, &offset, &text)) {
        json_t *object;
        status = parse_line(path, &text, &object, err);
        if (object && json_array_append_new(lines, object) != 0)
            status = PQ_FAIL(err, PQ_ERR_MEMORY, "%s: line %zu does not fit in memory", path, text.number);
    }
    pq_file_view_close(&file);
    if (status == PQ_OK && !lines) status = PQ_FAIL(err, PQ_ERR_MEMORY, "%s does not fit in memory", path);
    if (status == PQ_OK)
        *array = lines;
    else
        json_decref(lines);
    return status;
}
