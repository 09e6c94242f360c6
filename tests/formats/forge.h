/* Forged packed models: changed, but with hashes that agree, so that the checks behind the hashes are met. */
#ifndef PQ_TESTS_FORGE_H
#define PQ_TESTS_FORGE_H

#include <stdbool.h>
#include <stddef.h>

/* The image of a file with the first `from` in its header replaced by `to` (NULL: nothing); heap. */
char *forge_header(const char *image, size_t bytes, const char *from, const char *to, size_t *forged_bytes);
/* Make the hashes of an image agree with it; false where it is not a safetensors file that has them. */
bool forge_hashes(char *image, size_t bytes);

#endif
