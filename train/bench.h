/* The speed of training: whole iterations of a model of random weights on random tokens. */
#ifndef PQ_TRAIN_BENCH_H
#define PQ_TRAIN_BENCH_H

#include <stdio.h>

#include "config/config.h"
#include "formats/packed.h"
#include "model/model.h"

/* A shape by name, with the sizes it is usually timed at: char, baby, 124M. */
typedef struct pq_bench_shape {
    const char *name;
    pq_gpt2_shape shape;
    int64_t batch, context, tokens; /* ids below `tokens` are drawn */
} pq_bench_shape;
const pq_bench_shape *pq_bench_shapes(size_t *count);
const pq_bench_shape *pq_bench_shape_find(const char *name); /* NULL: no such name */

typedef struct pq_bench {
    const pq_bench_shape *shape;
    int64_t batch, context, iters;
    const pq_config *config; /* its sections quant, qat and train say what an iteration does */
    FILE *profile;           /* the time of each op is printed there; NULL: not */
} pq_bench;

/* *seconds = median time of an iteration, after two that do not count. */
pq_status pq_bench_train(const pq_bench *bench, double *seconds, pq_error *err);

/* A packed model of random weights in memory, quantized as the config's section quant says. */
pq_status pq_bench_random_packed(const pq_bench_shape *shape, const pq_config *config, pq_packed **out,
                                 pq_error *err);

#endif
