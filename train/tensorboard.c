/* Owns the bytes of TensorBoard's event files.
 * Sources: tensorflow/core/util/event.proto, framework/summary.proto, lib/io/record_writer.h. A record is
 *   uint64 length, uint32 masked crc32c of these 8 bytes, data, uint32 masked crc32c of the data
 * in little endian, the mask being ((crc >> 15) | (crc << 17)) + 0xa282ead8. */
#include "train/tensorboard.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/file.h"
#include "base/memory.h"

struct pq_tensorboard {
    char *path;
    int descriptor;
};

/* ---- records ---- */

/* Castagnoli's polynomial, reflected; bit by bit: an event has some hundred bytes. */
static uint32_t masked_crc(const unsigned char *data, size_t bytes) {
    uint32_t crc = ~0U;
    for (size_t i = 0; i < bytes; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (crc & 1 ? 0x82F63B78U : 0);
    }
    crc = ~crc;
    return ((crc >> 15) | (crc << 17)) + 0xA282EAD8U;
}

static void put_little(FILE *out, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) fputc((int)(value >> (8 * i) & 0xFF), out);
}

static void put_record(FILE *out, const char *data, size_t bytes) {
    unsigned char length[8];
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)((uint64_t)bytes >> (8 * i));
    fwrite(length, 1, sizeof length, out);
    put_little(out, masked_crc(length, sizeof length), 4);
    fwrite(data, 1, bytes, out);
    put_little(out, masked_crc((const unsigned char *)data, bytes), 4);
}

/* ---- protobuf ---- */

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

static void put_varint(FILE *out, uint64_t value) {
    for (; value >= 0x80; value >>= 7) fputc((int)(value & 0x7F) | 0x80, out);
    fputc((int)value, out);
}

static void put_key(FILE *out, int field, int type) {
    put_varint(out, (uint64_t)(field << 3 | type));
}

static void put_bytes(FILE *out, int field, const char *data, size_t bytes) {
    put_key(out, field, BYTES);
    put_varint(out, bytes);
    fwrite(data, 1, bytes, out);
}

static void put_double_bits(FILE *out, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_little(out, bits, 8);
}

static void put_double(FILE *out, int field, double value) {
    put_key(out, field, FIXED64);
    put_double_bits(out, value);
}

/* A message being built in memory; a failure shows when it is ended. */
typedef struct message {
    char *data;
    size_t bytes;
    FILE *stream;
} message;

static bool begin(message *m) {
    *m = (message){0};
    m->stream = open_memstream(&m->data, &m->bytes);
    return m->stream != NULL;
}

/* Put the message into `out` as `field` (0: as a record) and release it. */
static bool end(message *m, FILE *out, int field) {
    bool good = !ferror(m->stream);
    good = fclose(m->stream) == 0 && good;
    if (good && field)
        put_bytes(out, field, m->data, m->bytes);
    else if (good)
        put_record(out, m->data, m->bytes);
    free(m->data);
    return good;
}

/* ---- events ---- */

static bool put_scalar(FILE *summary, const char *tag, double value) {
    message m;
    if (!begin(&m)) return false;
    put_bytes(m.stream, 1, tag, strlen(tag));
    put_key(m.stream, 2, FIXED32);
    put_little(m.stream, pq_bits_of_float((float)value), 4);
    return end(&m, summary, 1);
}

/* Shares by level; level i stands at i - (n - 1) / 2, its bucket ends half a step beyond. */
static bool put_histogram(FILE *summary, const char *tag, const json_t *shares) {
    message m, histogram;
    size_t n = json_array_size(shares);
    double sums[3] = {0};
    if (!begin(&m)) return false;
    put_bytes(m.stream, 1, tag, strlen(tag));
    if (!begin(&histogram)) {
        end(&m, summary, 1);
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        double share = json_number_value(json_array_get(shares, i)), x = (double)i - (double)(n - 1) / 2;
        sums[0] += share, sums[1] += share * x, sums[2] += share * x * x;
    }
    put_double(histogram.stream, 1, -(double)n / 2);
    put_double(histogram.stream, 2, (double)n / 2);
    for (int i = 0; i < 3; i++) put_double(histogram.stream, 3 + i, sums[i]);
    for (int field = 6; field <= 7; field++) { /* bucket_limit, bucket */
        put_key(histogram.stream, field, BYTES);
        put_varint(histogram.stream, 8 * n);
        for (size_t i = 0; i < n; i++)
            put_double_bits(histogram.stream, field == 6 ? (double)i - (double)n / 2 + 1
                                                         : json_number_value(json_array_get(shares, i)));
    }
    bool good = end(&histogram, m.stream, 5);
    return end(&m, summary, 1) && good;
}

static bool put_values(FILE *summary, const json_t *line) {
    const char *split = json_string_value(json_object_get(line, "split"));
    const char *protocol = json_string_value(json_object_get(line, "protocol"));
    const char *matrix = json_string_value(json_object_get(line, "matrix")), *key;
    const json_t *context = json_object_get(line, "context");
    char about[200], tag[280], tokens[32] = "";
    json_t *value;
    bool good = true;
    if (json_is_integer(context))
        snprintf(tokens, sizeof tokens, " %lld", (long long)json_integer_value(context));
    snprintf(about, sizeof about, "%s%s%s%s",
             matrix  ? matrix
             : split ? split
                     : "run",
             protocol ? " " : "", protocol ? protocol : "", protocol ? tokens : "");
    json_object_foreach((json_t *)line, key, value) {
        if (strcmp(key, "iter") == 0 || strcmp(key, "tokens") == 0 || strcmp(key, "context") == 0 ||
            strcmp(key, "stride") == 0)
            continue;
        snprintf(tag, sizeof tag, "%s/%s", key, about);
        if (json_is_number(value))
            good = put_scalar(summary, tag, json_number_value(value)) && good;
        else if (json_is_array(value) && json_array_size(value) && strcmp(key, "histogram") == 0)
            good = put_histogram(summary, tag, value) && good;
    }
    return good;
}

static double wall_time(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* The line as a record, or nothing where it has no number. */
static bool put_line(FILE *out, const json_t *line) {
    message event, summary;
    if (!begin(&event)) return false;
    put_double(event.stream, 1, wall_time());
    put_key(event.stream, 2, VARINT);
    put_varint(event.stream, (uint64_t)json_integer_value(json_object_get(line, "iter")));
    bool good = begin(&summary);
    if (good) {
        good = put_values(summary.stream, line);
        good = fflush(summary.stream) == 0 && good;
        if (summary.bytes) {
            good = end(&summary, event.stream, 5) && good;
        } else {
            fclose(summary.stream), fclose(event.stream);
            free(summary.data), free(event.data);
            return good;
        }
    }
    return end(&event, out, 0) && good;
}

/* ---- files ---- */

static pq_status no_memory(const char *path, pq_error *err) {
    return PQ_FAIL(err, PQ_ERR_MEMORY, "an event of %s could not be made", path);
}

static pq_status write_anew(const char *path, const json_t *lines, pq_error *err) {
    pq_file_writer writer;
    message first;
    size_t i;
    json_t *line;
    PQ_TRY(pq_file_create(path, true, &writer, err));
    bool good = begin(&first);
    if (good) {
        static const char version[] = "brain.Event:2";
        put_double(first.stream, 1, wall_time());
        put_bytes(first.stream, 3, version, sizeof version - 1);
        good = end(&first, writer.stream, 0);
    }
    json_array_foreach((json_t *)lines, i, line) good = good && put_line(writer.stream, line);
    if (good) return pq_file_commit(&writer, err); /* checks the stream */
    pq_file_abort(&writer);
    return no_memory(path, err);
}

pq_status pq_tensorboard_open(const char *dir, const json_t *lines, pq_tensorboard **out, pq_error *err) {
    pq_tensorboard *board;
    *out = NULL;
    PQ_TRY(pq_calloc(1, sizeof *board, "event file", &board, err));
    board->descriptor = -1;
    board->path = pq_path_join(dir, PQ_TENSORBOARD_FILE);
    pq_status status = board->path ? write_anew(board->path, lines, err)
                                   : PQ_FAIL(err, PQ_ERR_MEMORY, "a file name could not be allocated");
    if (status == PQ_OK) {
        board->descriptor = open(board->path, O_WRONLY | O_APPEND | O_CLOEXEC);
        if (board->descriptor < 0)
            status = PQ_FAIL(err, PQ_ERR_IO, "%s could not be opened for writing: %s", board->path,
                             strerror(errno));
    }
    if (status == PQ_OK)
        *out = board;
    else
        pq_tensorboard_close(board, NULL);
    return status;
}

pq_status pq_tensorboard_write(pq_tensorboard *board, const json_t *line, pq_error *err) {
    message record;
    if (!begin(&record)) return no_memory(board->path, err);
    bool good = put_line(record.stream, line);
    good = fclose(record.stream) == 0 && good;
    pq_status status = good ? PQ_OK : no_memory(board->path, err);
    for (size_t done = 0; done < record.bytes && status == PQ_OK;) {
        ssize_t wrote = write(board->descriptor, record.data + done, record.bytes - done);
        if (wrote >= 0)
            done += (size_t)wrote;
        else if (errno != EINTR)
            status = PQ_FAIL(err, PQ_ERR_IO, "%s could not be written: %s", board->path, strerror(errno));
    }
    free(record.data);
    return status;
}

pq_status pq_tensorboard_sync(pq_tensorboard *board, pq_error *err) {
    if (fsync(board->descriptor) == 0) return PQ_OK;
    return PQ_FAIL(err, PQ_ERR_IO, "%s could not be synced: %s", board->path, strerror(errno));
}

pq_status pq_tensorboard_close(pq_tensorboard *board, pq_error *err) {
    pq_status status = PQ_OK;
    if (!board) return PQ_OK;
    if (board->descriptor >= 0 && close(board->descriptor) != 0)
        status = PQ_FAIL(err, PQ_ERR_IO, "%s could not be closed: %s", board->path, strerror(errno));
    free(board->path);
    free(board);
    return status;
}
