/* Owns the thread count and the one parallel loop; everything else of OpenMP stays out of the code. */
#include "base/threads.h"

#include <omp.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>

static int thread_count;

/* Physical cores: CPUs of this process's affinity mask that are the first of their sibling list. */
int pq_threads_available(void) {
    cpu_set_t mask;
    int cores = 0;
    if (sched_getaffinity(0, sizeof mask, &mask) != 0) return 1;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &mask)) continue;
        char path[96];
        int first = cpu;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
        FILE *file = fopen(path, "r");
        if (file) {
            if (fscanf(file, "%d", &first) != 1) first = cpu;
            fclose(file);
        }
        if (first == cpu || !CPU_ISSET(first, &mask)) cores++;
    }
    return cores ? cores : 1;
}

void pq_threads_set(int count) {
    thread_count = count > 0 ? count : pq_threads_available();
}

int pq_threads_get(void) {
    if (thread_count <= 0) pq_threads_set(0);
    return thread_count;
}

/* Of the loop that is running; not OpenMP's number, which belongs to the host program inside its own parallel
 * region. */
static _Thread_local int loop_index;

int pq_thread_index(void) {
    return loop_index;
}

/* A thread's share of a loop: the same one in each loop of as many tasks, so that it finds in its cache what
 * it left there. Who is done helps the others. */
typedef struct share {
    _Alignas(64) _Atomic size_t next;
    size_t end;
} share;

void pq_parallel_for(size_t count, void (*task)(void *context, size_t i), void *context) {
    enum { MOST_SHARES = 64 };
    int threads = pq_threads_get();
    if ((size_t)threads > count) threads = (int)count;
    if (threads <= 1 || omp_in_parallel()) {
        for (size_t i = 0; i < count; i++) task(context, i);
        return;
    }
    share shares[MOST_SHARES];
    const size_t n = threads < MOST_SHARES ? (size_t)threads : MOST_SHARES;
    for (size_t k = 0; k < n; k++) {
        atomic_init(&shares[k].next, k * count / n);
        shares[k].end = (k + 1) * count / n;
    }
#pragma omp parallel num_threads(threads)
    {
        loop_index = omp_get_thread_num();
        for (size_t k = 0; k < n; k++) {
            share *s = &shares[((size_t)loop_index + k) % n];
            for (size_t i; (i = atomic_fetch_add_explicit(&s->next, 1, memory_order_relaxed)) < s->end;)
                task(context, i);
        }
        loop_index = 0;
    }
}
