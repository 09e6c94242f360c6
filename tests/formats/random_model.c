#include "random_model.h"

#include <check.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/random.h"

pq_model *random_model(const pq_gpt2_shape *shape, const coding *how, uint64_t seed) {
    pq_model *model;
    pq_error err = {0};
    ck_assert_msg(pq_model_create(shape, &model, &err) == PQ_OK, "%s", err.message);
    for (size_t i = 0; i < model->params.count; i++) {
        const pq_param *p = &model->params.list[i];
        float *w = model->weights + p->offset;
        for (size_t k = 0; k < p->count; k++) {
            double pair[2];
            pq_random_normal2(seed, PQ_STREAM_INIT, i, k, pair);
            w[k] = (float)(p->initial_value + (p->initial_value != 0 ? 0.1 : 0.2) * pair[0]);
        }
        if (!p->quantizable || !how->quantizer) continue;
        pq_codebook codebook;
        pq_scale_options options = {PQ_SCALE_ABSMAX, how->grid, 0x1p-20f};
        ck_assert_msg(pq_codebook_init(&codebook, how->quantizer, how->levels, how->range, PQ_ROUND_NEAREST,
                                       &err) == PQ_OK,
                      "%s", err.message);
        ck_assert_msg(pq_model_quantize_param(model, i, &codebook, how->granularity, &err) == PQ_OK, "%s",
                      err.message);
        ck_assert_msg(pq_matrix_fit(&codebook, &options, w, p->rows, p->columns, model->quant[i].group,
                                    model->quant[i].scales, &err) == PQ_OK,
                      "%s", err.message);
    }
    ck_assert_int_eq(pq_copy_text("{\"kind\":\"char\",\"chars\":\"ab\\u00e9\"}", &model->tokenizer, &err),
                     PQ_OK);
    ck_assert_int_eq(pq_copy_text("model:\n  layers: 1 # \"quoted\" \xc3\xa9\n", &model->config, &err),
                     PQ_OK);
    model->iter = 1234;
    model->val_loss = 1.5823456789012345;
    return model;
}

char *temporary_folder(void) {
    const char *parent = getenv("TMPDIR");
    char *folder = pq_path_join(parent ? parent : "/tmp", "potqat-XXXXXX");
    ck_assert_ptr_nonnull(folder);
    ck_assert_ptr_nonnull(mkdtemp(folder));
    return folder;
}

void remove_folder(char *folder) {
    DIR *dir = opendir(folder);
    ck_assert_ptr_nonnull(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        char *path = pq_path_join(folder, entry->d_name);
        ck_assert_int_eq(unlink(path), 0);
        free(path);
    }
    closedir(dir);
    ck_assert_int_eq(rmdir(folder), 0);
    free(folder);
}
