#include "random_model.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/random.h"

/* Not Check's assertions: make_packed is not a test. */
static void must(bool good, const char *message) {
    if (good) return;
    fprintf(stderr, "%s\n", message);
    abort();
}

static void quantize(pq_model *model, size_t index, const coding *how) {
    const pq_param *p = &model->params.list[index];
    pq_codebook codebook;
    pq_scale_options options = {.method = PQ_SCALE_ABSMAX, .grid = how->grid, .least = 0x1p-20f};
    pq_error err = {0};
    must(pq_codebook_init(&codebook, how->quantizer, how->levels, how->range, how->rounding, &err) == PQ_OK &&
             pq_model_quantize_param(model, index, &codebook, how->granularity, &err) == PQ_OK &&
             pq_matrix_fit(&codebook, &options, model->weights + p->offset, p->rows, p->columns,
                           model->quant[index].group, model->quant[index].scales, &err) == PQ_OK,
         err.message);
}

pq_model *random_model(const pq_gpt2_shape *shape, const coding *how, uint64_t seed) {
    pq_model *model;
    pq_error err = {0};
    must(pq_model_create(shape, &model, &err) == PQ_OK, err.message);
    for (size_t i = 0; i < model->params.count; i++) {
        const pq_param *p = &model->params.list[i];
        for (size_t k = 0; k < p->count; k++) {
            double pair[2];
            pq_random_normal2(seed, PQ_STREAM_INIT, i, k, pair);
            model->weights[p->offset + k] =
                (float)(p->initial_value + (p->initial_value != 0 ? 0.1 : 0.2) * pair[0]);
        }
        if (p->quantizable && how->quantizer) quantize(model, i, how);
    }
    must(pq_copy_text("{\"kind\":\"char\",\"chars\":\"ab\\u00e9\"}", &model->tokenizer, &err) == PQ_OK &&
             pq_copy_text("model:\n  layers: 1 # \"quoted\" \xc3\xa9\n", &model->config, &err) == PQ_OK,
         err.message);
    model->iter = 1234;
    model->val_loss = 1.5823456789012345;
    return model;
}

char *temporary_folder(void) {
    const char *parent = getenv("TMPDIR");
    char *folder = pq_path_join(parent ? parent : "/tmp", "potqat-XXXXXX");
    must(folder && mkdtemp(folder), "no temporary folder");
    return folder;
}

void remove_folder(char *folder) {
    DIR *dir = opendir(folder);
    must(dir != NULL, folder);
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        char *path = pq_path_join(folder, entry->d_name);
        must(unlink(path) == 0, path);
        free(path);
    }
    closedir(dir);
    must(rmdir(folder) == 0, folder);
    free(folder);
}
