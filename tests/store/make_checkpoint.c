/* A program for the tests in Python: make_checkpoint FOLDER writes model.h5 (twice, so that strace sees a
 * file being replaced) and what must be read from it, as plain little-endian floats: weights.f32, m.f32,
 * scales.f32, all parameters in the order of their names. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "potqat/tokenizer.h"
#include "store/checkpoint.h"

static const pq_params *sorted_params;

static int by_name(const void *a, const void *b) {
    return strcmp(sorted_params->list[*(const size_t *)a].name, sorted_params->list[*(const size_t *)b].name);
}

static bool dump(const char *folder, const char *name, const pq_model *model, const float *values) {
    char *path = pq_path_join(folder, name);
    FILE *file = path ? fopen(path, "wb") : NULL;
    const pq_params *params = &model->params;
    size_t *order = calloc(params->count, sizeof *order);
    bool good = file && order;
    for (size_t i = 0; good && i < params->count; i++) order[i] = i;
    sorted_params = params;
    if (good) qsort(order, params->count, sizeof *order, by_name);
    for (size_t i = 0; good && i < params->count; i++) {
        const pq_param *p = &params->list[order[i]];
        const pq_param_quant *q = &model->quant[order[i]];
        if (values)
            good = fwrite(values + p->offset, 4, p->count, file) == p->count;
        else if (q->quantized)
            good = fwrite(q->scales, 4, q->scale_count, file) == q->scale_count;
    }
    if (file && fclose(file) != 0) good = false;
    free(order);
    free(path);
    return good;
}

int main(int argc, char **argv) {
    const pq_gpt2_shape shape = {
        .layers = 2, .heads = 2, .width = 64, .context = 8, .vocab = 11, .bias = true};
    pq_error err = {0};
    pq_model *model;
    pq_codebook codebook;
    pq_training_state state = {0};
    pq_tokenizer *tokenizer = NULL;
    if (argc != 2 || pq_model_create(&shape, &model, &err) != PQ_OK) return 1;
    const size_t elements = model->params.elements;
    if (pq_calloc(elements, sizeof(float), "m", &state.m, &err) != PQ_OK ||
        pq_calloc(elements, sizeof(float), "v", &state.v, &err) != PQ_OK ||
        pq_copy_text("{\"step\": 7}", &state.state, &err) != PQ_OK ||
        pq_copy_text("train:\n  seed: 1337\n", &model->config, &err) != PQ_OK ||
        pq_tokenizer_create("char", "hello world\n.?", 14, &tokenizer, &err) != PQ_OK ||
        !(model->tokenizer = pq_tokenizer_to_json(tokenizer)) ||
        pq_codebook_init(&codebook, "pot", 15, NULL, PQ_ROUND_NEAREST, &err) != PQ_OK)
        return 1;
    for (size_t i = 0; i < model->params.count; i++) {
        const pq_param *p = &model->params.list[i];
        for (size_t k = 0; k < p->count; k++) {
            model->weights[p->offset + k] = (float)(k * 7919 % 1009) / 1009.0f - 0.5f;
            state.m[p->offset + k] = (float)(k % 13) * 1e-9f;
            state.v[p->offset + k] = (float)(i + k);
        }
        if (!p->quantizable || p->id == PQ_PARAM_WPE) continue;
        if (pq_model_quantize_param(model, i, &codebook, i % 2 ? "row" : "group32", &err) != PQ_OK) return 1;
        for (size_t k = 0; k < model->quant[i].scale_count; k++)
            model->quant[i].scales[k] = 1.0f / (float)(8 + i + k);
    }
    static float running[] = {0.5f, -2, 3};
    static unsigned char fixed[] = {0, 255, 7};
    pq_state_array arrays[] = {
        {.name = "x.running", .type = PQ_ARRAY_F32, .count = 3, .data = running, .borrowed = true},
        {.name = "x.fixed", .type = PQ_ARRAY_U8, .count = 3, .data = fixed, .borrowed = true}};
    if (pq_calloc(2, sizeof *arrays, "arrays", &state.arrays, &err) != PQ_OK) return 1;
    memcpy(state.arrays, arrays, sizeof arrays);
    state.array_count = 2;
    model->iter = 1500;
    model->val_loss = 1.25;
    char *path = pq_path_join(argv[1], "model.h5");
    bool good = path && pq_checkpoint_write(path, false, model, &state, &err) == PQ_OK &&
                pq_checkpoint_write(path, true, model, &state, &err) == PQ_OK &&
                dump(argv[1], "weights.f32", model, model->weights) &&
                dump(argv[1], "m.f32", model, state.m) && dump(argv[1], "scales.f32", model, NULL);
    if (!good) fprintf(stderr, "%s\n", err.message);
    free(path);
    pq_tokenizer_destroy(tokenizer);
    pq_training_state_deinit(&state);
    pq_model_destroy(model);
    return good ? 0 : 1;
}
