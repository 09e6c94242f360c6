/* Owns the writing of the files that Hugging Face's programs read a byte-level BPE from. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/bpe_letters.h"
#include "data/tokenizer_bpe.h"

/* The token in letters, or as it is where it ends a document; heap. */
static char *name_of(const pq_bpe *bpe, size_t id) {
    const size_t length = bpe->length[id];
    char *name = malloc(2 * length + 3), *out = name;
    if (name && bpe->tables.end == (int32_t)id) return strcpy(name, PQ_END_OF_TEXT);
    for (size_t i = 0; name && i < length; i++)
        out += pq_bpe_letter((unsigned char)bpe->bytes[bpe->start[id] + i], out);
    if (name) *out = 0;
    return name;
}

/* Every token and its id. */
static json_t *make_vocab(const pq_bpe *bpe) {
    json_t *vocab = json_object();
    for (size_t id = 0; vocab && id < bpe->tables.vocab; id++) {
        char *name = name_of(bpe, id);
        if (!name || json_object_set_new(vocab, name, json_integer((json_int_t)id)) != 0) {
            json_decref(vocab);
            vocab = NULL;
        }
        free(name);
    }
    return vocab;
}

static char *write_vocab(const pq_bpe *bpe) {
    json_t *vocab = make_vocab(bpe);
    char *text = vocab ? json_dumps(vocab, JSON_COMPACT) : NULL;
    json_decref(vocab);
    return text;
}

/* "left right" of the merge; heap. */
static char *merge_text(const pq_bpe *bpe, size_t rank) {
    char *left = name_of(bpe, bpe->tables.merges[rank].left);
    char *right = name_of(bpe, bpe->tables.merges[rank].right), *text = NULL;
    if (left && right && asprintf(&text, "%s %s", left, right) < 0) text = NULL;
    free(left);
    free(right);
    return text;
}

static char *write_merges(const pq_bpe *bpe) {
    char *text = NULL;
    size_t bytes;
    FILE *stream = open_memstream(&text, &bytes);
    if (!stream) return NULL;
    bool good = fputs("#version: 0.2\n", stream) >= 0;
    for (size_t rank = 0; good && rank < bpe->tables.merge_count; rank++) {
        char *line = merge_text(bpe, rank);
        good = line && fprintf(stream, "%s\n", line) > 0;
        free(line);
    }
    if (fclose(stream) == 0 && good) return text;
    free(text);
    return NULL;
}

static json_t *make_merges(const pq_bpe *bpe) {
    json_t *merges = json_array();
    for (size_t rank = 0; merges && rank < bpe->tables.merge_count; rank++) {
        char *text = merge_text(bpe, rank);
        if (!text || json_array_append_new(merges, json_string(text)) != 0) {
            json_decref(merges);
            merges = NULL;
        }
        free(text);
    }
    return merges;
}

static char *write_tokenizer(const pq_bpe *bpe) {
    json_t *vocab = make_vocab(bpe), *merges = make_merges(bpe), *added = json_array();
    if (bpe->tables.end >= 0)
        json_array_append_new(added, json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id",
                                               (int)bpe->tables.end, "content", PQ_END_OF_TEXT, "single_word",
                                               0, "lstrip", 0, "rstrip", 0, "normalized", 0, "special", 1));
    json_t *file = json_pack(
        "{s:s, s:n, s:n, s:o, s:n, s:{s:s, s:b, s:b, s:b}, s:{s:s, s:b, s:b, s:b}, s:{s:s, s:b, s:b, s:b}, "
        "s:{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:o, s:o}}",
        "version", "1.0", "truncation", "padding", "added_tokens", added, "normalizer", "pre_tokenizer",
        "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1, "use_regex", 1, "post_processor",
        "type", "ByteLevel", "add_prefix_space", 1, "trim_offsets", 0, "use_regex", 1, "decoder", "type",
        "ByteLevel", "add_prefix_space", 1, "trim_offsets", 1, "use_regex", 1, "model", "type", "BPE",
        "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0,
        "byte_fallback", 0, "ignore_merges", 0, "vocab", vocab, "merges", merges);
    char *text = file ? json_dumps(file, JSON_INDENT(1)) : NULL;
    json_decref(file);
    return text;
}

static char *write_config(const pq_bpe *bpe) {
    json_t *config =
        json_pack("{s:b, s:b, s:s}", "add_prefix_space", 0, "clean_up_tokenization_spaces", 0,
                  "tokenizer_class", bpe->tables.end < 0 ? "PreTrainedTokenizerFast" : "GPT2Tokenizer");
    static const char *const specials[] = {"bos_token", "eos_token", "unk_token"};
    for (size_t i = 0; config && bpe->tables.end >= 0 && i < sizeof specials / sizeof *specials; i++)
        json_object_set_new(config, specials[i], json_string(PQ_END_OF_TEXT));
    char *text = config ? json_dumps(config, JSON_INDENT(2)) : NULL;
    json_decref(config);
    return text;
}

static const struct {
    const char *name;
    char *(*write)(const pq_bpe *bpe); /* heap; NULL on lack of memory */
} files[] = {{"tokenizer.json", write_tokenizer},
             {"tokenizer_config.json", write_config},
             {"vocab.json", write_vocab},
             {"merges.txt", write_merges}};

pq_status pq_tokenizer_to_file(const pq_tokenizer *tokenizer, const char *name, char **text, pq_error *err) {
    const pq_bpe *bpe = pq_tokenizer_bpe(tokenizer);
    *text = NULL;
    if (!bpe)
        return PQ_FAIL(err, PQ_ERR_USAGE, "a %s tokenizer has no form that other programs read",
                       tokenizer->kind->name);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        if (strcmp(files[i].name, name) != 0) continue;
        *text = files[i].write(bpe);
        return *text ? PQ_OK : PQ_FAIL(err, PQ_ERR_MEMORY, "%s could not be allocated", name);
    }
    return PQ_FAIL(err, PQ_ERR_USAGE, "there is no tokenizer file %s", name);
}
