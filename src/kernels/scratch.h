/* A thread's scratch for products, kept for its next one and freed when the thread ends. */
#ifndef PQ_KERNELS_SCRATCH_H
#define PQ_KERNELS_SCRATCH_H

#include <stddef.h>

/* At least `bytes`, at a multiple of 64, with whatever was there; NULL where there is no memory. */
void *pq_scratch(size_t bytes);

#endif
