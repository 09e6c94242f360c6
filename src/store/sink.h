/* Where HDF5's writes go: a file descriptor, with failures kept from HDF5. */
#ifndef PQ_STORE_SINK_H
#define PQ_STORE_SINK_H

#include "store/layout.h"

/* HDF5 1.10 does not survive a failed write: it leaves the file half open, and loops or crashes when the
 * process ends. So a failed write is only noted here and HDF5 carries on; nothing more reaches the disk, and
 * the caller discards the file. */
typedef struct pq_sink {
    int descriptor; /* borrowed, open for reading and writing */
    int reason;     /* errno of the first failure, 0 = none */
} pq_sink;

/* HDF5's driver, to be closed with H5FDunregister; negative on failure. */
hid_t pq_sink_driver(void);
/* Let files made with `access` go into `sink`, which must outlive them. */
herr_t pq_sink_use(hid_t access, hid_t driver, pq_sink *sink);

#endif
