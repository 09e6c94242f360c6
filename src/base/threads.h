/* Threads: loops over tiles whose number depends on the shape alone, so that results do not depend on how
 * many threads run them. */
#ifndef PQ_BASE_THREADS_H
#define PQ_BASE_THREADS_H

#include <stddef.h>

/* Physical cores this process may use. */
int pq_threads_available(void);

/* Set and get how many threads pq_parallel_for uses in this process; 0 = pq_threads_available(). */
void pq_threads_set(int count);
int pq_threads_get(void);

/* Call task(context, i) once for each i in [0, count): each thread begins with a fixed contiguous run of
 * them, and who is done helps the others. Tasks must not write the same memory. Nested calls run serially. */
void pq_parallel_for(size_t count, void (*task)(void *context, size_t i), void *context);

/* The running thread's number in [0, pq_threads_get()), for scratch that is not shared. */
int pq_thread_index(void);

#endif
