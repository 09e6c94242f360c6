/* Owns the one message callback. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

static pq_log_callback receiver;
static void *receiver_user;

void pq_log_set(pq_log_callback callback, void *user) {
    receiver = callback;
    receiver_user = user;
}

void pq_log(pq_log_level level, const char *format, ...) {
    char line[1024];
    va_list args;
    if (!receiver) return;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    receiver(receiver_user, level, line);
}
