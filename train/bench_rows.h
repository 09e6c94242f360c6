/* The rows of bench_rows.def as functions over one thread's memory; of interest to bench_kernels.c alone. */
#ifndef PQ_TRAIN_BENCH_ROWS_H
#define PQ_TRAIN_BENCH_ROWS_H

#include "kernels/kernels.h"
#include "kernels/peak.h"

enum { PQ_BENCH_STREAMS = 4 };

/* One thread's arrays; what they hold may be any of the types that kernels read. */
typedef struct pq_bench_data {
    float *f[PQ_BENCH_STREAMS];
    size_t n;
    float *gain, *bias, *dgain, *dbias, *row_a, *row_b, *row_c;
    int32_t *targets;
    double sums[3];
    uint32_t largest;
    uint8_t any, *table;
    const uint8_t *inputs[1];
    pq_dropout dropout;
    pq_affine grid;
} pq_bench_data;

typedef struct pq_bench_kernel {
    const char *name;
    size_t streams;
    double bytes; /* an element */
    pq_traffic traffic;
    void (*run)(pq_bench_data *data);
} pq_bench_kernel;

extern const pq_bench_kernel pq_bench_kernel_rows[];
extern const size_t pq_bench_kernel_count;

/* Bytes of a thread's small arrays beside `bytes` of streams; memory of that size, zeroed, is given out by
 * place, which carves the streams of `row` out of memory[bytes], too. */
size_t pq_bench_small_bytes(size_t bytes);
void pq_bench_place(const pq_bench_kernel *row, float *memory, size_t bytes, float *small,
                    pq_bench_data *data);

/* Numbers from 0.5 to 2 as fp32; as bf16 and fp16 both halves are small positive numbers, too. */
void pq_bench_fill(float *x, size_t n);

#endif
