/* Owns the order of potqat bench kernels, its peaks, and the kernels that multiply matrices: products and
 * attention at the sizes of training. The others stand in bench_rows.def. */
#include "train/bench_kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/threads.h"
#include "kernels/gemm_bf16.h"
#include "kernels/peak.h"
#include "ops/ops.h"
#include "ops/product.h"
#include "train/bench.h"
#include "train/bench_rows.h"

enum { FP32, BF16, TYPES };
enum { L2, MEMORY, PLACES };
enum { ONE, ALL, MODES };
enum { YARDS = TYPES + PLACES * PQ_TRAFFICS };

static const char *const places[PLACES] = {[L2] = "L2", [MEMORY] = "memory"};

/* What rows are compared with; the rows of memory come place by place, in the order of pq_traffic. */
static const struct {
    const char *name, *data, *unit;
} yards[YARDS] = {{"peak_multiply_add", "registers", "GFLOP/s"},
                  {"peak_multiply_add_bf16", "registers", "GFLOP/s"},
                  {"peak_read", "L2", "GB/s"},
                  {"peak_copy", "L2", "GB/s"},
                  {"peak_update", "L2", "GB/s"},
                  {"peak_read", "memory", "GB/s"},
                  {"peak_copy", "memory", "GB/s"},
                  {"peak_update", "memory", "GB/s"}};

static int yard_of(int place, pq_traffic traffic) {
    return TYPES + place * PQ_TRAFFICS + (int)traffic;
}

typedef struct measured {
    pq_bench_row row;
    double rates[MODES]; /* bytes or operations a second */
    int yard;
} measured;

typedef struct bench {
    const char *only;
    int threads[MODES];
    size_t modes;               /* 1 where there is but one thread */
    double peaks[YARDS][MODES]; /* the largest of those before and after everything else */
    size_t bytes[PLACES];       /* of a thread in the L2; of all threads in memory */
    float *memory, *small;      /* for each thread what the largest part needs besides */
    size_t memory_bytes, small_bytes;
    measured *rows;
    size_t count;
} bench;

static bool wanted(const bench *b, const char *kernel) {
    return !b->only || strstr(kernel, b->only);
}

static measured *add_row(bench *b, const char *kernel, int yard) {
    measured *m = &b->rows[b->count++];
    *m = (measured){.row = {.kernel = kernel, .data = yards[yard].data, .unit = yards[yard].unit},
                    .yard = yard};
    return m;
}

/* ---- peaks ---- */

static size_t part(const bench *b, int place, int threads) {
    return place == L2 ? b->bytes[L2] : b->bytes[MEMORY] / (size_t)threads;
}

static void raise(double *peak, double found) {
    if (found > *peak) *peak = found;
}

static pq_status measure_peaks(bench *b, pq_error *err) {
    for (size_t m = 0; m < b->modes; m++) {
        int threads = b->threads[m];
        raise(&b->peaks[FP32][m], pq_peak_flops(threads));
        raise(&b->peaks[BF16][m], pq_peak_bf16_flops(threads));
        for (int p = 0; p < PLACES; p++) {
            double rates[PQ_TRAFFICS];
            PQ_TRY(pq_peak_bandwidth(threads, part(b, p, threads) * (size_t)threads, rates, err));
            for (int t = 0; t < PQ_TRAFFICS; t++) raise(&b->peaks[yard_of(p, (pq_traffic)t)][m], rates[t]);
        }
    }
    return PQ_OK;
}

/* ---- kernels that stream ---- */

enum { FILL_TILE = 1 << 20 };

typedef struct filling {
    float *x;
    size_t n;
} filling;

static void fill_tile(void *context, size_t i) {
    const filling *f = context;
    size_t first = i * FILL_TILE, left = f->n - first;
    pq_bench_fill(f->x + first, left < FILL_TILE ? left : FILL_TILE);
}

/* The first `bytes` of the memory. */
static void fill(const bench *b, size_t bytes) {
    filling f = {b->memory, bytes / sizeof(float)};
    pq_parallel_for((f.n + FILL_TILE - 1) / FILL_TILE, fill_tile, &f);
}

typedef struct streams {
    const pq_bench_kernel *kernel;
    pq_bench_data *data; /* [threads] */
} streams;

static void run_streams(void *context, size_t i) {
    const streams *s = context;
    s->kernel->run(&s->data[i]);
}

/* Bytes a second. */
static double stream_rate(bench *b, streams *s, int place, int threads) {
    size_t bytes = part(b, place, threads) / PQ_ALIGNMENT * PQ_ALIGNMENT;
    fill(b, bytes * (size_t)threads);
    memset(b->small, 0, b->small_bytes * (size_t)threads);
    for (int i = 0; i < threads; i++)
        pq_bench_place(s->kernel, b->memory + (size_t)i * bytes / sizeof(float), bytes,
                       b->small + (size_t)i * b->small_bytes / sizeof(float), &s->data[i]);
    double each = (double)s->data[0].n * s->kernel->bytes;
    return each * threads / pq_peak_seconds(threads, (size_t)threads, run_streams, s);
}

static pq_status time_streams(bench *b, pq_error *err) {
    streams s;
    PQ_TRY(pq_calloc((size_t)b->threads[ALL], sizeof *s.data, "benchmark", &s.data, err));
    for (size_t k = 0; k < pq_bench_kernel_count; k++)
        for (int p = 0; p < PLACES; p++) {
            s.kernel = &pq_bench_kernel_rows[k];
            if (!wanted(b, s.kernel->name)) continue;
            measured *row = add_row(b, s.kernel->name, yard_of(p, s.kernel->traffic));
            for (size_t m = 0; m < b->modes; m++) row->rates[m] = stream_rate(b, &s, p, b->threads[m]);
        }
    free(s.data);
    return PQ_OK;
}

/* ---- products ---- */

/* A linear layer's three products, by places in {tokens, outputs, inputs}. */
static const struct {
    const char *name;
    bool transpose_a, transpose_b, wide;
    int M, N, K;
} passes[] = {{"forward", false, true, false, 0, 1, 2},
              {"dx", false, false, false, 0, 2, 1},
              {"dW", true, false, true, 1, 2, 0}};

static void multiply(void *context, size_t i) {
    pq_multiply(context);
    (void)i;
}

static const char *const multipliers[TYPES] = {[FP32] = "gemm", [BF16] = "gemm_bf16"};
static const pq_type types[TYPES] = {[FP32] = PQ_F32, [BF16] = PQ_BF16};

/* The layers of a shape, by width C and tokens of a vocabulary V. The head's rows come in slices. */
static const struct {
    const char *name;
    size_t outputs, inputs; /* times C; 0: V */
} layers[] = {{"fc", 4, 1}, {"proj", 1, 4}, {"head", 0, 1}};
enum { LAYERS = sizeof layers / sizeof *layers, PASSES = sizeof passes / sizeof *passes };
enum { LOGITS = PQ_HEAD_SLICE_BYTES / (int)sizeof(float) };

/* {tokens, outputs, inputs} */
static void sizes_of(const pq_bench_shape *shape, size_t layer, size_t *sizes) {
    size_t C = (size_t)shape->shape.width, V = (size_t)shape->shape.vocab;
    sizes[0] = (size_t)(shape->batch * shape->context);
    sizes[1] = layers[layer].outputs ? layers[layer].outputs * C : V;
    sizes[2] = layers[layer].inputs * C;
    if (!layers[layer].outputs && sizes[0] > LOGITS / V) sizes[0] = LOGITS / V / 16 * 16;
}

static size_t numbers_of(const size_t *sizes) {
    return sizes[0] * sizes[1] + sizes[1] * sizes[2] + sizes[0] * sizes[2];
}

static void time_product(bench *b, int type, const pq_bench_shape *shape, size_t layer, size_t pass) {
    size_t sizes[3];
    sizes_of(shape, layer, sizes);
    size_t M = sizes[passes[pass].M], N = sizes[passes[pass].N], K = sizes[passes[pass].K];
    float *B = b->memory + pq_round_up(M * K, 16), *C = B + pq_round_up(K * N, 16);
    pq_product p = {.transpose_a = passes[pass].transpose_a,
                    .transpose_b = passes[pass].transpose_b,
                    .M = M,
                    .N = N,
                    .K = K,
                    .A = {b->memory, types[type]},
                    .B = {B, types[type]},
                    .C = {C, passes[pass].wide ? PQ_F32 : types[type]}};
    measured *row = add_row(b, multipliers[type], type);
    size_t bytes = numbers_of(sizes) * pq_type_bytes(types[type]);
    row->row.data = places[bytes <= pq_peak_l2_bytes() ? L2 : MEMORY];
    snprintf(row->row.what, sizeof row->row.what, "%s %s %s", shape->name, layers[layer].name,
             passes[pass].name);
    fill(b, (numbers_of(sizes) + 2 * 16) * sizeof(float));
    for (size_t m = 0; m < b->modes; m++)
        row->rates[m] =
            2.0 * (double)M * (double)N * (double)K / pq_peak_seconds(b->threads[m], 1, multiply, &p);
}

static void time_products(bench *b) {
    size_t shapes;
    const pq_bench_shape *shape = pq_bench_shapes(&shapes);
    for (int type = 0; type < TYPES; type++) {
        if (!wanted(b, multipliers[type])) continue;
        if (type == BF16 && pq_gemm_bf16_check(NULL) != PQ_OK) continue;
        for (size_t s = 0; s < shapes; s++)
            for (size_t layer = 0; layer < LAYERS; layer++)
                for (size_t pass = 0; pass < PASSES; pass++) time_product(b, type, &shape[s], layer, pass);
    }
}

/* ---- attention ---- */

/* One head over one sequence, inside rows of q|k|v as training has them; behind lse and scratch. */
typedef struct head {
    size_t T, C, D, floats, scratch; /* floats: of a thread */
    float *memory;
} head;

enum { ROWS_OF_C = 8 }; /* q|k|v, out, and the gradients of both */

static size_t scratch_floats(size_t T, size_t D) {
    size_t fp32 = pq_attention_scratch(T, D), bf16 = pq_attention_bf16_scratch(T, D);
    return fp32 > bf16 ? fp32 : bf16;
}

static size_t head_floats(const pq_bench_shape *shape) {
    size_t T = (size_t)shape->context, C = (size_t)shape->shape.width;
    return pq_round_up((ROWS_OF_C * C + 1) * T + scratch_floats(T, C / (size_t)shape->shape.heads), 16);
}

#define FORWARD(name, type)                                                                                  \
    static void name(void *context, size_t i) {                                                              \
        const head *h = context;                                                                             \
        size_t n = h->T * h->C;                                                                              \
        float *lse = h->memory + i * h->floats, *scratch = lse + h->T;                                       \
        type *x = (type *)(void *)(scratch + h->scratch), *y = x + 3 * n;                                    \
        pq_kernels_get()->name(x, x + h->C, x + 2 * h->C, 3 * h->C, y, h->C, lse, h->T, h->D, NULL, 0,       \
                               scratch);                                                                     \
    }
#define BACKWARD(name, type)                                                                                 \
    static void name(void *context, size_t i) {                                                              \
        const head *h = context;                                                                             \
        size_t n = h->T * h->C;                                                                              \
        float *lse = h->memory + i * h->floats, *scratch = lse + h->T;                                       \
        type *x = (type *)(void *)(scratch + h->scratch), *y = x + 3 * n, *dx = x + 5 * n;                   \
        pq_kernels_get()->name(x, x + h->C, x + 2 * h->C, 3 * h->C, y, y + n, h->C, lse, dx, dx + h->C,      \
                               dx + 2 * h->C, 3 * h->C, h->T, h->D, NULL, 0, scratch);                       \
    }
FORWARD(attention_forward, float)
BACKWARD(attention_backward, float)
FORWARD(attention_forward_bf16, pq_bf16)
BACKWARD(attention_backward_bf16, pq_bf16)

static const struct {
    const char *name;
    void (*run)(void *context, size_t i);
    int products; /* of T(T + 1) / 2 pairs: the causal half */
    int type;
} attentions[] = {{"attention_forward", attention_forward, 2, FP32},
                  {"attention_backward", attention_backward, 5, FP32},
                  {"attention_forward_bf16", attention_forward_bf16, 2, BF16},
                  {"attention_backward_bf16", attention_backward_bf16, 5, BF16}};
enum { ATTENTIONS = sizeof attentions / sizeof *attentions };

static void time_attention(bench *b, const pq_bench_shape *shape, size_t a) {
    head h = {.T = (size_t)shape->context, .C = (size_t)shape->shape.width, .memory = b->memory};
    h.D = h.C / (size_t)shape->shape.heads, h.floats = head_floats(shape),
    h.scratch = scratch_floats(h.T, h.D);
    double work = attentions[a].products * (double)h.T * ((double)h.T + 1) * (double)h.D;
    size_t touched = ROWS_OF_C * h.T * h.D * pq_type_bytes(types[attentions[a].type]);
    measured *row = add_row(b, attentions[a].name, attentions[a].type);
    row->row.data = places[touched <= pq_peak_l2_bytes() ? L2 : MEMORY];
    snprintf(row->row.what, sizeof row->row.what, "%s", shape->name);
    fill(b, h.floats * (size_t)b->threads[ALL] * sizeof(float));
    for (size_t m = 0; m < b->modes; m++) {
        int threads = b->threads[m];
        row->rates[m] = threads * work / pq_peak_seconds(threads, (size_t)threads, attentions[a].run, &h);
    }
}

static void time_attentions(bench *b) {
    size_t shapes;
    const pq_bench_shape *shape = pq_bench_shapes(&shapes);
    for (size_t a = 0; a < ATTENTIONS; a++) {
        if (attentions[a].type == BF16 && pq_gemm_bf16_check(NULL) != PQ_OK) continue;
        for (size_t s = 0; s < shapes && wanted(b, attentions[a].name); s++) time_attention(b, &shape[s], a);
    }
}

/* ---- all of them ---- */

/* What the largest of them needs. */
static size_t most_bytes(const bench *b) {
    size_t shapes, sizes[3], most = b->bytes[MEMORY], all = b->bytes[L2] * (size_t)b->threads[ALL];
    const pq_bench_shape *shape = pq_bench_shapes(&shapes);
    if (most < all) most = all;
    for (size_t s = 0; s < shapes; s++) {
        size_t heads = head_floats(&shape[s]) * (size_t)b->threads[ALL] * sizeof(float);
        if (most < heads) most = heads;
        for (size_t layer = 0; layer < LAYERS; layer++) {
            sizes_of(&shape[s], layer, sizes);
            size_t bytes = (numbers_of(sizes) + 2 * 16) * sizeof(float);
            if (most < bytes) most = bytes;
        }
    }
    return most;
}

static size_t most_rows(void) {
    size_t shapes;
    pq_bench_shapes(&shapes);
    return PLACES * pq_bench_kernel_count + ATTENTIONS * shapes + TYPES * shapes * LAYERS * PASSES;
}

static pq_status allocate(bench *b, pq_error *err) {
    PQ_TRY(pq_calloc(most_rows(), sizeof *b->rows, "a benchmark", &b->rows, err));
    PQ_TRY(pq_pages_reserve(b->small_bytes * (size_t)b->threads[ALL], "a benchmark", &b->small, err));
    return pq_pages_reserve(b->memory_bytes, "a benchmark", &b->memory, err);
}

static bool any_wanted(const bench *b) {
    bool any = false;
    for (size_t k = 0; k < pq_bench_kernel_count; k++) any = any || wanted(b, pq_bench_kernel_rows[k].name);
    for (size_t a = 0; a < ATTENTIONS; a++) any = any || wanted(b, attentions[a].name);
    for (int type = 0; type < TYPES; type++) any = any || wanted(b, multipliers[type]);
    return any;
}

static pq_status run(bench *b, pq_error *err) {
    if (!any_wanted(b)) return PQ_FAIL(err, PQ_ERR_USAGE, "no kernel has %s in its name", b->only);
    PQ_TRY(pq_gemm_check(err));
    PQ_TRY(allocate(b, err));
    PQ_TRY(measure_peaks(b, err));
    PQ_TRY(time_streams(b, err));
    time_attentions(b);
    time_products(b);
    return measure_peaks(b, err);
}

static void hand_out(const bench *b, const measured *m, void (*receive)(void *user, const pq_bench_row *row),
                     void *user) {
    const double *peaks = b->peaks[m->yard];
    const size_t last = b->modes - 1;
    pq_bench_row row = m->row;
    if (peaks[ONE] == 0) return; /* no instruction for it */
    row.one = m->rates[ONE] / 1e9, row.all = m->rates[last] / 1e9;
    row.one_share = m->rates[ONE] / peaks[ONE], row.all_share = m->rates[last] / peaks[last];
    receive(user, &row);
}

pq_status pq_bench_kernels(const char *only, void (*receive)(void *user, const pq_bench_row *row), void *user,
                           pq_error *err) {
    bench b = {.only = only, .threads = {1, pq_threads_get()}};
    b.modes = b.threads[ALL] > 1 ? MODES : 1;
    b.bytes[L2] = pq_peak_l2_bytes() / 2, b.bytes[MEMORY] = pq_peak_memory_bytes();
    b.memory_bytes = most_bytes(&b);
    b.small_bytes = pq_round_up(pq_bench_small_bytes(b.bytes[MEMORY]), PQ_ALIGNMENT);
    pq_gemm_threads host_threads = pq_gemm_threads_take();
    pq_status status = run(&b, err);
    pq_gemm_threads_restore(host_threads);
    for (int y = 0; y < YARDS && status == PQ_OK; y++) {
        measured peak = {.row = {.kernel = yards[y].name, .data = yards[y].data, .unit = yards[y].unit},
                         .yard = y};
        memcpy(peak.rates, b.peaks[y], sizeof peak.rates);
        hand_out(&b, &peak, receive, user);
    }
    for (size_t i = 0; i < b.count && status == PQ_OK; i++) hand_out(&b, &b.rows[i], receive, user);
    pq_pages_release(b.memory, b.memory_bytes);
    pq_pages_release(b.small, b.small_bytes * (size_t)b.threads[ALL]);
    free(b.rows);
    return status;
}
