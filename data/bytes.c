/* Owns the reading of a text's bytes, and is the only caller of libzstd. */
#include "data/bytes.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "base/file.h"
#include "base/memory.h"

struct pq_bytes {
    const char *path;
    int descriptor; /* -1: from memory */
    size_t size;    /* of the file or the memory */
    uint64_t taken;
    const char *memory;
    ZSTD_DStream *zstd; /* NULL: not compressed */
    ZSTD_inBuffer in;
    char *packed;     /* what `in` points to */
    bool frame_ended; /* the file may end here */
};

static pq_status new_bytes(pq_bytes **out, pq_error *err) {
    PQ_TRY(pq_calloc(1, sizeof **out, "the reader of a text", out, err));
    (*out)->descriptor = -1;
    return PQ_OK;
}

pq_status pq_bytes_open_memory(const char *data, size_t size, pq_bytes **out, pq_error *err) {
    PQ_TRY(new_bytes(out, err));
    (*out)->memory = data;
    (*out)->size = size;
    return PQ_OK;
}

pq_status pq_bytes_open(const char *path, pq_bytes **out, pq_error *err) {
    pq_bytes *bytes;
    size_t length = strlen(path);
    *out = NULL;
    PQ_TRY(new_bytes(&bytes, err));
    bytes->path = path;
    pq_status status = pq_file_open(path, &bytes->descriptor, &bytes->size, err);
    if (status == PQ_OK && length > 4 && strcmp(path + length - 4, ".zst") == 0) {
        bytes->zstd = ZSTD_createDStream();
        bytes->packed = malloc(ZSTD_DStreamInSize());
        bytes->in.src = bytes->packed;
        if (!bytes->zstd || !bytes->packed)
            status = PQ_FAIL(err, PQ_ERR_MEMORY, "%s: no memory to decompress it", path);
    }
    if (status != PQ_OK)
        pq_bytes_close(bytes);
    else
        *out = bytes;
    return status;
}

void pq_bytes_close(pq_bytes *bytes) {
    if (!bytes) return;
    if (bytes->descriptor >= 0) close(bytes->descriptor);
    ZSTD_freeDStream(bytes->zstd);
    free(bytes->packed);
    free(bytes);
}

/* As it lies on the disk. */
static pq_status read_raw(pq_bytes *bytes, char *out, size_t most, size_t *got, pq_error *err) {
    *got = 0;
    if (bytes->memory) {
        size_t left = bytes->size - bytes->taken;
        *got = most < left ? most : left;
        if (*got) memcpy(out, bytes->memory + bytes->taken, *got);
        bytes->taken += *got;
        return PQ_OK;
    }
    while (*got < most) {
        ssize_t now = read(bytes->descriptor, out + *got, most - *got);
        if (now < 0 && errno == EINTR) continue;
        if (now < 0) return PQ_FAIL(err, PQ_ERR_IO, "%s could not be read: %s", bytes->path, strerror(errno));
        if (now == 0) break;
        *got += (size_t)now;
        bytes->taken += (uint64_t)now;
    }
    return PQ_OK;
}

static pq_status read_zstd(pq_bytes *bytes, char *out, size_t most, size_t *got, pq_error *err) {
    ZSTD_outBuffer to = {.dst = out, .size = most};
    *got = 0;
    while (to.pos < most) {
        size_t before = to.pos;
        bool more = true;
        if (bytes->in.pos == bytes->in.size) {
            PQ_TRY(read_raw(bytes, bytes->packed, ZSTD_DStreamInSize(), &bytes->in.size, err));
            bytes->in.pos = 0;
            more = bytes->in.size > 0;
        }
        if (!more && bytes->frame_ended) break;
        size_t left = ZSTD_decompressStream(bytes->zstd, &to, &bytes->in);
        if (ZSTD_isError(left))
            return PQ_FAIL(err, PQ_ERR_FORMAT,
                           "%s is damaged or not zstd's: %s, before byte %llu of the file", bytes->path,
                           ZSTD_getErrorName(left), (unsigned long long)bytes->taken);
        bytes->frame_ended = left == 0;
        if (!more && left && to.pos == before)
            return PQ_FAIL(err, PQ_ERR_FORMAT, "%s is cut short: it ends at byte %llu, inside a zstd frame",
                           bytes->path, (unsigned long long)bytes->taken);
    }
    *got = to.pos;
    return PQ_OK;
}

pq_status pq_bytes_read(pq_bytes *bytes, char *out, size_t most, size_t *got, pq_error *err) {
    return bytes->zstd ? read_zstd(bytes, out, most, got, err) : read_raw(bytes, out, most, got, err);
}

pq_status pq_bytes_skip(pq_bytes *bytes, uint64_t count, pq_error *err) {
    enum { PIECE = 1 << 16 };
    char *piece;
    pq_status status = PQ_OK;
    if (!bytes->zstd) {
        bool inside = count <= bytes->size - bytes->taken;
        if (!inside || (!bytes->memory && lseek(bytes->descriptor, (off_t)count, SEEK_CUR) < 0))
            return PQ_FAIL(err, PQ_ERR_FORMAT, "%s is shorter than it was: it ends at byte %zu",
                           bytes->path ? bytes->path : "the text", bytes->size);
        bytes->taken += count;
        return PQ_OK;
    }
    PQ_TRY(pq_calloc(PIECE, 1, "a piece of a text", &piece, err));
    while (count && status == PQ_OK) {
        size_t got = 0;
        status = pq_bytes_read(bytes, piece, count < PIECE ? (size_t)count : PIECE, &got, err);
        if (status == PQ_OK && got == 0)
            status = PQ_FAIL(err, PQ_ERR_FORMAT, "%s holds less text than it did", bytes->path);
        count -= got;
    }
    free(piece);
    return status;
}

uint64_t pq_bytes_taken(const pq_bytes *bytes) {
    return bytes->taken;
}
