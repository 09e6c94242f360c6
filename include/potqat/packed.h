/* Packed power-of-two models on disk. */
#ifndef POTQAT_PACKED_H
#define POTQAT_PACKED_H

#include <potqat/model.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A packed model, read-only; any number of threads and engines may share one. */
typedef struct pq_packed pq_packed;

/** Map a packed model. Everything is checked first: header, offsets, shapes, codebooks, codes, scales. */
PQ_API pq_status pq_packed_open(const char *path, pq_packed **out, pq_error *err);
PQ_API void pq_packed_close(pq_packed *packed);
PQ_API pq_gpt2_shape pq_packed_shape(const pq_packed *packed);
/** Bytes of all tensors, scales included. */
PQ_API size_t pq_packed_weight_bytes(const pq_packed *packed);
/** The tokenizer's JSON text (see tokenizer.h), borrowed; NULL when the file carries none. */
PQ_API const char *pq_packed_tokenizer(const pq_packed *packed);

#ifdef __cplusplus
}
#endif
#endif
