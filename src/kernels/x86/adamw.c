/* AdamW, vectorised: one pass over w, g, m, v. */
#include "kernels/x86/x86.h"

typedef struct constants {
    vf beta1, beta2, rest1, rest2, gradient_scale, inverse1, inverse2, epsilon, shrink, lr;
} constants;

ALWAYS_INLINE void update(const constants *c, vf w, vf g, vf *m, vf *v, vf *out) {
    g = v_mul(g, c->gradient_scale);
    *m = v_fma(c->beta1, *m, v_mul(c->rest1, g));
    *v = v_fma(c->beta2, *v, v_mul(c->rest2, v_mul(g, g)));
    vf denominator = v_add(v_sqrt(v_mul(*v, c->inverse2)), c->epsilon);
    vf step = v_div(v_mul(*m, c->inverse1), denominator);
    *out = v_fnma(c->lr, step, v_mul(w, c->shrink));
}

void PQ_ISA_NAME(adamw)(float *w, const float *g, float *m, float *v, size_t n, const pq_adamw_step *s) {
    const constants c = {.beta1 = v_set(s->beta1),
                         .beta2 = v_set(s->beta2),
                         .rest1 = v_set(1.0f - s->beta1),
                         .rest2 = v_set(1.0f - s->beta2),
                         .gradient_scale = v_set(s->gradient_scale),
                         .inverse1 = v_set(1.0f / s->correction1),
                         .inverse2 = v_set(1.0f / s->correction2),
                         .epsilon = v_set(s->epsilon),
                         .shrink = v_set(1.0f - s->lr * s->decay),
                         .lr = v_set(s->lr)};
    vf out;
    size_t i = 0;
    for (; i + VL <= n; i += VL) {
        vf m1 = v_load(m + i), v1 = v_load(v + i);
        update(&c, v_load(w + i), v_load(g + i), &m1, &v1, &out);
        v_store(m + i, m1);
        v_store(v + i, v1);
        v_store(w + i, out);
    }
    if (i < n) {
        vm some = v_first(n - i);
        vf m1 = v_load_some(some, m + i), v1 = v_load_some(some, v + i);
        update(&c, v_load_some(some, w + i), v_load_some(some, g + i), &m1, &v1, &out);
        v_store_some(some, m + i, m1);
        v_store_some(some, v + i, v1);
        v_store_some(some, w + i, out);
    }
}
