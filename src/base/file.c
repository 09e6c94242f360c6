/* Owns the order of flush, fsync and rename that makes a file appear whole or not at all. */
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/memory.h"

uint64_t pq_hash(const void *data, size_t bytes) {
    return XXH3_64bits(data, bytes);
}

bool pq_file_exists(const char *path) {
    struct stat info;
    return stat(path, &info) == 0;
}

bool pq_folder_exists(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

bool pq_folder_is_empty(const char *path) {
    DIR *folder = opendir(path);
    size_t entries = 0;
    if (!folder) return false;
    while (readdir(folder)) entries++;
    closedir(folder);
    return entries == 2; /* . and .. */
}

bool pq_file_same(const char *a, const char *b) {
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

char *pq_path_join(const char *folder, const char *name) {
    size_t length = strlen(folder);
    while (length > 1 && folder[length - 1] == '/') length--;
    size_t bytes = length + strlen(name) + 2;
    char *path = malloc(bytes);
    if (path)
        snprintf(path, bytes, "%.*s%s%s", (int)length, folder, folder[length - 1] == '/' ? "" : "/", name);
    return path;
}

/* fsync the folder that holds `path`, so that a new name itself survives a power loss. */
static pq_status sync_folder(const char *path, pq_error *err) {
    char *copy;
    PQ_TRY(pq_copy_text(path, &copy, err));
    int descriptor = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool good = descriptor >= 0 && fsync(descriptor) == 0;
    int reason = errno;
    if (descriptor >= 0) close(descriptor);
    free(copy);
    return good ? PQ_OK
                : PQ_FAIL(err, PQ_ERR_IO, "the folder of %s could not be synced: %s", path, strerror(reason));
}

pq_status pq_folder_create(const char *path, pq_error *err) {
    char *partial;
    if (!*path) return PQ_FAIL(err, PQ_ERR_USAGE, "a folder's name is empty");
    PQ_TRY(pq_copy_text(path, &partial, err));
    for (char *end = partial + 1;; end++) {
        if (*end != '/' && *end != 0) continue;
        char saved = *end;
        *end = 0;
        pq_status status = PQ_OK;
        if (mkdir(partial, 0777) == 0)
            status = sync_folder(partial, err);
        else if (errno != EEXIST)
            status = PQ_FAIL(err, PQ_ERR_IO, "folder %s could not be made: %s", partial, strerror(errno));
        if (status != PQ_OK) {
            free(partial);
            return status;
        }
        *end = saved;
        if (!saved) break;
    }
    free(partial);
    if (!pq_folder_exists(path)) return PQ_FAIL(err, PQ_ERR_IO, "%s exists and is not a folder", path);
    return PQ_OK;
}

pq_status pq_file_open(const char *path, int *descriptor, size_t *size, pq_error *err) {
    struct stat info;
    *descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a named pipe must not make us wait */
    if (*descriptor < 0) return PQ_FAIL(err, PQ_ERR_IO, "%s could not be opened: %s", path, strerror(errno));
    if (fstat(*descriptor, &info) != 0 || !S_ISREG(info.st_mode)) {
        close(*descriptor);
        *descriptor = -1;
        return PQ_FAIL(err, PQ_ERR_IO, "%s is not a file", path);
    }
    *size = (size_t)info.st_size;
    return PQ_OK;
}

pq_status pq_file_read(const char *path, pq_file_view *out, pq_error *err) {
    int descriptor;
    size_t size, done = 0;
    *out = (pq_file_view){0};
    PQ_TRY(pq_file_open(path, &descriptor, &size, err));
    char *data = malloc(size + 1);
    if (!data) {
        close(descriptor);
        return PQ_FAIL(err, PQ_ERR_MEMORY, "%s: %zu bytes do not fit in memory", path, size);
    }
    while (done < size) {
        ssize_t got = read(descriptor, data + done, size - done);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            const char *why = got < 0 ? strerror(errno) : "the file became shorter while it was read";
            close(descriptor);
            free(data);
            return PQ_FAIL(err, PQ_ERR_IO, "%s could not be read: %s", path, why);
        }
        done += (size_t)got;
    }
    close(descriptor);
    data[size] = 0;
    *out = (pq_file_view){.data = data, .size = size};
    return PQ_OK;
}

pq_status pq_file_map(const char *path, pq_file_view *out, pq_error *err) {
    int descriptor;
    size_t size;
    *out = (pq_file_view){0};
    PQ_TRY(pq_file_open(path, &descriptor, &size, err));
    if (size == 0) {
        close(descriptor);
        return PQ_FAIL(err, PQ_ERR_FORMAT, "%s is empty", path);
    }
    void *data = mmap(NULL, size, PROT_READ, MAP_SHARED, descriptor, 0);
    int reason = errno;
    close(descriptor);
    if (data == MAP_FAILED)
        return PQ_FAIL(err, PQ_ERR_IO, "%s could not be mapped: %s", path, strerror(reason));
    *out = (pq_file_view){.data = data, .size = size, .mapped = true};
    return PQ_OK;
}

pq_status pq_file_hash(const char *path, size_t offset, size_t *bytes, uint64_t *hash, pq_error *err) {
    enum { PIECE = 1 << 20 };
    int descriptor;
    size_t size;
    ssize_t got = 0;
    PQ_TRY(pq_file_open(path, &descriptor, &size, err));
    *bytes = 0;
    XXH3_state_t *state = XXH3_createState();
    char *piece = malloc(PIECE);
    bool ready = state && piece && XXH3_64bits_reset(state) == XXH_OK;
    while (ready) {
        got = pread(descriptor, piece, PIECE, (off_t)(offset + *bytes));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        XXH3_64bits_update(state, piece, (size_t)got);
        *bytes += (size_t)got;
    }
    int reason = errno;
    if (ready) *hash = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    free(piece);
    close(descriptor);
    if (!ready) return PQ_FAIL(err, PQ_ERR_MEMORY, "%s: no memory to hash it", path);
    if (got < 0) return PQ_FAIL(err, PQ_ERR_IO, "%s could not be read: %s", path, strerror(reason));
    return PQ_OK;
}

void pq_file_view_close(pq_file_view *view) {
    if (view->mapped)
        munmap((void *)view->data, view->size);
    else
        free((void *)view->data);
    *view = (pq_file_view){0};
}

/* rename that refuses an existing target; by a hard link where the file system cannot do it in one call. */
static int rename_new(const char *from, const char *to) {
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0) return 0;
    if (errno != EINVAL && errno != ENOSYS) return -1;
    return link(from, to) == 0 ? unlink(from) : -1;
}

pq_status pq_file_publish(const char *temporary, const char *path, bool overwrite, pq_error *err) {
    int descriptor = open(temporary, O_RDONLY | O_CLOEXEC);
    bool synced = descriptor >= 0 && fsync(descriptor) == 0;
    int reason = errno;
    if (descriptor >= 0) close(descriptor);
    if (!synced) return PQ_FAIL(err, PQ_ERR_IO, "%s could not be synced: %s", temporary, strerror(reason));
    if ((overwrite ? rename(temporary, path) : rename_new(temporary, path)) != 0) {
        if (errno == EEXIST)
            return PQ_FAIL(err, PQ_ERR_USAGE, "%s exists already; --overwrite replaces it", path);
        return PQ_FAIL(err, PQ_ERR_IO, "%s could not be put in place: %s", path, strerror(errno));
    }
    return sync_folder(path, err);
}

pq_status pq_file_create(const char *path, bool overwrite, pq_file_writer *out, pq_error *err) {
    *out = (pq_file_writer){.overwrite = overwrite};
    if (!overwrite && pq_file_exists(path))
        return PQ_FAIL(err, PQ_ERR_USAGE, "%s exists already; --overwrite replaces it", path);
    size_t bytes = strlen(path) + 32;
    PQ_TRY(pq_copy_text(path, &out->path, err));
    out->temporary = malloc(bytes);
    if (!out->temporary) {
        pq_file_abort(out);
        return PQ_FAIL(err, PQ_ERR_MEMORY, "a file name could not be allocated");
    }
    snprintf(out->temporary, bytes, "%s.tmp-%ld", path, (long)getpid());
    out->stream = fopen(out->temporary, "w+be");
    if (!out->stream) {
        pq_status status =
            PQ_FAIL(err, PQ_ERR_IO, "%s could not be created: %s", out->temporary, strerror(errno));
        free(out->temporary);
        out->temporary = NULL;
        pq_file_abort(out);
        return status;
    }
    return PQ_OK;
}

pq_status pq_file_write(pq_file_writer *writer, const void *data, size_t bytes, pq_error *err) {
    if (bytes && fwrite(data, 1, bytes, writer->stream) != bytes)
        return PQ_FAIL(err, PQ_ERR_IO, "%s could not be written: %s", writer->path, strerror(errno));
    return PQ_OK;
}

void pq_file_abort(pq_file_writer *writer) {
    if (writer->stream) fclose(writer->stream);
    if (writer->temporary) unlink(writer->temporary);
    free(writer->temporary);
    free(writer->path);
    *writer = (pq_file_writer){0};
}

pq_status pq_file_commit(pq_file_writer *writer, pq_error *err) {
    pq_status status = PQ_OK;
    bool flushed = fflush(writer->stream) == 0 && !ferror(writer->stream);
    int reason = errno;
    bool closed = fclose(writer->stream) == 0;
    if (flushed && !closed) reason = errno;
    writer->stream = NULL;
    if (!flushed || !closed)
        status = PQ_FAIL(err, PQ_ERR_IO, "%s could not be written: %s", writer->path, strerror(reason));
    else
        status = pq_file_publish(writer->temporary, writer->path, writer->overwrite, err);
    pq_file_abort(writer);
    return status;
}

pq_status pq_file_end(pq_file_writer *writer, pq_status status, pq_error *err) {
    if (status == PQ_OK) return pq_file_commit(writer, err);
    pq_file_abort(writer);
    return status;
}

pq_status pq_file_put(const char *path, bool overwrite, const void *data, size_t bytes, pq_error *err) {
    pq_file_writer file;
    PQ_TRY(pq_file_create(path, overwrite, &file, err));
    return pq_file_end(&file, pq_file_write(&file, data, bytes, err), err);
}
