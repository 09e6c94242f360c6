/* Owns prompts with their references, the drawing of continuations in pairs, and the files of them. */
#include "train/pairs.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "infer/generate.h"
#include "train/evaluate.h"

typedef enum part { PROMPT, REFERENCE, BASELINE, QUANTIZED, PARTS } part;

static const char *const fields[PARTS] = {"prompt", "reference", "baseline", "quantized"};
/* The files of the parts, then of all. */
static const char *const names[] = {"prompts.txt", "references.txt", "baseline.txt", "quantized.txt",
                                    "pairs.jsonl"};

enum { OBJECTS = PARTS, STREAMS };

typedef struct stream {
    FILE *out;
    char *text;
    size_t bytes;
} stream;

typedef struct job {
    const pq_pairs_options *options;
    const pq_dataset *dataset;
    pq_engine *engines[2]; /* base, model */
    stream streams[STREAMS];
    uint16_t *tokens, *drawn; /* prompt and reference; a continuation */
    size_t count;             /* of drawn */
} job;

/* ---- text ---- */

/* Bytes of the UTF-8 character at `text`, at most `left`; 0: none begins there (RFC 3629). */
static size_t character(const unsigned char *text, size_t left) {
    static const struct {
        unsigned char low, high, second_low, second_high;
        size_t bytes;
    } forms[] = {{0x00, 0x7F, 0x00, 0xFF, 1}, {0xC2, 0xDF, 0x80, 0xBF, 2}, {0xE0, 0xE0, 0xA0, 0xBF, 3},
                 {0xE1, 0xEC, 0x80, 0xBF, 3}, {0xED, 0xED, 0x80, 0x9F, 3}, {0xEE, 0xEF, 0x80, 0xBF, 3},
                 {0xF0, 0xF0, 0x90, 0xBF, 4}, {0xF1, 0xF3, 0x80, 0xBF, 4}, {0xF4, 0xF4, 0x80, 0x8F, 4}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (text[0] < forms[i].low || text[0] > forms[i].high || left < forms[i].bytes) continue;
        if (forms[i].bytes == 1) return 1;
        if (text[1] < forms[i].second_low || text[1] > forms[i].second_high) return 0;
        for (size_t k = 2; k < forms[i].bytes; k++)
            if ((text[k] & 0xC0) != 0x80) return 0;
        return forms[i].bytes;
    }
    return 0;
}

/* The text of tokens, heap: valid UTF-8 without NUL. */
static pq_status text_of(const job *j, const uint16_t *tokens, size_t count, char **out, pq_error *err) {
    char *raw;
    size_t bytes, used = 0;
    PQ_TRY(pq_tokenizer_decode(pq_dataset_tokenizer(j->dataset), tokens, count, &raw, &bytes, err));
    pq_status status = pq_calloc(3 * bytes + 1, 1, "a text", out, err);
    for (size_t i = 0; i < bytes && status == PQ_OK;) {
        size_t n = raw[i] ? character((const unsigned char *)raw + i, bytes - i) : 0;
        memcpy(*out + used, n ? raw + i : "\xEF\xBF\xBD", n ? n : 3);
        used += n ? n : 3;
        i += n ? n : 1;
    }
    free(raw);
    return status;
}

/* Whatever ends a line for some reader becomes a blank. */
static void write_line(FILE *out, const char *text) {
    static const char *const breaks[] = {"\n",   "\r",   "\v",       "\f",           "\x1C",
                                         "\x1D", "\x1E", "\xC2\x85", "\xE2\x80\xA8", "\xE2\x80\xA9"};
    while (*text) {
        size_t skip = 0;
        for (size_t i = 0; i < sizeof breaks / sizeof *breaks && !skip; i++)
            if (strncmp(text, breaks[i], strlen(breaks[i])) == 0) skip = strlen(breaks[i]);
        fputc(skip ? ' ' : *text, out);
        text += skip ? skip : 1;
    }
    fputc('\n', out);
}

/* ---- drawing ---- */

static pq_status take(void *user, uint16_t token, pq_error *err) {
    job *j = user;
    (void)err;
    j->drawn[j->count++] = token;
    return PQ_OK;
}

static pq_status write_pair(job *j, size_t prompt, size_t draw, uint64_t seed, char *const texts[PARTS],
                            pq_error *err) {
    json_t *object = json_pack("{s:I, s:I, s:I}", "index", (json_int_t)prompt, "draw", (json_int_t)draw,
                               "seed", (json_int_t)seed);
    for (int i = 0; i < PARTS && object; i++)
        json_object_set_new(object, fields[i], json_string(texts[i])); /* checked by the size below */
    char *line = object && json_object_size(object) == 3 + PARTS ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    if (!line) return PQ_FAIL(err, PQ_ERR_MEMORY, "a pair of texts could not be allocated");
    fprintf(j->streams[OBJECTS].out, "%s\n", line);
    free(line);
    for (int i = 0; i < PARTS; i++) write_line(j->streams[i].out, texts[i]);
    return PQ_OK;
}

static pq_status draw_pair(job *j, size_t prompt, size_t draw, pq_error *err) {
    const pq_pairs_options *o = j->options;
    pq_sampling sampling = o->sampling;
    char *texts[PARTS] = {NULL};
    pq_status status;
    sampling.seed += prompt * o->draws + draw;
    PQ_TRY_TO(status, done, text_of(j, j->tokens, o->prompt_tokens, &texts[PROMPT], err));
    PQ_TRY_TO(status, done, text_of(j, j->tokens + o->prompt_tokens, o->tokens, &texts[REFERENCE], err));
    for (int i = 0; i < 2; i++) {
        j->count = 0;
        PQ_TRY_TO(
            status, done,
            pq_generate(j->engines[i], &sampling, j->tokens, o->prompt_tokens, o->tokens, take, j, err));
        PQ_TRY_TO(status, done, text_of(j, j->drawn, o->tokens, &texts[BASELINE + i], err));
    }
    status = write_pair(j, prompt, draw, sampling.seed, texts, err);
done:
    for (int i = 0; i < PARTS; i++) free(texts[i]);
    return status;
}

static pq_status draw_all(job *j, pq_error *err) {
    const pq_pairs_options *o = j->options;
    size_t length = o->prompt_tokens + o->tokens, room = pq_dataset_tokens(j->dataset, o->split) - length + 1;
    for (size_t p = 0; p < o->prompts; p++) {
        pq_dataset_read(j->dataset, o->split, p * room / o->prompts, length, j->tokens);
        for (size_t d = 0; d < o->draws; d++) PQ_TRY(draw_pair(j, p, d, err));
    }
    return PQ_OK;
}

/* ---- files ---- */

static pq_status write_file(const char *folder, const char *name, const void *data, size_t bytes,
                            bool overwrite, pq_error *err) {
    char *path = pq_path_join(folder, name);
    if (!path) return PQ_FAIL(err, PQ_ERR_MEMORY, "a file name could not be allocated");
    pq_status status = pq_file_put(path, overwrite, data, bytes, err);
    free(path);
    return status;
}

static char *settings(const job *j) {
    const pq_pairs_options *o = j->options;
    json_t *object = json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:f, s:I, s:f, s:I}", "version",
                               PQ_VERSION, "baseline", o->base, "quantized", o->model, "data",
                               pq_dataset_source(j->dataset), "split", pq_split_name(o->split), "prompts",
                               (json_int_t)o->prompts, "prompt_tokens", (json_int_t)o->prompt_tokens,
                               "tokens", (json_int_t)o->tokens, "draws", (json_int_t)o->draws, "temperature",
                               o->sampling.temperature, "top_k", (json_int_t)o->sampling.top_k, "top_p",
                               o->sampling.top_p, "seed", (json_int_t)o->sampling.seed);
    char *text =
        object ? json_dumps(object, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(object);
    return text;
}

static pq_status write_files(job *j, const char *folder, bool overwrite, pq_error *err) {
    char *text = settings(j);
    if (!text)
        return PQ_FAIL(err, PQ_ERR_USAGE, "the settings could not be written as JSON: is a name not UTF-8?");
    pq_status status = pq_folder_create(folder, err);
    for (int i = 0; i < STREAMS && status == PQ_OK; i++) {
        stream *s = &j->streams[i];
        int failed = fclose(s->out);
        s->out = NULL;
        status = failed ? PQ_FAIL(err, PQ_ERR_MEMORY, "the texts do not fit in memory")
                        : write_file(folder, names[i], s->text, s->bytes, overwrite, err);
    }
    if (status == PQ_OK) status = write_file(folder, "settings.json", text, strlen(text), overwrite, err);
    free(text);
    return status;
}

/* ---- the whole ---- */

static pq_status check(const pq_dataset *dataset, const pq_packed *const models[2], const pq_pairs_options *o,
                       const char *folder, bool overwrite, pq_error *err) {
    const char *const model_names[] = {o->base, o->model};
    size_t vocab = pq_tokenizer_vocab(pq_dataset_tokenizer(dataset)),
           have = pq_dataset_tokens(dataset, o->split);
    if (pq_file_exists(folder) && !overwrite)
        return PQ_FAIL(err, PQ_ERR_USAGE, "%s exists already; --overwrite replaces it", folder);
    if (pq_file_exists(folder) && !pq_folder_exists(folder))
        return PQ_FAIL(err, PQ_ERR_USAGE, "%s is no folder", folder);
    for (int i = 0; i < 2; i++)
        if (pq_packed_shape(models[i]).vocab != (int64_t)vocab)
            return PQ_FAIL(err, PQ_ERR_USAGE, "%s has a vocabulary of %lld tokens, expected the data's %zu",
                           model_names[i], (long long)pq_packed_shape(models[i]).vocab, vocab);
    if (have < o->prompt_tokens + o->tokens + o->prompts - 1)
        return PQ_FAIL(
            err, PQ_ERR_USAGE,
            "split %s has %zu tokens, too few for %zu prompts of %zu tokens with %zu more behind each",
            pq_split_name(o->split), have, o->prompts, o->prompt_tokens, o->tokens);
    return PQ_OK;
}

pq_status pq_pairs_write(const pq_packed *base, const pq_packed *model, const pq_dataset *dataset,
                         const pq_pairs_options *options, const char *folder, bool overwrite, pq_error *err) {
    const pq_packed *const models[2] = {base, model};
    job j = {.options = options, .dataset = dataset};
    pq_status status;
    PQ_TRY(check(dataset, models, options, folder, overwrite, err));
    PQ_TRY_TO(
        status, done,
        pq_calloc(options->prompt_tokens + options->tokens, sizeof *j.tokens, "tokens", &j.tokens, err));
    PQ_TRY_TO(status, done, pq_calloc(options->tokens, sizeof *j.drawn, "tokens", &j.drawn, err));
    for (int i = 0; i < 2; i++) PQ_TRY_TO(status, done, pq_engine_create(models[i], 0, &j.engines[i], err));
    for (int i = 0; i < STREAMS; i++)
        if (!(j.streams[i].out = open_memstream(&j.streams[i].text, &j.streams[i].bytes)))
            PQ_TRY_TO(status, done, PQ_FAIL(err, PQ_ERR_MEMORY, "the texts do not fit in memory"));
    PQ_TRY_TO(status, done, draw_all(&j, err));
    status = write_files(&j, folder, overwrite, err);
done:
    for (int i = 0; i < STREAMS; i++) {
        if (j.streams[i].out) fclose(j.streams[i].out);
        free(j.streams[i].text);
    }
    for (int i = 0; i < 2; i++) pq_engine_destroy(j.engines[i]);
    free(j.tokens);
    free(j.drawn);
    return status;
}
