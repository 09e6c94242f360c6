/* potqat inspect: what is in a checkpoint, a packed model or a folder of shards. One JSON object says it all;
 * the text for people is printed from that object. */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/cli.h"
#include "cli/load.h"
#include "config/config.h"
#include "data/shards.h"
#include "potqat/tokenizer.h"
#include "store/model_read.h"
#include "train/metrics.h"

/* A member that could not be made (lack of memory, text that is not UTF-8) makes `*status` say so. */
static void put(json_t *object, const char *key, json_t *value, pq_status *status, pq_error *err) {
    if (json_object_set_new(object, key, value) != 0 && *status == PQ_OK)
        *status = PQ_FAIL(err, PQ_ERR_FORMAT, "%s is not text that JSON can hold", key);
}

static json_t *integer(uint64_t value) {
    return json_integer((json_int_t)value);
}

static json_t *granularity(const pq_packed_tensor *t) {
    char name[32];
    pq_granularity_name(t->param, t->group, name, sizeof name);
    return json_string(name);
}

/* Bits a weight are counted from the tensors, scales included. */
static json_t *describe_tensor(const pq_packed_tensor *t) {
    const pq_param *p = t->param;
    json_t *o = json_pack("{s:s, s:I, s:I}", "name", p->name, "rows", (json_int_t)p->rows, "columns",
                          (json_int_t)p->columns);
    size_t bytes = p->count * sizeof(float);
    if (t->codebook) {
        bytes = p->rows * pq_packed_row_bytes(t->codebook->bits, p->columns) +
                t->scale_count * (t->scales_bf16 ? 2 : 4);
        json_object_update_new(
            o, json_pack("{s:s, s:i, s:i, s:s, s:o, s:I, s:s}", "quantizer", t->codebook->type->name,
                         "levels", t->codebook->levels, "code_bits", t->codebook->bits, "rounding",
                         pq_rounding_name(t->codebook->rounding), "granularity", granularity(t), "scales",
                         (json_int_t)t->scale_count, "scale_type", t->scales_bf16 ? "bf16" : "fp32"));
    }
    json_object_set_new(o, "bytes", integer(bytes));
    json_object_set_new(o, "bits_a_weight", json_real(8.0 * (double)bytes / (double)p->count));
    return o;
}

static pq_status describe_tokenizer(const char *text, int64_t vocab, json_t *out, pq_error *err) {
    pq_tokenizer *tokenizer;
    char hash[24];
    if (!text) return PQ_OK;
    pq_status status = pq_tokenizer_from_json(text, strlen(text), &tokenizer, err);
    PQ_TRY(status);
    snprintf(hash, sizeof hash, "%016" PRIx64, pq_tokenizer_hash(tokenizer));
    put(out, "tokenizer",
        json_pack("{s:s, s:I, s:s}", "kind", pq_tokenizer_kind(tokenizer), "vocab",
                  (json_int_t)pq_tokenizer_vocab(tokenizer), "hash", hash),
        &status, err);
    if (status == PQ_OK && pq_tokenizer_vocab(tokenizer) != (size_t)vocab)
        status = PQ_FAIL(err, PQ_ERR_FORMAT, "the tokenizer has %zu ids, the model a vocabulary of %" PRId64,
                         pq_tokenizer_vocab(tokenizer), vocab);
    pq_tokenizer_destroy(tokenizer);
    return status;
}

/* What checkpoints and packed models share. */
static pq_status describe_packed(const pq_packed *packed, const char *path, json_t *out, pq_error *err) {
    const pq_gpt2_shape *s = &packed->params.shape;
    pq_status status = PQ_OK;
    json_t *tensors = json_array();
    put(out, "model",
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:b, s:s}", "layers", (json_int_t)s->layers, "heads",
                  (json_int_t)s->heads, "width", (json_int_t)s->width, "context", (json_int_t)s->context,
                  "vocab", (json_int_t)s->vocab, "bias", s->bias, "gelu", s->gelu_tanh ? "tanh" : "erf"),
        &status, err);
    put(out, "parameters", integer(packed->params.weights), &status, err);
    put(out, "weight_bytes", integer(packed->weight_bytes), &status, err);
    put(out, "bits_a_weight", json_real(8.0 * (double)packed->weight_bytes / (double)packed->params.weights),
        &status, err);
    put(out, "iter", json_integer(packed->iter), &status, err);
    put(out, "val_loss", pq_json_real(packed->val_loss), &status, err);
    if (packed->config) put(out, "config", json_string(packed->config), &status, err);
    for (size_t i = 0; i < packed->params.count; i++)
        json_array_append_new(tensors, describe_tensor(&packed->tensors[i]));
    put(out, "tensors", tensors, &status, err);
    PQ_TRY(status);
    status = describe_tokenizer(packed->tokenizer, s->vocab, out, err);
    return status == PQ_OK ? PQ_OK : pq_prefix(err, status, "%s", path);
}

static json_t *describe_arrays(const pq_training_state *state) {
    json_t *list = json_array();
    for (size_t i = 0; i < state->array_count; i++) {
        const pq_state_array *a = &state->arrays[i];
        json_array_append_new(list, json_pack("{s:s, s:s, s:I}", "name", a->name, "type",
                                              a->type == PQ_ARRAY_F32 ? "float32" : "uint8", "count",
                                              (json_int_t)a->count));
    }
    return list;
}

/* A checkpoint or a Hugging Face folder, packed in memory. */
static pq_status describe_model(const char *path, pq_model_kind kind, bool verify, json_t *out,
                                pq_error *err) {
    pq_model *model;
    pq_packed *packed;
    pq_config *config = NULL;
    pq_training_state state = {0};
    PQ_TRY(pq_model_read(path, &model, &state, err));
    pq_status status = PQ_OK;
    if (kind == PQ_MODEL_CHECKPOINT) put(out, "moments", json_boolean(state.m != NULL), &status, err);
    if (state.state) put(out, "state", json_string(state.state), &status, err);
    if (state.array_count) put(out, "arrays", describe_arrays(&state), &status, err);
    pq_training_state_deinit(&state);
    if (status == PQ_OK && verify && model->config) {
        status = pq_config_from_text(model->config, strlen(model->config), "the model's config", NULL, 0,
                                     &config, err);
        pq_config_destroy(config);
    }
    if (status == PQ_OK) status = pq_packed_from_model(model, &packed, err);
    pq_model_destroy(model);
    PQ_TRY(status);
    status = describe_packed(packed, path, out, err);
    pq_packed_close(packed);
    return status;
}

static pq_status describe_shards(const char *folder, json_t *out, pq_error *err) {
    pq_shards shards;
    PQ_TRY(pq_shards_open(folder, &shards, err));
    pq_status status = PQ_OK;
    put(out, "source", json_string(shards.source ? shards.source : ""), &status, err);
    put(out, "vocab", integer(pq_tokenizer_vocab(shards.tokenizer)), &status, err);
    put(out, "tokenizer_kind", json_string(pq_tokenizer_kind(shards.tokenizer)), &status, err);
    for (int split = 0; split < 3; split++) {
        size_t tokens = 0;
        for (size_t i = 0; i < shards.count[split]; i++) tokens += shards.shard[split][i].count;
        put(out, pq_split_names[split],
            json_pack("{s:I, s:I}", "files", (json_int_t)shards.count[split], "tokens", (json_int_t)tokens),
            &status, err);
    }
    pq_shards_close(&shards);
    return status;
}

static bool holds_shards(const char *folder) {
    char *index = pq_path_join(folder, PQ_SHARDS_INDEX);
    bool found = index && pq_file_exists(index);
    free(index);
    return found;
}

static pq_status describe(const char *spec, bool verify, json_t *out, pq_error *err) {
    char *path;
    pq_model_kind kind;
    pq_packed *packed;
    struct stat info;
    pq_status status = PQ_OK;
    if (holds_shards(spec)) {
        put(out, "kind", json_string("shards"), &status, err);
        put(out, "path", json_string(spec), &status, err);
        PQ_TRY(status);
        return describe_shards(spec, out, err);
    }
    PQ_TRY(pq_model_locate(spec, &path, &kind, err));
    static const char *const kinds[] = {"checkpoint", "packed model", "Hugging Face folder"};
    put(out, "kind", json_string(kinds[kind]), &status, err);
    put(out, "path", json_string(path), &status, err);
    put(out, "file_bytes", integer(stat(path, &info) == 0 ? (uint64_t)info.st_size : 0), &status, err);
    if (status == PQ_OK && kind != PQ_MODEL_PACKED) {
        status = describe_model(path, kind, verify, out, err);
    } else if (status == PQ_OK && (status = pq_packed_open(path, &packed, err)) == PQ_OK) {
        status = describe_packed(packed, path, out, err);
        pq_packed_close(packed);
    }
    free(path);
    return status;
}

/* ---- for people ---- */

static const char *text_of(const json_t *o, const char *key) {
    return json_string_value(json_object_get(o, key));
}

static long long int_of(const json_t *o, const char *key) {
    return (long long)json_integer_value(json_object_get(o, key));
}

static double real_of(const json_t *o, const char *key) {
    return json_number_value(json_object_get(o, key));
}

static void print_tensors(const json_t *tensors) {
    size_t i;
    const json_t *t;
    int width = 6;
    json_array_foreach(tensors, i, t) {
        int length = (int)strlen(text_of(t, "name"));
        if (length > width) width = length;
    }
    printf("\n%-*s  %13s  %-14s %6s  %-9s %-8s %-6s %13s\n", width, "tensor", "shape", "quantizer", "levels",
           "rounding", "scales", "", "bits a weight");
    json_array_foreach(tensors, i, t) {
        char shape[32];
        const char *quantizer = text_of(t, "quantizer");
        if (int_of(t, "rows"))
            snprintf(shape, sizeof shape, "%lld x %lld", int_of(t, "rows"), int_of(t, "columns"));
        else
            snprintf(shape, sizeof shape, "%lld", int_of(t, "columns"));
        printf("%-*s  %13s  ", width, text_of(t, "name"), shape);
        if (quantizer)
            printf("%-14s %6lld  %-9s %-8s %-6s", quantizer, int_of(t, "levels"), text_of(t, "rounding"),
                   text_of(t, "granularity"), text_of(t, "scale_type"));
        else
            printf("%-14s %6s  %-9s %-8s %-6s", "fp32", "", "", "", "");
        printf(" %13.3f\n", real_of(t, "bits_a_weight"));
    }
}

static void print_model(const json_t *o) {
    const json_t *m = json_object_get(o, "model"), *tokenizer = json_object_get(o, "tokenizer");
    const json_t *loss = json_object_get(o, "val_loss");
    const char *state = text_of(o, "state"), *config = text_of(o, "config");
    const json_t *array;
    size_t i;
    printf("file        %lld bytes\n", int_of(o, "file_bytes"));
    printf("model       %lld layers, %lld heads, width %lld, context %lld, vocabulary %lld, %s, GELU %s\n",
           int_of(m, "layers"), int_of(m, "heads"), int_of(m, "width"), int_of(m, "context"),
           int_of(m, "vocab"), json_is_true(json_object_get(m, "bias")) ? "biases" : "no biases",
           text_of(m, "gelu"));
    printf("parameters  %lld in %lld bytes packed: %.3f bits a weight, %.1f %% of fp32\n",
           int_of(o, "parameters"), int_of(o, "weight_bytes"), real_of(o, "bits_a_weight"),
           real_of(o, "bits_a_weight") / 0.32);
    printf("iter        %lld\n", int_of(o, "iter"));
    if (json_is_number(loss))
        printf("val_loss    %.6f nats a token (perplexity %.4f)\n", json_number_value(loss),
               exp(json_number_value(loss)));
    else
        printf("val_loss    not evaluated\n");
    if (tokenizer)
        printf("tokenizer   %s, %lld ids, hash %s\n", text_of(tokenizer, "kind"), int_of(tokenizer, "vocab"),
               text_of(tokenizer, "hash"));
    else
        printf("tokenizer   none\n");
    if (json_object_get(o, "moments"))
        printf("optimizer   %s\n",
               json_is_true(json_object_get(o, "moments")) ? "AdamW moments" : "no moments");
    if (state) printf("state       %s\n", state);
    json_array_foreach(json_object_get(o, "arrays"), i, array)
        printf("%-11s %s: %lld %s\n", i == 0 ? "arrays" : "", text_of(array, "name"), int_of(array, "count"),
               text_of(array, "type"));
    print_tensors(json_object_get(o, "tensors"));
    if (config) printf("\nconfig:\n%s", config);
}

static void print_shards(const json_t *o) {
    printf("source      %s\ntokenizer   %s, %lld ids\n", text_of(o, "source"), text_of(o, "tokenizer_kind"),
           int_of(o, "vocab"));
    for (int split = 0; split < 3; split++) {
        const json_t *s = json_object_get(o, pq_split_names[split]);
        printf("%-11s %lld tokens in %lld files\n", pq_split_names[split], int_of(s, "tokens"),
               int_of(s, "files"));
    }
}

static pq_status run(const pq_cli *cli, pq_error *err) {
    const bool verify = pq_cli_has(cli, "verify");
    json_t *o = json_object();
    pq_status status = describe(pq_cli_at(cli, 0), verify, o, err);
    if (status == PQ_OK && verify) put(o, "verified", json_true(), &status, err);
    if (status == PQ_OK && pq_cli_json(cli)) {
        if (json_dumpf(o, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) == 0) printf("\n");
    } else if (status == PQ_OK) {
        printf("%-11s %s\n", text_of(o, "kind"), text_of(o, "path"));
        if (strcmp(text_of(o, "kind"), "shards") == 0)
            print_shards(o);
        else
            print_model(o);
        if (verify) printf("\nverified: everything in it is as it was written\n");
    }
    json_decref(o);
    return status;
}

static const pq_flag flags[] = {
    {"verify", 0, NULL, "also check the config inside, and say that all is well"},
    {0},
};

const pq_command pq_cmd_inspect = {
    .verb = "inspect",
    .synopsis = "FILE [--verify]",
    .summary = "what is in a checkpoint, packed model or folder of shards",
    .details =
        "Prints shape, parameters, iteration, validation loss, tokenizer, config, and a table of all tensors "
        "with quantizer, levels, scales and bits a weight. FILE is any MODEL (a run folder, RUN@last, RUN@N, "
        "a "
        ".h5, a .safetensors) or a folder made by `potqat data prepare`.\n"
        "\n"
        "Checksums, names, types and shapes are checked whenever a file is opened, here and in every other "
        "command; a damaged file is refused with exit status 1. --verify also reads the config inside the "
        "way "
        "`potqat train` would, and ends with a line that says so.\n"
        "\n"
        "Bits a weight are those of the packed form: codes and scales, divided by the number of weights. 9 "
        "levels take the same 4 bits as 15. A checkpoint holds fp32 weights besides; it is larger than "
        "that.\n"
        "\n"
        "--json prints the same as one object: kind, path, file_bytes, model, parameters, weight_bytes, "
        "bits_a_weight, iter, val_loss (null: not evaluated), config, tensors, tokenizer, and for "
        "checkpoints "
        "moments, state and arrays (name, type and count of what the training methods keep).\n"
        "\n"
        "EXAMPLES\n"
        "    potqat inspect runs/char-qat\n"
        "    potqat inspect model.safetensors --verify\n"
        "    potqat inspect runs/char-qat@last --json\n",
    .flags = flags,
    .least = 1,
    .most = 1,
    .run = run,
};
