/* Owns the strict reading and the writing of UTF-8 characters. */
#include "data/utf8.h"

size_t pq_utf8_read(const char *at, size_t left, uint32_t *code) {
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *byte = (const unsigned char *)at;
    size_t length = byte[0] < 0x80 ? 1 : byte[0] < 0xC2 ? 0 : byte[0] < 0xE0 ? 2 : byte[0] < 0xF0 ? 3 : 4;
    if (length == 1) {
        *code = byte[0];
        return 1;
    }
    if (length == 0 || length > left) return 0;
    uint32_t value = byte[0] & (0x7Fu >> length);
    if (length == 4 && byte[0] > 0xF4) return 0;
    for (size_t i = 1; i < length; i++) {
        if ((byte[i] & 0xC0) != 0x80) return 0;
        value = value << 6 | (byte[i] & 0x3Fu);
    }
    if (value < least[length] || value >= PQ_CODE_POINTS || (value >= 0xD800 && value < 0xE000)) return 0;
    *code = value;
    return length;
}

size_t pq_utf8_write(uint32_t code, char out[4]) {
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    size_t length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = length; i-- > 1; code >>= 6) out[i] = (char)(0x80 | (code & 0x3F));
    out[0] = (char)((0xF00u >> length & 0xF0) | code);
    return length;
}
