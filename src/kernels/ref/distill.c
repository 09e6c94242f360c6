/* Cross-entropy mixed with the divergence from a teacher (Hinton, Vinyals, Dean, arXiv 1503.02531), readable.
 */
#include <math.h>

#include "kernels/kernels.h"

/* The sum of e^((x[i] - *largest) / T). */
static double soft_sum(const float *x, size_t n, double T, double *largest) {
    double sum = 0;
    *largest = -INFINITY;
    for (size_t i = 0; i < n; i++) *largest = fmax(*largest, (double)x[i]);
    for (size_t i = 0; i < n; i++) sum += exp(((double)x[i] - *largest) / T);
    return sum;
}

void pq_distill_cross_entropy_ref(float *logits, float *teacher, size_t stride, const int32_t *targets,
                                  float *loss, float *kl, const pq_distill_mix *mix, size_t rows,
                                  size_t vocab) {
    const double T = (double)mix->temperature, weight = (double)mix->weight, factor = (double)mix->factor;
    for (size_t r = 0; r < rows; r++, logits += stride, teacher += stride) {
        bool masked = targets[r] < 0;
        double top, teacher_top, divergence = 0;
        double hard = soft_sum(logits, vocab, 1, &top), soft = soft_sum(logits, vocab, T, &top);
        double wanted = soft_sum(teacher, vocab, T, &teacher_top);
        loss[r] = masked ? 0.0f : (float)(log(hard) + top - (double)logits[targets[r]]);
        for (size_t i = 0; i < vocab; i++) {
            double z = (double)logits[i] - top, t = ((double)teacher[i] - teacher_top) / T;
            double p = exp(z / T) / soft, q = exp(t) / wanted;
            double entropy = exp(z) / hard - ((int32_t)i == targets[r]);
            if (q != 0) divergence += q * ((t - log(wanted)) - (z / T - log(soft)));
            logits[i] = masked ? 0.0f : (float)(((1 - weight) * entropy + weight * T * (p - q)) * factor);
        }
        kl[r] = masked ? 0.0f : (float)divergence;
    }
}
