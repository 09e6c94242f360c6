/* Owns the random models, comparisons and temporary folders of store's tests. */
#include "testing.h"

#include <check.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"

uint64_t testing_random(uint64_t *state) {
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* Finite floats of all sizes, subnormals and both zeros among them. */
static float any_float(uint64_t *random) {
    float value;
    do {
        uint32_t bits = (uint32_t)testing_random(random);
        if (bits % 16 == 0) bits &= 0x80000000u;
        memcpy(&value, &bits, sizeof value);
    } while (!isfinite(value));
    return value;
}

static void quantize(pq_model *model, size_t i, const char *name, int64_t levels, const double *range,
                     pq_rounding rounding, const char *granularity, uint64_t *random) {
    pq_codebook codebook;
    pq_error err;
    ck_assert_msg(pq_codebook_init(&codebook, name, levels, range, rounding, &err) == PQ_OK, "%s",
                  err.message);
    ck_assert_msg(pq_model_quantize_param(model, i, &codebook, granularity, &err) == PQ_OK, "%s",
                  err.message);
    for (size_t k = 0; k < model->quant[i].scale_count; k++)
        model->quant[i].scales[k] = ldexpf(1.0f + (float)(testing_random(random) % 1000) / 1000.0f,
                                           -(int)(testing_random(random) % 20));
}

static void quantize_kind(pq_model *model, size_t i, int kind, uint64_t *random) {
    static const double uniform[2] = {-8, 7}, released[2] = {-8, 4};
    const pq_param *p = &model->params.list[i];
    char third[32];
    const bool by_64 = model->params.list[i].columns % 64 == 0;
    switch (kind) {
    case 1:
        quantize(model, i, "pot", 15, NULL, PQ_ROUND_NEAREST, "row", random);
        break;
    case 2:
        pq_granularity_name(p, p->count / 3, third, sizeof third);
        quantize(model, i, "pot", 7, NULL, PQ_ROUND_NEAREST,
                 p->id == PQ_PARAM_C_ATTN_WEIGHT ? third : "tensor", random);
        break;
    case 3:
        quantize(model, i, "pot-zero-free", 16, NULL, PQ_ROUND_NEAREST, "group32", random);
        break;
    case 4:
        quantize(model, i, "uniform", 0, uniform, PQ_ROUND_NEAREST, "row", random);
        break;
    case 5:
        quantize(model, i, "pot-released", 0, released, PQ_ROUND_NEAREST, "tensor", random);
        break;
    default:
        if (i % 4 == 0)
            quantize(model, i, "pot", 63, NULL, PQ_ROUND_LOG, by_64 ? "group64" : "group32", random);
        else if (i % 4 == 1)
            quantize(model, i, "pot", 3, NULL, PQ_ROUND_NEAREST, "row", random);
        else if (i % 4 == 2)
            quantize(model, i, "uniform", 5, NULL, PQ_ROUND_NEAREST, "tensor", random);
    }
}

static void fill(const pq_params *params, float *values, bool positive, uint64_t *random) {
    for (size_t i = 0; i < params->count; i++)
        for (size_t k = 0; k < params->list[i].count; k++) {
            float value = any_float(random);
            values[params->list[i].offset + k] = positive ? fabsf(value) : value;
        }
}

/* In an order that is not that of their names. */
static void add_arrays(pq_training_state *state, size_t bytes, uint64_t *random) {
    const pq_state_array kinds[] = {{.name = "learned.m", .type = PQ_ARRAY_F32, .count = 7},
                                    {.name = "freeze.fixed", .type = PQ_ARRAY_U8, .count = bytes},
                                    {.name = "a-1_b", .type = PQ_ARRAY_F32, .count = 1}};
    pq_calloc(3, sizeof *state->arrays, "arrays", &state->arrays, NULL);
    for (size_t i = 0; i < 3; i++) {
        pq_state_array *a = &state->arrays[state->array_count++];
        *a = kinds[i];
        pq_calloc(a->count, sizeof(float), "array", &a->data, NULL);
        for (size_t k = 0; k < a->count; k++)
            if (a->type == PQ_ARRAY_F32)
                ((float *)a->data)[k] = any_float(random);
            else
                ((unsigned char *)a->data)[k] = (unsigned char)testing_random(random);
    }
}

static bool same_arrays(const pq_training_state *a, const pq_training_state *b) {
    for (size_t i = 0; i < a->array_count; i++) {
        bool found = false;
        for (size_t k = 0; k < b->array_count && !found; k++)
            found = strcmp(a->arrays[i].name, b->arrays[k].name) == 0 &&
                    a->arrays[i].type == b->arrays[k].type && a->arrays[i].count == b->arrays[k].count &&
                    memcmp(a->arrays[i].data, b->arrays[k].data,
                           a->arrays[i].count * (a->arrays[i].type == PQ_ARRAY_F32 ? sizeof(float) : 1)) == 0;
        if (!found) return false;
    }
    return a->array_count == b->array_count;
}

static void add_activations(pq_model *model, pq_activations kind, uint64_t *random) {
    ck_assert_int_eq(pq_model_quantize_activations(model, kind, NULL), PQ_OK);
    for (size_t i = 0; model->ranges && i + 1 < pq_model_sites(model); i++) { /* the last one stays unseen */
        float low = -(float)(testing_random(random) % 1000) / 7,
              high = (float)(testing_random(random) % 1000) / 3;
        ck_assert_int_eq(pq_model_set_range(model, i, low, high, NULL), PQ_OK);
    }
}

void testing_make(uint64_t seed, const pq_gpt2_shape *shape, int kind, pq_model **out,
                  pq_training_state *state) {
    uint64_t random = seed * 1000 + (uint64_t)kind;
    pq_model *model;
    pq_error err;
    ck_assert_msg(pq_model_create(shape, &model, &err) == PQ_OK, "%s", err.message);
    fill(&model->params, model->weights, false, &random);
    for (size_t i = 0; i < model->params.count && kind; i++)
        if (model->params.list[i].quantizable) quantize_kind(model, i, kind, &random);
    model->iter = (int64_t)(testing_random(&random) % 100000);
    if (kind != 2) model->val_loss = (double)any_float(&random);
    if (kind != 1) pq_copy_text("{\"kind\": \"char\", \"alphabet\": \"ab\u00e9\"}", &model->tokenizer, NULL);
    pq_copy_text(kind == 3 ? "" : "model:\n  layers: 1\n", &model->config, NULL);
    *state = (pq_training_state){0};
    if (kind != 4) {
        pq_calloc(model->params.elements, sizeof(float), "m", &state->m, NULL);
        pq_calloc(model->params.elements, sizeof(float), "v", &state->v, NULL);
        fill(&model->params, state->m, false, &random);
        fill(&model->params, state->v, true, &random);
    }
    if (kind != 5) pq_copy_text("{\"step\": 3}", &state->state, NULL);
    if (kind % 2 || kind == 6) add_arrays(state, kind == 3 ? 3000000 : kind == 1 ? 30000 : 300, &random);
    if (kind == 1 || kind == 6) add_activations(model, PQ_ACTIVATIONS_AFFINE, &random);
    if (kind == 4) add_activations(model, PQ_ACTIVATIONS_TOKEN, &random);
    *out = model;
}

static bool differ(const char *what) {
    printf("different: %s\n", what);
    return false;
}

static bool same_text(const char *a, const char *b) {
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool same_floats(const float *a, const float *b, size_t count) {
    return a && b ? memcmp(a, b, count * sizeof *a) == 0 : a == b;
}

/* All but the padding, which memcmp would read as well. */
static bool same_codebook(const pq_codebook *a, const pq_codebook *b) {
    return a->type == b->type && a->levels == b->levels && a->bits == b->bits &&
           a->exponents == b->exponents && a->range[0] == b->range[0] && a->range[1] == b->range[1] &&
           a->rounding == b->rounding && memcmp(a->value, b->value, sizeof a->value) == 0;
}

bool testing_equal(const pq_model *a, const pq_training_state *sa, const pq_model *b,
                   const pq_training_state *sb) {
    const pq_gpt2_shape *x = &a->params.shape, *y = &b->params.shape;
    const size_t elements = a->params.elements;
    if (x->layers != y->layers || x->heads != y->heads || x->width != y->width || x->context != y->context ||
        x->vocab != y->vocab || x->bias != y->bias || x->gelu_tanh != y->gelu_tanh)
        return differ("shape");
    if (!same_floats(a->weights, b->weights, elements)) return differ("weights");
    if (a->iter != b->iter || memcmp(&a->val_loss, &b->val_loss, sizeof a->val_loss) != 0)
        return differ("iter or val_loss");
    if (!same_text(a->tokenizer, b->tokenizer) || !same_text(a->config, b->config)) return differ("texts");
    for (size_t i = 0; i < a->params.count; i++) {
        const pq_param_quant *p = &a->quant[i], *q = &b->quant[i];
        if (p->quantized != q->quantized) return differ("quantized or not");
        if (!p->quantized) continue;
        if (!same_codebook(&p->codebook, &q->codebook)) return differ("codebook");
        if (p->group != q->group || p->scale_count != q->scale_count ||
            !same_floats(p->scales, q->scales, p->scale_count))
            return differ("scales");
    }
    if (a->activations != b->activations || !a->ranges != !b->ranges ||
        (a->ranges && !same_floats(a->ranges[0], b->ranges[0], 2 * pq_model_sites(a))))
        return differ("activations");
    if (!same_floats(sa->m, sb->m, elements) || !same_floats(sa->v, sb->v, elements))
        return differ("moments");
    if (!same_arrays(sa, sb)) return differ("arrays");
    return same_text(sa->state, sb->state) || differ("state");
}

char *testing_folder(void) {
    const char *base = getenv("TMPDIR");
    char name[512];
    snprintf(name, sizeof name, "%s/potqat-test-XXXXXX", base ? base : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(name));
    return strdup(name);
}

char *testing_path(const char *dir, const char *name) {
    char *path = pq_path_join(dir, name);
    ck_assert_ptr_nonnull(path);
    return path;
}

static void remove_all(const char *dir) {
    DIR *stream = opendir(dir);
    for (struct dirent *entry; stream && (entry = readdir(stream));) {
        struct stat info;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        char *path = testing_path(dir, entry->d_name);
        if (lstat(path, &info) == 0 && S_ISDIR(info.st_mode))
            remove_all(path);
        else
            unlink(path);
        free(path);
    }
    if (stream) closedir(stream);
    rmdir(dir);
}

void testing_remove(char *folder) {
    remove_all(folder);
    free(folder);
}

size_t testing_entries(const char *dir, const char *part) {
    size_t count = 0;
    DIR *stream = opendir(dir);
    ck_assert_ptr_nonnull(stream);
    for (struct dirent *entry; (entry = readdir(stream));)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
                 strstr(entry->d_name, part) != NULL;
    closedir(stream);
    return count;
}

void testing_write(const char *path, const char *data, size_t bytes) {
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(data, 1, bytes, file), bytes);
    ck_assert_int_eq(fclose(file), 0);
}
