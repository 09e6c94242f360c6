/* Texts compressed for tests. */
#ifndef TESTS_DATA_PACKED_TEXT_H
#define TESTS_DATA_PACKED_TEXT_H

#include <zstd.h>

#include "tests/data/scratch.h"

/* text[bytes] as zstd frames of at most `frame` bytes of text each, with check sums; *packed_bytes long,
 * heap. */
static inline char *pack_text(const char *text, size_t bytes, size_t frame, size_t *packed_bytes) {
    size_t most = 0, at = 0;
    for (size_t i = 0; i == 0 || i < bytes; i += frame) most += ZSTD_compressBound(frame) + 64;
    char *packed = malloc(most);
    ZSTD_CCtx *zstd = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(zstd, ZSTD_c_checksumFlag, 1);
    for (size_t i = 0; i == 0 || i < bytes; i += frame) {
        size_t n = bytes - i < frame ? bytes - i : frame;
        size_t got = ZSTD_compress2(zstd, packed + at, most - at, text + i, n);
        ck_assert(!ZSTD_isError(got));
        at += got;
    }
    ZSTD_freeCCtx(zstd);
    *packed_bytes = at;
    return packed;
}

static inline const char *scratch_pack(const char *name, const char *text, size_t bytes, size_t frame) {
    size_t packed_bytes;
    char *packed = pack_text(text, bytes, frame, &packed_bytes);
    const char *path = scratch_write(name, packed, packed_bytes);
    free(packed);
    return path;
}

#endif
