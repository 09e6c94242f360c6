/* Owns the thread count and the one parallel loop; everything else of OpenMP stays out of the code. */
#include "base/threads.h"

#include <omp.h>
#include <sched.h>
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

void pq_parallel_for(size_t count, void (*task)(void *context, size_t i), void *context) {
    int threads = pq_threads_get();
    if ((size_t)threads > count) threads = (int)count;
    if (threads <= 1 || omp_in_parallel()) {
        for (size_t i = 0; i < count; i++) task(context, i);
        return;
    }
#pragma omp parallel num_threads(threads)
    {
        size_t rank = (size_t)omp_get_thread_num(), n = (size_t)omp_get_num_threads();
        loop_index = (int)rank;
        for (size_t i = rank * count / n, end = (rank + 1) * count / n; i < end; i++) task(context, i);
        loop_index = 0;
    }
}
