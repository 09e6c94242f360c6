/* Models of other programs: what is refused, and with which sentence. That what is read is right is compared
 * with PyTorch by tests/oracle/foreign.py. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/random.h"
#include "forge.h"
#include "formats/foreign.h"
#include "formats/half.h"
#include "random_model.h"
#include "tests/harness/suite.h"

static const pq_gpt2_shape shape = {
    .layers = 2, .heads = 2, .width = 36, .context = 70, .vocab = 67, .bias = true, .gelu_tanh = true};
static const coding plain = {0}, rows15 = {"pot", 15, NULL, "row", PQ_GRID_BF16, PQ_ROUND_NEAREST};
static char *folder, *hf; /* hf: a folder as transformers writes it */

static pq_file_view whole(const char *dir, const char *name) {
    pq_file_view view;
    char *path = pq_path_join(dir, name);
    ck_assert_int_eq(pq_file_read(path, &view, NULL), PQ_OK);
    free(path);
    return view;
}

/* A new file each time: writing over one makes some file systems wait for the disk. */
static void put(const char *dir, const char *name, const void *data, size_t bytes) {
    char *path = pq_path_join(dir, name);
    unlink(path);
    FILE *file = fopen(path, "wb");
    ck_assert(file && fwrite(data, 1, bytes, file) == bytes && fclose(file) == 0);
    free(path);
}

/* Made once; each test starts from a copy. */
static pq_file_view weights, config;

static void make(void) {
    pq_export_summary summary;
    pq_model *model = random_model(&shape, &plain, 9);
    char *dir = temporary_folder(), *made = pq_path_join(dir, "hf");
    ck_assert_int_eq(pq_hf_write(made, false, model, "F32", false, &summary, NULL), PQ_OK);
    weights = whole(made, "model.safetensors");
    config = whole(made, "config.json");
    pq_model_destroy(model);
    remove_folder(made);
    remove_folder(dir);
}

static void unmake(void) {
    pq_file_view_close(&weights);
    pq_file_view_close(&config);
}

static void setup(void) {
    folder = temporary_folder();
    hf = pq_path_join(folder, "hf");
    ck_assert_int_eq(mkdir(hf, 0777), 0);
    put(hf, "model.safetensors", weights.data, weights.size);
    put(hf, "config.json", config.data, config.size);
}

static void teardown(void) {
    remove_folder(hf);
    remove_folder(folder);
}

static void drop(const char *dir, const char *name) {
    char *path = pq_path_join(dir, name);
    ck_assert_int_eq(unlink(path), 0);
    free(path);
}

/* Replace the first `from` in the header of the weights (from NULL: nothing). */
static void edit_weights(const char *from, const char *to) {
    pq_file_view view = whole(hf, "model.safetensors");
    size_t bytes;
    char *forged = forge_header(view.data, view.size, from, to, &bytes);
    put(hf, "model.safetensors", forged, bytes);
    free(forged);
    pq_file_view_close(&view);
}

static void edit_config(const char *from, const char *to) {
    pq_file_view view = whole(hf, "config.json");
    char text[2000];
    const char *at = strstr(view.data, from);
    ck_assert_msg(at != NULL, "config.json lacks %s", from);
    int bytes =
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - view.data), view.data, to, at + strlen(from));
    put(hf, "config.json", text, (size_t)bytes);
    pq_file_view_close(&view);
}

/* Each part (up to three, split at "|") must stand in the sentence. */
static void expect(const char *path, const pq_foreign_options *options, pq_status status, const char *parts) {
    pq_model *model = (pq_model *)1;
    pq_error err = {0};
    char copy[300], *state = NULL;
    ck_assert_msg(pq_foreign_read(path, options, &model, &err) == status, "expected '%s', found %d: %s",
                  parts, (int)err.code, err.message);
    ck_assert_ptr_null(model);
    snprintf(copy, sizeof copy, "%s", parts);
    for (char *part = strtok_r(copy, "|", &state); part; part = strtok_r(NULL, "|", &state))
        ck_assert_msg(strstr(err.message, part) != NULL, "expected '%s' in: %s", part, err.message);
}

static pq_model *must_read(const char *path) {
    pq_model *model;
    pq_error err = {0};
    ck_assert_msg(pq_foreign_read(path, NULL, &model, &err) == PQ_OK, "%s", err.message);
    return model;
}

static void expect_equal(const pq_model *a, const pq_model *b) {
    ck_assert_uint_eq(a->params.elements, b->params.elements);
    ck_assert_mem_eq(a->weights, b->weights, a->params.elements * sizeof(float));
}

START_TEST(test_round_trip) {
    pq_model *model = random_model(&shape, &plain, 9), *back = must_read(hf);
    expect_equal(model, back);
    ck_assert_str_eq(back->tokenizer, model->tokenizer);
    ck_assert_int_eq(back->params.shape.heads, 2);
    ck_assert(back->params.shape.gelu_tanh);
    pq_model_destroy(model);
    pq_model_destroy(back);
}
END_TEST

START_TEST(test_types) {
    static const char *const dtypes[] = {"F32", "BF16", "F16"};
    pq_model *model = random_model(&shape, &rows15, 4), *back;
    pq_export_summary summary;
    float *hard = malloc(model->params.elements * sizeof *hard);
    pq_model_effective_weights(model, hard);
    for (size_t i = 0; i < 3; i++) {
        ck_assert_int_eq(pq_hf_write(hf, true, model, dtypes[i], false, &summary, NULL), PQ_OK);
        ck_assert(summary.largest_error == 0);
        back = must_read(hf);
        ck_assert_mem_eq(back->weights, hard, model->params.elements * sizeof *hard);
        pq_model_destroy(back);
    }
    model->quant[0].scales[5] *= 1 + 0x1p-20f; /* a scale that no 16 bits hold */
    pq_error err = {0};
    ck_assert_int_eq(pq_hf_write(hf, true, model, "BF16", false, &summary, &err), PQ_ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "wte.weight"));
    ck_assert_int_eq(pq_hf_write(hf, true, model, "BF16", true, &summary, NULL), PQ_OK);
    ck_assert_double_gt(summary.largest_error, 0);
    model->quant[0].scales[5] = 1e6f;
    model->weights[5 * 36] = 1e6f;
    ck_assert_int_eq(pq_hf_write(hf, true, model, "F16", true, &summary, &err), PQ_ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "beyond the range of F16"));
    pq_model_destroy(model);
    free(hard);
}
END_TEST

START_TEST(test_no_bias) {
    pq_gpt2_shape bare = shape;
    pq_export_summary summary;
    bare.bias = false;
    pq_model *model = random_model(&bare, &plain, 2);
    ck_assert_int_eq(pq_hf_write(hf, true, model, "F32", false, &summary, NULL), PQ_OK);
    pq_model *back = must_read(hf);
    ck_assert(back->params.shape.bias);
    for (size_t i = 0; i < back->params.count; i++) {
        const pq_param *p = &back->params.list[i], *own = pq_params_find(&model->params, p->name);
        for (size_t k = 0; k < p->count; k++)
            ck_assert(back->weights[p->offset + k] == (own ? model->weights[own->offset + k] : 0));
    }
    pq_model_destroy(model);
    pq_model_destroy(back);
}
END_TEST

START_TEST(test_target) {
    pq_model *model = random_model(&shape, &plain, 9);
    pq_export_summary summary;
    ck_assert_int_eq(pq_hf_write(hf, false, model, "F32", false, &summary, NULL), PQ_ERR_USAGE);
    put(folder, "mine.txt", "x", 1);
    ck_assert_int_eq(pq_hf_write(folder, true, model, "F32", false, &summary, NULL), PQ_ERR_USAGE);
    drop(folder, "mine.txt");
    model->weights[1] = NAN;
    ck_assert_int_eq(pq_hf_write(hf, true, model, "F32", false, &summary, NULL), PQ_ERR_USAGE);
    pq_model *back = must_read(hf); /* the older one still stands */
    pq_model_destroy(back);
    pq_model_destroy(model);
}
END_TEST

/* One edit of the header each, and the sentence. */
static const struct {
    const char *from, *to, *says;
} headers[] = {
    {"transformer.h.1.mlp.c_fc.bias", "transformer.h.1.mlp.c_fc.bios",
     "h.1.mlp.c_fc.bias is missing: expected shape [144], found none"},
    {"transformer.ln_f.bias", "lm_head.weight", "ln_f.bias is missing"},
    {"\"transformer.wpe.weight\":{\"dtype\":\"F32\"", "\"transformer.wpe.weight\":{\"dtype\":\"I32\"",
     "transformer.wpe.weight: expected type F32, F16 or BF16, found I32"},
    {"[36,108]", "[108,36]", "h.0.attn.c_attn.weight: expected shape [36, 108], found [108, 36]|transposed"},
    {"[36,108]", "[36,54,2]", "expected shape [36, 108], found [36, 54, 2]"},
    {"transformer.wpe.weight", "_orig_mod.transformer.wte.weight", "wte.weight comes twice"},
    {"transformer.h.1.ln_1.bias", "transformer.h.99999999.ln_1.bias", "h.1.ln_1.bias is missing"},
    {"[67,36]", "[36,67]", "vocab_size of 67, tensor wte.weight 36 rows"},
    {"transformer.wte.weight", "transformer.wte.weigth", "wte.weight is missing"},
};

START_TEST(test_headers) {
    edit_weights(headers[_i].from, headers[_i].to);
    expect(hf, NULL, PQ_ERR_FORMAT, headers[_i].says);
}
END_TEST

START_TEST(test_unexpected) {
    /* Bytes that a tensor of no use would take: an empty one has none. */
    edit_weights("\"transformer.wte.weight\"",
                 "\"h.0.extra\":{\"dtype\":\"F32\",\"shape\":[0,3],\"data_offsets\":[0,0]},"
                 "\"transformer.wte.weight\"");
    expect(hf, NULL, PQ_ERR_FORMAT, "tensor h.0.extra of shape [0, 3] is unexpected");
    edit_weights("h.0.extra", "h.0.attn.masked_bias"); /* but masks are */
    pq_model_destroy(must_read(hf));
}
END_TEST

START_TEST(test_damage) {
    pq_file_view view = whole(hf, "model.safetensors");
    const float bad[] = {NAN, INFINITY};
    for (size_t i = 0; i < 2; i++) {
        char *copy = malloc(view.size);
        memcpy(copy, view.data, view.size);
        memcpy(copy + view.size - 4, &bad[i], sizeof *bad); /* the last value of ln_f.bias */
        put(hf, "model.safetensors", copy, view.size);
        free(copy);
        expect(hf, NULL, PQ_ERR_FORMAT, "value 35 of transformer.ln_f.bias is not a finite number");
    }
    for (size_t cut = 1; cut < view.size; cut += view.size / 7) {
        put(hf, "model.safetensors", view.data, view.size - cut);
        expect(hf, NULL, PQ_ERR_FORMAT, "model.safetensors");
    }
    pq_file_view_close(&view);
    drop(hf, "model.safetensors");
    expect(hf, NULL, PQ_ERR_IO, "neither model.safetensors nor model.safetensors.index.json");
    put(hf, "model.safetensors", "", 0);
    expect(hf, NULL, PQ_ERR_FORMAT, "is empty");
}
END_TEST

static const struct {
    const char *from, *to;
    pq_status status;
    const char *says;
} configs[] = {
    {"\"gelu_new\"", "\"relu\"", PQ_ERR_USAGE,
     "activation_function: expected gelu_new or gelu, found \"relu\""},
    {"\"gelu_new\"", "7", PQ_ERR_USAGE, "activation_function"},
    {"1e-5", "1e-6", PQ_ERR_USAGE, "layer_norm_epsilon: expected 1e-5, found 1e-6|config.json"},
    {"\"scale_attn_by_inverse_layer_idx\": false", "\"scale_attn_by_inverse_layer_idx\": true", PQ_ERR_USAGE,
     "scale_attn_by_inverse_layer_idx: expected false, found true"},
    {"\"scale_attn_weights\": true", "\"scale_attn_weights\": false", PQ_ERR_USAGE, "expected true"},
    {"\"n_inner\": null", "\"n_inner\": 100", PQ_ERR_USAGE, "n_inner: expected null or 4 times"},
    {"\"n_inner\": null", "\"quantization_config\": {}", PQ_ERR_USAGE, "quantization_config"},
    {"\"gpt2\"", "\"llama\"", PQ_ERR_USAGE, "model_type: expected \"gpt2\", found \"llama\""},
    {"\"n_layer\": 2", "\"n_layer\": 3", PQ_ERR_FORMAT, "h.2.ln_1.weight is missing"},
    {"\"n_layer\": 2", "\"n_layer\": 1", PQ_ERR_FORMAT, "h.1.|is unexpected"},
    {"\"n_layer\": 2", "\"n_layer\": \"2\"", PQ_ERR_USAGE,
     "n_layer: expected a whole number from 1, found \"2\""},
    {"\"n_layer\": 2", "\"n_layer\": 1e9", PQ_ERR_USAGE, "n_layer"},
    {"\"n_head\": 2", "\"n_head\": 5", PQ_ERR_USAGE, "width must be a multiple of heads"},
    {"\"n_head\": 2,", "", PQ_ERR_USAGE, "n_head: expected a whole number from 1, found nothing"},
    {"\"n_embd\": 36", "\"n_embd\": 72", PQ_ERR_FORMAT, "expected shape [67, 72], found [67, 36]"},
    {"\"n_positions\": 70", "\"n_positions\": 71", PQ_ERR_FORMAT, "wpe.weight: expected shape [71, 36]"},
    {"\"vocab_size\": 67", "\"vocab_size\": 70000", PQ_ERR_FORMAT, "vocab_size of 70000"},
    {"\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false", PQ_ERR_FORMAT,
     "lm_head.weight is missing"},
    {"{", "[{", PQ_ERR_FORMAT, "config.json is not JSON"},
    {"\"n_layer\": 2", "\"n_layer\": 2, \"n_layer\": 2", PQ_ERR_FORMAT, "config.json is not JSON: duplicate"},
};

START_TEST(test_configs) {
    edit_config(configs[_i].from, configs[_i].to);
    expect(hf, NULL, configs[_i].status, configs[_i].says);
}
END_TEST

START_TEST(test_harmless_configs) {
    edit_config("\"n_inner\": null", "\"n_inner\": 144, \"reorder_and_upcast_attn\": true");
    edit_config("\"gelu_new\"", "\"gelu\"");
    pq_model *model = must_read(hf);
    ck_assert(!model->params.shape.gelu_tanh);
    pq_model_destroy(model);
}
END_TEST

/* An index over one file, edited. */
static const struct {
    const char *map, *says;
} indexes[] = {
    {"{\"weight_map\":{\"transformer.wte.weight\":\"../hf/w.safetensors\"}}",
     "expected names of files in this folder, found \"../hf/w.safetensors\""},
    {"{\"weight_map\":{\"transformer.wte.weight\":\"/etc/passwd\"}}", "found \"/etc/passwd\""},
    {"{\"weight_map\":{\"transformer.wte.weight\":\"..\"}}", "found \"..\""},
    {"{\"weight_map\":{\"transformer.wte.weight\":7}}", "expected names of files"},
    {"{\"weight_map\":{\"transformer.wte.weight\":\"w.safetensors\"}}",
     "holds tensor transformer.wpe.weight, which model.safetensors.index.json says is in no file"},
    {"{\"weight_map\":{\"a\":\"w.safetensors\",\"b\":\"none.safetensors\"}}", "none.safetensors"},
    {"{\"weight_map\":{}}", "wte.weight is missing"},
    {"{}", "expected an object weight_map"},
    {"{\"weight_map\":[]}", "expected an object weight_map"},
    {"", "is empty"},
    {"{\"weight_map\":{\"a\":\"w.safetensors\",\"a\":\"w.safetensors\"}}", "is not JSON: duplicate"},
};

START_TEST(test_indexes) {
    pq_file_view view = whole(hf, "model.safetensors");
    pq_error err = {0};
    pq_model *model;
    drop(hf, "model.safetensors");
    put(hf, "w.safetensors", view.data, view.size);
    put(hf, "model.safetensors.index.json", indexes[_i].map, strlen(indexes[_i].map));
    ck_assert_int_ne(pq_foreign_read(hf, NULL, &model, &err), PQ_OK);
    ck_assert_msg(strstr(err.message, indexes[_i].says) != NULL, "expected '%s' in: %s", indexes[_i].says,
                  err.message);
    pq_file_view_close(&view);
}
END_TEST

/* The same tensors in two files. */
START_TEST(test_duplicate_in_shards) {
    pq_file_view view = whole(hf, "model.safetensors");
    const char map[] = "{\"weight_map\":{\"transformer.wte.weight\":\"a.safetensors\","
                       "\"x\":\"b.safetensors\"}}";
    drop(hf, "model.safetensors");
    put(hf, "a.safetensors", view.data, view.size);
    put(hf, "b.safetensors", view.data, view.size);
    put(hf, "model.safetensors.index.json", map, strlen(map));
    expect(hf, NULL, PQ_ERR_FORMAT, "comes twice|a.safetensors|b.safetensors");
    pq_file_view_close(&view);
}
END_TEST

START_TEST(test_single_file) {
    const pq_foreign_options two = {.heads = 2}, relu = {.heads = 2, .gelu = "relu"};
    char *path = pq_path_join(hf, "model.safetensors");
    expect(path, NULL, PQ_ERR_USAGE, "give --heads N");
    expect(path, &two, PQ_ERR_FORMAT,
           "expected shape [108, 36], found [36, 108]|which need their config.json");
    expect(path, &relu, PQ_ERR_USAGE, "expected erf or tanh, found relu");
    expect(hf, &(pq_foreign_options){.heads = 3}, PQ_ERR_USAGE, "says 2 heads, --heads 3");
    expect(hf, &(pq_foreign_options){.gelu = "erf"}, PQ_ERR_USAGE, "says GELU tanh, --gelu erf");
    edit_weights("\"format\":\"pt\"", "\"heads\":\"-2\"");
    expect(path, NULL, PQ_ERR_FORMAT, "expected a number of heads, found -2");
    edit_weights("\"heads\":\"-2\"", "\"format\":\"potqat packed\"");
    expect(path, NULL, PQ_ERR_USAGE, "is a packed model");
    free(path);
    expect(folder, NULL, PQ_ERR_USAGE, "it has no config.json");
    expect("/nowhere", NULL, PQ_ERR_IO, "/nowhere");
    expect("/dev/null", NULL, PQ_ERR_USAGE, "expected a Hugging Face folder");
}
END_TEST

/* Fields of llm.c's header; the file has the size of the right one. */
static const struct {
    int field, value;
    const char *says;
} llmc[] = {
    {0, 7, "expected the magic number 20240326, found 7"},
    {1, 4, "expected llm.c's version"},
    {2, 0, "context must be 1 to"},
    {3, -1, "vocab"},
    {3, 9, "padded vocabulary is 8"},
    {4, 2, "bytes for its shape, found"},
    {4, 1 << 30, "layers must be"},
    {5, 3, "multiple of heads"},
    {6, 1 << 30, "width must be"},
    {7, 1 << 30, "padded vocabulary"},
    {7, 9, "bytes for its shape, found"},
};

START_TEST(test_llmc) {
    enum { C = 4, T = 3, V = 8, HEADER = 256 };
    static union {
        int32_t header[HEADER];
        float values[HEADER + 2 * V * C + 1000];
    } file;
    const size_t count = V * C + T * C + (12 * C * C + 13 * C) + 2 * C, bytes = 4 * (HEADER + count);
    memset(&file, 0, sizeof file);
    const int32_t good[] = {20240326, 3, T, V, 1, 2, C, V};
    memcpy(file.header, good, sizeof good);
    for (size_t i = 0; i < count; i++) file.values[HEADER + i] = (float)i;
    char *path = pq_path_join(folder, "m.bin");
    put(folder, "m.bin", &file, bytes);
    pq_model *model = must_read(path);
    const pq_param *last = pq_params_find(&model->params, "ln_f.bias");
    ck_assert(model->weights[last->offset + C - 1] == (float)(count - 1));
    pq_model_destroy(model);
    put(folder, "m.bin", &file, 100);
    expect(path, NULL, PQ_ERR_FORMAT, "header of 1024 bytes, found 100");
    for (size_t i = 0; i < sizeof llmc / sizeof *llmc; i++) {
        file.header[llmc[i].field] = llmc[i].value;
        put(folder, "m.bin", &file, bytes);
        pq_error err = {0};
        ck_assert_int_ne(pq_foreign_read(path, NULL, &model, &err), PQ_OK);
        ck_assert_msg(strstr(err.message, llmc[i].says) != NULL, "expected '%s' in: %s", llmc[i].says,
                      err.message);
        file.header[llmc[i].field] = good[llmc[i].field];
    }
    drop(folder, "m.bin");
    free(path);
}
END_TEST

/* ---- half.h: against the formula, and against every neighbour ---- */

static double f16_value(uint16_t h) {
    int exponent = h >> 10 & 31;
    double body = exponent ? ldexp(1024 + (h & 1023), exponent - 25) : ldexp(h & 1023, -24);
    return h & 0x8000 ? -body : body;
}

START_TEST(test_half_values) {
    for (uint32_t h = 0; h < 65536; h++) {
        float value = pq_f16_to_float((uint16_t)h), wide = pq_bf16_to_float((uint16_t)h);
        if ((h & 0x7C00) == 0x7C00)
            ck_assert((h & 1023) ? isnan(value) : isinf(value));
        else
            ck_assert(value == (float)f16_value((uint16_t)h));
        if (!isnan(value)) ck_assert_uint_eq(pq_f16_from_float(value), h);
        if (!isnan(wide)) ck_assert_uint_eq(pq_bf16_from_float(wide), h);
    }
    ck_assert(isnan(pq_f16_to_float(pq_f16_from_float(NAN))));
    ck_assert(isnan(pq_bf16_to_float(pq_bf16_from_float(pq_float_of_bits(0x7F800001)))));
    ck_assert(isinf(pq_f16_to_float(pq_f16_from_float(65520.0f)))); /* half way to 2^16 */
    ck_assert_uint_eq(pq_f16_from_float(65519.996f), 0x7BFF);
    ck_assert_uint_eq(pq_f16_from_float(1e30f), 0x7C00);
    ck_assert_uint_eq(pq_f16_from_float(-0.0f), 0x8000);
}
END_TEST

/* The one nearest of h - 1, h, h + 1; of two equally near the even one. */
static void expect_nearest(double x, uint16_t h, double (*value)(uint16_t)) {
    double own = fabs(value(h) - x);
    for (int step = -1; step <= 1; step += 2) {
        if ((h & 0x7FFF) == 0 && step < 0) continue;
        double other = fabs(value((uint16_t)(h + step)) - x);
        ck_assert_msg(own < other || (own == other && h % 2 == 0), "%a became %04x", x, (unsigned)h);
    }
}

static double bf16_value(uint16_t h) {
    return (double)pq_bf16_to_float(h);
}

START_TEST(test_half_rounding) {
    for (uint64_t i = 0; i < 200000; i++) {
        uint32_t r[4];
        pq_random4(1, PQ_STREAM_SHUFFLE, 0, i, r);
        float x = pq_float_of_bits(r[0]);
        if (i % 2) x = (float)ldexp((int32_t)r[0], (int)(r[1] % 50) - 66);       /* where half lives */
        if (i % 4 == 1) x = pq_float_of_bits(pq_bits_of_float(x) & 0xFFFFF000u); /* many ties */
        if (!isfinite(x)) continue;
        if (fabsf(x) < 65500) expect_nearest((double)x, pq_f16_from_float(x), f16_value);
        if (fabsf(x) < 3.38e38f) expect_nearest((double)x, pq_bf16_from_float(x), bf16_value);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("foreign");
    TCase *files = tcase_create("files"), *halves = tcase_create("half");
    tcase_add_unchecked_fixture(files, make, unmake);
    tcase_add_checked_fixture(files, setup, teardown);
    tcase_set_timeout(files, 0);
    tcase_add_test(files, test_round_trip);
    tcase_add_test(files, test_types);
    tcase_add_test(files, test_no_bias);
    tcase_add_test(files, test_target);
    tcase_add_loop_test(files, test_headers, 0, sizeof headers / sizeof *headers);
    tcase_add_test(files, test_unexpected);
    tcase_add_test(files, test_damage);
    tcase_add_loop_test(files, test_configs, 0, sizeof configs / sizeof *configs);
    tcase_add_test(files, test_harmless_configs);
    tcase_add_loop_test(files, test_indexes, 0, sizeof indexes / sizeof *indexes);
    tcase_add_test(files, test_duplicate_in_shards);
    tcase_add_test(files, test_single_file);
    tcase_add_test(files, test_llmc);
    suite_add_tcase(suite, files);
    tcase_set_timeout(halves, 0);
    tcase_add_test(halves, test_half_values);
    tcase_add_test(halves, test_half_rounding);
    suite_add_tcase(suite, halves);
    return run_suite(suite);
}
