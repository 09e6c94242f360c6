/* The safetensors container: what is written is read, and headers that lie are refused. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "formats/safetensors.h"
#include "tests/harness/suite.h"

/* A file's image: header text behind its length, then `data` bytes 0, 1, 2, ... */
static unsigned char *image_of(const char *header, size_t data, size_t *bytes) {
    size_t length = strlen(header);
    unsigned char *image = malloc(8 + length + data);
    ck_assert_ptr_nonnull(image);
    for (size_t i = 0; i < 8; i++) image[i] = (unsigned char)(length >> (8 * i));
    memcpy(image + 8, header, length);
    for (size_t i = 0; i < data; i++) image[8 + length + i] = (unsigned char)i;
    *bytes = 8 + length + data;
    return image;
}

START_TEST(reads_a_hand_written_file) {
    const char *header = "{\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[8,11]},"
                         "\"__metadata__\":{\"key\":\"value\"},"
                         "\"a\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[0,8]},"
                         "\"scalar\":{\"shape\":[],\"dtype\":\"I8\",\"data_offsets\":[11,12]},"
                         "\"empty\":{\"dtype\":\"F32\",\"shape\":[0,4],\"data_offsets\":[8,8]}}   ";
    size_t bytes;
    unsigned char *image = image_of(header, 12, &bytes);
    pq_safetensors file;
    pq_error err = {0};
    ck_assert_msg(pq_safetensors_parse(image, bytes, "f", &file, &err) == PQ_OK, "%s", err.message);
    ck_assert_uint_eq(file.count, 4);
    ck_assert_str_eq(file.tensors[0].name, "a");
    ck_assert_str_eq(file.tensors[1].name, "empty");
    ck_assert_str_eq(file.tensors[2].name, "b");
    ck_assert_uint_eq(file.data_bytes, 12);
    const pq_safetensor *b = pq_safetensors_find(&file, "b");
    ck_assert_ptr_nonnull(b);
    ck_assert_uint_eq(*(const unsigned char *)b->data, 8);
    ck_assert_uint_eq(b->bytes, 3);
    ck_assert_uint_eq(pq_safetensors_find(&file, "scalar")->rank, 0);
    ck_assert_ptr_null(pq_safetensors_find(&file, "c"));
    ck_assert_str_eq(pq_safetensors_metadata(&file, "key"), "value");
    ck_assert_ptr_null(pq_safetensors_metadata(&file, "other"));
    pq_safetensors_deinit(&file);
    free(image);
}
END_TEST

#define A "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"

static const struct {
    const char *header, *word; /* and a word of the sentence that refuses it */
    size_t data;
} lies[] = {
    {"{" A "}", "cut", 7},
    {"{" A "}", "follow", 9},
    {"{" A, "JSON", 8},
    {"{" A "} x", "JSON", 8},
    {" {" A "}", "not a safetensors", 8},
    {"[]", "not a safetensors", 0},
    {"{" A "," A "}", "JSON", 8},
    {"{" A ",\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[7,9]}}", "overlap", 9},
    {"{" A ",\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[9,11]}}", "hole", 11},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}", "hole", 3},
    {"{" A ",\"b\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[4,4]}}", "overlap", 8},
    {"{\"a\":{\"dtype\":\"F31\",\"shape\":[2],\"data_offsets\":[0,8]}}", "dtype", 8},
    {"{\"a\":{\"dtype\":1,\"shape\":[2],\"data_offsets\":[0,8]}}", "dtype", 8},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", "disagree", 8},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]}}", "shape", 8},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", "dimension", 8},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", "dimension", 8},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]}}", "shape", 8},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}", "disagree", 0},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", "disagree", 0},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", "data_offsets", 8},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,9]}}", "data_offsets", 8},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}", "data_offsets", 8},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", "exactly", 8},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"x\":1}}", "exactly", 8},
    {"{\"a\":[]}", "exactly", 0},
    {"{\"__metadata__\":[]}", "__metadata__", 0},
    {"{\"__metadata__\":{\"k\":1}}", "__metadata__", 0},
    {"{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", "JSON", 0},
    {"{\"a\\u0000b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "JSON", 8},
};

START_TEST(refuses_headers_that_lie) {
    size_t bytes;
    unsigned char *image = image_of(lies[_i].header, lies[_i].data, &bytes);
    pq_safetensors file;
    pq_error err = {0};
    ck_assert_int_eq(pq_safetensors_parse(image, bytes, "file.safetensors", &file, &err), PQ_ERR_FORMAT);
    ck_assert_msg(strstr(err.message, lies[_i].word) && strstr(err.message, "file.safetensors"), "%s: %s",
                  lies[_i].header, err.message);
    free(image);
}
END_TEST

START_TEST(refuses_lengths_that_lie) {
    static const unsigned char lengths[][8] = {{255, 255, 255, 255, 255, 255, 255, 255},
                                               {0, 0, 0, 0, 0, 0, 0, 128},
                                               {0, 0, 0, 0, 1, 0, 0, 0},
                                               {0},
                                               {1},
                                               {4}, /* the file has room for 3 */
                                               {248, 255, 255, 255, 255, 255, 255, 255}};
    unsigned char image[11] = {0};
    pq_safetensors file;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        memcpy(image, lengths[i], 8);
        memcpy(image + 8, "{} ", 3);
        ck_assert_int_eq(pq_safetensors_parse(image, sizeof image, "f", &file, NULL), PQ_ERR_FORMAT);
    }
    image[0] = 3, memset(image + 1, 0, 7);
    ck_assert_int_eq(pq_safetensors_parse(image, sizeof image, "f", &file, NULL), PQ_OK);
    pq_safetensors_deinit(&file);
    for (size_t bytes = 0; bytes < sizeof image; bytes++)
        ck_assert_int_eq(pq_safetensors_parse(image, bytes, "f", &file, NULL), PQ_ERR_FORMAT);
    /* A header just over the limit, in a file that has it. */
    const size_t length = 100000001;
    unsigned char *large = malloc(8 + length);
    ck_assert_ptr_nonnull(large);
    memset(large, ' ', 8 + length);
    for (size_t i = 0; i < 8; i++) large[i] = (unsigned char)(length >> (8 * i));
    large[8] = '{', large[9] = '}';
    ck_assert_int_eq(pq_safetensors_parse(large, 8 + length, "f", &file, NULL), PQ_ERR_FORMAT);
    free(large);
}
END_TEST

START_TEST(reads_what_it_writes) {
    static const unsigned char data[64 + 12 + 6] = {7};
    pq_safetensor tensors[] = {{.name = "codes", .dtype = "U8", .rank = 2, .shape = {2, 32}},
                               {.name = "x\"\\\xc3\xa9", .dtype = "F32", .rank = 1, .shape = {3}},
                               {.name = "scales", .dtype = "BF16", .rank = 3, .shape = {1, 3, 1}}};
    pq_safetensors_text texts[] = {{"format", "test"}, {"note", "two\nlines"}};
    char *header;
    size_t bytes;
    pq_safetensors file;
    pq_error err = {0};
    ck_assert_int_eq(pq_safetensors_header(tensors, 3, texts, 2, &header, &bytes, &err), PQ_OK);
    ck_assert_uint_eq(bytes % 64, 0);
    ck_assert_uint_eq(tensors[0].bytes + tensors[1].bytes + tensors[2].bytes, sizeof data);
    char *image = malloc(bytes + sizeof data);
    memcpy(image, header, bytes);
    memcpy(image + bytes, data, sizeof data);
    ck_assert_msg(pq_safetensors_parse(image, bytes + sizeof data, "f", &file, &err) == PQ_OK, "%s",
                  err.message);
    ck_assert_uint_eq(file.count, 3);
    for (size_t i = 0; i < 3; i++) {
        ck_assert_str_eq(file.tensors[i].name, tensors[i].name);
        ck_assert_str_eq(file.tensors[i].dtype, tensors[i].dtype);
        ck_assert_uint_eq(file.tensors[i].rank, tensors[i].rank);
        ck_assert_mem_eq(file.tensors[i].shape, tensors[i].shape, sizeof tensors[i].shape);
    }
    ck_assert_ptr_eq(file.tensors[1].data, image + bytes + 64);
    ck_assert_str_eq(pq_safetensors_metadata(&file, "note"), "two\nlines");
    pq_safetensors_deinit(&file);
    free(image);
    free(header);
}
END_TEST

START_TEST(refuses_to_write_nonsense) {
    pq_safetensor twice[] = {{.name = "a", .dtype = "U8", .rank = 1, .shape = {1}},
                             {.name = "a", .dtype = "U8", .rank = 1, .shape = {1}}};
    pq_safetensor unknown[] = {{.name = "a", .dtype = "Q4", .rank = 1, .shape = {1}}};
    pq_safetensor latin[] = {{.name = "\xe9", .dtype = "U8", .rank = 1, .shape = {1}}};
    pq_safetensors_text text = {"k", "\xff"};
    char *header;
    size_t bytes;
    ck_assert_int_eq(pq_safetensors_header(twice, 2, NULL, 0, &header, &bytes, NULL), PQ_ERR_USAGE);
    ck_assert_int_eq(pq_safetensors_header(unknown, 1, NULL, 0, &header, &bytes, NULL), PQ_ERR_USAGE);
    ck_assert_int_eq(pq_safetensors_header(latin, 1, NULL, 0, &header, &bytes, NULL), PQ_ERR_USAGE);
    ck_assert_int_eq(pq_safetensors_header(twice, 1, &text, 1, &header, &bytes, NULL), PQ_ERR_USAGE);
    ck_assert_ptr_null(header);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("safetensors");
    TCase *tests = tcase_create("safetensors");
    tcase_set_timeout(tests, 0);
    tcase_add_test(tests, reads_a_hand_written_file);
    tcase_add_loop_test(tests, refuses_headers_that_lie, 0, sizeof lies / sizeof *lies);
    tcase_add_test(tests, refuses_lengths_that_lie);
    tcase_add_test(tests, reads_what_it_writes);
    tcase_add_test(tests, refuses_to_write_nonsense);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
