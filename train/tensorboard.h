/* TensorBoard's event file of a run, made from the lines of metrics.jsonl: a TFRecord file of protobuf Event
 * messages, encoded by hand. */
#ifndef PQ_TRAIN_TENSORBOARD_H
#define PQ_TRAIN_TENSORBOARD_H

#include <jansson.h>

#include "base/error.h"

#define PQ_TENSORBOARD_FILE "events.out.tfevents.potqat"

typedef struct pq_tensorboard pq_tensorboard;

/* Write DIR/events.out.tfevents.potqat anew with what `lines` (an array as pq_metrics_read() gives, or NULL)
 * say, and leave it open for more. A resumed run gives the lines that it keeps, so no step is there twice.
 * The time of an event is when it was written. */
pq_status pq_tensorboard_open(const char *dir, const json_t *lines, pq_tensorboard **out, pq_error *err);
/* One line as one event of step "iter": each number but iter and tokens is a scalar, "histogram" a histogram
 * over the levels' places (0 in the middle). Tags: loss/train, loss/val all-tokens 64, lr/train,
 * sqnr_db/h.0.attn.c_attn.weight. null and words are left out. */
pq_status pq_tensorboard_write(pq_tensorboard *board, const json_t *line, pq_error *err);
pq_status pq_tensorboard_sync(pq_tensorboard *board, pq_error *err);
pq_status pq_tensorboard_close(pq_tensorboard *board, pq_error *err); /* NULL is fine */

#endif
