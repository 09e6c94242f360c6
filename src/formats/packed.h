/* The packed model: a safetensors file (codes U8 in the kernels' order, scales BF16 or F32, the rest F32;
 * shape, codebooks, tokenizer and config in __metadata__), memory-mapped and used in place. docs/formats.md
 * is its specification. */
#ifndef PQ_FORMATS_PACKED_H
#define PQ_FORMATS_PACKED_H

#include <potqat/packed.h>

#include "model/model.h"

/* One parameter of a packed model: dense fp32, or packed codes with scales. Pointers lead into the map. */
typedef struct pq_packed_tensor {
    const pq_param *param;
    const float *dense;          /* [count]; NULL when quantized */
    const uint8_t *codes;        /* [rows][pq_packed_row_bytes(bits, columns)] */
    const uint16_t *scales_bf16; /* one of the two; [scale_count] */
    const float *scales_fp32;
    size_t group, scale_count;
    const pq_codebook *codebook; /* quantizer, bits, value[code] in units of s */
} pq_packed_tensor;

struct pq_packed {
    pq_params params;
    pq_packed_tensor *tensors;  /* [params.count] */
    char *tokenizer, *config;   /* JSON and YAML text, or NULL */
    size_t weight_bytes;        /* of all tensors */
    pq_activations activations; /* of quantized matrices: none, or PQ_ACTIVATIONS_TOKEN */
    int64_t iter;
    double val_loss; /* the trainer's, NaN = unknown */
    pq_codebook *codebooks;
    void *storage; /* the map or the heap block behind it all */
};

static inline float pq_packed_scale(const pq_packed_tensor *tensor, size_t i) {
    union {
        uint32_t bits;
        float value;
    } u;
    if (tensor->scales_fp32) return tensor->scales_fp32[i];
    u.bits = (uint32_t)tensor->scales_bf16[i] << 16;
    return u.value;
}

/* Encode and pack `model` into a file, reopen it and compare every weight bit for bit before it gets its
 * name. PQ_ERR_USAGE for a model with fixed ranges of activations, which no engine runs yet. */
pq_status pq_packed_write(const char *path, bool overwrite, const pq_model *model, pq_error *err);
/* The same bytes in memory, opened: how a checkpoint reaches the engine, where fixed ranges are left out. */
pq_status pq_packed_from_model(const pq_model *model, pq_packed **out, pq_error *err);
/* The other way: a model whose weights are the decoded values (latent = hard) and whose quantizers and scales
 * are kept, so that it evaluates and exports the same. */
pq_status pq_packed_to_model(const pq_packed *packed, pq_model **out, pq_error *err);
/* Rows [first, first + count) of a matrix as fp32 into out[count][columns]. */
void pq_packed_decode_rows(const pq_packed_tensor *tensor, size_t first, size_t count, float *out);

#endif
