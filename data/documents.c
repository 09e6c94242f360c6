/* Owns the cutting of texts into documents and pieces. Which files there are, and their bytes, are files.c's
 * and bytes.c's. */
#include "data/documents.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "data/bytes.h"
#include "data/files.h"

/* Bytes behind a piece that must be seen to know where its document ends: a line break (two bytes), the
 * marker, and the line break behind it. */
enum { MARKER = sizeof PQ_DOCUMENT_MARKER - 1, HOLD = 64, CUT_LEAST = PQ_PIECE_MOST / 2 };

struct pq_documents {
    pq_files files;
    char *field;
    bool marked;
    pq_bytes *bytes; /* of files.list[place.file]; NULL: not open yet */
    char *buffer;    /* [capacity]; bytes [start, end) of it are not used yet */
    size_t start, end, capacity;
    bool whole; /* the file ends where the buffer does */
    pq_place place;
    json_t *object; /* the line of JSONL that is being taken, and its document */
    const char *document;
    size_t document_bytes, line_bytes;
    char *piece; /* the text that is lent */
};

bool pq_documents_in(const char *path) {
    return pq_files_in(path);
}

pq_status pq_documents_open(const char *path, const char *field, pq_documents **out, pq_error *err) {
    pq_documents *d;
    pq_status status;
    *out = NULL;
    PQ_TRY(pq_calloc(1, sizeof *d, "the reader of documents", &d, err));
    d->place.last = -1;
    d->capacity = 4 * PQ_PIECE_MOST;
    PQ_TRY_TO(status, failed, pq_files_find(path, &d->files, err));
    PQ_TRY_TO(status, failed, pq_copy_text(field ? field : "text", &d->field, err));
    PQ_TRY_TO(status, failed, pq_calloc(d->capacity, 1, "the reader of documents", &d->buffer, err));
    PQ_TRY_TO(status, failed, pq_calloc(PQ_PIECE_MOST + HOLD, 1, "a piece of a text", &d->piece, err));
    *out = d;
    return PQ_OK;
failed:
    pq_documents_close(d);
    return status;
}

static void close_file(pq_documents *d) {
    json_decref(d->object);
    d->object = NULL;
    pq_bytes_close(d->bytes);
    d->bytes = NULL;
    d->start = d->end = 0;
    d->whole = false;
}

void pq_documents_close(pq_documents *d) {
    if (!d) return;
    close_file(d);
    pq_files_deinit(&d->files);
    free(d->field);
    free(d->buffer);
    free(d->piece);
    free(d);
}

static const pq_text_file *current(const pq_documents *d) {
    return &d->files.list[d->place.file];
}

static pq_status open_file(pq_documents *d, pq_error *err) {
    PQ_TRY(d->files.memory ? pq_bytes_open_memory(d->files.memory, (size_t)current(d)->size, &d->bytes, err)
                           : pq_bytes_open(current(d)->path, &d->bytes, err));
    return pq_bytes_skip(d->bytes, d->place.offset, err);
}

/* Have `least` unused bytes in the buffer, or all that the file has left. */
static pq_status fill(pq_documents *d, size_t least, pq_error *err) {
    size_t got;
    if (d->end - d->start >= least || d->whole) return PQ_OK;
    memmove(d->buffer, d->buffer + d->start, d->end - d->start);
    d->end -= d->start;
    d->start = 0;
    if (least > d->capacity) {
        size_t capacity = pq_round_up(2 * least, PQ_PIECE_MOST);
        char *larger = realloc(d->buffer, capacity);
        if (!larger) return PQ_FAIL(err, PQ_ERR_MEMORY, "a line of %zu bytes could not be allocated", least);
        d->buffer = larger;
        d->capacity = capacity;
    }
    PQ_TRY(pq_bytes_read(d->bytes, d->buffer + d->end, d->capacity - d->end, &got, err));
    d->whole = got < d->capacity - d->end;
    d->end += got;
    return PQ_OK;
}

/* Whether the character that ends before `at` may be white space: all of Unicode's are below, and a few more
 * that share their first bytes. */
static bool maybe_space(const char *text, size_t at) {
    unsigned char last = (unsigned char)text[at - 1];
    if (last < 0x80) return last <= ' ' || last == 0x7F;
    size_t first = at - 1;
    while (first > 0 && at - first < 4 && ((unsigned char)text[first] & 0xC0) == 0x80) first--;
    unsigned char lead = (unsigned char)text[first], next = (unsigned char)text[first + (first + 1 < at)];
    return lead < 0xC3 || lead == 0xE1 || lead == 0xE2 || (lead == 0xE3 && next == 0x80);
}

/* Where text that goes on beyond PQ_PIECE_MOST bytes is cut. */
static size_t cut(const char *text) {
    for (size_t at = PQ_PIECE_MOST; at > CUT_LEAST; at--)
        if ((text[at] == ' ' || text[at] == '\n') && !maybe_space(text, at)) return at;
    size_t at = PQ_PIECE_MOST;
    while (at > PQ_PIECE_MOST - 4 && ((unsigned char)text[at] & 0xC0) == 0x80) at--;
    if (((unsigned char)text[at] & 0xC0) == 0x80) at = PQ_PIECE_MOST;
    return text[at - 1] == '\r' ? at - 1 : at; /* nor is a line break */
}

/* Look in text[n] for a line that is the marker; *after = behind it. SIZE_MAX when there is none. */
static size_t find_marker(const char *text, size_t n, bool line_start, bool whole, size_t *after) {
    for (const char *from = text;; from++) {
        from = memmem(from, n - (size_t)(from - text), PQ_DOCUMENT_MARKER, MARKER);
        if (!from) return SIZE_MAX;
        size_t at = (size_t)(from - text), end = at + MARKER;
        if (!(at ? text[at - 1] == '\n' : line_start)) continue;
        if (end < n && text[end] == '\r') end++;
        if (end < n ? text[end] == '\n' : whole) {
            *after = end < n ? end + 1 : end;
            return at;
        }
    }
}

/* Lend text[bytes], the piece that begins at d->place; `close` adds a line break where there is none. */
static void lend(pq_documents *d, const char *text, size_t bytes, bool ends, bool close, pq_piece *out) {
    int last = bytes ? (unsigned char)text[bytes - 1] : d->place.last;
    if (bytes) memcpy(d->piece, text, bytes);
    if (close && last != '\n') d->piece[bytes++] = '\n';
    *out = (pq_piece){
        .text = d->piece, .bytes = bytes, .ends = ends, .document = d->place.document, .place = d->place};
    d->place.last = ends ? -1 : last;
    d->place.document += ends;
}

/* The next piece of a text file; out->text stays NULL at its end. */
static pq_status next_of_text(pq_documents *d, pq_piece *out, pq_error *err) {
    for (;;) {
        const size_t most = PQ_PIECE_MOST + HOLD;
        PQ_TRY(fill(d, most, err));
        const char *text = d->buffer + d->start;
        size_t n = d->end - d->start < most ? d->end - d->start : most, after = n, bytes = n;
        bool ends = d->whole && n == d->end - d->start,
             line_start = d->place.last < 0 || d->place.last == '\n';
        if (n == 0) return PQ_OK;
        size_t marker = find_marker(text, n, line_start, ends, &after);
        bool close = ends && marker == SIZE_MAX && !d->marked && d->files.folder;
        if (marker != SIZE_MAX) {
            ends = true;
            bytes = d->marked ? marker : after;
            if (d->marked && bytes && text[bytes - 1] == '\n') bytes--;
            if (d->marked && bytes && bytes < marker && text[bytes - 1] == '\r') bytes--;
        }
        if (!ends || (marker == SIZE_MAX ? bytes : marker) > PQ_PIECE_MOST) { /* a marker is never cut */
            bytes = after = cut(text);
            ends = close = false;
        }
        bool nothing = ends && bytes == 0 && d->place.last < 0;
        if (!nothing) lend(d, text, bytes, ends, close, out);
        d->place.offset += after;
        d->start += after;
        if (!nothing) return PQ_OK;
    }
}

/* The line at the buffer's start: its length, without the line break in *length and with it in *after (0 at
 * the end of the file). */
static pq_status find_line(pq_documents *d, size_t *length, size_t *after, pq_error *err) {
    for (size_t seen = 0;;) {
        PQ_TRY(fill(d, seen + 1, err));
        size_t n = d->end - d->start;
        const char *line = d->buffer + d->start, *end = memchr(line + seen, '\n', n - seen);
        *length = end ? (size_t)(end - line) : n;
        *after = *length + (end != NULL);
        if (*length > PQ_JSON_LINE_MOST)
            return PQ_FAIL(err, PQ_ERR_FORMAT, "the line is longer than %zu bytes, the most that is read",
                           PQ_JSON_LINE_MOST);
        if (end || d->whole) return PQ_OK;
        seen = n;
    }
}

/* Take the document out of the JSON text line[length]. */
static pq_status parse(pq_documents *d, const char *line, size_t length, pq_error *err) {
    json_error_t where;
    d->object = json_loadb(line, length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &where);
    if (!d->object)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "this is not JSON, at byte %d: %s", where.position, where.text);
    const json_t *value = json_object_get(d->object, d->field);
    if (!json_is_object(d->object))
        return PQ_FAIL(err, PQ_ERR_FORMAT, "a line should be a JSON object; this is another value");
    if (!value)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "the object has no field \"%s\" (data.field), only %zu others",
                       d->field, json_object_size(d->object));
    if (!json_is_string(value))
        return PQ_FAIL(err, PQ_ERR_FORMAT, "the field \"%s\" is not a text", d->field);
    d->document = json_string_value(value);
    d->document_bytes = json_string_length(value);
    if (d->place.within > d->document_bytes)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "the document is shorter than it was");
    return PQ_OK;
}

static void end_line(pq_documents *d) {
    json_decref(d->object);
    d->object = NULL;
    d->place.offset += d->line_bytes;
    d->place.line++;
    d->place.within = 0;
}

/* The next piece of a JSONL file; out->text stays NULL at its end. */
static pq_status next_of_lines(pq_documents *d, pq_piece *out, pq_error *err) {
    while (!out->text) {
        if (!d->object) {
            size_t length;
            PQ_TRY(find_line(d, &length, &d->line_bytes, err));
            const char *line = d->buffer + d->start;
            d->start += d->line_bytes;
            if (d->line_bytes == 0) return PQ_OK;
            size_t blank = 0;
            while (blank < length && strchr(" \t\r", line[blank]) && line[blank]) blank++;
            if (blank == length) {
                end_line(d);
                continue;
            }
            PQ_TRY(parse(d, line, length, err));
        }
        const char *text = d->document + d->place.within;
        size_t left = d->document_bytes - (size_t)d->place.within;
        bool ends = left <= PQ_PIECE_MOST;
        size_t bytes = ends ? left : cut(text);
        if (d->document_bytes) lend(d, text, bytes, ends, ends && !d->marked, out);
        d->place.within += bytes;
        if (ends) end_line(d);
    }
    return PQ_OK;
}

pq_status pq_documents_next(pq_documents *d, pq_piece *out, pq_error *err) {
    *out = (pq_piece){.text = NULL};
    while (d->place.file < d->files.count) {
        if (!d->bytes) PQ_TRY(open_file(d, err));
        pq_status status = current(d)->lines ? next_of_lines(d, out, err) : next_of_text(d, out, err);
        if (status == PQ_ERR_FORMAT && current(d)->lines)
            return pq_documents_blame(d, &d->place, err, status);
        if (status != PQ_OK || out->text) return status;
        close_file(d);
        d->place = (pq_place){.file = d->place.file + 1, .document = d->place.document, .last = -1};
    }
    return PQ_OK;
}

void pq_documents_restart(pq_documents *d, bool marked) {
    close_file(d);
    d->place = (pq_place){.last = -1};
    d->marked = marked;
}

pq_place pq_documents_tell(const pq_documents *d) {
    return d->place;
}

pq_status pq_documents_seek(pq_documents *d, const pq_place *place, pq_error *err) {
    if (place->file > d->files.count)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "%s has %zu files; file %llu was expected", d->files.name,
                       d->files.count, (unsigned long long)place->file);
    close_file(d);
    d->place = *place;
    return PQ_OK;
}

pq_status pq_documents_blame(const pq_documents *d, const pq_place *place, pq_error *err, pq_status code) {
    const pq_text_file *file = &d->files.list[place->file];
    const char *name = d->files.folder ? file->path : d->files.name;
    if (file->lines) return pq_prefix(err, code, "%s, line %llu", name, (unsigned long long)place->line + 1);
    if (place->offset == 0) return pq_prefix(err, code, "%s", name);
    return pq_prefix(err, code, "%s, counted from byte %llu", name, (unsigned long long)place->offset);
}

const char *pq_documents_name(const pq_documents *d) {
    return d->files.name;
}

double pq_documents_floor(const pq_documents *d) {
    return d->files.floor;
}

uint64_t pq_documents_identity(const pq_documents *d) {
    return d->files.identity;
}

uint64_t pq_documents_size(const pq_documents *d) {
    return d->files.size;
}

uint64_t pq_documents_taken(const pq_documents *d) {
    uint64_t taken = d->bytes ? pq_bytes_taken(d->bytes) : 0;
    for (size_t i = 0; i < d->place.file && i < d->files.count; i++) taken += d->files.list[i].size;
    return taken;
}
