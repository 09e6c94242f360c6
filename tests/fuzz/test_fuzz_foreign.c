/* Damaged models of other programs: 3,000 copies of config.json, the index, a shard or an llm.c checkpoint
 * that were cut, flipped or edited. Each is refused with a sentence or read as a model of finite weights. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/random.h"
#include "formats/foreign.h"
#include "random_model.h"
#include "tests/harness/suite.h"

enum { COPIES = 3000, SPARE = 64 };

static const pq_gpt2_shape shape = {
    .layers = 1, .heads = 2, .width = 8, .context = 5, .vocab = 11, .bias = true, .gelu_tanh = true};
static const char *const names[] = {"config.json", "model.safetensors.index.json", "w.safetensors", "m.bin"};
enum { FILES = 4, LLMC = 3 };
static pq_file_view originals[FILES];

static uint64_t draw(uint64_t copy, uint64_t index, uint64_t below) {
    uint32_t random[4];
    pq_random4(21, PQ_STREAM_SHUFFLE, copy, index, random);
    return pq_random_below(random[0], random[1], below);
}

/* A new file each time: writing over one makes some file systems wait for the disk. */
static void put(const char *folder, const char *name, const void *data, size_t bytes) {
    char *path = pq_path_join(folder, name);
    unlink(path);
    FILE *file = fopen(path, "wb");
    ck_assert(file && fwrite(data, 1, bytes, file) == bytes && fclose(file) == 0);
    free(path);
}

/* An index that puts every tensor of `view` into w.safetensors. */
static void write_index(const char *folder, const pq_file_view *view) {
    char text[8192] = "{\"metadata\":{},\"weight_map\":{";
    size_t used = strlen(text);
    for (const char *at = view->data + 8;
         (at = memmem(at, view->size - (size_t)(at - view->data), "\"transformer.", 13));) {
        size_t length = (size_t)(strchr(at + 1, '"') - at) + 1;
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%.*s:\"w.safetensors\"",
                                 text[used - 1] == '{' ? "" : ",", (int)length, at);
        at += length;
    }
    used += (size_t)snprintf(text + used, sizeof text - used, "}}");
    put(folder, names[1], text, used);
}

static void write_llmc(const char *folder, const pq_model *model) {
    static int32_t header[256] = {20240326, 3, 5, 11, 1, 2, 8, 16};
    static float values[256 + 5 * 8 + 16 * 8 + 13 * 64 + 13 * 8 + 16];
    size_t count = 256 + model->params.weights + 5 * 8;
    ck_assert_uint_le(count, sizeof values / sizeof *values);
    memcpy(values, header, sizeof header);
    for (size_t i = 256; i < count; i++) values[i] = (float)i / 256;
    put(folder, names[LLMC], values, 4 * count);
}

static char *make_originals(void) {
    char *folder = temporary_folder(), *hf = pq_path_join(folder, "hf");
    const coding plain = {0};
    pq_model *model = random_model(&shape, &plain, 3);
    pq_export_summary summary;
    ck_assert_int_eq(pq_hf_write(hf, false, model, "F32", false, &summary, NULL), PQ_OK);
    char *from = pq_path_join(hf, "model.safetensors"), *to = pq_path_join(hf, names[2]);
    ck_assert_int_eq(rename(from, to), 0);
    pq_file_view view;
    ck_assert_int_eq(pq_file_read(to, &view, NULL), PQ_OK);
    write_index(hf, &view);
    write_llmc(hf, model);
    pq_file_view_close(&view);
    pq_model_destroy(model);
    free(from);
    free(to);
    for (size_t i = 0; i < FILES; i++) {
        char *path = pq_path_join(hf, names[i]);
        ck_assert_int_eq(pq_file_read(path, &originals[i], NULL), PQ_OK);
        free(path);
    }
    free(folder);
    return hf;
}

/* Put `to` in the place of `length` bytes at `at`. */
static void splice(char *image, size_t *bytes, size_t at, size_t length, const char *to) {
    size_t grown = strlen(to);
    memmove(image + at + grown, image + at + length, *bytes - at - length);
    memcpy(image + at, to, grown);
    *bytes = *bytes - length + grown;
}

static void damage(uint64_t copy, char *image, size_t *bytes) {
    static const char *const texts[] = {
        "0",     "-1",  "2", "12", "1e9",  "1.5",     "null", "true",           "9223372036854775807",
        "\"x\"", "{",   "}", "[]", "../x", "\\u0000", "\xff", "lm_head.weight", ".bias",
        "h.0.",  "\"\""};
    size_t head = *bytes < 2000 ? *bytes : 2000, at = draw(copy, 1, head);
    switch (draw(copy, 0, 5)) {
    case 0:
        image[at] = (char)(image[at] ^ 1 << draw(copy, 2, 8));
        break;
    case 1:
        *bytes = draw(copy, 2, *bytes);
        break;
    case 2: /* a number becomes another text */
        while (at < head && !(image[at] >= '0' && image[at] <= '9')) at++;
        if (at < head) splice(image, bytes, at, strspn(image + at, "0123456789"), texts[draw(copy, 2, 20)]);
        break;
    case 3:
        splice(image, bytes, at, 0, texts[draw(copy, 2, 20)]);
        break;
    default: /* some bytes come twice, or go */
        splice(image, bytes, at, draw(copy, 2, 20) % (*bytes - at + 1), "");
    }
}

static void expect_refused_or_finite(const char *path, uint64_t copy) {
    pq_model *model;
    pq_error err = {0};
    pq_status status = pq_foreign_read(path, NULL, &model, &err);
    if (status != PQ_OK) {
        ck_assert_msg(err.message[0] != 0, "copy %llu was refused without a sentence",
                      (unsigned long long)copy);
        ck_assert_ptr_null(model);
        return;
    }
    for (size_t i = 0; i < model->params.elements; i++) ck_assert(isfinite(model->weights[i]));
    pq_model_destroy(model);
}

START_TEST(test_damaged_copies) {
    char *hf = make_originals(), *bin = pq_path_join(hf, names[LLMC]);
    pq_model *model;
    pq_error err = {0};
    ck_assert_msg(pq_foreign_read(hf, NULL, &model, &err) == PQ_OK, "%s", err.message);
    pq_model_destroy(model);
    ck_assert_msg(pq_foreign_read(bin, NULL, &model, &err) == PQ_OK, "%s", err.message);
    pq_model_destroy(model);
    for (uint64_t copy = 0; copy < COPIES; copy++) {
        size_t which = copy % FILES, bytes = originals[which].size;
        char *image = calloc(bytes + SPARE + 1, 1);
        memcpy(image, originals[which].data, bytes);
        damage(copy, image, &bytes);
        put(hf, names[which], image, bytes);
        expect_refused_or_finite(which == LLMC ? bin : hf, copy);
        put(hf, names[which], originals[which].data, originals[which].size);
        free(image);
    }
    for (size_t i = 0; i < FILES; i++) pq_file_view_close(&originals[i]);
    free(bin);
    char *parent = strdup(hf);
    *strrchr(parent, '/') = 0;
    remove_folder(hf);
    remove_folder(parent);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("fuzz-foreign");
    TCase *tests = tcase_create("foreign");
    tcase_set_timeout(tests, 0);
    tcase_add_test(tests, test_damaged_copies);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
