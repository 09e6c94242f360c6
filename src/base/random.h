/* Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
 * SC 2011). A number depends on (key, counter) alone, so batches and dropout masks are the same whatever the
 * threads, the micro-batches or the point of resuming. */
#ifndef PQ_BASE_RANDOM_H
#define PQ_BASE_RANDOM_H

#include <stdint.h>

/* What a stream of numbers is for; part of the key, so that streams never meet. Never renumber. */
typedef enum pq_stream {
    PQ_STREAM_INIT = 1,     /* initial weights */
    PQ_STREAM_BATCH = 2,    /* windows of the training text */
    PQ_STREAM_DROPOUT = 3,  /* dropout masks */
    PQ_STREAM_SAMPLE = 4,   /* sampling of generated tokens */
    PQ_STREAM_CORPUS = 5,   /* the built-in corpus */
    PQ_STREAM_ROUNDING = 6, /* stochastic rounding */
    PQ_STREAM_SHUFFLE = 7   /* the order of windows in an epoch */
} pq_stream;

/* Four random 32-bit words for (seed, stream; a, b). `a` is commonly an iteration, `b` an index. */
static inline void pq_random4(uint64_t seed, pq_stream stream, uint64_t a, uint64_t b, uint32_t out[4]) {
    uint32_t key0 = (uint32_t)seed, key1 = (uint32_t)(seed >> 32) ^ ((uint32_t)stream * 0x9E3779B9u);
    uint32_t c0 = (uint32_t)b, c1 = (uint32_t)(b >> 32), c2 = (uint32_t)a, c3 = (uint32_t)(a >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ key0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ key1;
        c3 = (uint32_t)p0;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

/* A double in [0, 1) from 53 of 64 random bits. */
static inline double pq_random_unit(uint32_t high, uint32_t low) {
    return (double)((((uint64_t)high << 32) | low) >> 11) * 0x1p-53;
}

/* An integer in [0, n), n > 0, without noticeable bias (64 random bits against n below 2^40). */
static inline uint64_t pq_random_below(uint32_t high, uint32_t low, uint64_t n) {
    return (uint64_t)(((unsigned __int128)(((uint64_t)high << 32) | low) * n) >> 64);
}

/* Two independent standard normal numbers (Box-Muller) for (seed, stream; a, b). */
void pq_random_normal2(uint64_t seed, pq_stream stream, uint64_t a, uint64_t b, double out[2]);

#endif
