/* Where a parameter's values stand in another program's file, and the way from there to fp32 and back. */
#ifndef PQ_FORMATS_ORIGIN_H
#define PQ_FORMATS_ORIGIN_H

#include "base/file.h"
#include "formats/foreign.h"
#include "formats/safetensors.h"

/* Values of one parameter, row-major, in a mapped file. */
typedef struct pq_origin {
    const char *file, *name; /* for errors */
    const void *data;        /* need not be aligned */
    const char *dtype;       /* F32, F16 or BF16 */
    bool transposed;         /* [columns][rows] instead of our [rows][columns] */
} pq_origin;

/* A tensor of a foreign file, by the name that gpt2_params.def gives it. */
typedef struct pq_named {
    const char *name; /* prefixes left out; leads into tensor->name */
    const char *file;
    const pq_safetensor *tensor;
} pq_named;

/* All tensors of one or several safetensors files. */
typedef struct pq_tensors {
    struct pq_tensors_file {
        char *path;
        pq_file_view view;
        pq_safetensors parsed;
    } * files; /* [file_count] */
    size_t file_count;
    pq_named *list; /* [count], sorted by name */
    size_t count;
} pq_tensors;

/* Map and parse `paths`, and collect their tensors without the prefixes "_orig_mod." and "transformer.". Mask
 * buffers (h.N.attn.bias, h.N.attn.masked_bias) are left out. A name that comes twice is an error. */
pq_status pq_tensors_open(const char *const *paths, size_t count, pq_tensors *out, pq_error *err);
void pq_tensors_close(pq_tensors *tensors);
const pq_named *pq_tensors_find(const pq_tensors *tensors, const char *name); /* NULL: absent */

/* The dimension `d` of a tensor of two dimensions; PQ_ERR_FORMAT where there is no such tensor. */
pq_status pq_tensors_dimension(const pq_tensors *tensors, const char *name, size_t d, int64_t *out,
                               pq_error *err);
/* Layers and biases by the names that are there, vocabulary and context by wte and wpe; `what` stands for the
 * files in errors. Leaves heads and gelu_tanh alone. */
pq_status pq_tensors_shape(const pq_tensors *tensors, const char *what, pq_gpt2_shape *shape, pq_error *err);

/* A model of `shape` from exactly these tensors, the head tied. `transposed`: the block matrices are stored
 * [inputs][outputs]. */
pq_status pq_tensors_to_model(const pq_tensors *tensors, const char *what, const pq_gpt2_shape *shape,
                              bool transposed, pq_model **out, pq_error *err);

/* Whether this row of the table is one of the four matrices that Hugging Face stores transposed. */
bool pq_stored_transposed(pq_param_id id);

/* out[param->count] = the values as fp32, in our order; their pages are let go afterwards. PQ_ERR_FORMAT
 * where one is not finite. */
pq_status pq_origin_read(const pq_origin *origin, const pq_param *param, float *out, pq_error *err);
/* The way back: `values` into `out`, in the type and order named; *largest_error is absolute, infinite where
 * a value is beyond the type's range. */
pq_status pq_origin_write(const char *dtype, bool transposed, const pq_param *param, const float *values,
                          void *out, double *largest_error, pq_error *err);

/* For writers. The parameters of `model` with all biases, whether it has them or not; *largest = most values
 * that one of them has. */
pq_status pq_origin_with_biases(const pq_model *model, pq_params *out, size_t *largest, pq_error *err);
/* The values that count of parameter `param` of those: the model's own memory, or scratch[param->count]. */
const float *pq_origin_values(const pq_model *model, const pq_param *param, float *scratch);
/* Put a parameter's largest error into the summary. PQ_ERR_USAGE where it is infinite, and where there is one
 * without `lossy`. */
pq_status pq_export_note_error(pq_export_summary *summary, const char *name, const char *dtype, double error,
                               bool lossy, pq_error *err);

/* The index of the first value that is not finite, or count. */
size_t pq_first_bad(const float *values, size_t count);

/* config.json, and the tensors of a Hugging Face folder, with names and head unchecked. */
pq_status pq_hf_open(const char *folder, pq_gpt2_shape *shape, pq_tensors *tensors, pq_error *err);

/* The key of __metadata__ under which an exported folder carries the JSON text of a tokenizer that
 * other programs do not have. */
#define PQ_HF_TOKENIZER "potqat_tokenizer"

/* The readers behind pq_foreign_read; bare: without the tokenizer. */
pq_status pq_hf_read(const char *folder, bool bare, pq_model **out, pq_error *err);
pq_status pq_llmc_read(const char *path, pq_model **out, pq_error *err);

#endif
