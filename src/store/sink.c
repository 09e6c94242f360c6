/* Owns the HDF5 file driver that checkpoints are written through. */
#include "store/sink.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct sink_file {
    H5FD_t hdf5; /* first: HDF5 passes pointers to it */
    pq_sink *sink;
    haddr_t end_allocated, end_written;
} sink_file;

static H5FD_t *sink_open(const char *name, unsigned flags, hid_t access, haddr_t most) {
    (void)name, (void)flags, (void)most;
    pq_sink *const *sink = H5Pget_driver_info(access);
    sink_file *file = sink ? calloc(1, sizeof *file) : NULL;
    if (!file) return NULL;
    file->sink = *sink;
    return &file->hdf5;
}

static herr_t sink_close(H5FD_t *file) {
    free(file);
    return 0;
}

/* As HDF5's own driver for plain files, so that the bytes are the same. */
static herr_t sink_query(const H5FD_t *file, unsigned long *flags) {
    (void)file;
    *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE |
             H5FD_FEAT_AGGREGATE_SMALLDATA | H5FD_FEAT_DEFAULT_VFD_COMPATIBLE;
    return 0;
}

static haddr_t sink_allocated(const H5FD_t *file, H5FD_mem_t type) {
    (void)type;
    return ((const sink_file *)file)->end_allocated;
}

static herr_t sink_allocate(H5FD_t *file, H5FD_mem_t type, haddr_t end) {
    (void)type;
    ((sink_file *)file)->end_allocated = end;
    return 0;
}

static haddr_t sink_end(const H5FD_t *file, H5FD_mem_t type) {
    (void)type;
    return ((const sink_file *)file)->end_written;
}

static void note_failure(pq_sink *sink, int reason) {
    if (!sink->reason) sink->reason = reason;
}

static herr_t sink_write(H5FD_t *file, H5FD_mem_t type, hid_t transfer, haddr_t at, size_t bytes,
                         const void *data) {
    (void)type, (void)transfer;
    sink_file *f = (sink_file *)file;
    for (size_t done = 0; done < bytes && !f->sink->reason;) {
        ssize_t put =
            pwrite(f->sink->descriptor, (const char *)data + done, bytes - done, (off_t)(at + done));
        if (put > 0)
            done += (size_t)put;
        else if (put == 0 || errno != EINTR)
            note_failure(f->sink, put ? errno : EIO);
    }
    if (at + bytes > f->end_written) f->end_written = at + bytes;
    return 0;
}

/* What is not there reads as zeros. */
static herr_t sink_read(H5FD_t *file, H5FD_mem_t type, hid_t transfer, haddr_t at, size_t bytes, void *data) {
    (void)type, (void)transfer;
    const sink_file *f = (const sink_file *)file;
    size_t done = 0;
    while (done < bytes) {
        ssize_t got = pread(f->sink->descriptor, (char *)data + done, bytes - done, (off_t)(at + done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) note_failure(f->sink, errno);
        if (got <= 0) break;
        done += (size_t)got;
    }
    memset((char *)data + done, 0, bytes - done);
    return 0;
}

static herr_t sink_truncate(H5FD_t *file, hid_t transfer, hbool_t closing) {
    (void)transfer, (void)closing;
    sink_file *f = (sink_file *)file;
    if (f->end_allocated == f->end_written) return 0;
    if (!f->sink->reason && ftruncate(f->sink->descriptor, (off_t)f->end_allocated) != 0)
        note_failure(f->sink, errno);
    f->end_written = f->end_allocated;
    return 0;
}

hid_t pq_sink_driver(void) {
    static const H5FD_class_t driver = {.name = "potqat sink",
                                        .maxaddr = INT64_MAX,
                                        .fc_degree = H5F_CLOSE_STRONG,
                                        .fapl_size = sizeof(pq_sink *),
                                        .open = sink_open,
                                        .close = sink_close,
                                        .query = sink_query,
                                        .get_eoa = sink_allocated,
                                        .set_eoa = sink_allocate,
                                        .get_eof = sink_end,
                                        .read = sink_read,
                                        .write = sink_write,
                                        .truncate = sink_truncate,
                                        .fl_map = H5FD_FLMAP_DICHOTOMY};
    return H5FDregister(&driver);
}

herr_t pq_sink_use(hid_t access, hid_t driver, pq_sink *sink) {
    return H5Pset_driver(access, driver, &sink);
}
