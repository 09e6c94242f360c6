/* What the config's section quant does to a model: which matrices are quantized, how, and with which scales.
 * Training starts from it; alone it is post-training quantization by rounding to the nearest level (PTQ,
 * rtn). */
#ifndef PQ_TRAIN_PTQ_H
#define PQ_TRAIN_PTQ_H

#include "config/config.h"
#include "data/dataset.h"
#include "model/model.h"

/* quant.scale, quant.scale_grid and quant.scale_eps. */
pq_status pq_ptq_scale_options(const pq_config *config, pq_scale_options *out, pq_error *err);

/* Mark every matrix that matches quant.params as quantized, with its codebook and scales of 0; all others
 * become fp32, and with quantizer none those are all. PQ_ERR_USAGE where nothing matches, or a codebook or a
 * group cannot be. */
pq_status pq_ptq_select(const pq_config *config, pq_model *model, pq_error *err);
/* Mark matrix `index` alone, with `levels` in the place of quant.levels. */
pq_status pq_ptq_mark(const pq_config *config, int64_t levels, pq_model *model, size_t index, pq_error *err);
/* Have the model quantize activations as quant.activations says. Ranges stay where it, or else `parent`
 * (NULL: none; same layers), has some of that kind. */
pq_status pq_ptq_activations(const pq_config *config, const pq_model *parent, pq_model *model, pq_error *err);
/* Fit the scales of matrix `index`, which is marked, to its weights. */
pq_status pq_ptq_fit(const pq_scale_options *scale, pq_model *model, size_t index, pq_error *err);

/* Quantize every matrix that matches quant.params: its scales are fitted to its weights, or kept from
 * `parent` (NULL: none; same shape) where that has it quantized the same way. All others become fp32; with
 * quantizer none those are all. Then pq_ptq_activations. Latent weights stay as they are. PQ_ERR_USAGE where
 * nothing matches, a codebook or a group cannot be, or weights are not finite. */
pq_status pq_ptq_rtn(const pq_config *config, const pq_model *parent, pq_model *model, pq_error *err);

/* Quantize `model` as ptq.method says. rtn: pq_ptq_rtn without a parent. hessian and gptq run text of the
 * train split of `dataset` (not read by rtn; may be NULL then) through the model. First the tables: wte by
 * what the head reads of the fp32 model, wpe by its weights alone; then the blocks in order, and in a block
 * c_attn, attn.c_proj, mlp.c_fc, mlp.c_proj, each by what it reads with everything before it quantized
 * already. hessian fits scales with an importance for each column (mse), gptq also changes the latent
 * weights, so that they round to its values. */
bool pq_ptq_needs_data(const pq_config *config);
/* What pq_ptq_run would refuse of the calibration text. */
pq_status pq_ptq_check(const pq_config *config, const pq_dataset *dataset, const pq_model *model,
                       pq_error *err);
pq_status pq_ptq_run(const pq_config *config, const pq_dataset *dataset, pq_model *model, pq_error *err);

/* How far the hard weights of one matrix are from the latent ones. */
typedef struct pq_matrix_error {
    double signal, noise; /* sums of squares: latent weights, differences */
    size_t zeros;         /* hard weights that are 0 */
} pq_matrix_error;

/* hard[count] as pq_model_effective gives it. */
pq_matrix_error pq_ptq_measure(const pq_model *model, size_t index, const float *hard);

#endif
