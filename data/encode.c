/* Owns the way from pieces of text to tokens: pieces are gathered, encoded by all threads, and handed on in
 * order. */
#include "data/encode.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/threads.h"

enum { TEXT = 1 << 20, PIECES = 4096 }; /* of a batch: bytes before the last piece; pieces */
enum { SAMPLE = 1 << 20 };              /* bytes whose characters are taken at once */

typedef struct part {
    size_t start, bytes; /* in the batch's text */
    uint64_t document;
    bool ends;
    pq_place place;
    uint16_t *tokens;
    size_t count;
    pq_status status;
    pq_error error;
} part;

struct pq_encoder {
    pq_documents *documents;
    const pq_tokenizer *tokenizer;
    char *text;
    part *parts;
    size_t count;
};

pq_status pq_encoder_create(pq_documents *documents, const pq_tokenizer *tokenizer, pq_encoder **out,
                            pq_error *err) {
    pq_encoder *e;
    *out = NULL;
    PQ_TRY(pq_calloc(1, sizeof *e, "the encoder", &e, err));
    e->documents = documents;
    e->tokenizer = tokenizer;
    pq_status status = pq_calloc(TEXT + 2 * PQ_PIECE_MOST, 1, "the encoder", &e->text, err);
    e->parts = calloc(PIECES, sizeof *e->parts); /* pages that are never touched cost nothing */
    if (status == PQ_OK && !e->parts)
        status = PQ_FAIL(err, PQ_ERR_MEMORY, "the encoder could not be allocated");
    if (status != PQ_OK)
        pq_encoder_destroy(e);
    else
        *out = e;
    return status;
}

void pq_encoder_destroy(pq_encoder *e) {
    if (!e) return;
    free(e->text);
    free(e->parts);
    free(e);
}

static pq_status gather(pq_encoder *e, bool *more, pq_error *err) {
    size_t bytes = 0;
    e->count = 0;
    *more = true;
    while (bytes < TEXT && e->count < PIECES) {
        pq_piece piece;
        PQ_TRY(pq_documents_next(e->documents, &piece, err));
        if (!piece.text) {
            *more = false;
            break;
        }
        memcpy(e->text + bytes, piece.text, piece.bytes);
        part *p = &e->parts[e->count++];
        p->start = bytes;
        p->bytes = piece.bytes;
        p->document = piece.document;
        p->ends = piece.ends;
        p->place = piece.place;
        p->tokens = NULL;
        p->count = 0;
        p->status = PQ_OK;
        bytes += piece.bytes;
    }
    return PQ_OK;
}

static void encode_part(void *context, size_t i) {
    pq_encoder *e = context;
    part *p = &e->parts[i];
    if (p->bytes)
        p->status =
            pq_tokenizer_encode(e->tokenizer, e->text + p->start, p->bytes, &p->tokens, &p->count, &p->error);
}

static pq_status hand_on(const pq_encoder *e, const part *p, pq_token_sink sink, void *context,
                         pq_error *err) {
    int32_t end = pq_tokenizer_end_of_text(e->tokenizer);
    if (p->status != PQ_OK) {
        if (err) *err = p->error;
        return pq_documents_blame(e->documents, &p->place, err, p->status);
    }
    if (p->count) PQ_TRY(sink(context, p->document, p->tokens, p->count, err));
    if (p->ends && end >= 0) {
        uint16_t token = (uint16_t)end;
        PQ_TRY(sink(context, p->document, &token, 1, err));
    }
    return PQ_OK;
}

pq_status pq_encoder_next(pq_encoder *e, pq_token_sink sink, void *context, bool *more, pq_error *err) {
    pq_error late;
    pq_status late_status = gather(e, more, &late); /* what is before a bad line is looked at first */
    pq_status status = PQ_OK;
    pq_parallel_for(e->count, encode_part, e);
    for (size_t i = 0; i < e->count; i++) {
        if (status == PQ_OK) status = hand_on(e, &e->parts[i], sink, context, err);
        free(e->parts[i].tokens);
    }
    if (status == PQ_OK && late_status != PQ_OK) {
        if (err) *err = late;
        status = late_status;
    }
    return status;
}

/* *known = a tokenizer of the characters that it has already (NULL: none) and those of text[bytes]. */
static pq_status learn(pq_tokenizer **known, const char *text, size_t bytes, pq_error *err) {
    pq_tokenizer *both, *fresh;
    uint16_t *ids;
    char *had, *joined;
    size_t had_bytes, vocab;
    if (bytes == 0) return PQ_OK;
    PQ_TRY(pq_tokenizer_create("char", text, bytes, &fresh, err));
    if (!*known) {
        *known = fresh;
        return PQ_OK;
    }
    /* The texts of both vocabularies one after the other have the characters of both. */
    size_t joined_bytes = 0;
    const pq_tokenizer *const two[] = {*known, fresh};
    pq_status status = pq_calloc(8 * 65536, 1, "the characters of the text", &joined, err);
    for (size_t i = 0; i < 2 && status == PQ_OK; i++) {
        vocab = pq_tokenizer_vocab(two[i]);
        status = pq_calloc(vocab, sizeof *ids, "the characters of the text", &ids, err);
        if (status != PQ_OK) break;
        for (size_t id = 0; id < vocab; id++) ids[id] = (uint16_t)id;
        status = pq_tokenizer_decode(two[i], ids, vocab, &had, &had_bytes, err);
        free(ids);
        if (status != PQ_OK) break;
        memcpy(joined + joined_bytes, had, had_bytes);
        joined_bytes += had_bytes;
        free(had);
    }
    if (status == PQ_OK) status = pq_tokenizer_create("char", joined, joined_bytes, &both, err);
    free(joined);
    pq_tokenizer_destroy(fresh);
    PQ_TRY(status);
    pq_tokenizer_destroy(*known);
    *known = both;
    return PQ_OK;
}

static pq_status learn_all(pq_documents *documents, char *sample,
                           bool (*go_on)(void *context, const pq_documents *at), void *context,
                           pq_tokenizer **known, pq_error *err) {
    pq_piece piece = {.text = sample};
    pq_place first = {0};
    size_t bytes = 0;
    while (piece.text) {
        PQ_TRY(pq_documents_next(documents, &piece, err));
        /* Bytes of several files are not counted together. */
        if (bytes && (!piece.text || bytes + piece.bytes > SAMPLE || piece.place.file != first.file)) {
            pq_status status = learn(known, sample, bytes, err);
            if (status != PQ_OK) return pq_documents_blame(documents, &first, err, status);
            bytes = 0;
            if (go_on && !go_on(context, documents)) return PQ_FAIL(err, PQ_STOPPED, "stopped");
        }
        if (!piece.text) break;
        if (bytes == 0) first = piece.place;
        memcpy(sample + bytes, piece.text, piece.bytes);
        bytes += piece.bytes;
    }
    return *known ? PQ_OK
                  : PQ_FAIL(err, PQ_ERR_USAGE, "%s is empty; a text to learn from has characters",
                            pq_documents_name(documents));
}

pq_status pq_encoder_tokenizer(const char *kind, pq_documents *documents,
                               bool (*go_on)(void *context, const pq_documents *at), void *context,
                               pq_tokenizer **out, pq_error *err) {
    char *sample;
    pq_status status;
    *out = NULL;
    if (strcmp(kind, "char") != 0) {
        status = pq_tokenizer_create(kind, "", 0, out, err);
    } else {
        PQ_TRY(pq_calloc(SAMPLE + 2 * PQ_PIECE_MOST, 1, "the characters of the text", &sample, err));
        status = learn_all(documents, sample, go_on, context, out, err);
        free(sample);
    }
    if (status == PQ_OK) {
        pq_documents_restart(documents, pq_tokenizer_end_of_text(*out) >= 0);
        return PQ_OK;
    }
    pq_tokenizer_destroy(*out);
    *out = NULL;
    return status;
}
