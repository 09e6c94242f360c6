/* AdamW, readable. */
#include <math.h>

#include "kernels/kernels.h"

void pq_adamw_ref(float *w, const float *g, float *m, float *v, size_t n, const pq_adamw_step *s) {
    for (size_t i = 0; i < n; i++) {
        float gradient = g[i] * s->gradient_scale;
        m[i] = s->beta1 * m[i] + (1.0f - s->beta1) * gradient;
        v[i] = s->beta2 * v[i] + (1.0f - s->beta2) * gradient * gradient;
        float update = (m[i] / s->correction1) / (sqrtf(v[i] / s->correction2) + s->epsilon);
        w[i] = w[i] * (1.0f - s->lr * s->decay) - s->lr * update;
    }
}
