/* Softmax cross-entropy over rows of logits, vectorised. */
#include <math.h>

#include "kernels/x86/x86.h"

void PQ_ISA_NAME(cross_entropy)(float *logits, size_t stride, const int32_t *targets, float *loss,
                                bool gradient, float factor, size_t rows, size_t vocab) {
    for (size_t r = 0; r < rows; r++, logits += stride) {
        if (targets[r] < 0) {
            loss[r] = 0.0f;
            for (size_t i = 0; i < vocab && gradient; i += VL)
                v_store_some(v_first(vocab - i), logits + i, v_zero());
            continue;
        }
        float target = logits[targets[r]];
        vf top = v_set(target), sum = v_zero();
        for (size_t i = 0; i < vocab; i += VL) {
            vm some = v_first(vocab - i);
            top = v_max(v_select(some, v_load_some(some, logits + i), top), top);
        }
        float largest = v_largest(top);
        vf shift = v_set(largest);
        double total = 0;
        for (size_t i = 0; i < vocab; i += VL) {
            vm some = v_first(vocab - i);
            vf e = v_select(some, v_exp(v_sub(v_load_some(some, logits + i), shift)), v_zero());
            sum = v_add(sum, e);
            if (gradient) v_store_some(some, logits + i, e);
            if (i % 4096 == 4096 - VL) { /* lanes stay short: large vocabularies keep their digits */
                total += v_sum(sum);
                sum = v_zero();
            }
        }
        total += v_sum(sum);
        loss[r] = (float)(log(total) + ((double)largest - target));
        if (!gradient) continue;
        vf weight = v_set((float)(factor / total));
        for (size_t i = 0; i < vocab; i += VL) {
            vm some = v_first(vocab - i);
            v_store_some(some, logits + i, v_mul(v_load_some(some, logits + i), weight));
        }
        logits[targets[r]] -= factor;
    }
}
