/* Owns the encoding of texts: parts for the threads, ends of documents within them, and the words that were
 * met before. Where parts begin is a place between words for sure, so ids do not depend on the threads. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/threads.h"
#include "data/tokenizer_bpe.h"

enum {
    PART_BYTES = 64 << 10, /* of a part at least */
    KNOWN_BYTES = 32,      /* a longer word is merged anew each time */
    KNOWN_IDS = 15,
    KNOWN_SLOTS = 1 << 14 /* at most */
};

/* A word and its tokens: one cache line. The newest takes the place of an older one. */
typedef struct known {
    char word[KNOWN_BYTES];
    uint8_t length, count; /* length 0: none */
    uint16_t ids[KNOWN_IDS];
} known;

/* One part of a text and what became of it. */
typedef struct part {
    const char *text;
    size_t bytes;
    uint16_t *ids; /* [bytes] */
    size_t count;
    pq_status status;
    pq_error err;
} part;

typedef struct job {
    const pq_bpe *bpe;
    bool documents;
    part *parts; /* [count] */
    size_t count;
} job;

/* What encoding one part needs. */
typedef struct worker {
    const pq_bpe *bpe;
    pq_words words;
    known *known; /* [mask + 1] */
    size_t mask;
} worker;

static size_t hash_word(const char *word, size_t length) {
    uint64_t hash = length, eight;
    for (; length > 8; word += 8, length -= 8) {
        memcpy(&eight, word, 8);
        hash = (hash ^ eight) * UINT64_C(0x9E3779B97F4A7C15);
        hash ^= hash >> 29;
    }
    eight = 0;
    memcpy(&eight, word, length);
    hash = (hash ^ eight) * UINT64_C(0x9E3779B97F4A7C15);
    return (size_t)(hash >> 40);
}

static pq_status add_word(worker *w, const char *word, size_t length, uint16_t *out, size_t *count,
                          pq_error *err) {
    if (length > KNOWN_BYTES) return pq_bpe_merge_word(w->bpe, word, length, out, count, err);
    known *k = &w->known[hash_word(word, length) & w->mask];
    if (k->length == length && memcmp(k->word, word, length) == 0) {
        memcpy(out, k->ids, k->count * sizeof *out);
        *count = k->count;
        return PQ_OK;
    }
    PQ_TRY(pq_bpe_merge_word(w->bpe, word, length, out, count, err));
    if (*count > KNOWN_IDS) return PQ_OK;
    memcpy(k->word, word, length);
    memcpy(k->ids, out, *count * sizeof *out);
    k->length = (uint8_t)length;
    k->count = (uint8_t)*count;
    return PQ_OK;
}

/* A text without ends of documents, to the end of p->ids. */
static pq_status add_text(worker *w, const char *text, size_t bytes, part *p, pq_error *err) {
    size_t length, count;
    pq_words_start(&w->words, text, bytes);
    for (;;) {
        PQ_TRY(pq_words_next(&w->words, &length, err));
        if (length == 0) return PQ_OK;
        PQ_TRY(add_word(w, text + w->words.at - length, length, p->ids + p->count, &count, err));
        p->count += count;
    }
}

static pq_status add_documents(worker *w, part *p, pq_error *err) {
    const size_t mark = sizeof PQ_END_OF_TEXT - 1;
    const char *text = p->text, *end = p->text + p->bytes, *found;
    while ((found = memmem(text, (size_t)(end - text), PQ_END_OF_TEXT, mark))) {
        PQ_TRY(add_text(w, text, (size_t)(found - text), p, err));
        p->ids[p->count++] = (uint16_t)w->bpe->tables.end;
        text = found + mark;
    }
    return add_text(w, text, (size_t)(end - text), p, err);
}

static pq_status encode_part(const job *j, part *p, pq_error *err) {
    worker w = {.bpe = j->bpe};
    size_t slots = 16;
    while (slots < KNOWN_SLOTS && slots < p->bytes / 16) slots *= 2;
    w.mask = slots - 1;
    PQ_TRY(pq_words_init(&w.words, j->bpe->split, err));
    pq_status status = pq_calloc(slots, sizeof *w.known, "known words", &w.known, err);
    if (status == PQ_OK)
        status = j->documents ? add_documents(&w, p, err) : add_text(&w, p->text, p->bytes, p, err);
    free(w.known);
    pq_words_deinit(&w.words);
    return status;
}

static void encode_task(void *context, size_t i) {
    const job *j = context;
    j->parts[i].status = encode_part(j, &j->parts[i], &j->parts[i].err);
}

static bool is_visible(char c) {
    return c > 0x20 && c < 0x7F;
}

/* The first place from `at` on where a word ends for sure: before an ASCII space or newline that follows a
 * visible ASCII character. No word has white space after anything else, and what is decided by what follows
 * is white space alone. An end of document has none of these places inside. */
static size_t safe_place(const char *text, size_t bytes, size_t at) {
    for (; at < bytes; at++)
        if ((text[at] == ' ' || text[at] == '\n') && is_visible(text[at - 1])) break;
    return at;
}

static void cut(const char *text, size_t bytes, uint16_t *ids, size_t wanted, job *j) {
    for (size_t start = 0; start < bytes;) {
        size_t end = bytes - start > wanted ? safe_place(text, bytes, start + wanted) : bytes;
        j->parts[j->count++] = (part){.text = text + start, .bytes = end - start, .ids = ids + start};
        start = end;
    }
}

/* The tokens of all parts, moved together. */
static pq_status join(const job *j, size_t *count, pq_error *err) {
    *count = 0;
    for (size_t i = 0; i < j->count; i++) {
        const part *p = &j->parts[i];
        if (p->status != PQ_OK) {
            if (err) *err = p->err;
            return p->status;
        }
        memmove(j->parts[0].ids + *count, p->ids, p->count * sizeof *p->ids);
        *count += p->count;
    }
    return PQ_OK;
}

static pq_status encode(const pq_tokenizer *tokenizer, bool documents, const char *text, size_t bytes,
                        uint16_t **tokens, size_t *count, pq_error *err) {
    const size_t threads = (size_t)pq_threads_get();
    const size_t wanted = bytes / threads + 1 > PART_BYTES ? bytes / threads + 1 : PART_BYTES;
    job j = {.bpe = tokenizer->state, .documents = documents && tokenizer->end >= 0};
    uint16_t *ids = malloc((bytes + 1) * sizeof *ids); /* a token has at least one byte */
    if (!ids) return PQ_FAIL(err, PQ_ERR_MEMORY, "%zu tokens could not be allocated", bytes);
    pq_status status = pq_calloc(bytes / wanted + 1, sizeof *j.parts, "parts of a text", &j.parts, err);
    if (status == PQ_OK) {
        cut(text, bytes, ids, wanted, &j);
        pq_parallel_for(j.count, encode_task, &j);
        status = join(&j, count, err);
    }
    free(j.parts);
    if (status != PQ_OK) {
        free(ids);
        return status;
    }
    uint16_t *fitted = *count ? realloc(ids, *count * sizeof *ids) : NULL;
    *tokens = fitted ? fitted : ids;
    return PQ_OK;
}

pq_status pq_bpe_encode(const pq_tokenizer *tokenizer, const char *text, size_t bytes, uint16_t **tokens,
                        size_t *count, pq_error *err) {
    return encode(tokenizer, false, text, bytes, tokens, count, err);
}

pq_status pq_bpe_encode_documents(const pq_tokenizer *tokenizer, const char *text, size_t bytes,
                                  uint16_t **tokens, size_t *count, pq_error *err) {
    return encode(tokenizer, true, text, bytes, tokens, count, err);
}
