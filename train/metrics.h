/* metrics.jsonl (what is reproducible to the byte) and timing.jsonl (what is not): writing, continuing after
 * a stop, reading back. */
#ifndef PQ_TRAIN_METRICS_H
#define PQ_TRAIN_METRICS_H

#include <jansson.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef struct pq_metrics pq_metrics;

/* A number, or null where JSON has none for it (NaN, infinite). */
static inline json_t *pq_json_real(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

/* Open DIR/metrics.jsonl and DIR/timing.jsonl for appending. With resume_iter >= 0 lines that stand behind
 * that iteration, and a torn last line, are first cut off (atomically: rewritten beside and renamed), so that
 * a resumed run writes the same bytes as an undisturbed one; -1 starts new files. */
pq_status pq_metrics_open(const char *dir, int64_t resume_iter, pq_metrics **out, pq_error *err);
/* From now on write every line of metrics.jsonl to DIR's TensorBoard file too; the lines that stand already
 * come first. */
pq_status pq_metrics_add_tensorboard(pq_metrics *metrics, const char *dir, pq_error *err);
/* Append one object as one line (keys in the order given, reals with 9 significant digits); takes the
 * reference. Every line holds "iter". */
pq_status pq_metrics_write(pq_metrics *metrics, json_t *object, pq_error *err);
pq_status pq_metrics_write_timing(pq_metrics *metrics, json_t *object, pq_error *err);
/* Flush to the kernel and the disk (before a checkpoint is published). */
pq_status pq_metrics_sync(pq_metrics *metrics, pq_error *err);
pq_status pq_metrics_close(pq_metrics *metrics, pq_error *err);

/* All lines of a .jsonl file as a JSON array; a torn last line is left out, any other bad line is an error
 * that names it. */
pq_status pq_metrics_read(const char *path, json_t **array, pq_error *err);

/* The lines themselves:
 * metrics  {"iter":0,"split":"val","protocol":"all-tokens","context":64,"loss":..,"loss_se":..,"tokens":..}
 *          {"iter":10,"split":"train","loss":..,"tokens":..,"lr":..,"grad_norm":..}   (mean since the last
 * line; with a teacher "kl":.. follows "loss", the divergence from it, in nats)
 *          {"iter":10,"matrix":"h.0.attn.c_attn.weight","sqnr_db":..,"zeros":..,"histogram":[..],
 *           "changed":..,"flipped_back":..,"sign_flips":..,"scale_drift":..,"grad_norm":..}   (log.matrices,
 * after each val line; see below)
 *          {"iter":10,"event":"skipped","reason":"..."}
 * timing   {"iter":10,"tokens_per_s":..,"elapsed_s":..}
 *
 * A matrix's line speaks of the model that is evaluated in sqnr_db (signal to quantization noise), zeros
 * (share of weights at the level 0) and histogram (share of weights at each level, the most negative level
 * first; empty levels are there). The rest is counted over the steps since the last such line, a step being
 * from one iteration's weights to the next one's, of the hard levels of the weights in training, whatever a
 * blend or chance makes of them: changed (share of the weights whose level is another than in the step
 * before, mean over the steps), flipped_back (the same of those that changed to the level that they had
 * before their previous change), sign_flips (of those that changed between a positive and a negative level),
 * scale_drift (mean over the scales of |now - then| / then, then at the last line), grad_norm (of the last
 * iteration's gradient of the latent weights, before clipping). The last update stands behind a line, but its
 * step is counted in the next: the weights that it gives are seen only when an iteration begins. Where a
 * codebook is replaced (qat.progressive) that step is none, and scales drift from there on. null: nothing to
 * count yet. */

#endif
