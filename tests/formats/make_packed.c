/* Writes packed models and, for readers in other languages to compare with, the weights that count.
 * usage: make_packed DIR: N.safetensors, and N.f32 (all parameters one after the other) with their names in
 * N.txt. */
#include <stdio.h>
#include <stdlib.h>

#include "formats/packed.h"
#include "random_model.h"

static const double int4[] = {-8, 7}, released[] = {-8, 4};
static const coding codings[] = {
    {NULL, 0, NULL, NULL, PQ_GRID_BF16, PQ_ROUND_NEAREST},
    {"pot", 3, NULL, "tensor", PQ_GRID_BF16, PQ_ROUND_NEAREST},
    {"pot", 7, NULL, "row", PQ_GRID_BF16, PQ_ROUND_NEAREST},
    {"pot", 15, NULL, "row", PQ_GRID_BF16, PQ_ROUND_NEAREST},
    {"pot", 31, NULL, "group32", PQ_GRID_FP32, PQ_ROUND_NEAREST},
    {"pot", 63, NULL, "group64", PQ_GRID_POT, PQ_ROUND_NEAREST},
    {"pot-zero-free", 64, NULL, "row", PQ_GRID_BF16, PQ_ROUND_NEAREST},
    {"uniform", 0, int4, "row", PQ_GRID_FP32, PQ_ROUND_NEAREST},
    {"uniform", 127, NULL, "row", PQ_GRID_BF16, PQ_ROUND_NEAREST},
    {"pot-released", 0, released, "tensor", PQ_GRID_FP32, PQ_ROUND_NEAREST},
};

static int write_one(const char *folder, int index) {
    const pq_gpt2_shape shape = {.layers = 1,
                                 .heads = 2,
                                 .width = index % 2 ? 64 : 192,
                                 .context = 5,
                                 .vocab = 66,
                                 .bias = index % 3 == 0,
                                 .gelu_tanh = index % 2 == 0};
    pq_model *model = random_model(&shape, &codings[index], (uint64_t)index);
    char path[4096];
    pq_error err = {0};
    snprintf(path, sizeof path, "%s/%d.safetensors", folder, index);
    if (pq_packed_write(path, false, model, &err) != PQ_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    snprintf(path, sizeof path, "%s/%d.f32", folder, index);
    FILE *data = fopen(path, "wb");
    snprintf(path, sizeof path, "%s/%d.txt", folder, index);
    FILE *names = fopen(path, "w");
    float *weights = malloc(model->params.elements * sizeof *weights);
    if (!data || !names || !weights) return 1;
    pq_model_effective_weights(model, weights);
    for (size_t i = 0; i < model->params.count; i++) {
        const pq_param *p = &model->params.list[i];
        fprintf(names, "%s %zu %zu\n", p->name, p->rows, p->columns);
        fwrite(weights + p->offset, sizeof *weights, p->count, data);
    }
    int failed = ferror(data) | ferror(names) | fclose(data) | fclose(names);
    free(weights);
    pq_model_destroy(model);
    return failed != 0;
}

int main(int argc, char **argv) {
    int failed = argc != 2;
    for (int i = 0; !failed && i < (int)(sizeof codings / sizeof *codings); i++)
        failed = write_one(argv[1], i);
    return failed;
}
