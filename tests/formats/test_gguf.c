/* GGUF: element types hold what they should and no more, and a damaged header is refused. That whole files
 * are right is compared with the gguf package and llama.cpp by tests/oracle/llama.py. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "formats/gguf_parts.h"
#include "tests/harness/suite.h"

/* The largest error of one block of `type`; 0 exactly where its bits come back. */
static double error_of(const char *name, const float *x, float scale) {
    const pq_gguf_type *type = pq_gguf_type_find(name);
    uint8_t bytes[4 * PQ_GGUF_BLOCK];
    float back[PQ_GGUF_BLOCK];
    double error;
    ck_assert_int_eq(pq_gguf_encode(type, x, 1, PQ_GGUF_BLOCK, &scale, PQ_GGUF_BLOCK, bytes, &error, NULL),
                     PQ_OK);
    for (size_t i = 0; i < PQ_GGUF_BLOCK; i += type->block)
        type->decode(bytes + i / type->block * type->bytes, back + i);
    double worst = 0;
    for (size_t i = 0; i < PQ_GGUF_BLOCK; i++) worst = fmax(worst, fabs((double)back[i] - (double)x[i]));
    ck_assert_msg(worst == error, "%s: error %g, told %g", name, worst, error);
    if (error == 0) ck_assert_mem_eq(back, x, sizeof back);
    return error;
}

/* A block of power-of-two levels, the largest s 2^(exponents - 1); from `first` on, so that a block may have
 * none of the least. */
static void fill(float *x, float scale, int first, int exponents) {
    for (int i = 0; i < PQ_GGUF_BLOCK; i++) {
        const int k = first + i % (exponents - first);
        x[i] = i % 5 == 3 ? 0 : (i % 2 ? -1.0f : 1.0f) * ldexpf(scale, k);
    }
}

START_TEST(q8_holds_fifteen_levels) {
    float x[PQ_GGUF_BLOCK];
    const float odd = 255.0f / 128; /* 8 significant bits */
    for (int e = -17; e <= 8; e++) {
        fill(x, ldexpf(odd, e), 0, 7);
        ck_assert_msg(error_of("q8_0", x, ldexpf(odd, e)) == 0, "2^%d", e);
    }
    fill(x, ldexpf(odd, -18), 0, 7); /* a bit is lost below 2^-24 */
    ck_assert(error_of("q8_0", x, ldexpf(odd, -18)) > 0);
    fill(x, ldexpf(odd, -18), 1, 7); /* but not where the block has none of the least levels */
    ck_assert(error_of("q8_0", x, ldexpf(odd, -18)) == 0);
    fill(x, 1, 0, 8); /* 17 levels: 128 is no int8 */
    ck_assert(error_of("q8_0", x, 1) > 0);
    fill(x, 65536, 0, 7); /* beyond half precision */
    ck_assert(error_of("q8_0", x, 65536) > 0);
    memset(x, 0, sizeof x);
    ck_assert(error_of("q8_0", x, 1e-30f) == 0);
    x[7] = 1e-30f; /* a scale that vanishes */
    ck_assert(error_of("q8_0", x, 1e-38f) > 0);
    for (int i = 0; i < PQ_GGUF_BLOCK; i++) x[i] = sinf((float)i);
    const double rounded = error_of("q8_0", x, 0);
    ck_assert(rounded > 0 && rounded < 1.0 / 127);
}
END_TEST

START_TEST(mxfp4_holds_nine_levels) {
    float x[PQ_GGUF_BLOCK];
    for (int e = -126; e <= 122; e++) {
        fill(x, ldexpf(1, e), 0, 4);
        ck_assert_msg(error_of("mxfp4", x, ldexpf(1, e)) == 0, "2^%d", e);
    }
    fill(x, 1.5f, 0, 4); /* 1.5 x {1, 2, 4, 8}: the least is half a unit */
    ck_assert(error_of("mxfp4", x, 1.5f) > 0);
    fill(x, 1, 0, 5);
    ck_assert(error_of("mxfp4", x, 1) > 0);
    fill(x, 1, 1, 5);
    ck_assert(error_of("mxfp4", x, 1) == 0);
    memset(x, 0, sizeof x);
    ck_assert(error_of("mxfp4", x, 1) == 0);
}
END_TEST

START_TEST(half_precision_ends_where_it_does) {
    float x[PQ_GGUF_BLOCK] = {65504, -65504, 0x1p-24f, -0.0f, 0x1.FF8p-15f};
    ck_assert(error_of("fp16", x, 0) == 0);
    x[0] = 0x1p-25f;
    ck_assert(error_of("fp16", x, 0) > 0);
    x[0] = 65520;
    ck_assert(isinf(error_of("fp16", x, 0)));
    x[0] = 1e-45f;
    ck_assert(error_of("fp32", x, 0) == 0);
}
END_TEST

/* ---- the container ---- */

static pq_gguf_tensor tensors[2];
static char *image;
static size_t size;

static void make_image(void) {
    pq_gguf_metadata metadata;
    char *header;
    size_t bytes;
    tensors[0] = (pq_gguf_tensor){.name = "a", .type = pq_gguf_type_find("q8_0"), .rows = 3, .columns = 64};
    tensors[1] = (pq_gguf_tensor){.name = "b.weight", .type = pq_gguf_type_find("fp32"), .columns = 5};
    ck_assert_int_eq(pq_gguf_metadata_init(&metadata, NULL), PQ_OK);
    pq_gguf_add_text(&metadata, "general.architecture", "gpt2");
    pq_gguf_add_u32(&metadata, "n", 7);
    pq_gguf_add_f32(&metadata, "f", 1e-5f);
    pq_gguf_add_bool(&metadata, "t", true);
    pq_gguf_add_texts(&metadata, "texts", "one\0\0three", 3);
    pq_gguf_add_texts(&metadata, "none", "", 0);
    pq_gguf_add_i32s(&metadata, "numbers", (const int32_t[]){1, -2}, 2);
    ck_assert_int_eq(pq_gguf_header(&metadata, tensors, 2, &header, &bytes, NULL), PQ_OK);
    pq_gguf_metadata_deinit(&metadata);
    ck_assert_uint_eq(bytes % PQ_GGUF_ALIGNMENT, 0);
    ck_assert_uint_eq(tensors[0].bytes, 3 * 2 * 34);
    ck_assert_uint_eq(tensors[1].offset, 224);
    size = bytes + tensors[1].offset + tensors[1].bytes;
    image = calloc(size, 1);
    memcpy(image, header, bytes);
    free(header);
}

static void drop_image(void) {
    free(image);
}

/* From memory that ends where the bytes do, for the sanitizers. */
static pq_status parse(const char *from, size_t bytes, pq_gguf_tensor **found, size_t *count) {
    size_t data = 0;
    char *copy = malloc(bytes ? bytes : 1);
    memcpy(copy, from, bytes);
    pq_status status = pq_gguf_parse(copy, bytes, found, count, &data, NULL);
    for (size_t i = 0; status == PQ_OK && i < *count; i++)
        ck_assert(data <= bytes && (*found)[i].offset + (*found)[i].bytes <= bytes - data);
    free(copy);
    return status;
}

START_TEST(a_header_comes_back) {
    pq_gguf_tensor *found;
    size_t count;
    ck_assert_int_eq(parse(image, size, &found, &count), PQ_OK);
    ck_assert_uint_eq(count, 2);
    for (size_t i = 0; i < count; i++) {
        ck_assert_str_eq(found[i].name, tensors[i].name);
        ck_assert(found[i].type == tensors[i].type && found[i].rows == tensors[i].rows &&
                  found[i].columns == tensors[i].columns && found[i].offset == tensors[i].offset &&
                  found[i].bytes == tensors[i].bytes);
    }
    free(found);
}
END_TEST

START_TEST(damage_is_refused_or_harmless) {
    static const unsigned char values[] = {0, 1, 2, 8, 9, 0x7F, 0x80, 0xFF};
    pq_gguf_tensor *found;
    size_t count;
    for (size_t cut = 0; cut < size; cut++)
        ck_assert_int_eq(parse(image, cut, &found, &count), PQ_ERR_FORMAT);
    for (size_t at = 0; at < size - tensors[1].offset; at++)
        for (size_t v = 0; v < sizeof values; v++) {
            const char old = image[at];
            image[at] = (char)values[v];
            if (parse(image, size, &found, &count) == PQ_OK) free(found);
            image[at] = old;
        }
}
END_TEST

/* ---- the tokenizer ---- */

/* All keys that a tokenizer's JSON text becomes, for `vocab` rows; *bytes = 0 where it is refused. */
static char *tokenizer_keys(const char *json, size_t vocab, size_t *bytes) {
    pq_gguf_metadata metadata;
    *bytes = 0;
    ck_assert_int_eq(pq_gguf_metadata_init(&metadata, NULL), PQ_OK);
    char *copy = NULL;
    if (pq_gguf_add_tokenizer(&metadata, json, vocab, NULL) == PQ_OK) {
        fflush(metadata.stream);
        copy = malloc(metadata.size);
        memcpy(copy, metadata.bytes, metadata.size);
        *bytes = metadata.size;
    }
    pq_gguf_metadata_deinit(&metadata);
    return copy;
}

/* Whether an array's texts come one behind the other, as GGUF has them: each its length, then its bytes. */
static bool has_texts(const char *keys, size_t bytes, const char *const *texts, size_t count) {
    char wanted[256];
    size_t length = 0;
    for (size_t i = 0; i < count; i++) {
        const uint64_t n = strlen(texts[i]);
        memcpy(wanted + length, &n, sizeof n);
        memcpy(wanted + length + sizeof n, texts[i], n);
        length += sizeof n + n;
    }
    return keys && memmem(keys, bytes, wanted, length) != NULL;
}

static void base64(const uint16_t *values, size_t count, char *out) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < 2 * count; i += 3) {
        uint32_t three = 0;
        for (size_t k = 0; k < 3; k++)
            three = three << 8 | (i + k < 2 * count ? values[(i + k) / 2] >> 8 * ((i + k) % 2) & 255u : 0);
        for (size_t k = 0; k < 4; k++) *out++ = i + k > 2 * count ? '=' : digits[three >> (18 - 6 * k) & 63];
    }
    *out = 0;
}

/* A BPE whose bytes have the ids 1 .. 256, with the end of text first and three merges behind. */
static char *bpe_keys(const uint16_t *merges, size_t count, const char *more, size_t vocab, size_t *bytes) {
    uint16_t ids[256];
    char first[1024], second[256], json[2048];
    for (uint16_t i = 0; i < 256; i++) ids[i] = (uint16_t)(i + 1);
    base64(ids, 256, first);
    base64(merges, count, second);
    snprintf(json, sizeof json,
             "{\"kind\":\"bpe\",\"vocab\":%zu,\"end_of_text\":0,\"bytes\":\"%s\",\"merges\":\"%s\"%s}", vocab,
             first, second, more);
    return tokenizer_keys(json, vocab, bytes);
}

START_TEST(bpe_tokens_are_spelled_as_gpt2_does) {
    /* "th", "the", " the", by ids of bytes plus 1 */
    static const uint16_t merges[] = {'t' + 1, 'h' + 1, 257, 'e' + 1, ' ' + 1, 258}, bad[] = {'t' + 1, 258};
    static const char *const tokens[] = {"th", "the", "\xc4\xa0the"},
                             *const pairs[] = {"t h", "th e", "\xc4\xa0 the"},
                             *const ends[] = {"<|endoftext|>", "\xc4\x80",
                                              "\xc4\x81"},                 /* the bytes 0 and 1 */
                                 *const high[] = {"\xc5\x82", "\xc2\xa1"}, /* the bytes 160 and 161 */
                                     *const soft[] = {"\xc2\xac", "\xc5\x83", "\xc2\xae"}; /* 172, 173, 174 */
    size_t bytes;
    char *keys = bpe_keys(merges, 6, "", 260, &bytes);
    ck_assert(has_texts(keys, bytes, tokens, 3));
    ck_assert(has_texts(keys, bytes, pairs, 3));
    ck_assert(has_texts(keys, bytes, ends, 3));
    ck_assert(has_texts(keys, bytes, high, 2));
    ck_assert(has_texts(keys, bytes, soft, 3));
    free(keys);
    keys = bpe_keys(merges, 6, ",\"made\":\"AQECAQMB\"", 260, &bytes); /* 257, 258, 259 */
    ck_assert(has_texts(keys, bytes, tokens, 3));
    free(keys);
    ck_assert_ptr_null(bpe_keys(bad, 2, "", 258, &bytes));                          /* not made yet */
    ck_assert_ptr_null(bpe_keys(merges, 5, "", 260, &bytes));                       /* no pairs */
    ck_assert_ptr_null(bpe_keys(merges, 6, "", 261, &bytes));                       /* an id without origin */
    ck_assert_ptr_null(bpe_keys(merges, 6, "", 259, &bytes));                       /* more than ids */
    ck_assert_ptr_null(bpe_keys(merges, 6, ",\"made\":\"AQEBAQMB\"", 260, &bytes)); /* one made twice */
    ck_assert_ptr_null(bpe_keys(merges, 6, ",\"made\":\"AQE?AQMB\"", 260, &bytes));
    ck_assert_ptr_null(tokenizer_keys("{\"kind\":\"bpe\"}", 260, &bytes));
    ck_assert_ptr_null(tokenizer_keys("{\"kind\":\"words\"}", 260, &bytes));
    ck_assert_ptr_null(tokenizer_keys("{", 260, &bytes));
    ck_assert_ptr_null(tokenizer_keys("{\"kind\":\"byte\"}", 255, &bytes)); /* more tokens than rows */
}
END_TEST

START_TEST(characters_of_several_bytes_have_merges) {
    static const char *const tokens[] = {"a", "\xc3\xa2\xc4\xa4\xc2\xac"}, *const pairs[] = {
                                                                               "\xc3\xa2 \xc4\xa4",
                                                                               "\xc3\xa2\xc4\xa4 \xc2\xac"};
    size_t bytes;
    char *keys = tokenizer_keys("{\"kind\":\"char\",\"characters\":\"a\\u20ac\"}", 2, &bytes); /* E2 82 AC */
    ck_assert(has_texts(keys, bytes, tokens, 2));
    ck_assert(has_texts(keys, bytes, pairs, 2));
    free(keys);
    keys = tokenizer_keys("{\"kind\":\"char\",\"characters\":\"ab\"}", 3, &bytes);
    ck_assert(has_texts(keys, bytes, (const char *const[]){"b", "[UNUSED2]"}, 2));
    free(keys);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("gguf");
    TCase *tests = tcase_create("gguf");
    tcase_set_timeout(tests, 0);
    tcase_add_checked_fixture(tests, make_image, drop_image);
    tcase_add_test(tests, q8_holds_fifteen_levels);
    tcase_add_test(tests, mxfp4_holds_nine_levels);
    tcase_add_test(tests, half_precision_ends_where_it_does);
    tcase_add_test(tests, a_header_comes_back);
    tcase_add_test(tests, bpe_tokens_are_spelled_as_gpt2_does);
    tcase_add_test(tests, characters_of_several_bytes_have_merges);
    tcase_add_test(tests, damage_is_refused_or_harmless);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
