/* Owns the kind "bpe", GPT-2's byte-level BPE: its tables, what is derived from them, and its JSON form.
 * Encoding is tokenizer_encode.c's, other programs' files are tokenizer_files.c's. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "data/base64.h"
#include "data/tokenizer_bpe.h"

enum { TOTAL_BYTES = 64 << 20 }; /* of all tokens together */

static void destroy(void *state) {
    pq_bpe *bpe = state;
    if (!bpe) return;
    free(bpe->tables.merges);
    free(bpe->slots);
    free(bpe->bytes);
    free(bpe->start);
    free(bpe->length);
    pq_split_destroy(bpe->split);
    free(bpe);
}

/* ---- what follows from the tables ---- */

/* Room for the bytes of the tokens, which grows. */
typedef struct room {
    size_t used, size;
} room;

static char *token_at(const pq_bpe *bpe, size_t id) {
    return bpe->bytes + bpe->start[id];
}

/* A new token of `length` bytes, whose bytes the caller writes. */
static pq_status add_token(pq_bpe *bpe, size_t id, size_t length, room *r, pq_error *err) {
    if (r->used + length > r->size) {
        r->size = 2 * (r->used + length) + (1 << 16);
        char *grown = r->used + length <= TOTAL_BYTES ? realloc(bpe->bytes, r->size) : NULL;
        if (!grown)
            return PQ_FAIL(err, r->size > TOTAL_BYTES ? PQ_ERR_FORMAT : PQ_ERR_MEMORY,
                           "the tokens have more than %zu bytes together, which do not fit", r->used);
        bpe->bytes = grown;
    }
    bpe->start[id] = (uint32_t)r->used;
    bpe->length[id] = (uint16_t)length;
    r->used += length;
    return PQ_OK;
}

static pq_status add_simple(pq_bpe *bpe, room *r, pq_error *err) {
    const pq_bpe_tables *t = &bpe->tables;
    if (t->end >= 0) {
        if ((size_t)t->end >= t->vocab)
            return PQ_FAIL(err, PQ_ERR_FORMAT, PQ_END_OF_TEXT " has the id %d; ids end at %zu", (int)t->end,
                           t->vocab - 1);
        PQ_TRY(add_token(bpe, (size_t)t->end, sizeof PQ_END_OF_TEXT - 1, r, err));
        memcpy(token_at(bpe, (size_t)t->end), PQ_END_OF_TEXT, sizeof PQ_END_OF_TEXT - 1);
    }
    for (size_t byte = 0; byte < 256; byte++) {
        const uint16_t id = t->byte_id[byte];
        if (id >= t->vocab || bpe->length[id])
            return PQ_FAIL(err, PQ_ERR_FORMAT,
                           "byte 0x%02zX has the id %u, which is beyond %zu or has another meaning", byte, id,
                           t->vocab - 1);
        PQ_TRY(add_token(bpe, id, 1, r, err));
        *token_at(bpe, id) = (char)byte;
    }
    return PQ_OK;
}

/* What the merge makes must be new, or what it was before. */
static pq_status add_made(pq_bpe *bpe, size_t rank, room *r, pq_error *err) {
    const pq_bpe_tables *t = &bpe->tables;
    const pq_bpe_merge m = t->merges[rank];
    const uint16_t parts[] = {m.left, m.right};
    char joined[PQ_BPE_TOKEN_BYTES];
    size_t length = 0;
    for (size_t i = 0; i < 2; i++) {
        if (parts[i] >= t->vocab || parts[i] == t->end || !bpe->length[parts[i]])
            return PQ_FAIL(err, PQ_ERR_FORMAT,
                           "merge %zu joins the id %u, which no byte has and no earlier merge makes",
                           rank + 1, parts[i]);
        if (length + bpe->length[parts[i]] > sizeof joined)
            return PQ_FAIL(err, PQ_ERR_FORMAT, "merge %zu makes a token of more than %zu bytes", rank + 1,
                           sizeof joined);
        memcpy(joined + length, token_at(bpe, parts[i]), bpe->length[parts[i]]);
        length += bpe->length[parts[i]];
    }
    if (m.made < t->vocab && !bpe->length[m.made]) {
        PQ_TRY(add_token(bpe, m.made, length, r, err));
        memcpy(token_at(bpe, m.made), joined, length);
        return PQ_OK;
    }
    if (m.made < t->vocab && m.made != t->end && bpe->length[m.made] == length &&
        memcmp(token_at(bpe, m.made), joined, length) == 0)
        return PQ_OK;
    return PQ_FAIL(err, PQ_ERR_FORMAT,
                   "merge %zu makes the id %u, which is beyond %zu or has another meaning", rank + 1, m.made,
                   t->vocab - 1);
}

static pq_status add_tokens(pq_bpe *bpe, pq_error *err) {
    const pq_bpe_tables *t = &bpe->tables;
    room r = {0};
    PQ_TRY(pq_calloc(t->vocab, sizeof *bpe->start, "the tokens", &bpe->start, err));
    PQ_TRY(pq_calloc(t->vocab, sizeof *bpe->length, "the tokens", &bpe->length, err));
    PQ_TRY(add_simple(bpe, &r, err));
    for (size_t rank = 0; rank < t->merge_count; rank++) PQ_TRY(add_made(bpe, rank, &r, err));
    for (size_t id = 0; id < t->vocab; id++)
        if (!bpe->length[id])
            return PQ_FAIL(err, PQ_ERR_FORMAT, "the id %zu is no byte's, and none of the %zu merges makes it",
                           id, t->merge_count);
    return PQ_OK;
}

static pq_status add_slots(pq_bpe *bpe, pq_error *err) {
    const pq_bpe_tables *t = &bpe->tables;
    size_t slots = 16;
    while (slots < 2 * t->merge_count) slots *= 2;
    bpe->slots = malloc(slots * sizeof *bpe->slots);
    if (!bpe->slots) return PQ_FAIL(err, PQ_ERR_MEMORY, "%zu merges could not be allocated", t->merge_count);
    memset(bpe->slots, 0xFF, slots * sizeof *bpe->slots);
    bpe->slot_mask = slots - 1;
    for (size_t rank = 0; rank < t->merge_count; rank++) {
        const pq_bpe_merge m = t->merges[rank];
        pq_bpe_slot *slot = pq_bpe_slot_of(bpe, m.left, m.right);
        if (slot->rank != UINT32_MAX)
            return PQ_FAIL(err, PQ_ERR_FORMAT, "merge %zu joins the same ids, %u and %u, as merge %u",
                           rank + 1, m.left, m.right, slot->rank + 1);
        *slot = (pq_bpe_slot){.pair = (uint32_t)m.left << 16 | m.right, .rank = (uint32_t)rank};
    }
    return PQ_OK;
}

/* Fill `out`; the merges of *tables are taken, also on error. */
static pq_status take_tables(pq_bpe_tables *tables, pq_tokenizer *out, pq_error *err) {
    pq_bpe *bpe = calloc(1, sizeof *bpe);
    pq_status status;
    if (!bpe) {
        free(tables->merges);
        return PQ_FAIL(err, PQ_ERR_MEMORY, "the tokenizer could not be allocated");
    }
    bpe->tables = *tables;
    tables->merges = NULL;
    if (tables->vocab < 256 || tables->vocab > PQ_TOKENIZER_MOST)
        status = PQ_FAIL(err, PQ_ERR_FORMAT, "the tokenizer has %zu ids; expected 256 to %d", tables->vocab,
                         PQ_TOKENIZER_MOST);
    else
        status = add_tokens(bpe, err);
    if (status == PQ_OK) status = add_slots(bpe, err);
    if (status == PQ_OK) status = pq_split_create(&bpe->split, err);
    if (status != PQ_OK) {
        destroy(bpe);
        return status;
    }
    out->state = bpe;
    out->vocab = tables->vocab;
    out->end = tables->end;
    return PQ_OK;
}

pq_status pq_tokenizer_from_tables(pq_bpe_tables *tables, pq_tokenizer **out, pq_error *err) {
    pq_tokenizer *tokenizer;
    *out = NULL;
    pq_status status = pq_tokenizer_begin(&pq_tokenizer_bpe_row, &tokenizer, err);
    if (status != PQ_OK) {
        free(tables->merges);
        tables->merges = NULL;
        return status;
    }
    status = take_tables(tables, tokenizer, err);
    if (status == PQ_OK) return pq_tokenizer_finish(tokenizer, out, err);
    free(tokenizer);
    return status;
}

const pq_bpe *pq_tokenizer_bpe(const pq_tokenizer *tokenizer) {
    return tokenizer->kind == &pq_tokenizer_bpe_row ? tokenizer->state : NULL;
}

/* ---- JSON ---- */

/* Where merges make new tokens in the order of the ids that are left over, as all known ones do, ids of what
 * is made need not be said. Whether they do; with `fill` they are written. */
static bool usual_numbering(const pq_bpe_tables *t, pq_bpe_merge *fill) {
    uint8_t *taken = calloc(PQ_TOKENIZER_MOST + 1, 1);
    bool usual = taken != NULL;
    for (size_t byte = 0; usual && byte < 256; byte++) taken[t->byte_id[byte]] = 1;
    if (usual && t->end >= 0 && t->end < PQ_TOKENIZER_MOST) taken[t->end] = 1;
    for (size_t rank = 0, id = 0; usual && rank < t->merge_count; rank++, id++) {
        while (id < PQ_TOKENIZER_MOST && taken[id]) id++;
        usual = id < PQ_TOKENIZER_MOST && (fill || t->merges[rank].made == id);
        if (fill) fill[rank].made = (uint16_t)id;
    }
    free(taken);
    return usual;
}

/* ids[count], little-endian, as base64. */
static json_t *write_ids(const uint16_t *ids, size_t count) {
    unsigned char *bytes = malloc(2 * count + 1);
    for (size_t i = 0; bytes && i < count; i++) {
        bytes[2 * i] = (unsigned char)ids[i];
        bytes[2 * i + 1] = (unsigned char)(ids[i] >> 8);
    }
    char *text = bytes ? pq_base64_write(bytes, 2 * count) : NULL;
    json_t *string = text ? json_string(text) : NULL;
    free(bytes);
    free(text);
    return string;
}

static int write(const pq_tokenizer *tokenizer, json_t *object) {
    const pq_bpe_tables *t = &((const pq_bpe *)tokenizer->state)->tables;
    const bool usual = usual_numbering(t, NULL);
    uint16_t *ids = malloc((2 * t->merge_count + 1) * sizeof *ids);
    if (!ids) return -1;
    for (size_t i = 0; i < t->merge_count; i++) {
        ids[2 * i] = t->merges[i].left;
        ids[2 * i + 1] = t->merges[i].right;
    }
    int failed =
        json_object_set_new(object, "vocab", json_integer((json_int_t)t->vocab)) ||
        json_object_set_new(object, "end_of_text", t->end < 0 ? json_null() : json_integer(t->end)) ||
        json_object_set_new(object, "bytes", write_ids(t->byte_id, 256)) ||
        json_object_set_new(object, "merges", write_ids(ids, 2 * t->merge_count));
    for (size_t i = 0; i < t->merge_count; i++) ids[i] = t->merges[i].made;
    if (!failed && !usual) failed = json_object_set_new(object, "made", write_ids(ids, t->merge_count));
    free(ids);
    return failed ? -1 : 0;
}

/* The ids (heap) under `key`; *count = how many. */
static pq_status read_ids(const json_t *object, const char *key, uint16_t **ids, size_t *count,
                          pq_error *err) {
    const json_t *value = json_object_get(object, key);
    size_t bytes = 0;
    unsigned char *raw = NULL;
    *ids = NULL;
    if (json_is_string(value)) {
        raw = pq_base64_read(json_string_value(value), json_string_length(value), &bytes);
        if (raw && bytes % 2 == 0) *ids = malloc(bytes + 1);
        for (size_t i = 0; *ids && i < bytes / 2; i++)
            (*ids)[i] = (uint16_t)(raw[2 * i] | raw[2 * i + 1] << 8);
        free(raw);
    }
    *count = bytes / 2;
    if (*ids) return PQ_OK;
    return PQ_FAIL(err, PQ_ERR_FORMAT,
                   "the tokenizer's JSON lacks \"%s\": expected base64 of ids with 16 bits each", key);
}

static pq_status read_bytes(const json_t *object, pq_bpe_tables *t, pq_error *err) {
    uint16_t *ids;
    size_t count;
    PQ_TRY(read_ids(object, "bytes", &ids, &count, err));
    if (count == 256) memcpy(t->byte_id, ids, sizeof t->byte_id);
    free(ids);
    if (count == 256) return PQ_OK;
    return PQ_FAIL(err, PQ_ERR_FORMAT, "the tokenizer's \"bytes\" has %zu ids, expected 256", count);
}

static pq_status read_merges(const json_t *object, pq_bpe_tables *t, pq_error *err) {
    uint16_t *ids;
    size_t count;
    PQ_TRY(read_ids(object, "merges", &ids, &count, err));
    pq_status status = count % 2 == 0 && count / 2 <= PQ_BPE_MERGES
                           ? pq_calloc(count / 2 + 1, sizeof *t->merges, "the merges", &t->merges, err)
                           : PQ_FAIL(err, PQ_ERR_FORMAT,
                                     "the tokenizer's \"merges\" has %zu ids, expected pairs, at most %d",
                                     count, PQ_BPE_MERGES);
    if (status == PQ_OK) {
        t->merge_count = count / 2;
        for (size_t i = 0; i < t->merge_count; i++)
            t->merges[i] = (pq_bpe_merge){.left = ids[2 * i], .right = ids[2 * i + 1]};
    }
    free(ids);
    return status;
}

static pq_status read_made(const json_t *object, pq_bpe_tables *t, pq_error *err) {
    uint16_t *ids;
    size_t count;
    if (!json_object_get(object, "made")) {
        if (usual_numbering(t, t->merges)) return PQ_OK;
        return PQ_FAIL(err, PQ_ERR_FORMAT, "the tokenizer's %zu merges make more tokens than there are ids",
                       t->merge_count);
    }
    PQ_TRY(read_ids(object, "made", &ids, &count, err));
    for (size_t i = 0; i < count && i < t->merge_count; i++) t->merges[i].made = ids[i];
    free(ids);
    if (count == t->merge_count) return PQ_OK;
    return PQ_FAIL(err, PQ_ERR_FORMAT, "the tokenizer's \"made\" has %zu ids for %zu merges", count,
                   t->merge_count);
}

static pq_status read(const json_t *object, pq_tokenizer *out, pq_error *err) {
    const json_t *vocab = json_object_get(object, "vocab"), *end = json_object_get(object, "end_of_text");
    pq_bpe_tables t = {.end = -1};
    pq_status status;
    if (!json_is_integer(vocab) || json_integer_value(vocab) < 256 ||
        json_integer_value(vocab) > PQ_TOKENIZER_MOST)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "the tokenizer's \"vocab\" should be a number from 256 to %d",
                       PQ_TOKENIZER_MOST);
    if (!json_is_null(end) && (!json_is_integer(end) || json_integer_value(end) < 0 ||
                               json_integer_value(end) >= json_integer_value(vocab)))
        return PQ_FAIL(err, PQ_ERR_FORMAT, "the tokenizer's \"end_of_text\" should be an id or null");
    t.vocab = (size_t)json_integer_value(vocab);
    if (json_is_integer(end)) t.end = (int32_t)json_integer_value(end);
    PQ_TRY(read_bytes(object, &t, err));
    PQ_TRY_TO(status, fail, read_merges(object, &t, err));
    PQ_TRY_TO(status, fail, read_made(object, &t, err));
    return take_tables(&t, out, err);
fail:
    free(t.merges);
    return status;
}

/* ---- the kind ---- */

static pq_status create(const char *text, size_t bytes, pq_tokenizer *out, pq_error *err) {
    (void)text, (void)bytes, (void)out;
    return PQ_FAIL(err, PQ_ERR_USAGE,
                   "a bpe tokenizer is opened (data.tokenizer: its tokenizer.json or folder) or learned "
                   "(potqat data train-tokenizer); it does not come from a text by itself");
}

static pq_status decode(const pq_tokenizer *tokenizer, const uint16_t *tokens, size_t count, char **text,
                        size_t *bytes, pq_error *err) {
    const pq_bpe *bpe = tokenizer->state;
    size_t total = 0;
    for (size_t i = 0; i < count; i++) total += bpe->length[tokens[i]];
    char *out = malloc(total + 1), *at = out;
    if (!out) return PQ_FAIL(err, PQ_ERR_MEMORY, "a text of %zu bytes could not be allocated", total);
    for (size_t i = 0; i < count; at += bpe->length[tokens[i++]])
        memcpy(at, token_at(bpe, tokens[i]), bpe->length[tokens[i]]);
    *at = 0;
    *text = out;
    *bytes = total;
    return PQ_OK;
}

const pq_tokenizer_row pq_tokenizer_bpe_row = {.name = "bpe",
                                               .create = create,
                                               .read = read,
                                               .write = write,
                                               .encode = pq_bpe_encode,
                                               .encode_documents = pq_bpe_encode_documents,
                                               .decode = decode,
                                               .destroy = destroy};
