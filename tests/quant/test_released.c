/* pot-released against values made by tests/oracle/released.py, bit for bit: scales, values, codes. */
#include <check.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/quantizer.h"
#include "tests/harness/suite.h"

enum { MOST = 256 };

/* Floats as hexadecimal words; returns how many. */
static size_t read_floats(const char *text, float *out) {
    size_t n = 0;
    char *end;
    for (;; text = end) {
        uint32_t bits = (uint32_t)strtoul(text, &end, 16);
        if (end == text) return n;
        ck_assert_uint_lt(n, MOST);
        memcpy(&out[n++], &bits, sizeof bits);
    }
}

START_TEST(fixture) {
    char line[8192];
    int lines = 0;
    FILE *file = fopen(FIXTURES "/released.csv", "r");
    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof line, file)) {
        char *fields[6];
        float w[MOST], expected[MOST], got[MOST], decoded[MOST], s, fitted;
        uint8_t codes[MOST];
        pq_codebook b;
        pq_error err = {0};
        for (int i = 0; i < 6; i++) {
            fields[i] = strtok(i ? NULL : line, ",");
            ck_assert_ptr_nonnull(fields[i]);
        }
        double range[2] = {strtod(fields[0], NULL), strtod(fields[1], NULL)};
        size_t n = read_floats(fields[4], w);
        ck_assert_uint_eq(read_floats(fields[3], &s), 1);
        ck_assert_uint_eq(read_floats(fields[5], expected), n);
        ck_assert_uint_gt(n, 0);
        ck_assert_int_eq(pq_codebook_init(&b, "pot-released", 0, range, PQ_ROUND_NEAREST, &err), PQ_OK);
        pq_scale_options options = {
            .method = PQ_SCALE_ABSMAX, .grid = PQ_GRID_FP32, .least = strtof(fields[2], NULL)};
        ck_assert_int_eq(pq_scale_fit(&b, &options, w, n, &fitted, &err), PQ_OK);
        ck_assert_mem_eq(&fitted, &s, sizeof s);
        pq_fake_quantize(&b, w, s, got, n);
        pq_encode(&b, w, s, codes, n);
        pq_decode(&b, codes, s, decoded, n);
        for (size_t i = 0; i < n; i++)
            ck_assert_msg(memcmp(&got[i], &expected[i], sizeof *got) == 0,
                          "line %d: %a / %a gives %a, not %a", lines + 1, (double)w[i], (double)s,
                          (double)got[i], (double)expected[i]);
        ck_assert_mem_eq(decoded, expected, n * sizeof *decoded);
        lines++;
    }
    fclose(file);
    ck_assert_int_eq(lines, 37);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("released");
    TCase *all = tcase_create("released");
    tcase_add_test(all, fixture);
    suite_add_tcase(suite, all);
    return run_suite(suite);
}
