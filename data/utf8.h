/* Strict UTF-8: no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef PQ_DATA_UTF8_H
#define PQ_DATA_UTF8_H

#include <stddef.h>
#include <stdint.h>

#define PQ_CODE_POINTS 0x110000u

/* The length in bytes of the character at `at`, of which `left` > 0 bytes may be read, and its code point; 0
 * when it is not UTF-8. */
size_t pq_utf8_read(const char *at, size_t left, uint32_t *code);
/* Writes `code` as UTF-8; returns its length in bytes. */
size_t pq_utf8_write(uint32_t code, char out[4]);

#endif
