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

/* One row a kind of tokenizer. */
static const struct kind {
    const char *name;
    bool (*read)(const json_t *object, vocabulary *v);
} kinds[] = {{"char", read_char}, {"byte", read_byte}};

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
                                         "a GGUF file holds tokenizers of the kinds char and byte; the "
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
