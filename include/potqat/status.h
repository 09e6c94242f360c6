/* Status codes and error reports shared by every public function of potqat. */
#ifndef POTQAT_STATUS_H
#define POTQAT_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(PQ_BUILDING) && defined(__GNUC__)
#define PQ_API __attribute__((visibility("default")))
#else
#define PQ_API
#endif

/** What a library function returns. 0 means done; anything else left an explanation in the pq_error. */
typedef enum pq_status {
    PQ_OK = 0,
    PQ_ERR_IO = 1,     /**< reading or writing failed (missing file, full disk, no permission) */
    PQ_ERR_FORMAT = 2, /**< a file is damaged, foreign, or from a newer version */
    PQ_ERR_USAGE = 3,  /**< an argument or a config value is not allowed */
    PQ_ERR_MEMORY = 4, /**< memory could not be had */
    PQ_STOPPED = 5,    /**< stopped on request; the work can be resumed */
    PQ_DIVERGED = 6    /**< training produced NaN or Inf too often */
} pq_status;

/** An explanation: one sentence that names what was expected, what was found, and where. */
typedef struct pq_error {
    pq_status code;
    const char *file; /**< source file that raised it */
    int line;         /**< source line that raised it */
    char message[1024];
} pq_error;

/** The exit status of a command that ended with `status`: 0 done, 1 I/O or damaged file, 2 usage or config,
 * 3 stopped and resumable, 4 diverged. */
PQ_API int pq_exit_code(pq_status status);

#ifdef __cplusplus
}
#endif
#endif
