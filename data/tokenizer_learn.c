/* Owns the learning of a byte-level BPE: the words of a text, counted; then, again and again, the most
 * frequent pair of tokens becomes one. Of equally frequent pairs the one with the lower left id, then the
 * lower right id goes first, as in Hugging Face's trainer. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "data/bpe_letters.h"
#include "data/tokenizer_bpe.h"

enum { LONGEST = 256 /* bytes of a token that is learned */ };

/* A word that occurs `count` times. */
typedef struct word {
    const char *text; /* in the text learned from */
    uint64_t count;
    uint32_t hash, bytes;
    size_t ids;      /* where its tokens begin in learner.ids */
    uint32_t length; /* how many they are now */
} word;

/* A pair of tokens that follow one another, and where. */
typedef struct pair {
    uint32_t key;  /* left << 16 | right */
    int64_t count; /* how often it occurs now */
    uint32_t *in;  /* [used] words it was seen in, some of them no longer */
    size_t used, size;
    bool listed; /* the slot is in use */
} pair;

/* What the heap knows of a pair; the count may have fallen since. */
typedef struct entry {
    int64_t count;
    uint32_t key;
} entry;

typedef struct learner {
    word *words; /* [word_count] */
    size_t word_count, word_size;
    uint32_t *word_slots; /* [word_mask + 1]: number + 1, 0 = free */
    size_t word_mask;
    uint16_t *ids; /* of all words */
    pair *pairs;   /* [pair_mask + 1], linear probing */
    size_t pair_count, pair_mask;
    entry *heap; /* [heap_count] */
    size_t heap_count, heap_size;
    pq_bpe_tables tables;
    uint16_t *bytes; /* [65536] length of each token */
} learner;

static void learner_deinit(learner *l) {
    for (size_t i = 0; l->pairs && i <= l->pair_mask; i++) free(l->pairs[i].in);
    free(l->words);
    free(l->word_slots);
    free(l->ids);
    free(l->pairs);
    free(l->heap);
    free(l->bytes);
    free(l->tables.merges);
}

/* Room for one more than `used` in an array of `size` elements. */
static pq_status grow(void *array_pointer, size_t used, size_t *size, size_t element, pq_error *err) {
    void **array = array_pointer;
    if (used < *size) return PQ_OK;
    const size_t wanted = *size ? 2 * *size : 4;
    void *grown = realloc(*array, wanted * element);
    if (!grown) return PQ_FAIL(err, PQ_ERR_MEMORY, "what was learned does not fit in memory");
    *array = grown;
    *size = wanted;
    return PQ_OK;
}

/* ---- words ---- */

static pq_status rehash_words(learner *l, pq_error *err) {
    const size_t slots = l->word_slots ? 2 * (l->word_mask + 1) : 1024;
    uint32_t *grown;
    PQ_TRY(pq_calloc(slots, sizeof *grown, "the words of the text", &grown, err));
    for (size_t i = 0; i < l->word_count; i++) {
        size_t at = l->words[i].hash & (slots - 1);
        while (grown[at]) at = (at + 1) & (slots - 1);
        grown[at] = (uint32_t)i + 1;
    }
    free(l->word_slots);
    l->word_slots = grown;
    l->word_mask = slots - 1;
    return PQ_OK;
}

static pq_status count_word(learner *l, const char *text, size_t bytes, pq_error *err) {
    if (2 * (l->word_count + 1) > l->word_mask) PQ_TRY(rehash_words(l, err));
    const uint32_t hash = (uint32_t)pq_hash(text, bytes);
    size_t at = hash & l->word_mask;
    for (; l->word_slots[at]; at = (at + 1) & l->word_mask) {
        word *w = &l->words[l->word_slots[at] - 1];
        if (w->hash != hash || w->bytes != bytes || memcmp(w->text, text, bytes) != 0) continue;
        w->count++;
        return PQ_OK;
    }
    if (l->word_count == UINT32_MAX - 1 || bytes > UINT32_MAX)
        return PQ_FAIL(err, PQ_ERR_USAGE, "the text has too many different words, or too long ones");
    PQ_TRY(grow(&l->words, l->word_count, &l->word_size, sizeof *l->words, err));
    l->words[l->word_count++] = (word){.text = text, .count = 1, .hash = hash, .bytes = (uint32_t)bytes};
    l->word_slots[at] = (uint32_t)l->word_count;
    return PQ_OK;
}

static pq_status count_words(learner *l, pq_words *words, const char *text, size_t bytes, pq_error *err) {
    size_t length;
    pq_words_start(words, text, bytes);
    for (;;) {
        PQ_TRY(pq_words_next(words, &length, err));
        if (length == 0) return PQ_OK;
        PQ_TRY(count_word(l, text + words->at - length, length, err));
    }
}

/* Document by document. */
static pq_status count_text(learner *l, const char *text, size_t bytes, pq_error *err) {
    const size_t mark = sizeof PQ_END_OF_TEXT - 1;
    const char *end = text + bytes, *found;
    pq_split *split;
    pq_words words;
    PQ_TRY(pq_split_create(&split, err));
    pq_status status = pq_words_init(&words, split, err);
    while (status == PQ_OK && (found = memmem(text, (size_t)(end - text), PQ_END_OF_TEXT, mark))) {
        status = count_words(l, &words, text, (size_t)(found - text), err);
        text = found + mark;
    }
    if (status == PQ_OK) status = count_words(l, &words, text, (size_t)(end - text), err);
    pq_words_deinit(&words);
    pq_split_destroy(split);
    return status;
}

/* ---- pairs ---- */

/* The slot of a pair, or the free one where it would be. */
static pair *pair_slot(const learner *l, uint32_t key) {
    size_t i = (key * UINT64_C(0x9E3779B97F4A7C15)) >> 32 & l->pair_mask;
    while (l->pairs[i].listed && l->pairs[i].key != key) i = (i + 1) & l->pair_mask;
    return &l->pairs[i];
}

static pq_status rehash_pairs(learner *l, pq_error *err) {
    const learner old = *l;
    const size_t slots = old.pairs ? 2 * (old.pair_mask + 1) : 1 << 16;
    PQ_TRY(pq_calloc(slots, sizeof *l->pairs, "the pairs of the text", &l->pairs, err));
    l->pair_mask = slots - 1;
    for (size_t i = 0; old.pairs && i <= old.pair_mask; i++)
        if (old.pairs[i].listed) *pair_slot(l, old.pairs[i].key) = old.pairs[i];
    free(old.pairs);
    return PQ_OK;
}

static bool goes_first(entry a, entry b) {
    return a.count != b.count ? a.count > b.count : a.key < b.key;
}

static pq_status push(learner *l, entry e, pq_error *err) {
    PQ_TRY(grow(&l->heap, l->heap_count, &l->heap_size, sizeof *l->heap, err));
    size_t i = l->heap_count++;
    for (; i && goes_first(e, l->heap[(i - 1) / 2]); i = (i - 1) / 2) l->heap[i] = l->heap[(i - 1) / 2];
    l->heap[i] = e;
    return PQ_OK;
}

static entry pop(learner *l) {
    const entry top = l->heap[0], moved = l->heap[--l->heap_count];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < l->heap_count; i = child) {
        if (child + 1 < l->heap_count && goes_first(l->heap[child + 1], l->heap[child])) child++;
        if (!goes_first(l->heap[child], moved)) break;
        l->heap[i] = l->heap[child];
    }
    l->heap[i] = moved;
    return top;
}

/* `left` and `right` meet `change` times more in word `in`. Pairs that become more frequent are listed in the
 * heap by list_made, once the whole text is done. */
static pq_status change_pair(learner *l, uint16_t left, uint16_t right, int64_t change, uint32_t in,
                             pq_error *err) {
    if (2 * (l->pair_count + 1) > l->pair_mask) PQ_TRY(rehash_pairs(l, err));
    const uint32_t key = (uint32_t)left << 16 | right;
    pair *p = pair_slot(l, key);
    if (!p->listed) {
        *p = (pair){.key = key, .listed = true};
        l->pair_count++;
    }
    p->count += change;
    if (change < 0 || (p->used && p->in[p->used - 1] == in)) return PQ_OK;
    PQ_TRY(grow(&p->in, p->used, &p->size, sizeof *p->in, err));
    p->in[p->used++] = in;
    return PQ_OK;
}

static pq_status change_word(learner *l, uint32_t number, int sign, pq_error *err) {
    const word *w = &l->words[number];
    const uint16_t *ids = l->ids + w->ids;
    for (uint32_t i = 0; i + 1 < w->length; i++)
        PQ_TRY(change_pair(l, ids[i], ids[i + 1], sign * (int64_t)w->count, number, err));
    return PQ_OK;
}

static pq_status first_pairs(learner *l, pq_error *err) {
    size_t total = 0, at = 0;
    for (size_t i = 0; i < l->word_count; i++) total += l->words[i].bytes;
    PQ_TRY(pq_calloc(total + 1, sizeof *l->ids, "the words of the text", &l->ids, err));
    PQ_TRY(rehash_pairs(l, err));
    for (size_t i = 0; i < l->word_count; i++) {
        word *w = &l->words[i];
        w->ids = at;
        w->length = w->bytes;
        for (size_t k = 0; k < w->bytes; k++) l->ids[at++] = l->tables.byte_id[(unsigned char)w->text[k]];
        PQ_TRY(change_word(l, (uint32_t)i, 1, err));
    }
    for (size_t i = 0; i <= l->pair_mask; i++)
        if (l->pairs[i].listed) PQ_TRY(push(l, (entry){l->pairs[i].count, l->pairs[i].key}, err));
    return PQ_OK;
}

/* ---- merges ---- */

static uint32_t replace(uint16_t *ids, uint32_t length, pq_bpe_merge m) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < length; i++) {
        const bool here = i + 1 < length && ids[i] == m.left && ids[i + 1] == m.right;
        ids[n++] = here ? m.made : ids[i];
        i += here;
    }
    return n;
}

/* The pairs that the new token is part of. */
static pq_status list_made(learner *l, uint32_t number, uint16_t made, pq_error *err) {
    const word *w = &l->words[number];
    const uint16_t *ids = l->ids + w->ids;
    for (uint32_t i = 0; i + 1 < w->length; i++) {
        if (ids[i] != made && ids[i + 1] != made) continue;
        const pair *p = pair_slot(l, (uint32_t)ids[i] << 16 | ids[i + 1]);
        PQ_TRY(push(l, (entry){p->count, p->key}, err));
    }
    return PQ_OK;
}

static pq_status merge_everywhere(learner *l, uint32_t key, pq_bpe_merge m, pq_error *err) {
    pair *p = pair_slot(l, key);
    uint32_t *in = p->in; /* the pair is gone after this */
    const size_t used = p->used;
    pq_status status = PQ_OK;
    p->in = NULL;
    p->used = p->size = 0;
    for (size_t i = 0; i < used && status == PQ_OK; i++) {
        word *w = &l->words[in[i]];
        const uint32_t length = w->length;
        uint16_t *ids = l->ids + w->ids;
        bool there = false;
        for (uint32_t k = 0; k + 1 < length && !there; k++) there = ids[k] == m.left && ids[k + 1] == m.right;
        if (!there) continue;
        status = change_word(l, in[i], -1, err);
        w->length = replace(ids, length, m);
        if (status == PQ_OK) status = change_word(l, in[i], 1, err);
    }
    for (size_t i = 0; i < used && status == PQ_OK; i++) status = list_made(l, in[i], m.made, err);
    free(in);
    return status;
}

/* The next merge; false when no pair occurs twice. */
static pq_status learn_one(learner *l, bool *found, pq_error *err) {
    pq_bpe_tables *t = &l->tables;
    *found = false;
    while (l->heap_count) {
        const entry top = pop(l);
        const int64_t count = pair_slot(l, top.key)->count;
        const pq_bpe_merge m = {(uint16_t)(top.key >> 16), (uint16_t)top.key, (uint16_t)t->vocab};
        const unsigned bytes = (unsigned)l->bytes[m.left] + l->bytes[m.right];
        if (count != top.count) { /* it is less frequent by now */
            if (count > 1 && count < top.count) PQ_TRY(push(l, (entry){count, top.key}, err));
            continue;
        }
        if (count < 2) return PQ_OK;
        if (bytes > LONGEST) continue;
        l->bytes[m.made] = (uint16_t)bytes;
        t->merges[t->merge_count++] = m;
        t->vocab++;
        *found = true;
        return merge_everywhere(l, top.key, m, err);
    }
    return PQ_OK;
}

/* Each byte in the order of its letter, as in GPT-2's vocabulary. */
static void number_bytes(pq_bpe_tables *t) {
    uint16_t id = 0;
    for (unsigned byte = 0; byte < 256; byte++)
        if (pq_bpe_letter_code((unsigned char)byte) == byte) t->byte_id[byte] = id++;
    for (unsigned byte = 0; byte < 256; byte++)
        if (pq_bpe_letter_code((unsigned char)byte) != byte) t->byte_id[byte] = id++;
    t->vocab = id;
}

pq_status pq_tokenizer_learn(const char *text, size_t bytes, size_t vocab, pq_tokenizer **out,
                             pq_error *err) {
    learner l = {.tables.end = -1};
    pq_status status;
    bool found = true;
    *out = NULL;
    if (vocab < 257 || vocab > PQ_TOKENIZER_MOST)
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "a vocabulary has 257 (the bytes and " PQ_END_OF_TEXT
                       ") to %d ids; asked for were %zu",
                       PQ_TOKENIZER_MOST, vocab);
    number_bytes(&l.tables);
    PQ_TRY_TO(status, done, pq_calloc(PQ_TOKENIZER_MOST, sizeof *l.bytes, "the tokens", &l.bytes, err));
    PQ_TRY_TO(status, done, pq_calloc(vocab, sizeof *l.tables.merges, "merges", &l.tables.merges, err));
    for (size_t id = 0; id < 256; id++) l.bytes[id] = 1;
    PQ_TRY_TO(status, done, count_text(&l, text, bytes, err));
    PQ_TRY_TO(status, done, first_pairs(&l, err));
    while (found && l.tables.vocab < vocab - 1) PQ_TRY_TO(status, done, learn_one(&l, &found, err));
    l.tables.end = (int32_t)l.tables.vocab++;
    status = pq_tokenizer_from_tables(&l.tables, out, err);
done:
    learner_deinit(&l);
    return status;
}
