/* Owns what each kernel is called with in a benchmark: sizes, constants and small arrays. */
#include "train/bench_rows.h"

#include <string.h>

/* A row is as wide as GPT-2 small; of packed codes, too. */
enum { WIDTH = 768, ROW_BLOCKS = WIDTH / 128, SMALL = 1024, HEAD = 64, KEYS = 1024 };

static const pq_distill_mix mix = {0.5f, 2, 1};
static const pq_adamw_step step = {.lr = 1e-4f,
                                   .beta1 = 0.9f,
                                   .beta2 = 0.99f,
                                   .epsilon = 1e-8f,
                                   .decay = 1e-5f,
                                   .gradient_scale = 1,
                                   .correction1 = 0.5f,
                                   .correction2 = 0.5f};
static const pq_pow2_grid powers = {.up = 0x400000, .zero_below = 0x3F000000, .top = {64, 64}};
static const float nearest[] = {0, 0.5f, 1, 1.5f, 2, 2, 3, 3, 4};
static const int8_t digits[16] = {0, 1, 2, 4, 8, 16, 32, 64, 0, -1, -2, -4, -8, -16, -32, -64};
static const pq_int8_row row = {.scale = 0.01f, .zero = 1};

/* Rows of 8-bit inputs, one by one as the engine does. */
static void recipe_codes(pq_bench_data *d) {
    uint8_t *low = (uint8_t *)d->f[1];
    pq_int8_row made;
    for (size_t i = 0; i < d->n; i += WIDTH)
        pq_kernels_get()->recipe_codes(d->f[0] + i, WIDTH, false, low + i, (uint8_t *)d->gain, &made);
}

/* A query against a cache of up to KEYS keys in fp16, another one for each part of the streams. */
static void recipe_attention(pq_bench_data *d) {
    size_t half = 2 * HEAD / sizeof(float); /* floats that a key takes */
    for (size_t i = 0; i < d->n / half; i += KEYS) {
        size_t left = d->n / half - i, keys = left < KEYS ? left : KEYS;
        pq_kernels_get()->recipe_attention(d->gain, HEAD, 1, d->f[0] + i * half, d->f[1] + i * half, true,
                                           HEAD, keys, HEAD, d->dgain, HEAD, d->f[2]);
    }
}

#define PQ_BENCH_ROW(name, streams, bytes, traffic, ...)                                                     \
    static void run_##name(pq_bench_data *d) {                                                               \
        const pq_kernels *k = pq_kernels_get();                                                              \
        float *const *f = d->f;                                                                              \
        const size_t n = d->n;                                                                               \
        (void)k, (void)f, (void)n;                                                                           \
        __VA_ARGS__;                                                                                         \
    }
#include "train/bench_rows.def"
#undef PQ_BENCH_ROW

const pq_bench_kernel pq_bench_kernel_rows[] = {
#define PQ_BENCH_ROW(name, streams, bytes, traffic, ...) {#name, streams, bytes, PQ_##traffic, run_##name},
#include "train/bench_rows.def"
#undef PQ_BENCH_ROW
};
const size_t pq_bench_kernel_count = sizeof pq_bench_kernel_rows / sizeof *pq_bench_kernel_rows;

static size_t most_rows(size_t bytes) {
    return bytes / sizeof(float) / WIDTH + 1;
}

size_t pq_bench_small_bytes(size_t bytes) {
    return (6 * SMALL + 4 * most_rows(bytes)) * sizeof(float);
}

void pq_bench_place(const pq_bench_kernel *kernel, float *memory, size_t bytes, float *small,
                    pq_bench_data *data) {
    size_t rows = most_rows(bytes);
    float *each = small + 6 * SMALL;
    data->n = bytes / sizeof(float) / kernel->streams / WIDTH * WIDTH;
    for (size_t s = 0; s < kernel->streams; s++) data->f[s] = memory + s * data->n;
    data->gain = small, data->bias = small + SMALL, data->dgain = small + 2 * SMALL;
    data->dbias = small + 3 * SMALL;
    data->table = memset(small + 4 * SMALL, 1, 16);
    data->inputs[0] = memset(small + 5 * SMALL, 3, WIDTH);
    data->row_a = each, data->row_b = each + rows, data->row_c = each + 2 * rows;
    data->targets = (int32_t *)(void *)(each + 3 * rows);
    data->dropout = pq_dropout_make(0.2, 1, 1, 1);
    data->grid = pq_affine_make(-1, 2, -128, 127, 1e-6f);
    pq_bench_fill(data->gain, 2 * SMALL);
}

void pq_bench_fill(float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t r = (uint32_t)i * 2654435761u;
        uint32_t bits = 0x3F003800 | (r & 0xFF0000) | (r & 0x3FF);
        memcpy(x + i, &bits, sizeof bits);
    }
}
