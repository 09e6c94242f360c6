/* Random models for tests: weights, quantizers and scales of any kind, small shapes. */
#ifndef PQ_TESTS_RANDOM_MODEL_H
#define PQ_TESTS_RANDOM_MODEL_H

#include "model/model.h"

/* How all matrices of a model are quantized; quantizer NULL: not at all. */
typedef struct coding {
    const char *quantizer;
    int64_t levels;
    const double *range;
    const char *granularity;
    pq_scale_grid grid;
    pq_rounding rounding;
} coding;

/* Normal weights (gains around 1), scales by absmax; a tokenizer and a config text; iter 1234. */
pq_model *random_model(const pq_gpt2_shape *shape, const coding *how, uint64_t seed);

/* A new folder for temporary files; removed with what is in it. */
char *temporary_folder(void);
void remove_folder(char *folder);

#endif
