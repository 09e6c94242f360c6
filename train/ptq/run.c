/* Owns the order in which a model's matrices are quantized after training, and from which inputs. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "kernels/gemm.h"
#include "train/ptq/calibrate.h"
#include "train/ptq/gptq.h"
#include "train/ptq/ptq.h"

/* Of the mean of H's diagonal. GPTQ's own for what only reads; wte is a table as well, and the more is added
 * the more its rows are kept as they are. One number serves all tokens, since both a token's logits and its
 * embedding count the more the more often it occurs. Measured on the character model, see docs/quantizers.md.
 */
static const double DAMPING = 0.01, TABLE_DAMPING = 0.3;

typedef struct run {
    pq_scale_options scale;
    bool gptq;
    pq_model *model;
    pq_calibration calibration;
    float *H, *diagonal;
} run;

/* Scales of a marked matrix, and with GPTQ its weights, from r->H (`plain`: without); the calibration goes on
 * with the quantized values. */
static pq_status quantize(run *r, size_t index, bool plain, pq_error *err) {
    const pq_param *p = &r->model->params.list[index];
    pq_param_quant *q = &r->model->quant[index];
    float *w = r->model->weights + p->offset;
    pq_scale_options scale = r->scale;
    if (!plain) scale.importance = r->diagonal;
    PQ_TRY(pq_ptq_fit(&scale, r->model, index, err));
    if (r->gptq && !plain) {
        const pq_gptq_problem problem = {&q->codebook, p->rows, p->columns, q->group, r->H};
        bool fitted = scale.method == PQ_SCALE_MSE || scale.method == PQ_SCALE_LEARNED;
        pq_status status = pq_gptq_refined(&problem, fitted ? &scale.grid : NULL, q->scales, w, err);
        if (status != PQ_OK) return pq_prefix(err, status, "%s", p->name);
    }
    pq_matrix_fake_quantize(&q->codebook, w, p->rows, p->columns, q->group, q->scales,
                            r->calibration.weights + p->offset);
    return PQ_OK;
}

/* A matrix by what it reads, which is what `part` gives. */
static pq_status quantize_by_inputs(run *r, pq_param_id id, int layer, pq_gpt2_part part, double damping,
                                    pq_error *err) {
    const pq_param *p = pq_params_at(&r->model->params, id, layer);
    size_t index = (size_t)(p - r->model->params.list), n = p->columns;
    if (!r->model->quant[index].quantized) return PQ_OK;
    PQ_TRY(pq_calibration_hessian(&r->calibration, layer, part, n, r->H, err));
    pq_gptq_damp(n, damping, r->H);
    for (size_t i = 0; i < n; i++) r->diagonal[i] = r->H[i * n + i];
    return quantize(r, index, false, err);
}

static pq_status quantize_block(run *r, int layer, pq_error *err) {
    pq_calibration *c = &r->calibration;
    PQ_TRY(quantize_by_inputs(r, PQ_PARAM_C_ATTN_WEIGHT, layer, PQ_PART_C_ATTN_INPUT, DAMPING, err));
    PQ_TRY(
        quantize_by_inputs(r, PQ_PARAM_ATTN_C_PROJ_WEIGHT, layer, PQ_PART_ATTN_C_PROJ_INPUT, DAMPING, err));
    PQ_TRY(pq_calibration_advance(c, layer, PQ_PART_ATTENTION, err));
    PQ_TRY(quantize_by_inputs(r, PQ_PARAM_C_FC_WEIGHT, layer, PQ_PART_C_FC_INPUT, DAMPING, err));
    PQ_TRY(quantize_by_inputs(r, PQ_PARAM_MLP_C_PROJ_WEIGHT, layer, PQ_PART_MLP_C_PROJ_INPUT, DAMPING, err));
    return pq_calibration_advance(c, layer, PQ_PART_MLP, err);
}

/* First, so that the blocks are calibrated with the tables that they will read; the head's inputs are
 * therefore those of the fp32 model. */
static pq_status quantize_tables(run *r, pq_error *err) {
    pq_calibration *c = &r->calibration;
    const pq_param *list = r->model->params.list;
    size_t wte = (size_t)(pq_params_at(&r->model->params, PQ_PARAM_WTE, -1) - list),
           wpe = (size_t)(pq_params_at(&r->model->params, PQ_PARAM_WPE, -1) - list);
    if (r->model->quant[wte].quantized) {
        PQ_TRY(pq_calibration_advance(c, -1, PQ_PART_EMBEDDING, err));
        for (int layer = 0; layer < r->model->params.shape.layers; layer++) {
            PQ_TRY(pq_calibration_advance(c, layer, PQ_PART_ATTENTION, err));
            PQ_TRY(pq_calibration_advance(c, layer, PQ_PART_MLP, err));
        }
        PQ_TRY(quantize_by_inputs(r, PQ_PARAM_WTE, -1, PQ_PART_HEAD_INPUT, TABLE_DAMPING, err));
    }
    return r->model->quant[wpe].quantized ? quantize(r, wpe, true, err) : PQ_OK;
}

static pq_status quantize_all(run *r, pq_error *err) {
    int layers = (int)r->model->params.shape.layers;
    PQ_TRY(quantize_tables(r, err));
    PQ_TRY(pq_calibration_advance(&r->calibration, -1, PQ_PART_EMBEDDING, err));
    for (int layer = 0; layer < layers; layer++) {
        PQ_TRY(quantize_block(r, layer, err));
        pq_log(PQ_LOG_INFO, "block %d of %d quantized", layer + 1, layers);
    }
    return PQ_OK;
}

static pq_calibration_options calibration_options(const pq_config *config) {
    return (pq_calibration_options){.sequences = (size_t)config->ptq.calib_sequences,
                                    .context = (size_t)config->ptq.calib_context,
                                    .seed = (uint64_t)config->train.seed};
}

bool pq_ptq_needs_data(const pq_config *config) {
    return strcmp(config->ptq.method, "rtn") != 0;
}

pq_status pq_ptq_check(const pq_config *config, const pq_dataset *dataset, const pq_model *model,
                       pq_error *err) {
    pq_calibration_options options = calibration_options(config);
    return pq_ptq_needs_data(config) ? pq_calibration_check(model, dataset, &options, err) : PQ_OK;
}

pq_status pq_ptq_run(const pq_config *config, const pq_dataset *dataset, pq_model *model, pq_error *err) {
    run r = {.model = model, .gptq = strcmp(config->ptq.method, "gptq") == 0};
    pq_calibration_options options = calibration_options(config);
    size_t n = 4 * (size_t)model->params.shape.width;
    pq_status status;
    if (!pq_ptq_needs_data(config)) return pq_ptq_rtn(config, NULL, model, err);
    PQ_TRY(pq_ptq_check(config, dataset, model, err));
    PQ_TRY(pq_ptq_scale_options(config, &r.scale, err));
    PQ_TRY(pq_ptq_select(config, model, err));
    PQ_TRY(pq_ptq_activations(config, NULL, model, err));
    PQ_TRY(pq_model_check_ranges(model, err));
    pq_gemm_threads host_threads = pq_gemm_threads_take();
    PQ_TRY_TO(status, done, pq_gemm_check(err));
    PQ_TRY_TO(status, done, pq_calloc(n * n, sizeof *r.H, "Hessian", &r.H, err));
    PQ_TRY_TO(status, done, pq_calloc(n, sizeof *r.diagonal, "Hessian", &r.diagonal, err));
    PQ_TRY_TO(status, done, pq_calibration_init(model, dataset, &options, &r.calibration, err));
    status = quantize_all(&r, err);
done:
    pq_gemm_threads_restore(host_threads);
    pq_calibration_deinit(&r.calibration);
    free(r.H);
    free(r.diagonal);
    return status;
}
