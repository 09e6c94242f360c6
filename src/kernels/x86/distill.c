/* Cross-entropy mixed with the divergence from a teacher, vectorised. At temperature 1 a logit costs two
 * exponentials; at others the student's logits stay where they are until the sums are known, and are
 * exponentiated again. */
#include <math.h>

#include "kernels/x86/x86.h"

/* Lanes of sums, and what they were before: lanes stay short, so that large vocabularies keep their digits.
 */
typedef struct sums {
    vf hard, soft, teacher, divergence;
    double all_hard, all_soft, all_teacher, all_divergence;
} sums;

ALWAYS_INLINE void fold(sums *s) {
    s->all_hard += v_sum(s->hard), s->all_soft += v_sum(s->soft);
    s->all_teacher += v_sum(s->teacher), s->all_divergence += v_sum(s->divergence);
    s->hard = s->soft = s->teacher = s->divergence = v_zero();
}

ALWAYS_INLINE float largest_of(const float *x, size_t n) {
    vf top = v_set(x[0]);
    for (size_t i = 0; i < n; i += VL) {
        vm some = v_first(n - i);
        top = v_max(v_select(some, v_load_some(some, x + i), top), top);
    }
    return v_largest(top);
}

/* One row; `cool`: temperature 1, where both of the student's softmaxes are one. */
ALWAYS_INLINE void row(float *logits, float *teacher, int32_t target, float *loss, float *kl,
                       const pq_distill_mix *mix, size_t vocab, bool cool) {
    float label = logits[target], top = largest_of(logits, vocab);
    vf shift = v_set(top), teacher_shift = v_set(largest_of(teacher, vocab));
    vf inverse = v_set(1.0f / mix->temperature);
    sums s = {.hard = v_zero(), .soft = v_zero(), .teacher = v_zero(), .divergence = v_zero()};
    for (size_t i = 0; i < vocab; i += VL) {
        vm some = v_first(vocab - i);
        vf z = v_sub(v_load_some(some, logits + i), shift), scaled = v_mul(z, inverse);
        vf t = v_mul(v_sub(v_load_some(some, teacher + i), teacher_shift), inverse);
        vf e = v_select(some, v_exp(z), v_zero()), q = v_select(some, v_exp(t), v_zero());
        s.hard = v_add(s.hard, e);
        if (!cool) s.soft = v_add(s.soft, v_select(some, v_exp(scaled), v_zero()));
        s.teacher = v_add(s.teacher, q);
        s.divergence = v_add(s.divergence, v_mul(q, v_sub(t, scaled)));
        if (cool) v_store_some(some, logits + i, e);
        v_store_some(some, teacher + i, q);
        if (i % 4096 == 4096 - VL) fold(&s);
    }
    fold(&s);
    if (cool) s.all_soft = s.all_hard;
    *loss = (float)(log(s.all_hard) + ((double)top - label));
    *kl = (float)(s.all_divergence / s.all_teacher + (log(s.all_soft) - log(s.all_teacher)));
    /* Products apart, not fused: equal logits give a difference of exactly 0. */
    vf hard = v_set((float)((1 - (double)mix->weight) * mix->factor / s.all_hard));
    vf soft = v_set((float)(1 / s.all_soft)), wanted = v_set((float)(1 / s.all_teacher));
    vf pull = v_set((float)((double)mix->weight * mix->temperature * mix->factor));
    for (size_t i = 0; i < vocab; i += VL) {
        vm some = v_first(vocab - i);
        vf x = v_load_some(some, logits + i), e = cool ? x : v_exp(v_sub(x, shift));
        vf p = cool ? x : v_exp(v_mul(v_sub(x, shift), inverse));
        vf away = v_sub(v_mul(p, soft), v_mul(v_load_some(some, teacher + i), wanted));
        v_store_some(some, logits + i, v_add(v_mul(e, hard), v_mul(away, pull)));
    }
    logits[target] -= (float)((1 - (double)mix->weight) * mix->factor);
}

void PQ_ISA_NAME(distill_cross_entropy)(float *logits, float *teacher, size_t stride, const int32_t *targets,
                                        float *loss, float *kl, const pq_distill_mix *mix, size_t rows,
                                        size_t vocab) {
    for (size_t r = 0; r < rows; r++, logits += stride, teacher += stride) {
        if (targets[r] < 0) {
            loss[r] = kl[r] = 0.0f;
            for (size_t i = 0; i < vocab; i += VL) v_store_some(v_first(vocab - i), logits + i, v_zero());
        } else if (mix->temperature == 1.0f) {
            row(logits, teacher, targets[r], &loss[r], &kl[r], mix, vocab, true);
        } else {
            row(logits, teacher, targets[r], &loss[r], &kl[r], mix, vocab, false);
        }
    }
}
