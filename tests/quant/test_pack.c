/* The packed layout against its description in quantizer.h, one bit at a time. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "quant/quantizer.h"
#include "tests/harness/suite.h"

/* Where bit `bit` of the code of weight i is: byte and bit inside the row. */
static void place(int bits, size_t i, int bit, size_t *byte, int *at) {
    static const int widths[] = {4, 2, 1};
    size_t plane = i / 128 * 16 * (size_t)bits; /* first byte of the block */
    int lowest = 0;                             /* bit of the code that the plane starts with */
    for (int p = 0; p < 3; p++) {
        int width = widths[p];
        if ((bits & width) == 0) continue;
        if (bit < lowest + width) {
            size_t index = i % 128, bytes = 16 * (size_t)width;
            *byte = plane + index % bytes;
            *at = width * (int)(index / bytes) + (bit - lowest);
            return;
        }
        plane += 16 * (size_t)width;
        lowest += width;
    }
    ck_abort_msg("no plane holds bit %d of %d", bit, bits);
}

START_TEST(layout) {
    enum { MOST = 400 };
    int bits = _i;
    uint8_t codes[MOST], back[MOST];
    for (size_t i = 0; i < MOST; i++) {
        uint32_t r[4];
        pq_random4(3, PQ_STREAM_INIT, (uint64_t)bits, i, r);
        codes[i] = (uint8_t)(r[0] & ((1u << bits) - 1));
    }
    for (size_t n = 0; n <= MOST; n++) {
        size_t bytes = (n + 127) / 128 * 16 * (size_t)bits;
        ck_assert_uint_eq(pq_packed_row_bytes(bits, n), bytes);
        uint8_t *expected = calloc(bytes + 1, 1), *packed = malloc(bytes + 1);
        for (size_t i = 0; i < n; i++)
            for (int bit = 0; bit < bits; bit++) {
                size_t byte;
                int at;
                place(bits, i, bit, &byte, &at);
                expected[byte] = (uint8_t)(expected[byte] | (codes[i] >> bit & 1) << at);
            }
        memset(packed, 0xAA, bytes + 1);
        pq_pack_row(bits, codes, n, packed);
        ck_assert_msg(memcmp(packed, expected, bytes) == 0, "%zu codes of %d bits are packed wrongly", n,
                      bits);
        ck_assert_int_eq(packed[bytes], 0xAA);
        pq_unpack_row(bits, packed, n, back);
        ck_assert_mem_eq(back, codes, n);
        free(expected), free(packed);
    }
}
END_TEST

/* 4 bits are 64 bytes a block whose low nibbles are the first 64 weights. */
START_TEST(nibbles) {
    uint8_t codes[128], packed[64];
    for (int i = 0; i < 128; i++) codes[i] = i < 64 ? 3 : 12;
    pq_pack_row(4, codes, 128, packed);
    for (int i = 0; i < 64; i++) ck_assert_int_eq(packed[i], 0xC3);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("pack");
    TCase *all = tcase_create("pack");
    tcase_add_loop_test(all, layout, 1, 8);
    tcase_add_test(all, nibbles);
    suite_add_tcase(suite, all);
    return run_suite(suite);
}
