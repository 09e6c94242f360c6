/* Softmax cross-entropy over rows of logits, readable. */
#include <math.h>

#include "kernels/kernels.h"

void pq_cross_entropy_ref(float *logits, size_t stride, const int32_t *targets, float *loss, bool gradient,
                          float factor, size_t rows, size_t vocab) {
    for (size_t r = 0; r < rows; r++, logits += stride) {
        bool masked = targets[r] < 0;
        double largest = -INFINITY, sum = 0;
        for (size_t i = 0; i < vocab; i++) largest = fmax(largest, logits[i]);
        for (size_t i = 0; i < vocab; i++) sum += exp(logits[i] - largest);
        loss[r] = masked ? 0.0f : (float)(log(sum) + largest - logits[targets[r]]);
        for (size_t i = 0; i < vocab && gradient; i++) {
            double p = exp(logits[i] - largest) / sum - ((int32_t)i == targets[r]);
            logits[i] = masked ? 0.0f : (float)(p * factor);
        }
    }
}
