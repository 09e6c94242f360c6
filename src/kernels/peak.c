/* Owns how peaks are measured, and how a short task is timed. */
#include "kernels/peak.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/threads.h"

static const double LEAST_SECONDS = 0.004, ENOUGH_SECONDS = 0.15;
enum { MEASUREMENTS = 3, ROUNDS = 4096, REPEATS = 3 };

typedef struct repeated {
    void (*task)(void *context, size_t i);
    void *context;
    size_t calls;
} repeated;

static void repeat(void *context, size_t i) {
    const repeated *r = context;
    for (size_t k = 0; k < r->calls; k++) r->task(r->context, i);
}

static double measure(size_t count, repeated *r) {
    double start = pq_seconds();
    pq_parallel_for(count, repeat, r);
    return pq_seconds() - start;
}

double pq_peak_seconds(int threads, size_t count, void (*task)(void *context, size_t i), void *context) {
    repeated r = {task, context, 1};
    int before = pq_threads_get();
    pq_threads_set(threads);
    double seconds = measure(count, &r); /* does not count: memory is touched, code is made */
    while ((seconds = measure(count, &r)) < LEAST_SECONDS && r.calls < (size_t)1 << 40)
        r.calls *= seconds < LEAST_SECONDS / 16 ? 8 : 2;
    double spent = seconds;
    for (int i = 1; i < MEASUREMENTS && spent < ENOUGH_SECONDS; i++) {
        double again = measure(count, &r);
        if (again < seconds) seconds = again;
        spent += again;
    }
    pq_threads_set(before);
    return seconds / (double)r.calls;
}

/* For peaks: what else runs on the machine must not make the yardstick shorter. */
static double peak_seconds(int threads, void (*task)(void *context, size_t i), void *context) {
    double least = pq_peak_seconds(threads, (size_t)threads, task, context);
    for (int i = 1; i < REPEATS; i++) {
        double seconds = pq_peak_seconds(threads, (size_t)threads, task, context);
        if (seconds < least) least = seconds;
    }
    return least;
}

/* ---- arithmetic ---- */

/* Kept by every thread, so that no loop can be left out; what the last one wrote does not matter. */
static _Thread_local volatile double kept;

/* One of the kernels that count their multiply-adds: each adds one. */
typedef struct counting {
    void (*loop)(float a, float b, size_t rounds, double *sum);
    float ones[2]; /* read where they lie, so that no compiler knows them */
} counting;

static void multiply_add(void *context, size_t i) {
    const counting *c = context;
    double sum;
    c->loop(c->ones[0], c->ones[1], ROUNDS, &sum);
    kept = sum;
    (void)i;
}

static double flops(int threads, void (*loop)(float a, float b, size_t rounds, double *sum)) {
    counting c = {loop, {1, 1}};
    double count;
    loop(1, 1, ROUNDS, &count);
    return 2 * count * threads / peak_seconds(threads, multiply_add, &c);
}

double pq_peak_flops(int threads) {
    return flops(threads, pq_kernels_get()->peak_multiply_add);
}

double pq_peak_bf16_flops(int threads) {
    return pq_kernels_have_bf16() ? flops(threads, pq_kernels_get()->peak_multiply_add_bf16) : 0;
}

/* ---- memory ---- */

/* Of the data cache of one level that a core sees. What sysconf says counts other parts of the package, too,
 * that a virtual machine does not have. */
static size_t cache_bytes(int level, size_t otherwise) {
    for (int i = 0; i < 8; i++) {
        static const char *const names[] = {"level", "size"};
        int values[2] = {0};
        for (int k = 0; k < 2; k++) {
            char path[80];
            snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/%s", i, names[k]);
            FILE *file = fopen(path, "r");
            if (file && fscanf(file, "%d", &values[k]) != 1) values[k] = 0;
            if (file) fclose(file);
        }
        if (values[0] == level && values[1] > 0) return (size_t)values[1] << 10; /* "1024K" */
    }
    return otherwise;
}

size_t pq_peak_l2_bytes(void) {
    return cache_bytes(2, (size_t)512 << 10);
}

size_t pq_peak_memory_bytes(void) {
    size_t bytes = 4 * cache_bytes(3, 0), least = (size_t)128 << 20, most = (size_t)2 << 30;
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

/* Half of a part less one page's half: at a distance of whole pages some CPUs take a load for one of an
 * earlier store. */
static size_t half_of(const memory *m) {
    return m->bytes > 8192 ? m->bytes / 2 - 2048 : m->bytes / 2;
}

/* Around the cache, where the C library knows how. */
static void copy_by_library(void *context, size_t i) {
    const memory *m = context;
    char *own = m->data + i * m->bytes;
    memcpy(own, own + half_of(m), half_of(m));
}

static void copy_by_kernel(void *context, size_t i) {
    const memory *m = context;
    char *own = m->data + i * m->bytes;
    pq_kernels_get()->peak_copy((const float *)(const void *)(own + half_of(m)), (float *)(void *)own,
                                half_of(m) / sizeof(float));
}

static void update_memory(void *context, size_t i) {
    const memory *m = context;
    pq_kernels_get()->peak_update((float *)(void *)(m->data + i * m->bytes), m->bytes / sizeof(float));
}

pq_status pq_peak_bandwidth(int threads, size_t bytes, double rates[PQ_TRAFFICS], pq_error *err) {
    memory m = {.bytes = bytes / (size_t)threads / 128 * 128};
    const double part = (double)m.bytes, halves = 2 * (double)half_of(&m);
    const struct {
        void (*task)(void *context, size_t i);
        pq_traffic traffic;
        double moved; /* bytes a call */
    } ways[] = {{read_memory, PQ_READ, part},
                {copy_by_library, PQ_COPY, halves},
                {copy_by_kernel, PQ_COPY, halves},
                {update_memory, PQ_UPDATE, 2 * part}};
    if (m.bytes == 0) return PQ_FAIL(err, PQ_ERR_USAGE, "%zu bytes are too few to be streamed", bytes);
    PQ_TRY(pq_pages_reserve(m.bytes * (size_t)threads, "memory to stream", &m.data, err));
    memset(m.data, 0, m.bytes * (size_t)threads); /* pages never written are one and the same */
    memset(rates, 0, PQ_TRAFFICS * sizeof *rates);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        double rate = ways[i].moved * threads / peak_seconds(threads, ways[i].task, &m);
        if (rate > rates[ways[i].traffic]) rates[ways[i].traffic] = rate;
    }
    pq_pages_release(m.data, m.bytes * (size_t)threads);
    return PQ_OK;
}
