/* Packed models: bits survive the way there and back, damage and lies are refused, nothing is half-written.
 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "forge.h"
#include "formats/packed.h"
#include "formats/packed_layout.h"
#include "random_model.h"
#include "tests/harness/suite.h"

static const double int4[] = {-8, 7}, released[] = {-8, 4};
static const coding codings[] = {
    {NULL, 0, NULL, NULL, PQ_GRID_BF16, PQ_ROUND_NEAREST},
    {"pot", 3, NULL, "row", PQ_GRID_BF16, PQ_ROUND_NEAREST},
    {"pot", 7, NULL, "row", PQ_GRID_BF16, PQ_ROUND_NEAREST},
    {"pot", 9, NULL, "tensor", PQ_GRID_BF16, PQ_ROUND_NEAREST},
    {"pot", 15, NULL, "row", PQ_GRID_BF16, PQ_ROUND_NEAREST},
    {"pot", 15, NULL, "group32", PQ_GRID_FP32, PQ_ROUND_NEAREST},
    {"pot", 31, NULL, "group64", PQ_GRID_POT, PQ_ROUND_LOG},
    {"pot", 63, NULL, "row", PQ_GRID_FP32, PQ_ROUND_NEAREST},
    {"pot-zero-free", 16, NULL, "row", PQ_GRID_BF16, PQ_ROUND_NEAREST},
    {"uniform", 0, int4, "row", PQ_GRID_FP32, PQ_ROUND_NEAREST},
    {"pot-released", 0, released, "tensor", PQ_GRID_FP32, PQ_ROUND_NEAREST},
};
static const pq_gpt2_shape shapes[] = {
    {.layers = 2, .heads = 2, .width = 64, .context = 5, .vocab = 65, .bias = true, .gelu_tanh = true},
    {.layers = 1, .heads = 3, .width = 192, .context = 8, .vocab = 7},
};
enum { CODINGS = sizeof codings / sizeof *codings };

static char *folder;

static void make_folder(void) {
    folder = temporary_folder();
}

static void drop_folder(void) {
    remove_folder(folder);
}

static char *path_in_folder(const char *name) {
    char *path = pq_path_join(folder, name);
    ck_assert_ptr_nonnull(path);
    return path;
}

/* Everything `packed` says against what `model` means, bit for bit. */
static void check_same(const pq_packed *packed, const pq_model *model) {
    float *meant, *found;
    ck_assert_int_eq(pq_calloc(model->params.elements, sizeof *meant, "", &meant, NULL), PQ_OK);
    ck_assert_int_eq(pq_calloc(model->params.elements, sizeof *found, "", &found, NULL), PQ_OK);
    pq_model_effective_weights(model, meant);
    for (size_t i = 0; i < model->params.count; i++) {
        const pq_param *p = &model->params.list[i];
        pq_packed_decode_rows(&packed->tensors[i], 0, p->count / p->columns, found + p->offset);
        ck_assert_mem_eq(found + p->offset, meant + p->offset, p->count * sizeof *found);
        ck_assert_int_eq(packed->tensors[i].codebook != NULL, model->quant[i].quantized);
        if (!model->quant[i].quantized) continue;
        ck_assert_uint_eq(packed->tensors[i].group, model->quant[i].group);
        ck_assert_uint_eq(packed->tensors[i].scale_count, model->quant[i].scale_count);
        ck_assert_uint_eq((uintptr_t)packed->tensors[i].codes % 16, 0);
        for (size_t k = 0; k < model->quant[i].scale_count; k++)
            ck_assert(pq_packed_scale(&packed->tensors[i], k) == model->quant[i].scales[k]);
    }
    ck_assert_int_eq(packed->activations, model->activations);
    ck_assert_str_eq(packed->tokenizer, model->tokenizer);
    ck_assert_str_eq(packed->config, model->config);
    ck_assert_int_eq(packed->iter, model->iter);
    ck_assert(packed->val_loss == model->val_loss || (isnan(packed->val_loss) && isnan(model->val_loss)));
    ck_assert_uint_eq(pq_packed_weight_bytes(packed), pq_model_weight_bytes(model));
    free(meant);
    free(found);
}

START_TEST(every_bit_survives) {
    const pq_gpt2_shape *shape = &shapes[_i % 2];
    pq_model *model = random_model(shape, &codings[_i / 2], (uint64_t)_i), *again;
    char *path = path_in_folder("a.safetensors"), *second = path_in_folder("b.safetensors");
    pq_packed *packed;
    pq_error err = {0};
    pq_file_view one, two;
    if (_i % 3 == 0) model->val_loss = NAN;
    if (_i % 3 == 1)
        ck_assert_int_eq(pq_model_quantize_activations(model, PQ_ACTIVATIONS_TOKEN, NULL), PQ_OK);
    ck_assert_msg(pq_packed_write(path, false, model, &err) == PQ_OK, "%s", err.message);
    ck_assert_msg(pq_packed_open(path, &packed, &err) == PQ_OK, "%s", err.message);
    check_same(packed, model);
    ck_assert_int_eq(packed->params.shape.gelu_tanh, shape->gelu_tanh);
    ck_assert_int_eq(packed->params.shape.context, shape->context);

    /* The model made of it is packed into the same bytes. */
    ck_assert_msg(pq_packed_to_model(packed, &again, &err) == PQ_OK, "%s", err.message);
    ck_assert_msg(pq_packed_write(second, false, again, &err) == PQ_OK, "%s", err.message);
    ck_assert_int_eq(pq_file_read(path, &one, NULL), PQ_OK);
    ck_assert_int_eq(pq_file_read(second, &two, NULL), PQ_OK);
    ck_assert_uint_eq(one.size, two.size);
    ck_assert_mem_eq(one.data, two.data, one.size);
    pq_file_view_close(&one);
    pq_file_view_close(&two);
    pq_packed_close(packed);

    /* Over the file it came from: only on request. */
    ck_assert_int_eq(pq_packed_write(path, false, again, &err), PQ_ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "--overwrite"));
    ck_assert_int_eq(pq_packed_write(path, true, again, &err), PQ_OK);

    ck_assert_msg(pq_packed_from_model(model, &packed, &err) == PQ_OK, "%s", err.message);
    check_same(packed, model);
    pq_packed_close(packed);
    pq_model_destroy(model);
    pq_model_destroy(again);
    ck_assert_int_eq(remove(path), 0);
    ck_assert_int_eq(remove(second), 0);
    free(path);
    free(second);
}
END_TEST

/* Matrices of one model under different quantizers, and a model without texts. */
START_TEST(quantizers_mix) {
    pq_model *model = random_model(&shapes[0], &codings[0], 5);
    pq_error err = {0};
    pq_packed *packed;
    for (size_t i = 0, k = 1; i < model->params.count; i++) {
        const pq_param *p = &model->params.list[i];
        if (!p->quantizable || k == CODINGS) continue;
        pq_model *other = random_model(&shapes[0], &codings[k], 5);
        ck_assert_int_eq(
            pq_model_quantize_param(model, i, &other->quant[i].codebook, codings[k].granularity, NULL),
            PQ_OK);
        memcpy(model->quant[i].scales, other->quant[i].scales, other->quant[i].scale_count * sizeof(float));
        pq_model_destroy(other);
        k++;
    }
    /* Queries, keys and values apart: a scale for a third of the rows. */
    size_t qkv = (size_t)(pq_params_find(&model->params, "h.1.attn.c_attn.weight") - model->params.list);
    pq_codebook apot;
    ck_assert_int_eq(pq_codebook_init(&apot, "apot", 31, NULL, PQ_ROUND_NEAREST, NULL), PQ_OK);
    ck_assert_int_eq(pq_model_quantize_param(model, qkv, &apot, "rows64", NULL), PQ_OK);
    ck_assert_uint_eq(model->quant[qkv].scale_count, 3);
    for (int k = 0; k < 3; k++) model->quant[qkv].scales[k] = 0.01f * (float)(k + 1);
    static const char *const refused[] = {"rows1",   "rows192", "rows65", "rows",
                                          "rows064", "rows-64", "rows384"};
    for (size_t k = 0; k < sizeof refused / sizeof *refused; k++)
        ck_assert_int_eq(pq_model_quantize_param(model, qkv, &apot, refused[k], &err), PQ_ERR_USAGE);
    ck_assert_msg(pq_packed_from_model(model, &packed, &err) == PQ_OK, "%s", err.message);
    check_same(packed, model);
    pq_packed_close(packed);
    free(model->tokenizer);
    free(model->config);
    model->tokenizer = model->config = NULL;
    ck_assert_msg(pq_packed_from_model(model, &packed, &err) == PQ_OK, "%s", err.message);
    ck_assert_ptr_null(pq_packed_tokenizer(packed));
    ck_assert_ptr_null(packed->config);
    pq_packed_close(packed);
    pq_model_destroy(model);
}
END_TEST

START_TEST(refuses_models_that_cannot_be_packed) {
    pq_model *model = random_model(&shapes[0], &codings[4], 1);
    char *path = path_in_folder("never.safetensors");
    pq_error err = {0};
    float *weight = &model->weights[model->params.list[3].offset], kept = *weight;
    *weight = NAN;
    ck_assert_int_eq(pq_packed_write(path, false, model, &err), PQ_ERR_USAGE);
    *weight = kept;
    kept = model->quant[0].scales[1];
    model->quant[0].scales[1] = 0;
    ck_assert_int_eq(pq_packed_write(path, false, model, &err), PQ_ERR_USAGE);
    model->quant[0].scales[1] = 0x1p126f; /* a finite scale whose levels are not */
    ck_assert_int_eq(pq_packed_write(path, false, model, &err), PQ_ERR_FORMAT);
    model->quant[0].scales[1] = kept;
    strcpy(model->config, "\xff");
    ck_assert_int_eq(pq_packed_write(path, false, model, &err), PQ_ERR_USAGE);
    model->config[0] = 0;
    ck_assert_int_eq(pq_model_quantize_activations(model, PQ_ACTIVATIONS_AFFINE, NULL), PQ_OK);
    ck_assert_int_eq(pq_packed_write(path, false, model, &err), PQ_ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "int8-affine"));
    pq_packed *packed; /* in memory they are left out */
    ck_assert_int_eq(pq_packed_from_model(model, &packed, &err), PQ_OK);
    ck_assert_int_eq(packed->activations, PQ_ACTIVATIONS_NONE);
    pq_packed_close(packed);
    ck_assert_int_eq(pq_model_quantize_activations(model, PQ_ACTIVATIONS_NONE, NULL), PQ_OK);
    ck_assert(!pq_file_exists(path));
    ck_assert_int_eq(pq_packed_write("/nowhere/at/all.safetensors", false, model, &err), PQ_ERR_IO);
    pq_model_destroy(model);
    free(path);
}
END_TEST

/* Open an image; the name stands in every refusal. */
static pq_status open_image(char *image, size_t bytes, pq_packed **out, pq_error *err) {
    pq_file_view view = {.data = image, .size = bytes};
    return pq_packed_from_view(&view, "x.safetensors", out, err);
}

static char *good_image(size_t *bytes) {
    pq_model *model = random_model(&shapes[0], &codings[4], 2);
    char *path = path_in_folder("good.safetensors");
    pq_file_view view;
    ck_assert_int_eq(pq_packed_write(path, true, model, NULL), PQ_OK);
    ck_assert_int_eq(pq_file_read(path, &view, NULL), PQ_OK);
    char *image = forge_header(view.data, view.size, NULL, NULL, bytes);
    ck_assert_uint_eq(*bytes, view.size);
    ck_assert_mem_eq(image, view.data, view.size);
    pq_file_view_close(&view);
    pq_model_destroy(model);
    free(path);
    return image;
}

/* Texts of the header (quotes inside texts are escaped there) and what they are replaced by. */
static const struct {
    const char *from, *to, *word;
} lies[] = {
    {"\"format\":\"potqat packed\"", "\"format\":\"pt\"", "not a packed model"},
    {"\"version\":\"1\"", "\"version\":\"2\"", "version 2"},
    {"\\\"layers\\\":2", "\\\"layers\\\":1", "tensors"},
    {"\\\"layers\\\":2", "\\\"layers\\\":3", "missing"},
    {"\\\"layers\\\":2", "\\\"layers\\\":4000000000", "layers"},
    {"\\\"layers\\\":2", "\\\"layers\\\":0", "layers"},
    {"\\\"layers\\\":2", "\\\"layers\\\":\\\"2\\\"", "shape"},
    {"\\\"heads\\\":2", "\\\"heads\\\":3", "heads"},
    {"\\\"context\\\":5", "\\\"context\\\":6", "wpe.weight"},
    {"\\\"vocab\\\":65", "\\\"vocab\\\":64", "wte.weight"},
    {"\\\"width\\\":64", "\\\"width\\\":128", "rows of 128"},
    {"\\\"bias\\\":true", "\\\"bias\\\":false", "tensors"},
    {"\\\"gelu\\\":\\\"tanh\\\"", "\\\"gelu\\\":\\\"relu\\\"", "gelu"},
    {"\\\"quantizer\\\":\\\"pot\\\"", "\\\"quantizer\\\":\\\"apot\\\"", "apot"},
    {"\\\"wire_id\\\":1", "\\\"wire_id\\\":2", "which this build lacks"},
    {"\\\"levels\\\":15", "\\\"levels\\\":13", "levels"},
    {"\\\"bits\\\":4", "\\\"bits\\\":5", "codebook 0"},
    {"\\\"values\\\":[0.0,1.0,2.0", "\\\"values\\\":[0.0,1.0,3.0", "codebook 0"},
    {"\\\"rounding\\\":\\\"nearest\\\"", "\\\"rounding\\\":\\\"up\\\"", "rounding"},
    {"\\\"codebook\\\":0", "\\\"codebook\\\":1", "codebook"},
    {"\\\"codebook\\\":0", "\\\"codebook\\\":-1", "codebook"},
    {"\\\"group\\\":64", "\\\"group\\\":32", "scales"},
    {"\\\"columns\\\":64", "\\\"columns\\\":65", "rows of 64"},
    {"\\\"group\\\":64", "\\\"group\\\":0", "one scale for 0"},
    {"\\\"group\\\":64", "\\\"group\\\":1", "one scale for 1"},
    {"\\\"group\\\":64", "\\\"group\\\":-64", "one scale for -64"},
    {"\\\"group\\\":64", "\\\"group\\\":448", "one scale for 448"},
    {"\\\"group\\\":64", "\\\"group\\\":9223372036854775744", "one scale for 9223372036854775744"},
    {"\\\"wpe.weight\\\":{", "\\\"wpf.weight\\\":{", "wpf.weight"},
    {"\\\"wpe.weight\\\":{", "\\\"ln_f.weight\\\":{", "ln_f.weight"},
    {"\"wpe.weight.codes\":", "\"wpe.weight\":", "wpe.weight.codes"},
    {"\"ln_f.bias\":{\"dtype\":\"F32\"", "\"ln_f.bias\":{\"dtype\":\"I32\"", "I32"},
    {"\"wpe.weight.scales\":{\"dtype\":\"BF16\"", "\"wpe.weight.scales\":{\"dtype\":\"F16\"", "F16"},
    {"\"tokenizer\":\"{", "\"tokenizer\":\"[", "tokenizer"},
    {"\"iter\":\"1234\"", "\"iter\":\"1.5\"", "iter"},
    {"\"iter\":\"1234\"", "\"iter\":\"-1\"", "iter"},
    {"\"iter\":\"1234\"", "\"itex\":\"1234\"", "iter"},
    {"\"val_loss\":\"1.5", "\"val_loss\":\"x1.5", "JSON"},
    {"\"val_loss\":\"", "\"val_loss\":\"true", "JSON"},
    {"\"iter\":", "\"activations\":\"int8-affine\",\"iter\":", "activations are int8-affine"},
    {"\"iter\":", "\"activations\":\"none\",\"iter\":", "activations are none"},
    {"\"iter\":", "\"activations\":\"int4\",\"iter\":", "activations are int4"},
};

START_TEST(refuses_lies_with_true_hashes) {
    size_t bytes, forged_bytes;
    char *image = good_image(&bytes);
    char *forged = forge_header(image, bytes, lies[_i].from, lies[_i].to, &forged_bytes);
    pq_packed *packed;
    pq_error err = {0};
    ck_assert(forge_hashes(forged, forged_bytes));
    ck_assert_int_eq(open_image(forged, forged_bytes, &packed, &err), PQ_ERR_FORMAT);
    ck_assert_ptr_null(packed);
    ck_assert_msg(strstr(err.message, lies[_i].word) && strstr(err.message, "x.safetensors"), "%s: %s",
                  lies[_i].to, err.message);
    /* The same lie told to the hashes is damage. */
    forged = forge_header(image, bytes, lies[_i].from, lies[_i].to, &forged_bytes);
    ck_assert_int_eq(open_image(forged, forged_bytes, &packed, &err), PQ_ERR_FORMAT);
    free(image);
}
END_TEST

/* Where a tensor's data stands in an image. */
static void *data_of(char *image, size_t bytes, const char *name) {
    pq_safetensors file;
    ck_assert_int_eq(pq_safetensors_parse(image, bytes, "f", &file, NULL), PQ_OK);
    const pq_safetensor *tensor = pq_safetensors_find(&file, name);
    ck_assert_ptr_nonnull(tensor);
    void *data = (void *)tensor->data;
    pq_safetensors_deinit(&file);
    return data;
}

/* One byte or more of a tensor changed, hashes made to agree. 64 columns: bytes 0-63 of a row hold weights in
 * their low nibbles and padding in the high ones. */
static const struct {
    const char *tensor, *word;
    size_t at;
    unsigned char bytes[4];
    size_t count;
} damages[] = {
    {"wte.weight.codes", "row 0 of its wte.weight", 3, {0x08}, 1},        /* minus zero is no code */
    {"wte.weight.codes", "row 64 of its wte.weight", 64 * 64, {0x10}, 1}, /* padding */
    {"h.1.attn.c_attn.weight.codes", "row 191", 191 * 64 + 63, {0x18}, 1},
    {"wpe.weight.scales", "scale 4", 8, {0, 0}, 2},
    {"wpe.weight.scales", "scale 0", 0, {0x80, 0xbf}, 2}, /* -1 */
    {"wpe.weight.scales", "scale 1", 2, {0x80, 0x7f}, 2}, /* infinity */
    {"wpe.weight.scales", "scale 1", 2, {0xc0, 0x7f}, 2}, /* NaN */
    {"wpe.weight.scales", "scale 1", 2, {0x00, 0x7f}, 2}, /* 2^127: levels overflow */
    {"ln_f.weight", "weight 63 of its ln_f.weight", 63 * 4, {0, 0, 0xc0, 0x7f}, 4},
    {"h.0.ln_1.bias", "weight 0", 0, {0, 0, 0x80, 0xff}, 4},
};

START_TEST(refuses_values_that_cannot_be) {
    size_t bytes;
    char *image = good_image(&bytes);
    pq_packed *packed;
    pq_error err = {0};
    memcpy((char *)data_of(image, bytes, damages[_i].tensor) + damages[_i].at, damages[_i].bytes,
           damages[_i].count);
    ck_assert(forge_hashes(image, bytes));
    ck_assert_int_eq(open_image(image, bytes, &packed, &err), PQ_ERR_FORMAT);
    ck_assert_msg(strstr(err.message, damages[_i].word), "%s", err.message);
}
END_TEST

START_TEST(forging_itself_is_harmless) {
    size_t bytes;
    char *image = good_image(&bytes);
    pq_packed *packed;
    pq_error err = {0};
    ck_assert(forge_hashes(image, bytes));
    ck_assert_msg(open_image(image, bytes, &packed, &err) == PQ_OK, "%s", err.message);
    pq_packed_close(packed);
}
END_TEST

START_TEST(refuses_other_files) {
    char *path = path_in_folder("other");
    pq_packed *packed;
    pq_error err = {0};
    pq_file_writer writer;
    ck_assert_int_eq(pq_packed_open(path, &packed, &err), PQ_ERR_IO);
    ck_assert_int_eq(pq_packed_open(folder, &packed, &err), PQ_ERR_IO);
    ck_assert_int_eq(pq_file_create(path, false, &writer, NULL), PQ_OK);
    ck_assert_int_eq(pq_file_write(&writer, "\x89HDF\r\n\x1a\n0123456789", 18, NULL), PQ_OK);
    ck_assert_int_eq(pq_file_commit(&writer, NULL), PQ_OK);
    ck_assert_int_eq(pq_packed_open(path, &packed, &err), PQ_ERR_FORMAT);
    ck_assert_ptr_null(packed);
    free(path);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("packed");
    TCase *tests = tcase_create("packed");
    tcase_set_timeout(tests, 0);
    tcase_add_unchecked_fixture(tests, make_folder, drop_folder);
    tcase_add_loop_test(tests, every_bit_survives, 0, 2 * CODINGS);
    tcase_add_test(tests, quantizers_mix);
    tcase_add_test(tests, refuses_models_that_cannot_be_packed);
    tcase_add_loop_test(tests, refuses_lies_with_true_hashes, 0, sizeof lies / sizeof *lies);
    tcase_add_loop_test(tests, refuses_values_that_cannot_be, 0, sizeof damages / sizeof *damages);
    tcase_add_test(tests, forging_itself_is_harmless);
    tcase_add_test(tests, refuses_other_files);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
