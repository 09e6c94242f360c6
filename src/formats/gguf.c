/* Owns GGUF's container, version 3: keys with typed values, then names, shapes and places of the tensors. All
 * numbers are little-endian. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "formats/gguf_parts.h"

#define MAGIC   "GGUF"
#define VERSION 3u

enum { UINT32 = 4, INT32 = 5, FLOAT32 = 6, BOOL = 7, STRING = 8, ARRAY = 9 }; /* types of values */

/* ---- writing ---- */

static void put(FILE *stream, const void *data, size_t bytes) {
    fwrite(data, 1, bytes, stream); /* the stream keeps its error */
}

static void put_u32(FILE *stream, uint32_t value) {
    put(stream, &value, sizeof value);
}

static void put_u64(FILE *stream, uint64_t value) {
    put(stream, &value, sizeof value);
}

static void put_text(FILE *stream, const char *text) {
    put_u64(stream, strlen(text));
    put(stream, text, strlen(text));
}

pq_status pq_gguf_metadata_init(pq_gguf_metadata *metadata, pq_error *err) {
    *metadata = (pq_gguf_metadata){0};
    metadata->stream = open_memstream(&metadata->bytes, &metadata->size);
    return metadata->stream ? PQ_OK : PQ_FAIL(err, PQ_ERR_MEMORY, "no memory for a model's metadata");
}

void pq_gguf_metadata_deinit(pq_gguf_metadata *metadata) {
    if (metadata->stream) fclose(metadata->stream);
    free(metadata->bytes);
    *metadata = (pq_gguf_metadata){0};
}

static void begin(pq_gguf_metadata *metadata, const char *key, uint32_t type) {
    put_text(metadata->stream, key);
    put_u32(metadata->stream, type);
    metadata->count++;
}

static void begin_array(pq_gguf_metadata *metadata, const char *key, uint32_t type, size_t count) {
    begin(metadata, key, ARRAY);
    put_u32(metadata->stream, type);
    put_u64(metadata->stream, count);
}

void pq_gguf_add_u32(pq_gguf_metadata *metadata, const char *key, uint32_t value) {
    begin(metadata, key, UINT32);
    put_u32(metadata->stream, value);
}

void pq_gguf_add_f32(pq_gguf_metadata *metadata, const char *key, float value) {
    begin(metadata, key, FLOAT32);
    put(metadata->stream, &value, sizeof value);
}

void pq_gguf_add_bool(pq_gguf_metadata *metadata, const char *key, bool value) {
    begin(metadata, key, BOOL);
    put(metadata->stream, &(uint8_t){value}, 1);
}

void pq_gguf_add_text(pq_gguf_metadata *metadata, const char *key, const char *value) {
    begin(metadata, key, STRING);
    put_text(metadata->stream, value);
}

void pq_gguf_add_texts(pq_gguf_metadata *metadata, const char *key, const char *values, size_t count) {
    begin_array(metadata, key, STRING, count);
    for (size_t i = 0; i < count; i++, values += strlen(values) + 1) put_text(metadata->stream, values);
}

void pq_gguf_add_i32s(pq_gguf_metadata *metadata, const char *key, const int32_t *values, size_t count) {
    begin_array(metadata, key, INT32, count);
    put(metadata->stream, values, count * sizeof *values);
}

static void place(pq_gguf_tensor *tensors, size_t count) {
    size_t offset = 0;
    for (size_t i = 0; i < count; i++) {
        pq_gguf_tensor *t = &tensors[i];
        t->offset = offset;
        t->bytes = (t->rows ? t->rows : 1) * (t->columns / t->type->block) * t->type->bytes;
        offset = pq_round_up(offset + t->bytes, PQ_GGUF_ALIGNMENT);
    }
}

static void put_tensor(FILE *stream, const pq_gguf_tensor *tensor) {
    put_text(stream, tensor->name);
    put_u32(stream, tensor->rows ? 2 : 1);
    put_u64(stream, tensor->columns); /* what runs fastest comes first */
    if (tensor->rows) put_u64(stream, tensor->rows);
    put_u32(stream, tensor->type->id);
    put_u64(stream, tensor->offset);
}

pq_status pq_gguf_header(pq_gguf_metadata *metadata, pq_gguf_tensor *tensors, size_t count, char **header,
                         size_t *bytes, pq_error *err) {
    static const char zeros[PQ_GGUF_ALIGNMENT];
    FILE *stream;
    *header = NULL;
    bool good = fflush(metadata->stream) == 0 && !ferror(metadata->stream) &&
                (stream = open_memstream(header, bytes)) != NULL;
    if (good) {
        place(tensors, count);
        put(stream, MAGIC, 4);
        put_u32(stream, VERSION);
        put_u64(stream, count);
        put_u64(stream, metadata->count);
        put(stream, metadata->bytes, metadata->size);
        for (size_t i = 0; i < count; i++) put_tensor(stream, &tensors[i]);
        good = fflush(stream) == 0;
        put(stream, zeros, pq_round_up(*bytes, PQ_GGUF_ALIGNMENT) - *bytes);
        good = good && !ferror(stream);
        good = fclose(stream) == 0 && good;
    }
    if (good) return PQ_OK;
    free(*header);
    *header = NULL;
    return PQ_FAIL(err, PQ_ERR_MEMORY, "no memory for a GGUF file's header");
}

/* ---- reading back what was written ---- */

typedef struct cursor {
    const char *at;
    size_t left;
    bool bad;
} cursor;

static const char *take(cursor *c, uint64_t bytes) {
    if (c->bad || bytes > c->left) {
        c->bad = true;
        return NULL;
    }
    const char *found = c->at;
    c->at += bytes;
    c->left -= bytes;
    return found;
}

static uint64_t take_number(cursor *c, size_t bytes) {
    uint64_t value = 0;
    const char *found = take(c, bytes);
    if (found) memcpy(&value, found, bytes);
    return value;
}

static void skip_value(cursor *c, uint64_t type) {
    static const size_t sizes[] = {[UINT32] = 4, [INT32] = 4, [FLOAT32] = 4, [BOOL] = 1};
    if (type == STRING)
        take(c, take_number(c, 8));
    else if (type < STRING && sizes[type])
        take(c, sizes[type]);
    else
        c->bad = true;
}

static void skip_key(cursor *c) {
    take(c, take_number(c, 8));
    uint64_t type = take_number(c, 4), count = 1;
    if (type == ARRAY) {
        type = take_number(c, 4);
        count = take_number(c, 8);
    }
    while (!c->bad && count-- > 0) skip_value(c, type);
}

static void read_tensor(cursor *c, pq_gguf_tensor *tensor) {
    const uint64_t length = take_number(c, 8);
    const char *name = take(c, length);
    if (c->bad || length >= sizeof tensor->name) {
        c->bad = true;
        return;
    }
    memcpy(tensor->name, name, length);
    const uint64_t rank = take_number(c, 4);
    tensor->columns = take_number(c, 8);
    tensor->rows = rank == 2 ? take_number(c, 8) : 0;
    tensor->type = pq_gguf_type_find_id((uint32_t)take_number(c, 4));
    tensor->offset = take_number(c, 8);
    c->bad = c->bad || rank < 1 || rank > 2 || !tensor->type || tensor->columns % tensor->type->block != 0;
}

static bool inside(const pq_gguf_tensor *t, size_t left) {
    const size_t rows = t->rows ? t->rows : 1;
    return t->offset % PQ_GGUF_ALIGNMENT == 0 && t->offset <= left && t->columns <= left &&
           (t->columns == 0 || rows <= SIZE_MAX / 4 / t->columns) && t->bytes <= left - t->offset;
}

pq_status pq_gguf_parse(const char *image, size_t size, pq_gguf_tensor **tensors, size_t *count, size_t *data,
                        pq_error *err) {
    cursor c = {.at = image, .left = size};
    const char *magic = take(&c, 4);
    *tensors = NULL;
    if (!magic || memcmp(magic, MAGIC, 4) != 0 || take_number(&c, 4) != VERSION)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "it is no GGUF file of version %u", VERSION);
    *count = take_number(&c, 8);
    uint64_t keys = take_number(&c, 8);
    if (*count > size) return PQ_FAIL(err, PQ_ERR_FORMAT, "its header ends early");
    PQ_TRY(pq_calloc(*count, sizeof **tensors, "tensors", tensors, err));
    while (!c.bad && keys-- > 0) skip_key(&c);
    for (size_t i = 0; !c.bad && i < *count; i++) read_tensor(&c, &(*tensors)[i]);
    *data = pq_round_up(size - c.left, PQ_GGUF_ALIGNMENT);
    c.bad = c.bad || *data > size;
    for (size_t i = 0; !c.bad && i < *count; i++) {
        pq_gguf_tensor *t = &(*tensors)[i];
        t->bytes = (t->rows ? t->rows : 1) * (t->columns / t->type->block) * t->type->bytes;
        c.bad = !inside(t, size - *data);
    }
    if (!c.bad) return PQ_OK;
    free(*tensors);
    *tensors = NULL;
    return PQ_FAIL(err, PQ_ERR_FORMAT, "its header is damaged");
}
