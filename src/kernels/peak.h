/* What this machine can do at most: the yardstick of benchmarks and profiles. Measured, for the table of
 * kernels in use, by loops that do nothing else; POTQAT_CPU caps it as it caps the kernels. */
#ifndef PQ_KERNELS_PEAK_H
#define PQ_KERNELS_PEAK_H

#include "base/error.h"
#include "kernels/kernels.h"

/* Independent sums of the loops: enough to hide the latency of an addition, few enough for 16 registers. */
enum { PQ_PEAK_CHAINS = 12 };

/* Floating-point operations a second (a multiply-add is two) of all `threads`, in registers alone. */
double pq_peak_flops(int threads);
/* The same for products of bf16 summed in fp32; 0 where the CPU has no instruction for them. */
double pq_peak_bf16_flops(int threads);

/* Bytes a second, what is read and what is written added: reading, copying (by the faster of two ways), and
 * changing an array in place, of which each line moves twice and none is fetched only to be overwritten. */
typedef enum pq_traffic { PQ_READ, PQ_COPY, PQ_UPDATE, PQ_TRAFFICS } pq_traffic;

/* All `threads` together, each with its own part of `bytes` of memory. */
pq_status pq_peak_bandwidth(int threads, size_t bytes, double rates[PQ_TRAFFICS], pq_error *err);

/* Bytes of a core's L2 cache, and of an array that is far beyond the last cache; guesses where the system
 * does not tell. */
size_t pq_peak_l2_bytes(void);
size_t pq_peak_memory_bytes(void);

/* Seconds that task(context, i) takes for all i < count at once, on `threads` threads: the least of a few
 * measurements of as many calls as take some milliseconds. A task that uses threads itself is one of 1. */
double pq_peak_seconds(int threads, size_t count, void (*task)(void *context, size_t i), void *context);

#endif
