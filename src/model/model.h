/* One GPT-2 model in memory, without any graph: the parameter table laid out for a shape, the fp32 (latent)
 * weights, each matrix's quantizer and scales, the tokenizer and config texts. Checkpoints, exports,
 * evaluation, quantization and training all pass this one object. */
#ifndef PQ_MODEL_MODEL_H
#define PQ_MODEL_MODEL_H

#include <potqat/model.h>

#include "quant/quantizer.h"

/* Rows of gpt2_params.def. */
typedef enum pq_param_id {
#define PQ_PARAM(id, name, rows, columns, initial, kind) PQ_PARAM_##id,
#include "model/gpt2_params.def"
#undef PQ_PARAM
    PQ_PARAM_IDS
} pq_param_id;

/* One parameter tensor of a model of a given shape. */
typedef struct pq_param {
    char name[64];
    pq_param_id id;
    int layer;            /* -1 outside the blocks */
    size_t rows, columns; /* a vector has rows = 0 */
    size_t count;         /* elements */
    size_t offset;        /* in elements, into a flat buffer; a multiple of 16 (64 bytes) */
    bool decay, quantizable;
    float initial_std; /* of a normal distribution; 0: the constant initial_value */
    float initial_value;
} pq_param;

/* All parameters of a shape, in the table's order, layer by layer. */
typedef struct pq_params {
    pq_gpt2_shape shape;
    pq_param *list;
    size_t count;    /* tensors */
    size_t elements; /* length of the flat buffer, padding (always zero) included */
    size_t weights;  /* elements without padding: "parameters" as people count them */
} pq_params;

/* Refuses shapes that cannot be (zero, width not divisible by heads, sizes that overflow). */
pq_status pq_params_init(const pq_gpt2_shape *shape, pq_params *out, pq_error *err);
void pq_params_deinit(pq_params *params);
const pq_param *pq_params_find(const pq_params *params, const char *name); /* NULL: no such name */
const pq_param *pq_params_at(const pq_params *params, pq_param_id id,
                             int layer); /* NULL: absent (no biases) */

/* How one matrix is quantized. quantized = false: kept in fp32, the rest unused. */
typedef struct pq_param_quant {
    bool quantized;
    pq_codebook codebook;
    size_t group;  /* weights that share a scale: columns (row), 32/64/128, some rows, or the whole matrix's
                      count (tensor) */
    float *scales; /* [count / group] rounded up row by row: see pq_scale_count; owned by the model */
    size_t scale_count;
} pq_param_quant;

/* How the input of a matrix product is quantized where its matrix is: not at all; each token on a grid of its
 * own (kernels.def, int8_rows); on one fixed grid from the range that training has seen. */
typedef enum pq_activations {
    PQ_ACTIVATIONS_NONE,
    PQ_ACTIVATIONS_TOKEN,
    PQ_ACTIVATIONS_AFFINE
} pq_activations;
const char *pq_activations_name(pq_activations kind); /* none, int8-token, int8-affine */
bool pq_activations_parse(const char *name, pq_activations *out);

struct pq_model {
    pq_params params;
    float *weights;        /* [params.elements] latent fp32 weights */
    pq_param_quant *quant; /* [params.count] */
    pq_activations activations;
    float (*ranges)[2]; /* [pq_model_sites] least and largest input, FLT_MAX and -FLT_MAX where none was seen;
                           NULL but for PQ_ACTIVATIONS_AFFINE */
    char *tokenizer;    /* tokenizer as JSON text (data/tokenizer.h); may be NULL */
    char *config;       /* resolved config as YAML text, without its run section; may be NULL */
    int64_t iter;       /* optimizer updates behind these weights */
    double val_loss;    /* nats a token at that point; NaN = never evaluated */
};

/* A model of zeros: params laid out, nothing quantized. */
pq_status pq_model_create(const pq_gpt2_shape *shape, pq_model **out, pq_error *err);

/* Mark parameter `index` as quantized: sizes the scales (zeros) for `granularity` ("row", "tensor",
 * "group32", "group64", "group128", or "rowsN": N rows share one). Refuses a group that does not divide a row
 * and rows that do not divide the matrix. */
pq_status pq_model_quantize_param(pq_model *model, size_t index, const pq_codebook *codebook,
                                  const char *granularity, pq_error *err);

/* The inputs of matrix products, block by block: c_attn, attn.c_proj, mlp.c_fc, mlp.c_proj; last the head. */
size_t pq_model_sites(const pq_model *model);
/* The matrix that reads site `site`. */
const pq_param *pq_model_site_param(const pq_model *model, size_t site);
/* Have activations quantized; ranges start as unseen. */
pq_status pq_model_quantize_activations(pq_model *model, pq_activations kind, pq_error *err);
/* Two numbers in order, not infinitely far apart, or FLT_MAX and -FLT_MAX. */
bool pq_range_valid(float low, float high);
/* The range of one site, as observed, or FLT_MAX and -FLT_MAX for none. PQ_ERR_USAGE where it is no range. */
pq_status pq_model_set_range(pq_model *model, size_t site, float low, float high, pq_error *err);
/* PQ_ERR_USAGE where the input of a quantized matrix has no range yet, and needs one. */
pq_status pq_model_check_ranges(const pq_model *model, pq_error *err);

/* The granularity that gives groups of `group` weights. */
void pq_granularity_name(const pq_param *param, size_t group, char *name, size_t bytes);

/* out[params.elements] = the weights that count: hard-quantized with the stored scales where quantized, the
 * fp32 weights elsewhere. out may not alias model->weights. Runs on pq_parallel_for. */
void pq_model_effective_weights(const pq_model *model, float *out);
/* The same of parameter `index` alone; out[count]. */
void pq_model_effective(const pq_model *model, size_t index, float *out);

/* A deep copy, texts included. */
pq_status pq_model_copy(const pq_model *model, pq_model **out, pq_error *err);
/* Weights, codebooks, scales and ranges of `from`, which is quantized with the same groups as `to`. */
void pq_model_copy_values(const pq_model *from, pq_model *to);

/* Are all scales exact in bf16? Then they are stored in two bytes each, else in four. */
bool pq_scales_fit_bf16(const pq_param_quant *quant);

/* Bytes of one parameter, and of all, as stored: packed codes and scales where quantized, 4 bytes a weight
 * elsewhere. */
size_t pq_model_param_bytes(const pq_model *model, size_t index);
size_t pq_model_weight_bytes(const pq_model *model);

#endif
