/* Owns the one place where error sentences are formatted. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int pq_exit_code(pq_status status) {
    switch (status) {
    case PQ_OK:
        return 0;
    case PQ_ERR_USAGE:
        return 2;
    case PQ_STOPPED:
        return 3;
    case PQ_DIVERGED:
        return 4;
    case PQ_ERR_IO:
    case PQ_ERR_FORMAT:
    case PQ_ERR_MEMORY:
        break;
    }
    return 1;
}

pq_status pq_raise(pq_error *err, pq_status code, const char *file, int line, const char *format, ...) {
    if (err) {
        va_list args;
        va_start(args, format);
        vsnprintf(err->message, sizeof err->message, format, args);
        va_end(args);
        err->code = code;
        err->file = file;
        err->line = line;
    }
    return code;
}

pq_status pq_prefix(pq_error *err, pq_status code, const char *format, ...) {
    if (err) {
        char text[sizeof err->message], old[sizeof err->message];
        va_list args;
        va_start(args, format);
        vsnprintf(text, sizeof text, format, args);
        va_end(args);
        memcpy(old, err->message, sizeof old);
        if (snprintf(err->message, sizeof err->message, "%s: %s", text, old) < 0) err->message[0] = 0;
    }
    return code;
}
