/* Raising and passing on errors. Every function that can fail returns a pq_status and fills an optional
 * pq_error with one clear sentence; nothing in the library prints, exits or aborts. */
#ifndef PQ_BASE_ERROR_H
#define PQ_BASE_ERROR_H

#include <potqat/status.h>

/* Fill `err` (may be NULL) and return `code`. */
pq_status pq_raise(pq_error *err, pq_status code, const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* Put "context: " before the message already in `err`; returns err's code (for PQ_TRY-like chains). */
pq_status pq_prefix(pq_error *err, pq_status code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define PQ_FAIL(err, code, ...) pq_raise((err), (code), __FILE__, __LINE__, __VA_ARGS__)

/* Return from the calling function when `expression` fails. */
#define PQ_TRY(expression)                                                                                   \
    do {                                                                                                     \
        pq_status pq_try_status_ = (expression);                                                             \
        if (pq_try_status_ != PQ_OK) return pq_try_status_;                                                  \
    } while (0)

/* Jump to `label` when `expression` fails, keeping its status in `status`. */
#define PQ_TRY_TO(status, label, expression)                                                                 \
    do {                                                                                                     \
        (status) = (expression);                                                                             \
        if ((status) != PQ_OK) goto label;                                                                   \
    } while (0)

#endif
