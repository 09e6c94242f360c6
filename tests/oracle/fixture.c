/* The reader of test fixtures (see fixture.h). */
#include "fixture.h"

#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "fixture: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    exit(1);
}

static void *must(void *p) {
    if (!p) die("out of memory");
    return p;
}

/* One line of the header: "KEY NUMBER" or "array NAME TYPE COUNT". types[] gets the array's type. */
static void read_line(fixture *f, char (**types)[4], const char *line, const char *path) {
    const struct {
        const char *key;
        int *value;
    } keys[] = {{"layers", &f->layers},   {"heads", &f->heads},   {"width", &f->width},
                {"context", &f->context}, {"vocab", &f->vocab},   {"bias", &f->bias},
                {"batch", &f->batch},     {"length", &f->length}, {"gelu_tanh", &f->gelu_tanh}};
    fixture_array array = {0};
    char type[4], key[32];
    int value;
    if (sscanf(line, "array %95s %3s %zu", array.name, type, &array.count) == 3) {
        f->arrays = must(realloc(f->arrays, (f->count + 1) * sizeof *f->arrays));
        *types = must(realloc(*types, (f->count + 1) * sizeof **types));
        memcpy((*types)[f->count], type, sizeof type);
        f->arrays[f->count++] = array;
        return;
    }
    if (sscanf(line, "%31s %d", key, &value) == 2)
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
            if (!strcmp(key, keys[i].key)) {
                *keys[i].value = value;
                return;
            }
    die("%s: unknown line: %s", path, line);
}

static double value_at(const char *type, const unsigned char *p) {
    int32_t i4;
    float f4;
    double f8;
    if (type[0] == 'i') return memcpy(&i4, p, sizeof i4), i4;
    if (type[1] == '4') return memcpy(&f4, p, sizeof f4), (double)f4;
    return memcpy(&f8, p, sizeof f8), f8;
}

fixture fixture_read(const char *name) {
    fixture f = {0};
    char path[1024], line[256], (*types)[4] = NULL;
    snprintf(path, sizeof path, "%s/%s.fixture", FIXTURES, name);
    FILE *file = fopen(path, "rb");
    if (!file) die("cannot open %s", path);
    if (!fgets(line, sizeof line, file) || strcmp(line, "potqat-fixture 1\n") != 0)
        die("%s: not a fixture of version 1", path);
    while (fgets(line, sizeof line, file) && line[0] != '\n') read_line(&f, &types, line, path);
    for (size_t i = 0; i < f.count; i++) {
        fixture_array *a = &f.arrays[i];
        size_t size = types[i][1] == '8' ? 8 : 4;
        unsigned char *bytes = must(malloc(a->count * size));
        if (fread(bytes, size, a->count, file) != a->count) die("%s: %s is cut off", path, a->name);
        a->values = must(malloc(a->count * sizeof *a->values));
        for (size_t j = 0; j < a->count; j++) a->values[j] = value_at(types[i], bytes + j * size);
        free(bytes);
    }
    if (fgetc(file) != EOF) die("%s: more bytes than the header names", path);
    fclose(file);
    free(types);
    return f;
}

void fixture_free(fixture *f) {
    for (size_t i = 0; i < f->count; i++) free(f->arrays[i].values);
    free(f->arrays);
    *f = (fixture){0};
}

const double *fixture_get(const fixture *f, const char *name, size_t count) {
    return fixture_get2(f, "", name, count);
}

const double *fixture_get2(const fixture *f, const char *prefix, const char *name, size_t count) {
    size_t n = strlen(prefix);
    for (size_t i = 0; i < f->count; i++) {
        const fixture_array *a = &f->arrays[i];
        if (strncmp(a->name, prefix, n) != 0 || strcmp(a->name + n, name) != 0) continue;
        if (a->count != count) die("%s has %zu values, the test expects %zu", a->name, a->count, count);
        return a->values;
    }
    die("no array named %s%s", prefix, name);
}

double fixture_distance(const float *got, const double *expected, size_t n) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)got[i] - expected[i];
        difference += d * d;
        norm += expected[i] * expected[i];
    }
    return difference == 0 ? 0 : sqrt(difference / norm);
}
