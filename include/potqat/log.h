/* Receiving potqat's messages. */
#ifndef POTQAT_LOG_H
#define POTQAT_LOG_H

#include <potqat/status.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum pq_log_level { PQ_LOG_INFO, PQ_LOG_WARNING } pq_log_level;

/** Receives one line without its newline; called from the thread that called the library. */
typedef void (*pq_log_callback)(void *user, pq_log_level level, const char *line);

/** Set the process's one receiver (NULL: messages are dropped, the default). Not thread-safe: call it first.
 */
PQ_API void pq_log_set(pq_log_callback callback, void *user);

#ifdef __cplusplus
}
#endif
#endif
