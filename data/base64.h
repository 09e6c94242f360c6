/* Base64 (RFC 4648, with padding): bytes in JSON texts. */
#ifndef PQ_DATA_BASE64_H
#define PQ_DATA_BASE64_H

#include <stddef.h>

/* Heap and NUL-terminated; NULL on lack of memory. */
char *pq_base64_write(const unsigned char *bytes, size_t count);
/* bytes[*count] (heap); NULL where text[length] is no base64 or memory is lacking. */
unsigned char *pq_base64_read(const char *text, size_t length, size_t *count);

#endif
