/* Where the graph sees matrices that are all in one array, as weights are. */
#ifndef PQ_TESTS_TRAIN_PLACES_H
#define PQ_TESTS_TRAIN_PLACES_H

#include <check.h>

#include "model/model.h"

static inline void *const *places_of(const pq_model *model, float *all) {
    static void *places[256];
    ck_assert_uint_le(model->params.count, 256);
    for (size_t i = 0; i < model->params.count; i++) places[i] = all + model->params.list[i].offset;
    return places;
}

#endif
