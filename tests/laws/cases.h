/* The codebooks that the laws run over: each quantizer of the table with several parameters. A quantizer
 * without a row here fails the laws. */
#ifndef PQ_TESTS_LAWS_CASES_H
#define PQ_TESTS_LAWS_CASES_H

#include <check.h>
#include <stdio.h>

#include "quant/quantizer.h"

/* ck_assert_msg for inner loops: check writes to a file at each of its own. */
#define REQUIRE(condition, ...)                                                                              \
    do {                                                                                                     \
        if (!(condition)) ck_abort_msg(__VA_ARGS__);                                                         \
    } while (0)

typedef struct codebook_case {
    const char *quantizer;
    int levels, bits; /* as expected; a case with a range is made by it */
    double range[2];
    pq_rounding rounding;
} codebook_case;

static const codebook_case cases[] = {
    {"pot", 3, 2, {0}, PQ_ROUND_NEAREST},
    {"pot", 5, 3, {0}, PQ_ROUND_NEAREST},
    {"pot", 7, 3, {0}, PQ_ROUND_NEAREST},
    {"pot", 9, 4, {0}, PQ_ROUND_NEAREST},
    {"pot", 15, 4, {0}, PQ_ROUND_NEAREST},
    {"pot", 17, 5, {0}, PQ_ROUND_NEAREST},
    {"pot", 31, 5, {0}, PQ_ROUND_NEAREST},
    {"pot", 33, 6, {0}, PQ_ROUND_NEAREST},
    {"pot", 63, 6, {0}, PQ_ROUND_NEAREST},
    {"pot", 3, 2, {0}, PQ_ROUND_LOG},
    {"pot", 15, 4, {0}, PQ_ROUND_LOG},
    {"pot", 63, 6, {0}, PQ_ROUND_LOG},
    {"pot-zero-free", 4, 2, {0}, PQ_ROUND_NEAREST},
    {"pot-zero-free", 16, 4, {0}, PQ_ROUND_NEAREST},
    {"pot-zero-free", 64, 6, {0}, PQ_ROUND_NEAREST},
    {"pot-zero-free", 8, 3, {0}, PQ_ROUND_LOG},
    {"uniform", 3, 2, {0}, PQ_ROUND_NEAREST},
    {"uniform", 15, 4, {0}, PQ_ROUND_NEAREST},
    {"uniform", 127, 7, {0}, PQ_ROUND_NEAREST},
    {"uniform", 16, 4, {-8, 7}, PQ_ROUND_NEAREST},
    {"uniform", 128, 7, {-64, 63}, PQ_ROUND_NEAREST},
    {"uniform", 8, 3, {-1, 6}, PQ_ROUND_NEAREST},
    {"pot-released", 8, 3, {-8, 4}, PQ_ROUND_NEAREST},
    {"pot-released", 9, 4, {-8, 8}, PQ_ROUND_NEAREST},
    {"pot-released", 17, 5, {-128, 128}, PQ_ROUND_NEAREST},
    {"pot-released", 3, 2, {-1, 1}, PQ_ROUND_NEAREST},
    {"pot-released", 63, 6, {-0x1p30, 0x1p30}, PQ_ROUND_NEAREST},
    {"pot-released", 34, 6, {-1, 0x1p31}, PQ_ROUND_NEAREST},
    {"apot", 5, 3, {0}, PQ_ROUND_NEAREST},
    {"apot", 7, 3, {0}, PQ_ROUND_NEAREST},
    {"apot", 15, 4, {0}, PQ_ROUND_NEAREST},
    {"apot", 31, 5, {0}, PQ_ROUND_NEAREST},
    {"apot", 63, 6, {0}, PQ_ROUND_NEAREST},
};
enum { CASES = sizeof cases / sizeof *cases };

static inline pq_codebook case_codebook(int i) {
    pq_codebook codebook;
    pq_error err = {0};
    const double *range = cases[i].range[0] < 0 ? cases[i].range : NULL;
    pq_status status = pq_codebook_init(&codebook, cases[i].quantizer, range ? 0 : cases[i].levels, range,
                                        cases[i].rounding, &err);
    ck_assert_msg(status == PQ_OK, "%s %d: %s", cases[i].quantizer, cases[i].levels, err.message);
    return codebook;
}

#endif
