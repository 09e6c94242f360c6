/* Owns how peaks are measured, and how a short task is timed. */
#include "kernels/peak.h"

#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/threads.h"

static const double LEAST_SECONDS = 0.008;
enum { MEASUREMENTS = 3, ROUNDS = 4096 };

typedef struct repeated {
    void (*task)(void *context, size_t i);
    void *context;
    size_t count;
} repeated;

static void repeat(void *context, size_t i) {
    const repeated *r = context;
    for (size_t k = 0; k < r->count; k++) r->task(r->context, i);
}

static double measure(int threads, repeated *r) {
    double start = pq_seconds();
    pq_parallel_for((size_t)threads, repeat, r);
    return pq_seconds() - start;
}

double pq_peak_seconds(int threads, void (*task)(void *context, size_t i), void *context) {
    repeated r = {task, context, 1};
    int before = pq_threads_get();
    pq_threads_set(threads);
    double seconds = measure(threads, &r); /* does not count: memory is touched, code is made */
    while ((seconds = measure(threads, &r)) < LEAST_SECONDS && r.count < (size_t)1 << 40)
        r.count *= seconds < LEAST_SECONDS / 16 ? 8 : 2;
    for (int i = 1; i < MEASUREMENTS; i++) {
        double again = measure(threads, &r);
        if (again < seconds) seconds = again;
    }
    pq_threads_set(before);
    return seconds / (double)r.count;
}

/* ---- arithmetic ---- */

/* Kept by every thread, so that no loop can be left out; what the last one wrote does not matter. */
static _Thread_local volatile double kept;

static void multiply_add(void *context, size_t i) {
    const float *ones = context;
    double sum;
    pq_kernels_get()->peak_multiply_add(ones[0], ones[1], ROUNDS, &sum);
    kept = sum;
    (void)i;
}

#if defined(__x86_64__)
void pq_peak_bf16_avx512bf16(float a, float b, size_t rounds, double *sum);
#else
static void pq_peak_bf16_avx512bf16(float a, float b, size_t rounds, double *sum) {
    pq_peak_multiply_add_ref(a, b, rounds, sum);
}
#endif

static void multiply_add_bf16(void *context, size_t i) {
    const float *ones = context;
    double sum;
    pq_peak_bf16_avx512bf16(ones[0], ones[1], ROUNDS, &sum);
    kept = sum;
    (void)i;
}

/* The loops count their multiply-adds themselves: each adds one. */
static double flops(int threads, void (*task)(void *context, size_t i),
                    void (*loop)(float a, float b, size_t rounds, double *sum)) {
    float ones[] = {1, 1};
    double count;
    loop(1, 1, ROUNDS, &count);
    return 2 * count * threads / pq_peak_seconds(threads, task, ones);
}

double pq_peak_flops(int threads) {
    return flops(threads, multiply_add, pq_kernels_get()->peak_multiply_add);
}

double pq_peak_bf16_flops(int threads) {
    return pq_kernels_have_bf16() ? flops(threads, multiply_add_bf16, pq_peak_bf16_avx512bf16) : 0;
}

/* ---- memory ---- */

static size_t cache_bytes(int name, size_t otherwise) {
    long bytes = sysconf(name);
    return bytes > 0 ? (size_t)bytes : otherwise;
}

size_t pq_peak_l2_bytes(void) {
    return cache_bytes(_SC_LEVEL2_CACHE_SIZE, (size_t)512 << 10);
}

size_t pq_peak_memory_bytes(void) {
    size_t bytes = 4 * cache_bytes(_SC_LEVEL3_CACHE_SIZE, 0), least = (size_t)128 << 20,
           most = (size_t)2 << 30;
    return bytes < least ? least : bytes > most ? most : bytes;
}

typedef struct memory {
    char *data;
    size_t bytes; /* of a thread; a multiple of two cache lines */
} memory;

static void read_memory(void *context, size_t i) {
    const memory *m = context;
    double sum;
    pq_kernels_get()->peak_read((const float *)(const void *)(m->data + i * m->bytes),
                                m->bytes / sizeof(float), &sum);
    kept = sum;
}

static void copy_memory(void *context, size_t i) {
    const memory *m = context;
    char *own = m->data + i * m->bytes;
    memcpy(own, own + m->bytes / 2, m->bytes / 2);
}

pq_status pq_peak_bandwidth(int threads, size_t bytes, double *read, double *copy, pq_error *err) {
    memory m = {.bytes = bytes / (size_t)threads / 128 * 128};
    if (m.bytes == 0) return PQ_FAIL(err, PQ_ERR_USAGE, "%zu bytes are too few to be streamed", bytes);
    PQ_TRY(pq_pages_reserve(m.bytes * (size_t)threads, "memory to stream", &m.data, err));
    memset(m.data, 0, m.bytes * (size_t)threads); /* pages never written are one and the same */
    double all = (double)m.bytes * threads;
    *read = all / pq_peak_seconds(threads, read_memory, &m);
    *copy = all / pq_peak_seconds(threads, copy_memory, &m);
    pq_pages_release(m.data, m.bytes * (size_t)threads);
    return PQ_OK;
}
