/* Quantizers: what the levels are, and weights mapped onto them. docs/quantizers.md has the formulas. */
#ifndef POTQAT_QUANTIZER_H
#define POTQAT_QUANTIZER_H

#include <stddef.h>
#include <stdint.h>

#include <potqat/status.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A quantizer with its parameters resolved; immutable, so any number of threads may use one. */
typedef struct pq_codebook pq_codebook;

/** Make a codebook. `quantizer`: pot, pot-zero-free, uniform, pot-released, apot. `levels` counts the values;
 * `range` = {least, largest} in units of the scale replaces it (NULL: not). `rounding`: nearest or log.
 * PQ_ERR_USAGE says what the quantizer allows. */
PQ_API pq_status pq_codebook_create(const char *quantizer, int64_t levels, const double *range,
                                    const char *rounding, pq_codebook **out, pq_error *err);
PQ_API void pq_codebook_destroy(pq_codebook *codebook);

/** Bits that hold a code. */
PQ_API int pq_codebook_bits(const pq_codebook *codebook);
/** The value of a code in units of the scale; NaN where the code is not one of the codebook's. */
PQ_API float pq_codebook_value(const pq_codebook *codebook, uint8_t code);
/** Fit one scale to n weights, by method (absmax, mse, ema-absmax, learned: as their first fit) on a grid of
 * floats (bf16, fp32, pot); `least` > 0 bounds it from below, 0: the quantizer's own bound. PQ_ERR_USAGE
 * where a weight is not finite. */
PQ_API pq_status pq_codebook_fit(const pq_codebook *codebook, const char *method, const char *grid,
                                 float least, const float *weights, size_t n, float *scale, pq_error *err);

/** n weights that share one scale: to codes, back to values, and both at once (the same bits). */
PQ_API void pq_encode(const pq_codebook *codebook, const float *w, float scale, uint8_t *codes, size_t n);
PQ_API void pq_decode(const pq_codebook *codebook, const uint8_t *codes, float scale, float *out, size_t n);
PQ_API void pq_fake_quantize(const pq_codebook *codebook, const float *w, float scale, float *out, size_t n);

#ifdef __cplusplus
}
#endif
#endif
