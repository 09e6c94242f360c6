/* The speed of each kernel beside what the machine can do: potqat bench kernels. */
#ifndef PQ_TRAIN_BENCH_KERNELS_H
#define PQ_TRAIN_BENCH_KERNELS_H

#include <stddef.h>

#include "base/error.h"

typedef struct pq_bench_row {
    const char
        *kernel; /* a name of kernels.def, or gemm, gemm_bf16; peak_...: what the others are compared with */
    char what[40];    /* of a product: shape, layer, pass; else "" */
    const char *data; /* where it lies: registers, L2, memory */
    const char *unit; /* GB/s (what is read and what is written, added) or GFLOP/s (a multiply-add is two) */
    double one, all;  /* with one thread, and with all */
    double one_share, all_share; /* of the peak of its kind */
} pq_bench_row;

/* Time every kernel whose name contains `only` (NULL: all) with one and with all threads of this process, and
 * hand the rows to `receive` at the end, the peaks first. PQ_ERR_USAGE where no kernel has such a name. */
pq_status pq_bench_kernels(const char *only, void (*receive)(void *user, const pq_bench_row *row), void *user,
                           pq_error *err);

#endif
