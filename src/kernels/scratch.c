/* Owns the scratch that threads keep for products. */
#include "kernels/scratch.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

static _Thread_local struct {
    void *data;
    size_t bytes;
} scratch;
static pthread_key_t key;
static bool key_made;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_key(void) {
    key_made = pthread_key_create(&key, free) == 0;
}

void *pq_scratch(size_t bytes) {
    if (bytes <= scratch.bytes) return scratch.data;
    free(scratch.data);
    scratch.data = aligned_alloc(64, (bytes + 63) / 64 * 64);
    scratch.bytes = scratch.data ? bytes : 0;
    pthread_once(&once, make_key);
    if (key_made) (void)pthread_setspecific(key, scratch.data); /* or it is never freed */
    return scratch.data;
}
