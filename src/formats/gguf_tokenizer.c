/* Owns the tokenizer inside a GGUF file. Whatever its kind, it becomes GPT-2's: a token is spelled with one
 * printable character for each byte of its text, and merges join what belongs together. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "formats/gguf_parts.h"

enum { BYTES = 256, NORMAL = 1, CONTROL = 3, UNUSED = 5 };

/* Tokens and merges as they are collected: texts one behind the other, each ended by NUL. */
typedef struct list {
    FILE *stream;
    char *texts;
    size_t bytes, count;
} list;

typedef struct vocabulary {
    list tokens, merges;
    int64_t end_of_text; /* its id, or -1 */
} vocabulary;

static bool list_init(list *l) {
    return (l->stream = open_memstream(&l->texts, &l->bytes)) != NULL;
}

static bool list_finish(list *l) {
    bool good = l->stream && !ferror(l->stream);
    if (l->stream && fclose(l->stream) != 0) good = false;
    l->stream = NULL;
    return good;
}

/* GPT-2's alphabet: bytes that print in Latin-1 stand for themselves, the others follow from U+0100 on. */
static void spell_byte(FILE *stream, unsigned char byte) {
    const bool prints = (byte > 32 && byte < 127) || (byte > 160 && byte != 173);
    unsigned code = byte;
    if (!prints) code = byte < 33 ? 256u + byte : byte == 173 ? 323u : 256u + 33 + (byte - 127u);
    if (code >= 128) fputc((int)(0xC0 | code >> 6), stream);
    fputc((int)(code < 128 ? code : (0x80 | (code & 0x3F))), stream);
}

static void spell(FILE *stream, const char *text, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) spell_byte(stream, (unsigned char)text[i]);
}

static void add_token(vocabulary *v, const char *text, size_t bytes) {
    spell(v->tokens.stream, text, bytes);
    fputc(0, v->tokens.stream);
    v->tokens.count++;
}

/* "left right": pieces of `text` that become one. */
static void add_merge(vocabulary *v, const char *text, size_t left, size_t right) {
    spell(v->merges.stream, text, left);
    fputc(' ', v->merges.stream);
    spell(v->merges.stream, text + left, right);
    fputc(0, v->merges.stream);
    v->merges.count++;
}

static size_t character_bytes(unsigned char first) {
    return first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
}

/* A character of several bytes grows from its first one; the bytes that begin a character begin no other, so
 * these merges join nothing else. */
static bool read_char(const json_t *object, vocabulary *v) {
    const json_t *characters = json_object_get(object, "characters");
    const char *text = json_string_value(characters);
    size_t left = json_string_length(characters);
    for (size_t n; left > 0; text += n, left -= n) { /* jansson checked that it is UTF-8 */
        n = character_bytes((unsigned char)*text);
        for (size_t i = 1; i < n; i++) add_merge(v, text, i, 1);
        add_token(v, text, n);
    }
    return v->tokens.count > 0;
}

static bool read_byte(const json_t *object, vocabulary *v) {
    (void)object;
    for (int i = 0; i < BYTES; i++) add_token(v, &(char){(char)i}, 1);
    return true;
}

/* ---- byte-level BPE: ids of the bytes, then merges, as base64 of numbers of 16 bits ---- */

typedef struct ids {
    uint16_t *list; /* heap */
    size_t count;
} ids;

static int digit_of(char c) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *found = c ? strchr(digits, c) : NULL;
    return found ? (int)(found - digits) : -1;
}

/* False where the text under `key` is none of whole numbers; an empty list is fine. */
static bool read_ids(const json_t *object, const char *key, ids *out) {
    const json_t *value = json_object_get(object, key);
    const char *text = json_string_value(value);
    size_t length = json_string_length(value), bytes = 0;
    uint32_t bits = 0;
    *out = (ids){0};
    if (!text || length % 4 != 0 || !(out->list = malloc(length + 2))) return false;
    while (length > 0 && text[length - 1] == '=') length--;
    for (size_t i = 0; i < length; i++) {
        const int digit = digit_of(text[i]);
        if (digit < 0) return false;
        bits = bits << 6 | (uint32_t)digit;
        if (i % 4 > 0) ((unsigned char *)out->list)[bytes++] = (unsigned char)(bits >> (6 - 2 * (i % 4)));
    }
    out->count = bytes / 2;
    for (size_t i = 0; i < out->count; i++) {
        const unsigned char *at = (const unsigned char *)&out->list[i];
        out->list[i] = (uint16_t)(at[0] | at[1] << 8);
    }
    return bytes % 2 == 0;
}

typedef struct piece {
    char *text; /* heap; NULL: not made yet */
    size_t bytes;
} piece;

enum { MOST_IDS = 65536, MOST_BYTES = 4096 }; /* of a tokenizer; of a token */

typedef struct bpe {
    ids bytes, merges, made;
    piece *pieces; /* [vocab] */
    size_t vocab;
    int64_t end;
} bpe;

/* The token `id` = the texts of `left` and `right`, which may be empty. */
static bool make_piece(bpe *b, size_t id, const piece *left, const piece *right) {
    if (id >= b->vocab || (int64_t)id == b->end || b->pieces[id].text ||
        left->bytes + right->bytes > MOST_BYTES)
        return false;
    char *text = malloc(left->bytes + right->bytes + 1);
    if (!text) return false;
    memcpy(text, left->text, left->bytes);
    memcpy(text + left->bytes, right->text, right->bytes);
    b->pieces[id] = (piece){text, left->bytes + right->bytes};
    return true;
}

/* Where ids of what merges make are not said, they are those that are left over, in order. */
static bool merge(bpe *b, vocabulary *v) {
    size_t next = 0;
    for (size_t i = 0; i < b->merges.count / 2; i++) {
        const size_t left = b->merges.list[2 * i], right = b->merges.list[2 * i + 1];
        while (!b->made.list && next < b->vocab && (b->pieces[next].text || (int64_t)next == b->end)) next++;
        const size_t id = b->made.list ? b->made.list[i] : next;
        if (left >= b->vocab || right >= b->vocab || !b->pieces[left].text || !b->pieces[right].text ||
            !make_piece(b, id, &b->pieces[left], &b->pieces[right]))
            return false;
        add_merge(v, b->pieces[id].text, b->pieces[left].bytes, b->pieces[right].bytes);
    }
    return true;
}

static bool make_pieces(bpe *b, vocabulary *v) {
    for (size_t i = 0; i < BYTES; i++)
        if (!make_piece(b, b->bytes.list[i], &(piece){&(char){(char)i}, 1}, &(piece){"", 0})) return false;
    if (!merge(b, v)) return false;
    for (size_t id = 0; id < b->vocab; id++) {
        if ((int64_t)id == b->end) {
            fprintf(v->tokens.stream, "<|endoftext|>%c", 0);
            v->tokens.count++;
        } else if (b->pieces[id].text) {
            add_token(v, b->pieces[id].text, b->pieces[id].bytes);
        } else {
            return false;
        }
    }
    v->end_of_text = b->end;
    return true;
}

static bool read_bpe(const json_t *object, vocabulary *v) {
    const json_int_t vocab = json_integer_value(json_object_get(object, "vocab"));
    const json_t *end = json_object_get(object, "end_of_text");
    bpe b = {.vocab = (size_t)vocab, .end = json_is_integer(end) ? json_integer_value(end) : -1};
    bool good = read_ids(object, "bytes", &b.bytes) && read_ids(object, "merges", &b.merges) &&
                (!json_object_get(object, "made") || read_ids(object, "made", &b.made)) && vocab >= BYTES &&
                vocab <= MOST_IDS && b.end < vocab && b.bytes.count == BYTES && b.merges.count % 2 == 0 &&
                (!b.made.list || b.made.count == b.merges.count / 2) &&
                (b.pieces = calloc(b.vocab, sizeof *b.pieces)) != NULL;
    good = good && make_pieces(&b, v);
    for (size_t i = 0; b.pieces && i < b.vocab; i++) free(b.pieces[i].text);
    free(b.pieces);
    free(b.bytes.list);
    free(b.merges.list);
    free(b.made.list);
    return good;
}

/* One row a kind of tokenizer. */
static const struct kind {
    const char *name;
    bool (*read)(const json_t *object, vocabulary *v);
} kinds[] = {{"char", read_char}, {"byte", read_byte}, {"bpe", read_bpe}};

static pq_status read_tokenizer(const char *json, vocabulary *v, pq_error *err) {
    json_t *object = json_loads(json, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    const char *name = json_string_value(json_object_get(object, "kind"));
    bool known = false, good = false;
    for (size_t i = 0; name && i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kinds[i].name, name) != 0) continue;
        known = true;
        good = kinds[i].read(object, v);
    }
    pq_status status = good    ? PQ_OK
                       : known ? PQ_FAIL(err, PQ_ERR_FORMAT, "the model's %s tokenizer is damaged", name)
                               : PQ_FAIL(err, PQ_ERR_USAGE,
                                         "a GGUF file holds tokenizers of the kinds char, byte and bpe; the "
                                         "model's is %.40s",
                                         name ? name : "damaged");
    json_decref(object);
    return status;
}

/* Rows of the token table behind the last token. */
static void fill_up(vocabulary *v, size_t vocab) {
    for (; v->tokens.count < vocab; v->tokens.count++)
        fprintf(v->tokens.stream, "[UNUSED%zu]%c", v->tokens.count, 0);
}

static pq_status add_keys(pq_gguf_metadata *m, vocabulary *v, size_t used, pq_error *err) {
    int32_t *types;
    const size_t vocab = v->tokens.count;
    PQ_TRY(pq_calloc(vocab, sizeof *types, "tokens", &types, err));
    for (size_t i = 0; i < vocab; i++)
        types[i] = i >= used ? UNUSED : (int64_t)i == v->end_of_text ? CONTROL : NORMAL;
    /* Without these keys token 11 would end a text, whatever it is: the last one is the rarest guess. */
    const uint32_t end = (uint32_t)(v->end_of_text < 0 ? (int64_t)used - 1 : v->end_of_text);
    pq_gguf_add_text(m, "tokenizer.ggml.model", "gpt2");
    pq_gguf_add_text(m, "tokenizer.ggml.pre", "gpt-2");
    pq_gguf_add_texts(m, "tokenizer.ggml.tokens", v->tokens.texts, vocab);
    pq_gguf_add_i32s(m, "tokenizer.ggml.token_type", types, vocab);
    pq_gguf_add_texts(m, "tokenizer.ggml.merges", v->merges.texts, v->merges.count);
    pq_gguf_add_u32(m, "tokenizer.ggml.bos_token_id", end);
    pq_gguf_add_u32(m, "tokenizer.ggml.eos_token_id", end);
    pq_gguf_add_bool(m, "tokenizer.ggml.add_bos_token", false);
    free(types);
    return PQ_OK;
}

static pq_status add_vocabulary(pq_gguf_metadata *m, const char *json, size_t vocab, vocabulary *v,
                                pq_error *err) {
    if (!list_init(&v->tokens) || !list_init(&v->merges))
        return PQ_FAIL(err, PQ_ERR_MEMORY, "no memory for the tokens");
    PQ_TRY(read_tokenizer(json, v, err));
    const size_t used = v->tokens.count;
    if (used > vocab)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "the tokenizer has %zu tokens, the model's table %zu rows", used,
                       vocab);
    fill_up(v, vocab);
    bool good = list_finish(&v->tokens);
    good = list_finish(&v->merges) && good;
    return good ? add_keys(m, v, used, err) : PQ_FAIL(err, PQ_ERR_MEMORY, "no memory for the tokens");
}

pq_status pq_gguf_add_tokenizer(pq_gguf_metadata *metadata, const char *json, size_t vocab, pq_error *err) {
    vocabulary v = {.end_of_text = -1};
    if (!json) {
        pq_gguf_add_text(metadata, "tokenizer.ggml.model", "no_vocab");
        pq_gguf_add_u32(metadata, "gpt2.vocab_size", (uint32_t)vocab);
        return PQ_OK;
    }
    pq_status status = add_vocabulary(metadata, json, vocab, &v, err);
    list_finish(&v.tokens);
    list_finish(&v.merges);
    free(v.tokens.texts);
    free(v.merges.texts);
    return status;
}
