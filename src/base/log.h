/* Messages to the person or the host program. The library never writes to stdout or stderr by itself: without
 * a callback, messages are dropped. One callback a process, set before work starts. */
#ifndef PQ_BASE_LOG_H
#define PQ_BASE_LOG_H

#include <potqat/log.h>

void pq_log(pq_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
