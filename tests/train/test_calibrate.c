/* Quantization by what layers read: the order of the matrices, the inputs, what stays and what is refused. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "base/threads.h"
#include "kernels/gemm.h"
#include "tests/harness/suite.h"
#include "train/evaluate.h"
#include "train/ptq/calibrate.h"
#include "train/ptq/gptq.h"
#include "train/ptq/ptq.h"

static pq_dataset *dataset;

static pq_config *read_config(const char *method, const char *more) {
    pq_config *config = NULL;
    pq_error err = {0};
    char yaml[400];
    snprintf(
        yaml, sizeof yaml,
        "quant: {quantizer: pot, levels: 7%s}\nptq: {method: %s, calib_sequences: 150, calib_context: 16}",
        more, method);
    ck_assert_msg(pq_config_from_text(yaml, strlen(yaml), "test", NULL, 0, &config, &err) == PQ_OK, "%s",
                  err.message);
    return config;
}

/* Large weights, so that each matrix matters. */
static pq_model *make_model(void) {
    const pq_gpt2_shape shape = {.layers = 2,
                                 .heads = 2,
                                 .width = 32,
                                 .context = 16,
                                 .vocab = (int64_t)pq_tokenizer_vocab(pq_dataset_tokenizer(dataset)),
                                 .bias = true};
    pq_model *model;
    ck_assert_int_eq(pq_model_create(&shape, &model, NULL), PQ_OK);
    pq_gpt2_initialise(model, 5);
    for (size_t i = 0; i < model->params.count; i++) {
        const pq_param *p = &model->params.list[i];
        for (size_t k = 0; k < p->count; k++) {
            double pair[2];
            pq_random_normal2(9, PQ_STREAM_INIT, i, k, pair);
            model->weights[p->offset + k] += (float)(0.2 * pair[0]);
        }
    }
    return model;
}

static pq_model *quantized(const char *method, const char *more) {
    pq_config *config = read_config(method, more);
    pq_model *model = make_model();
    pq_error err = {0};
    ck_assert_msg(pq_ptq_run(config, dataset, model, &err) == PQ_OK, "%s", err.message);
    pq_config_destroy(config);
    return model;
}

static size_t find(const pq_model *model, const char *name) {
    return (size_t)(pq_params_find(&model->params, name) - model->params.list);
}

static const pq_calibration_options windows = {.sequences = 150, .context = 16, .seed = 1337};

/* The parts one after the other are the model: the same inputs of the head as in the whole graph, for windows
 * that do not fill the last batch. */
START_TEST(parts) {
    pq_model *model = make_model();
    pq_calibration c;
    size_t n = 32, tokens = 150 * 16;
    float *H = calloc(n * n, sizeof *H), *losses = calloc(tokens, sizeof *losses);
    int32_t *targets = calloc(tokens, sizeof *targets);
    pq_graph *graph;
    pq_plan_size plan;
    ck_assert_int_eq(pq_calibration_init(model, dataset, &windows, &c, NULL), PQ_OK);
    ck_assert_uint_gt(c.padded, c.tokens);
    ck_assert_int_eq(pq_calibration_advance(&c, -1, PQ_PART_EMBEDDING, NULL), PQ_OK);
    for (int layer = 0; layer < 2; layer++) {
        ck_assert_int_eq(pq_calibration_advance(&c, layer, PQ_PART_ATTENTION, NULL), PQ_OK);
        ck_assert_int_eq(pq_calibration_advance(&c, layer, PQ_PART_MLP, NULL), PQ_OK);
    }
    ck_assert_int_eq(pq_calibration_hessian(&c, -1, PQ_PART_HEAD_INPUT, n, H, NULL), PQ_OK);

    ck_assert_int_eq(pq_gpt2_graph(model, PQ_F32, 150, 16, 0, &graph, NULL), PQ_OK);
    ck_assert_int_eq(pq_graph_plan(graph, false, false, &plan, NULL), PQ_OK);
    void *activations = calloc(1, plan.activations), *scratch = calloc(1, plan.scratch);
    pq_graph_place(graph, activations, scratch);
    pq_graph_bind(graph, model->weights, model->weights, NULL);
    const pq_batch batch = {.tokens = c.text, .targets = targets, .losses = losses};
    pq_graph_forward(graph, &batch);
    const float *x = pq_graph_tensor(graph, graph->nodes[graph->node_count - 1].inputs[0])->value;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j <= i; j++) {
            double sum = 0, size = 0;
            for (size_t t = 0; t < tokens; t++) {
                sum += (double)x[t * n + i] * (double)x[t * n + j];
                size += fabs((double)x[t * n + i] * (double)x[t * n + j]);
            }
            ck_assert_double_le(fabs(sum - (double)H[i * n + j]), 1e-5 * size);
        }
    pq_graph_destroy(graph);
    pq_calibration_deinit(&c);
    free(H), free(losses), free(targets), free(activations), free(scratch);
    pq_model_destroy(model);
}
END_TEST

/* Each window is of the train split, none twice. */
START_TEST(text) {
    pq_model *model = make_model();
    pq_calibration c;
    size_t n = pq_dataset_tokens(dataset, PQ_TRAIN);
    uint16_t *train = calloc(n, sizeof *train);
    bool *seen = calloc(n, sizeof *seen);
    pq_dataset_read(dataset, PQ_TRAIN, 0, n, train);
    ck_assert_int_eq(pq_calibration_init(model, dataset, &windows, &c, NULL), PQ_OK);
    for (size_t w = 0; w < 150; w++) {
        size_t at = 0;
        while (at < n && (seen[at] || memcmp(train + at, c.text + w * 16, 16 * sizeof *train) != 0)) at += 16;
        ck_assert_msg(at < n, "window %zu is not of the text, or there twice", w);
        seen[at] = true;
    }
    pq_calibration_deinit(&c);
    free(train), free(seen);
    pq_model_destroy(model);
}
END_TEST

/* Quantize one matrix on its own, from a calibration whose weights are given, and compare with what
 * pq_ptq_run made of it. */
static void check_matrix(const pq_model *found, const pq_model *fp32, const float *weights, const char *name,
                         int layer, pq_gpt2_part part, double damping) {
    size_t index = find(found, name);
    const pq_param *p = &found->params.list[index];
    const pq_param_quant *q = &found->quant[index];
    size_t n = p->columns;
    pq_calibration c;
    const pq_scale_grid grid = PQ_GRID_BF16;
    float *H = calloc(n * n, sizeof *H), *w = calloc(p->count, sizeof *w),
          *diagonal = calloc(n, sizeof *diagonal), *scales = calloc(q->scale_count, sizeof *scales);
    ck_assert_int_eq(pq_calibration_init(fp32, dataset, &windows, &c, NULL), PQ_OK);
    memcpy(c.weights, weights, found->params.elements * sizeof *weights);
    ck_assert_int_eq(pq_calibration_advance(&c, -1, PQ_PART_EMBEDDING, NULL), PQ_OK);
    for (int i = 0; i < (layer < 0 ? 2 : layer + 1); i++) {
        if (i == layer && part <= PQ_PART_ATTENTION) break;
        ck_assert_int_eq(pq_calibration_advance(&c, i, PQ_PART_ATTENTION, NULL), PQ_OK);
        if (i != layer) ck_assert_int_eq(pq_calibration_advance(&c, i, PQ_PART_MLP, NULL), PQ_OK);
    }
    ck_assert_int_eq(pq_calibration_hessian(&c, layer, part, n, H, NULL), PQ_OK);
    pq_gptq_damp(n, damping, H);
    for (size_t i = 0; i < n; i++) diagonal[i] = H[i * n + i];
    memcpy(w, fp32->weights + p->offset, p->count * sizeof *w);
    const pq_scale_options options = {.method = PQ_SCALE_MSE, .importance = diagonal};
    ck_assert_int_eq(pq_matrix_fit(&q->codebook, &options, w, p->rows, n, q->group, scales, NULL), PQ_OK);
    const pq_gptq_problem problem = {&q->codebook, p->rows, n, q->group, H};
    ck_assert_int_eq(pq_gptq_refined(&problem, &grid, scales, w, NULL), PQ_OK);
    ck_assert_msg(memcmp(w, found->weights + p->offset, p->count * sizeof *w) == 0, "%s", name);
    ck_assert_mem_eq(scales, q->scales, q->scale_count * sizeof *scales);
    pq_calibration_deinit(&c);
    free(H), free(w), free(diagonal), free(scales);
}

/* The tables from the fp32 model; then each matrix from what all before it, quantized, give. */
START_TEST(order) {
    pq_model *fp32 = make_model(), *found = quantized("gptq", "");
    float *hard = calloc(fp32->params.elements, sizeof *hard);
    pq_model_effective_weights(found, hard);
    check_matrix(found, fp32, fp32->weights, "wte.weight", -1, PQ_PART_HEAD_INPUT, 0.3);
    check_matrix(found, fp32, hard, "h.0.attn.c_attn.weight", 0, PQ_PART_C_ATTN_INPUT, 0.01);
    check_matrix(found, fp32, hard, "h.0.attn.c_proj.weight", 0, PQ_PART_ATTN_C_PROJ_INPUT, 0.01);
    check_matrix(found, fp32, hard, "h.1.mlp.c_fc.weight", 1, PQ_PART_C_FC_INPUT, 0.01);
    check_matrix(found, fp32, hard, "h.1.mlp.c_proj.weight", 1, PQ_PART_MLP_C_PROJ_INPUT, 0.01);
    size_t wpe = find(found, "wpe.weight");
    const pq_param *p = &found->params.list[wpe];
    ck_assert_mem_eq(fp32->weights + p->offset, found->weights + p->offset, p->count * sizeof *hard);
    free(hard);
    pq_model_destroy(fp32), pq_model_destroy(found);
}
END_TEST

static double loss(const pq_model *model) {
    const pq_evaluation_options options = {.split = PQ_VAL, .context = 16, .windows = 500};
    pq_evaluation e;
    pq_error err = {0};
    ck_assert_msg(pq_evaluate(model, dataset, &options, &e, &err) == PQ_OK, "%s", err.message);
    double mean = e.loss;
    pq_evaluation_deinit(&e);
    return mean;
}

/* hessian keeps the weights; gptq's model is nearer to the fp32 one; overrides and patterns hold for both. */
START_TEST(methods) {
    pq_model *fp32 = make_model(), *rtn = quantized("rtn", ""), *hessian = quantized("hessian", ""),
             *gptq = quantized("gptq", ""),
             *some = quantized("gptq", ", params: [\"h.*\"], overrides: [{match: \"h.1.*\", levels: 15}]");
    ck_assert_mem_eq(fp32->weights, hessian->weights, fp32->params.elements * sizeof(float));
    size_t c_fc = find(fp32, "h.0.mlp.c_fc.weight");
    ck_assert(memcmp(rtn->quant[c_fc].scales, hessian->quant[c_fc].scales,
                     rtn->quant[c_fc].scale_count * sizeof(float)) != 0);
    double plain = loss(fp32), by_rtn = fabs(loss(rtn) - plain), by_gptq = fabs(loss(gptq) - plain);
    ck_assert_msg(by_gptq < by_rtn, "%g against %g", by_gptq, by_rtn);
    ck_assert(!some->quant[find(fp32, "wte.weight")].quantized);
    ck_assert_int_eq(some->quant[find(fp32, "h.0.mlp.c_fc.weight")].codebook.levels, 7);
    ck_assert_int_eq(some->quant[find(fp32, "h.1.mlp.c_fc.weight")].codebook.levels, 15);
    pq_model_destroy(fp32), pq_model_destroy(rtn), pq_model_destroy(hessian), pq_model_destroy(gptq);
    pq_model_destroy(some);
}
END_TEST

/* A child that is quantized the same way starts at the very same values. */
START_TEST(parents) {
    pq_config *config = read_config("gptq", "");
    pq_model *parent = quantized("gptq", ""), *child = make_model();
    size_t n = parent->params.elements;
    float *a = calloc(n, sizeof *a), *b = calloc(n, sizeof *b);
    memcpy(child->weights, parent->weights, n * sizeof *a);
    ck_assert_int_eq(pq_ptq_rtn(config, parent, child, NULL), PQ_OK);
    pq_model_effective_weights(parent, a), pq_model_effective_weights(child, b);
    ck_assert_mem_eq(a, b, n * sizeof *a);
    free(a), free(b);
    pq_model_destroy(parent), pq_model_destroy(child);
    pq_config_destroy(config);
}
END_TEST

START_TEST(threads) {
    pq_threads_set(1);
    pq_model *one = quantized("gptq", "");
    for (int count = 2; count <= 3; count++) {
        pq_threads_set(count);
        pq_model *more = quantized("gptq", "");
        ck_assert_mem_eq(one->weights, more->weights, one->params.elements * sizeof(float));
        for (size_t i = 0; i < one->params.count; i++)
            if (one->quant[i].quantized)
                ck_assert_mem_eq(one->quant[i].scales, more->quant[i].scales,
                                 one->quant[i].scale_count * sizeof(float));
        pq_model_destroy(more);
    }
    pq_threads_set(0);
    pq_model_destroy(one);
}
END_TEST

START_TEST(refusals) {
    pq_config *config = read_config("gptq", "");
    pq_model *model = make_model();
    pq_error err;
    config->ptq.calib_context = 17;
    ck_assert_int_eq(pq_ptq_run(config, dataset, model, &err), PQ_ERR_USAGE);
    ck_assert_ptr_nonnull(
        strstr(err.message, "ptq.calib_context: 17 tokens are more than the model's context of 16"));
    config->ptq.calib_context = 16;
    config->ptq.calib_sequences = 1000000;
    ck_assert_int_eq(pq_ptq_run(config, dataset, model, &err), PQ_ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "ptq.calib_sequences: "));
    config->ptq.calib_sequences = (int64_t)((pq_dataset_tokens(dataset, PQ_TRAIN) - 1) / 16);
    ck_assert_int_eq(pq_ptq_check(config, dataset, model, &err), PQ_OK);
    config->ptq.calib_sequences = 10;
    const pq_param *p = pq_params_find(&model->params, "h.1.ln_2.weight");
    model->weights[p->offset] = NAN;
    ck_assert_int_eq(pq_ptq_run(config, dataset, model, &err), PQ_ERR_USAGE);
    pq_model_destroy(model);
    pq_config_destroy(config);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("calibrate");
    TCase *all = tcase_create("calibrate");
    const pq_data_options data = {.path = "builtin", .tokenizer = "char", .split = {0.8, 0.1, 0.1}};
    if (pq_dataset_open(&data, &dataset, NULL) != PQ_OK) return 1;
    pq_gemm_threads_take();
    tcase_add_test(all, parts);
    tcase_add_test(all, text);
    tcase_add_test(all, order);
    tcase_add_test(all, methods);
    tcase_add_test(all, parents);
    tcase_add_test(all, threads);
    tcase_add_test(all, refusals);
    suite_add_tcase(suite, all);
    int failed = run_suite(suite);
    pq_dataset_close(dataset);
    return failed;
}
