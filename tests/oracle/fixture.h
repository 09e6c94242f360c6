/* Reading the fixtures that tests/oracle/gpt2.py writes; the format and the arrays are described there. */
#ifndef PQ_TESTS_ORACLE_FIXTURE_H
#define PQ_TESTS_ORACLE_FIXTURE_H

#include <stddef.h>

typedef struct fixture_array {
    char name[96];
    size_t count;
    double *values; /* integers too */
} fixture_array;

typedef struct fixture {
    /* 0 where the file does not say */
    int layers, heads, width, context, vocab, bias, gelu_tanh, batch, length;
    fixture_array *arrays;
    size_t count;
} fixture;

/* Read fixtures/NAME.fixture. A missing or malformed file prints one sentence and exits: the test cannot run.
 */
fixture fixture_read(const char *name);
void fixture_free(fixture *f);

/* The array of that name with exactly `count` values; prints one sentence and exits where there is none. */
const double *fixture_get(const fixture *f, const char *name, size_t count);
/* The same for prefix + name, as in ("grad.", "h.0.ln_1.weight"). */
const double *fixture_get2(const fixture *f, const char *prefix, const char *name, size_t count);

/* |got - expected| / |expected| (Euclidean norms over n values): the measure of every comparison. */
double fixture_distance(const float *got, const double *expected, size_t n);

#endif
