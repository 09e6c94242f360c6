/* Owns the reading of token shards: every byte of the header, the index and the tokens is checked before a
 * token is used. Writing them is shards_write.c's. */
#include "data/shards.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/memory.h"

_Static_assert(sizeof(pq_shard_header) == 64, "the header is 64 bytes on disk");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "shards are used in place, as little-endian");

char *pq_shard_path(const char *folder, pq_split split, size_t number) {
    char name[32];
    snprintf(name, sizeof name, "%s-%05zu.shard", pq_split_names[split], number);
    return pq_path_join(folder, name);
}

bool pq_shard_looks_like(const char *path) {
    char magic[sizeof PQ_SHARD_MAGIC - 1] = "";
    FILE *file = fopen(path, "rbe");
    if (!file) return false;
    bool whole = fread(magic, 1, sizeof magic, file) == sizeof magic;
    fclose(file);
    return whole && memcmp(magic, PQ_SHARD_MAGIC, sizeof magic) == 0;
}

static pq_status check_header(const pq_shard_header *header, size_t size, const pq_tokenizer *tokenizer,
                              const char *path, pq_error *err) {
    size_t vocab = pq_tokenizer_vocab(tokenizer), body = size - sizeof *header;
    if (memcmp(header->magic, PQ_SHARD_MAGIC, sizeof header->magic) != 0)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "%s is not a token shard: it does not begin with PQSHARD", path);
    if (header->version != PQ_SHARD_VERSION)
        return PQ_FAIL(err, PQ_ERR_FORMAT,
                       "%s: shard version %" PRIu32 " was found; this build reads version %d", path,
                       header->version, PQ_SHARD_VERSION);
    if (header->tokenizer != pq_tokenizer_hash(tokenizer) || header->vocab != vocab)
        return PQ_FAIL(err, PQ_ERR_FORMAT,
                       "%s was made with another tokenizer (vocabulary %" PRIu32 ", hash %016" PRIx64
                       ") than the one beside it (%zu, %016" PRIx64 ")",
                       path, header->vocab, header->tokenizer, vocab, pq_tokenizer_hash(tokenizer));
    if (header->tokens != body / 2 || body % 2 != 0)
        return PQ_FAIL(err, PQ_ERR_FORMAT,
                       "%s: its header promises %" PRIu64 " tokens; the file holds %zu bytes of tokens", path,
                       header->tokens, body);
    for (size_t i = 0; i < sizeof header->zero / sizeof *header->zero; i++)
        if (header->zero[i] != 0)
            return PQ_FAIL(err, PQ_ERR_FORMAT, "%s: the header's last 24 bytes should be zero", path);
    return PQ_OK;
}

pq_status pq_tokens_scan(const uint16_t *tokens, size_t count, XXH3_state_t *running, uint64_t *hash,
                         uint16_t *largest, pq_error *err) {
    const size_t piece = (size_t)1 << 20;
    XXH3_state_t *state = XXH3_createState();
    if (!state) return PQ_FAIL(err, PQ_ERR_MEMORY, "a hash could not be allocated");
    XXH3_64bits_reset(state);
    *largest = 0;
    for (size_t at = 0; at < count; at += piece) {
        size_t now = count - at < piece ? count - at : piece;
        for (size_t i = at; i < at + now; i++) *largest = tokens[i] > *largest ? tokens[i] : *largest;
        XXH3_64bits_update(state, tokens + at, 2 * now);
        if (running) XXH3_64bits_update(running, tokens + at, 2 * now);
        pq_pages_drop(tokens + at, 2 * now);
    }
    *hash = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return PQ_OK;
}

pq_status pq_shard_open(const char *path, const pq_tokenizer *tokenizer, XXH3_state_t *running, pq_shard *out,
                        pq_error *err) {
    pq_shard shard = {0};
    uint16_t largest = 0;
    *out = shard;
    PQ_TRY(pq_file_map(path, &shard.view, err));
    const pq_shard_header *header = (const pq_shard_header *)shard.view.data;
    pq_status status = shard.view.size < sizeof *header
                           ? PQ_FAIL(err, PQ_ERR_FORMAT, "%s has %zu bytes; a shard's header alone has 64",
                                     path, shard.view.size)
                           : check_header(header, shard.view.size, tokenizer, path, err);
    if (status == PQ_OK) {
        shard.tokens = (const uint16_t *)(shard.view.data + sizeof *header);
        shard.count = (size_t)header->tokens;
        status = pq_tokens_scan(shard.tokens, shard.count, running, &shard.hash, &largest, err);
        if (status != PQ_OK) {
            /* said already */
        } else if (shard.hash != header->hash)
            status = PQ_FAIL(err, PQ_ERR_FORMAT,
                             "%s is damaged: its tokens do not have the hash in its header", path);
        else if (largest >= header->vocab)
            status = PQ_FAIL(err, PQ_ERR_FORMAT, "%s holds the token %u; its vocabulary ends at %" PRIu32,
                             path, largest, header->vocab - 1);
    }
    if (status != PQ_OK)
        pq_file_view_close(&shard.view);
    else
        *out = shard;
    return status;
}

void pq_shard_close(pq_shard *shard) {
    pq_file_view_close(&shard->view);
}

pq_status pq_shards_tokenizer(const char *folder, pq_tokenizer **out, pq_error *err) {
    pq_file_view view = {0};
    char *path = pq_path_join(folder, "tokenizer.json");
    if (!path) return PQ_FAIL(err, PQ_ERR_MEMORY, "a file name could not be allocated");
    pq_status status = pq_file_read(path, &view, err);
    if (status == PQ_OK) {
        status = pq_tokenizer_from_json(view.data, view.size, out, err);
        if (status != PQ_OK) pq_prefix(err, status, "%s", path);
        pq_file_view_close(&view);
    }
    free(path);
    return status;
}

uint64_t pq_shards_index_hash(const json_t *index) {
    json_t *copy = json_copy((json_t *)index);
    uint64_t hash = 0;
    if (copy) {
        json_object_del(copy, "hash");
        char *text = json_dumps(copy, JSON_COMPACT);
        if (text) hash = pq_hash(text, strlen(text));
        free(text);
        json_decref(copy);
    }
    return hash;
}

/* Whether `value` is `hash` as 16 hexadecimal digits. */
static bool is_hash(const json_t *value, uint64_t hash) {
    char text[17];
    const char *found = json_string_value(value);
    snprintf(text, sizeof text, "%016" PRIx64, hash);
    return found && strcmp(found, text) == 0;
}

/* Shards of one split as the index lists them. */
static pq_status open_split(const char *folder, const json_t *list, pq_split split, XXH3_state_t *running,
                            pq_shards *out, pq_error *err) {
    size_t count = json_array_size(list);
    if (!json_is_array(list))
        return PQ_FAIL(err, PQ_ERR_FORMAT, "it has no list \"%s\"", pq_split_names[split]);
    PQ_TRY(pq_calloc(count, sizeof *out->shard[split], "the list of shards", &out->shard[split], err));
    for (size_t i = 0; i < count; i++) {
        const json_t *row = json_array_get(list, i);
        char *path = pq_shard_path(folder, split, i);
        if (!path) return PQ_FAIL(err, PQ_ERR_MEMORY, "a file name could not be allocated");
        pq_shard *shard = &out->shard[split][i];
        pq_status status = pq_shard_open(path, out->tokenizer, running, shard, err);
        if (status == PQ_OK) {
            out->count[split]++;
            if (shard->count == 0 ||
                json_integer_value(json_object_get(row, "tokens")) != (json_int_t)shard->count ||
                !is_hash(json_object_get(row, "hash"), shard->hash))
                status = PQ_FAIL(err, PQ_ERR_FORMAT, "%s is not the shard that it lists", path);
        }
        free(path);
        PQ_TRY(status);
    }
    return PQ_OK;
}

static pq_status open_index(const char *folder, const json_t *index, pq_shards *out, pq_error *err) {
    const char *format = json_string_value(json_object_get(index, "format"));
    const json_t *version = json_object_get(index, "version"), *floor = json_object_get(index, "floor");
    const json_t *shares = json_object_get(index, "split");
    const char *source = json_string_value(json_object_get(index, "source"));
    const json_t *by = json_object_get(index, "split_by"); /* absent: token */
    bool by_document = by && json_is_string(by) && strcmp(json_string_value(by), "document") == 0;
    if (!format || strcmp(format, PQ_SHARDS_FORMAT) != 0)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "its \"format\" should be \"" PQ_SHARDS_FORMAT "\"");
    if (!json_is_integer(version) || json_integer_value(version) != PQ_SHARD_VERSION)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "it has another version than %d, which this build reads",
                       PQ_SHARD_VERSION);
    if (!is_hash(json_object_get(index, "hash"), pq_shards_index_hash(index)))
        return PQ_FAIL(err, PQ_ERR_FORMAT, "it is damaged: its text does not have the hash in it");
    bool good = source && json_array_size(shares) == 3 &&
                (!by || by_document || (json_is_string(by) && strcmp(json_string_value(by), "token") == 0)) &&
                (json_is_null(floor) || (json_is_real(floor) && json_real_value(floor) >= 0));
    for (size_t i = 0; i < 3 && good; i++) {
        const json_t *share = json_array_get(shares, i);
        out->split[i] = json_number_value(share);
        good = json_is_number(share) && out->split[i] >= 0 && out->split[i] <= 1;
    }
    if (!good)
        return PQ_FAIL(err, PQ_ERR_FORMAT,
                       "\"source\", \"split\", \"split_by\" or \"floor\" is missing or not as it should be");
    out->by_document = by_document;
    out->floor = json_is_real(floor) ? json_real_value(floor) : NAN;
    PQ_TRY(pq_copy_text(source, &out->source, err));
    PQ_TRY(pq_shards_tokenizer(folder, &out->tokenizer, err));
    XXH3_state_t *running = XXH3_createState();
    pq_status status = running ? PQ_OK : PQ_FAIL(err, PQ_ERR_MEMORY, "a hash could not be allocated");
    for (pq_split split = PQ_TRAIN; split <= PQ_TEST && status == PQ_OK; split++) {
        XXH3_64bits_reset(running);
        status = open_split(folder, json_object_get(index, pq_split_names[split]), split, running, out, err);
        out->hash[split] = XXH3_64bits_digest(running);
    }
    XXH3_freeState(running);
    return status;
}

pq_status pq_shards_open(const char *folder, pq_shards *out, pq_error *err) {
    pq_file_view view = {0};
    json_error_t where;
    char *path = pq_path_join(folder, PQ_SHARDS_INDEX);
    *out = (pq_shards){0};
    if (!path) return PQ_FAIL(err, PQ_ERR_MEMORY, "a file name could not be allocated");
    pq_status status = pq_file_read(path, &view, err);
    if (status == PQ_OK) {
        json_t *index = json_loadb(view.data, view.size, JSON_REJECT_DUPLICATES, &where);
        status = index ? open_index(folder, index, out, err)
                       : PQ_FAIL(err, PQ_ERR_FORMAT, "line %d, column %d: %s", where.line, where.column,
                                 where.text);
        if (status != PQ_OK) pq_prefix(err, status, "%s", path);
        json_decref(index);
        pq_file_view_close(&view);
    }
    free(path);
    if (status != PQ_OK) pq_shards_close(out);
    return status;
}

void pq_shards_close(pq_shards *shards) {
    for (size_t split = 0; split < 3; split++) {
        for (size_t i = 0; i < shards->count[split]; i++) pq_shard_close(&shards->shard[split][i]);
        free(shards->shard[split]);
    }
    pq_tokenizer_destroy(shards->tokenizer);
    free(shards->source);
    *shards = (pq_shards){0};
}
