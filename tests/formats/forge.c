#include "forge.h"

#include <check.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "formats/packed_layout.h"

static size_t header_length(const char *image) {
    uint64_t length = 0;
    for (size_t i = 0; i < 8; i++) length |= (uint64_t)(unsigned char)image[i] << (8 * i);
    return (size_t)length;
}

char *forge_header(const char *image, size_t bytes, const char *from, const char *to, size_t *forged_bytes) {
    const size_t old = header_length(image), data = bytes - 8 - old;
    const char *at = from ? memmem(image + 8, old, from, strlen(from)) : NULL;
    ck_assert_msg(!from || at, "the header lacks %s", from);
    size_t used = old;
    while (image[8 + used - 1] == ' ') used--;
    size_t grown = used + (from ? strlen(to) - strlen(from) : 0), padded = pq_round_up(8 + grown, 64) - 8;
    char *forged = aligned_alloc(64, pq_round_up(8 + padded + data, 64));
    ck_assert_ptr_nonnull(forged);
    for (size_t i = 0; i < 8; i++) forged[i] = (char)(padded >> (8 * i) & 255);
    memset(forged + 8, ' ', padded);
    if (from) {
        size_t before = (size_t)(at - (image + 8));
        memcpy(forged + 8, image + 8, before);
        memcpy(forged + 8 + before, to, strlen(to));
        memcpy(forged + 8 + before + strlen(to), at + strlen(from), used - before - strlen(from));
    } else {
        memcpy(forged + 8, image + 8, used);
    }
    memcpy(forged + 8 + padded, image + 8 + old, data);
    *forged_bytes = 8 + padded + data;
    return forged;
}

/* Where the value of a metadata text of 16 characters stands in the image. */
static char *value_of(char *image, const char *key) {
    const size_t length = header_length(image);
    char *at = memmem(image + 8, length, key, strlen(key));
    return at && at + strlen(key) + 16 <= image + 8 + length ? at + strlen(key) : NULL;
}

bool forge_hashes(char *image, size_t bytes) {
    pq_safetensors file;
    char hash[PQ_HASH_TEXT];
    if (pq_safetensors_parse(image, bytes, "forged", &file, NULL) != PQ_OK) return false;
    char *data = value_of(image, "\"data_hash\":\""), *header = value_of(image, "\"header_hash\":\"");
    pq_packed_hash_text(file.data, file.data_bytes, hash);
    pq_safetensors_deinit(&file);
    if (!data || !header) return false;
    memcpy(data, hash, 16);
    if (pq_safetensors_parse(image, bytes, "forged", &file, NULL) != PQ_OK) return false;
    ck_assert_int_eq(pq_packed_header_hash(file.tensors, file.count, file.texts, file.text_count, hash, NULL),
                     PQ_OK);
    memcpy(header, hash, 16);
    pq_safetensors_deinit(&file);
    return true;
}
