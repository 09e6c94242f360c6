/* Damaged packed models: 2,000 copies that were cut, flipped or edited are refused or equal to the original;
 * 2,000 more whose hashes were made to agree with the damage never crash, hang or give weights that are not
 * finite. */
#include <check.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/random.h"
#include "forge.h"
#include "formats/packed.h"
#include "formats/packed_layout.h"
#include "potqat/engine.h"
#include "random_model.h"
#include "tests/harness/suite.h"

enum { COPIES = 2000, SPARE = 64 };

static const pq_gpt2_shape shape = {
    .layers = 1, .heads = 2, .width = 32, .context = 6, .vocab = 20, .bias = true};
static char *original;
static size_t original_bytes;
static float *original_weights;
static pq_model *model;

static uint64_t draw(uint64_t copy, uint64_t index, uint64_t below) {
    uint32_t random[4];
    pq_random4(20, PQ_STREAM_SHUFFLE, copy, index, random);
    return pq_random_below(random[0], random[1], below);
}

static void make_original(void) {
    const coding how = {"pot", 15, NULL, "row", PQ_GRID_BF16, PQ_ROUND_NEAREST};
    char *folder = temporary_folder(), *path = pq_path_join(folder, "m.safetensors");
    pq_file_view view;
    model = random_model(&shape, &how, 3);
    ck_assert_int_eq(pq_packed_write(path, false, model, NULL), PQ_OK);
    ck_assert_int_eq(pq_file_read(path, &view, NULL), PQ_OK);
    original = forge_header(view.data, view.size, NULL, NULL, &original_bytes);
    pq_file_view_close(&view);
    ck_assert_int_eq(pq_calloc(model->params.elements, sizeof(float), "", &original_weights, NULL), PQ_OK);
    pq_model_effective_weights(model, original_weights);
    free(path);
    remove_folder(folder);
}

static void drop_original(void) {
    free(original);
    free(original_weights);
    pq_model_destroy(model);
}

static size_t header_end(void) {
    size_t length = 0;
    for (size_t i = 0; i < 8; i++) length |= (size_t)(unsigned char)original[i] << (8 * i);
    return 8 + length;
}

/* Some place in the header where a character of `first` stands. */
static size_t find_token(uint64_t copy, const char *first) {
    size_t at = 8 + draw(copy, 90, header_end() - 8);
    while (!strchr(first, original[at]) || original[at] == 0) at = at + 1 < header_end() ? at + 1 : 8;
    return at;
}

/* Put `to` in the place of `length` bytes at `at`. */
static void splice(char *image, size_t *bytes, size_t at, size_t length, const char *to) {
    size_t grown = strlen(to);
    memmove(image + at + grown, image + at + length, *bytes - at - length);
    memcpy(image + at, to, grown);
    *bytes = *bytes - length + grown;
}

static void edit_number(uint64_t copy, char *image, size_t *bytes) {
    static const char *const numbers[] = {"0",  "1",   "-1",  "2",    "31",         "33",
                                          "64", "1e9", "1.5", "null", "4294967296", "9223372036854775807"};
    size_t at = find_token(copy, "123456789"), length = strspn(image + at, "0123456789");
    splice(image, bytes, at, length, numbers[draw(copy, 1, sizeof numbers / sizeof *numbers)]);
}

static void edit_type(uint64_t copy, char *image, size_t *bytes) {
    static const char *const types[] = {"F32", "BF16", "U8", "I8", "F64", "F16", "Q4", ""};
    size_t at = find_token(copy, "FBU");
    splice(image, bytes, at, 1 + draw(copy, 1, 4), types[draw(copy, 2, sizeof types / sizeof *types)]);
}

static void edit_text(uint64_t copy, char *image, size_t *bytes) {
    static const char *const texts[] = {"{", "}",  "[", "]",       "\"",   ",",
                                        ":", "\\", "x", "\\u0000", "\xff", "\n"};
    size_t at = 8 + draw(copy, 1, header_end() - 8);
    splice(image, bytes, at, draw(copy, 2, 3), texts[draw(copy, 3, sizeof texts / sizeof *texts)]);
}

static void flip(uint64_t copy, char *image, size_t *bytes) {
    size_t in = draw(copy, 2, 2) ? *bytes : header_end(), count = 1 + draw(copy, 1, 4);
    for (size_t i = 0; i < count; i++) image[draw(copy, 10 + i, in)] ^= (char)(1 << draw(copy, 20 + i, 8));
}

static void cut(uint64_t copy, char *image, size_t *bytes) {
    (void)image;
    *bytes = draw(copy, 1, *bytes);
}

/* Exchange two stretches of the tensors' data. */
static void exchange(uint64_t copy, char *image, size_t *bytes) {
    size_t length = 1 + draw(copy, 1, 64), data = *bytes - header_end() - length;
    size_t a = header_end() + draw(copy, 2, data), b = header_end() + draw(copy, 3, data);
    char held[64];
    memcpy(held, image + a, length);
    memmove(image + a, image + b, length);
    memcpy(image + b, held, length);
}

static void (*const mutations[])(uint64_t copy, char *image,
                                 size_t *bytes) = {edit_number, edit_type, edit_text, flip, cut, exchange};

/* A heap block of exactly the image's size (64-aligned), so that ASan sees a byte too far. */
static char *mutate(uint64_t copy, size_t *bytes) {
    char *work = malloc(original_bytes + SPARE), *image;
    ck_assert_ptr_nonnull(work);
    memcpy(work, original, original_bytes);
    *bytes = original_bytes;
    mutations[copy % (sizeof mutations / sizeof *mutations)](copy, work, bytes);
    ck_assert_int_eq(posix_memalign((void **)&image, 64, *bytes ? *bytes : 1), 0);
    memcpy(image, work, *bytes);
    free(work);
    return image;
}

static pq_status open_image(char *image, size_t bytes, pq_packed **out, pq_error *err) {
    pq_file_view view = {.data = image, .size = bytes};
    return pq_packed_from_view(&view, "damaged", out, err);
}

START_TEST(refused_or_equal) {
    size_t refused = 0;
    for (uint64_t copy = 0; copy < COPIES; copy++) {
        size_t bytes;
        char *image = mutate(copy, &bytes);
        pq_packed *packed;
        pq_error err = {0};
        pq_status status = open_image(image, bytes, &packed, &err);
        if (status != PQ_OK) {
            ck_assert_int_eq(status, PQ_ERR_FORMAT);
            ck_assert_msg(strstr(err.message, "damaged"), "%s", err.message);
            refused++;
            continue;
        }
        ck_assert_int_eq(packed->iter, model->iter);
        ck_assert(packed->val_loss == model->val_loss);
        ck_assert_str_eq(packed->tokenizer, model->tokenizer);
        ck_assert_str_eq(packed->config, model->config);
        ck_assert_int_eq(packed->params.shape.heads, shape.heads);
        for (size_t i = 0; i < packed->params.count; i++) {
            const pq_param *p = &packed->params.list[i];
            float *weights = malloc(p->count * sizeof *weights);
            pq_packed_decode_rows(&packed->tensors[i], 0, p->count / p->columns, weights);
            ck_assert_mem_eq(weights, original_weights + p->offset, p->count * sizeof *weights);
            free(weights);
        }
        pq_packed_close(packed);
    }
    ck_assert_uint_gt(refused, COPIES * 9 / 10); /* some edits change spaces or nothing */
    ck_assert_uint_lt(refused, COPIES);
}
END_TEST

START_TEST(damage_with_true_hashes_does_no_harm) {
    size_t opened = 0, rehashed = 0;
    for (uint64_t copy = COPIES; copy < 2 * COPIES; copy++) {
        size_t bytes;
        char *image = mutate(copy, &bytes);
        pq_packed *packed;
        pq_engine *engine;
        float logits[64];
        rehashed += forge_hashes(image, bytes);
        if (open_image(image, bytes, &packed, NULL) != PQ_OK) continue;
        opened++;
        for (size_t i = 0; i < packed->params.count; i++) {
            const pq_param *p = &packed->params.list[i];
            float *weights = malloc(p->count * sizeof *weights);
            pq_packed_decode_rows(&packed->tensors[i], 0, p->count / p->columns, weights);
            for (size_t k = 0; k < p->count; k++) ck_assert(isfinite(weights[k]));
            free(weights);
        }
        ck_assert_int_eq(pq_engine_create(packed, 0, &engine, NULL), PQ_OK);
        ck_assert_int_le(packed->params.shape.vocab, 64);
        ck_assert_int_eq(pq_engine_forward(engine, (uint16_t[]){0, 1}, 2, true, logits, NULL), PQ_OK);
        pq_engine_destroy(engine);
        pq_packed_close(packed);
    }
    ck_assert_uint_gt(rehashed, COPIES / 10);
    ck_assert_uint_gt(opened, COPIES / 50);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("fuzz packed");
    TCase *tests = tcase_create("fuzz packed");
    tcase_set_timeout(tests, 0);
    tcase_add_unchecked_fixture(tests, make_original, drop_original);
    tcase_add_test(tests, refused_or_equal);
    tcase_add_test(tests, damage_with_true_hashes_does_no_harm);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
