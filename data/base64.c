/* Owns base64. */
#include "data/base64.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *pq_base64_write(const unsigned char *bytes, size_t count) {
    char *text = malloc((count + 2) / 3 * 4 + 1), *out = text;
    if (!text) return NULL;
    for (size_t i = 0; i < count; i += 3) {
        const size_t left = count - i;
        const uint32_t three = (uint32_t)bytes[i] << 16 | (left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) |
                               (left > 2 ? bytes[i + 2] : 0u);
        *out++ = digits[three >> 18];
        *out++ = digits[three >> 12 & 63];
        *out++ = left > 1 ? digits[three >> 6 & 63] : '=';
        *out++ = left > 2 ? digits[three & 63] : '=';
    }
    *out = 0;
    return text;
}

unsigned char *pq_base64_read(const char *text, size_t length, size_t *count) {
    uint8_t value[256];
    *count = 0;
    if (length % 4 != 0) return NULL;
    const size_t padding = length && text[length - 1] == '=' ? 1 + (text[length - 2] == '=') : 0;
    memset(value, 0xFF, sizeof value);
    for (size_t i = 0; i < 64; i++) value[(unsigned char)digits[i]] = (uint8_t)i;
    unsigned char *bytes = malloc(length / 4 * 3 + 1);
    uint8_t bad = 0;
    for (size_t i = 0; bytes && i < length; i += 4) {
        uint32_t three = 0;
        for (size_t j = i; j < i + 4; j++) {
            const uint8_t digit = j < length - padding ? value[(unsigned char)text[j]] : 0;
            bad |= digit & 0x80;
            three = three << 6 | digit;
        }
        bytes[i / 4 * 3] = (unsigned char)(three >> 16);
        bytes[i / 4 * 3 + 1] = (unsigned char)(three >> 8);
        bytes[i / 4 * 3 + 2] = (unsigned char)three;
    }
    if (bad) {
        free(bytes);
        return NULL;
    }
    *count = length / 4 * 3 - padding;
    return bytes;
}
