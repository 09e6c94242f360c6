/* Each vector kernel against ref/, over edge sizes; the reference itself against facts it must meet. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "base/threads.h"
#include "kernels/gemm.h"
#include "kernels/kernels.h"
#include "tests/harness/suite.h"

static const size_t sizes[] = {0, 1, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 127, 128, 200, 257};
enum { SIZES = sizeof sizes / sizeof *sizes };
static const char *const sets[] = {"avx2", "avx512", "ref"};

static float *numbers(size_t n, uint64_t seed, double scale) {
    float *x = malloc((n + 1) * sizeof *x);
    ck_assert_ptr_nonnull(x);
    for (size_t i = 0; i < n; i++) {
        double pair[2];
        pq_random_normal2(seed, PQ_STREAM_INIT, 1, i, pair);
        x[i] = (float)(pair[0] * scale);
    }
    return x;
}

static float *copy(const float *x, size_t n) {
    float *y = malloc((n + 1) * sizeof *y);
    ck_assert_ptr_nonnull(y);
    memcpy(y, x, n * sizeof *x);
    return y;
}

/* Largest difference over the largest magnitude of the reference (at least `floor`). */
static void near(const float *x, const float *reference, size_t n, double bound, double floor,
                 const char *what) {
    double worst = 0, size = floor;
    for (size_t i = 0; i < n; i++) {
        size = fmax(size, fabs((double)reference[i]));
        worst = fmax(worst, fabs((double)x[i] - reference[i]));
        ck_assert_msg(isfinite(x[i]), "%s: element %zu is %g", what, i, (double)x[i]);
    }
    ck_assert_msg(worst <= bound * size, "%s of %zu: differs by %g of %g", what, n, worst, size);
}

START_TEST(elementwise) {
    const pq_kernels *fast = pq_kernels_of(sets[_i]), *ref = pq_kernels_of("ref");
    if (!fast) return; /* said in main */
    for (size_t s = 0; s < SIZES; s++) {
        size_t n = sizes[s];
        float *x = numbers(n, 1, 3), *y = numbers(n, 2, 1), *a = copy(x, n), *b = copy(x, n);
        fast->add(x, y, a, n), ref->add(x, y, b, n);
        ck_assert_mem_eq(a, b, n * sizeof *a);
        fast->scale(a, 0.3f, n), ref->scale(b, 0.3f, n);
        ck_assert_mem_eq(a, b, n * sizeof *a);
        double sum, expected;
        fast->sum_squares(x, &sum, n), ref->sum_squares(x, &expected, n);
        ck_assert_double_le(fabs(sum - expected), 1e-5 * expected + 1e-30);
        void (*forward[])(const float *, float *, size_t) = {fast->gelu_erf_forward, fast->gelu_tanh_forward,
                                                             ref->gelu_erf_forward, ref->gelu_tanh_forward};
        void (*backward[])(const float *, const float *, float *,
                           size_t) = {fast->gelu_erf_backward, fast->gelu_tanh_backward,
                                      ref->gelu_erf_backward, ref->gelu_tanh_backward};
        void (*both[])(const float *, const float *, float *, float *, size_t) = {
            fast->gelu_erf_both, fast->gelu_tanh_both, ref->gelu_erf_both, ref->gelu_tanh_both};
        for (int kind = 0; kind < 2; kind++) {
            forward[kind](x, a, n), forward[kind + 2](x, b, n);
            near(a, b, n, 3e-7, 1, "gelu");
            backward[kind](x, y, a, n), backward[kind + 2](x, y, b, n);
            near(a, b, n, 1e-6, 1, "gelu backward");
            memcpy(a, y, n * sizeof *a); /* in place */
            backward[kind](x, a, a, n);
            near(a, b, n, 1e-6, 1, "gelu backward in place");
        }
        for (int kind = 0; kind < 4; kind++) {
            float *value = copy(x, n), *dx = copy(x, n), *in_place = copy(x, n);
            forward[kind](x, a, n), backward[kind](x, y, b, n);
            both[kind](x, y, value, dx, n);
            ck_assert_mem_eq(value, a, n * sizeof *a);
            ck_assert_mem_eq(dx, b, n * sizeof *b);
            both[kind](in_place, y, value, in_place, n);
            ck_assert_mem_eq(value, a, n * sizeof *a);
            ck_assert_mem_eq(in_place, b, n * sizeof *b);
            free(value), free(dx), free(in_place);
        }
        free(x), free(y), free(a), free(b);
    }
}
END_TEST

/* Over the whole range: the tails too keep absolute digits, and NaN stays NaN. */
START_TEST(gelu_range) {
    const pq_kernels *fast = pq_kernels_of(sets[_i]), *ref = pq_kernels_of("ref");
    if (!fast) return;
    enum { N = 40000 };
    static float x[N], a[N], b[N];
    for (int i = 0; i < N; i++) x[i] = (float)(i - N / 2) * 0.001f;
    void (*forward[])(const float *, float *, size_t) = {fast->gelu_erf_forward, fast->gelu_tanh_forward,
                                                         ref->gelu_erf_forward, ref->gelu_tanh_forward};
    for (int kind = 0; kind < 2; kind++) {
        forward[kind](x, a, N), forward[kind + 2](x, b, N);
        for (int i = 0; i < N; i++)
            ck_assert_msg(fabs((double)a[i] - b[i]) <= 1e-7 + 2.5e-7 * fabs((double)x[i]),
                          "gelu(%g): %g, expected %g", (double)x[i], (double)a[i], (double)b[i]);
        float odd[3] = {NAN, INFINITY, 1e30f}, out[3];
        forward[kind](odd, out, 3);
        ck_assert(isnan(out[0]) && isinf(out[1]) && out[2] == 1e30f);
    }
}
END_TEST

START_TEST(layernorm) {
    const pq_kernels *fast = pq_kernels_of(sets[_i]), *ref = pq_kernels_of("ref");
    if (!fast) return;
    for (size_t s = 1; s < SIZES; s++)
        for (int bias = 0; bias < 2; bias++) {
            size_t C = sizes[s], rows = 5, n = rows * C;
            float *x = numbers(n, 1, 2), *d = numbers(n, 2, 1), *gain = numbers(C, 3, 1),
                  *b = numbers(C, 4, 1);
            float *out[2], *dx[2], *dgain[2], *dbias[2], mean[2][5], rstd[2][5];
            const pq_kernels *both[] = {fast, ref};
            for (int t = 0; t < 2; t++) {
                out[t] = copy(x, n), dx[t] = copy(d, n), dgain[t] = copy(gain, C), dbias[t] = copy(b, C);
                both[t]->layernorm_forward(x, gain, bias ? b : NULL, out[t], mean[t], rstd[t], rows, C);
                both[t]->layernorm_backward(x, gain, d, mean[1 - t], rstd[t], dx[t], bias, dgain[t],
                                            bias ? dbias[t] : NULL, rows, t ? C : 0);
                both[t]->layernorm_backward(x, gain, d, mean[t], rstd[t], dx[t], bias, dgain[t],
                                            bias ? dbias[t] : NULL, t ? 0 : rows, C);
            }
            near(out[0], out[1], n, 2e-6, 1, "layernorm");
            near(mean[0], mean[1], rows, 1e-6, 1, "mean");
            if (C > 3) { /* tiny rows have huge rstd: their gradient is judged by the gradient checks */
                near(rstd[0], rstd[1], rows, 2e-6, 1, "rstd");
                near(dx[0], dx[1], n, 1e-5, 1, "layernorm dx");
                near(dgain[0], dgain[1], C, 1e-5, 1, "layernorm dgain");
                near(dbias[0], dbias[1], C, 1e-5, 1, "layernorm dbias");
            }
            for (int t = 0; t < 2; t++) free(out[t]), free(dx[t]), free(dgain[t]), free(dbias[t]);
            free(x), free(d), free(gain), free(b);
        }
}
END_TEST

START_TEST(dropout) {
    const pq_kernels *fast = pq_kernels_of(sets[_i]), *ref = pq_kernels_of("ref");
    if (!fast) return;
    pq_dropout d = pq_dropout_make(0.2, 0x123456789ABCDEFull, 77, 5);
    const uint64_t starts[] = {0, 64, 64 * 12345, ((uint64_t)1 << 38) - 64};
    for (size_t s = 0; s < SIZES; s++)
        for (int f = 0; f < 4; f++) {
            size_t n = sizes[s];
            float *x = numbers(n, 1, 1), *y = numbers(n, 2, 1), *a = copy(x, n), *b = copy(x, n);
            fast->dropout(y, x, a, n, &d, starts[f]), ref->dropout(y, x, b, n, &d, starts[f]);
            ck_assert_mem_eq(a, b, n * sizeof *a);
            fast->dropout(NULL, x, a, n, &d, starts[f]), ref->dropout(NULL, x, b, n, &d, starts[f]);
            for (size_t i = 0; i < n; i++) ck_assert(a[i] == b[i]);
            free(x), free(y), free(a), free(b);
        }
    /* The share of zeros: 100,000 draws, five standard deviations. */
    enum { N = 100000 };
    static float ones[N];
    size_t zeros = 0;
    for (int i = 0; i < N; i++) ones[i] = 1;
    fast->dropout(NULL, ones, ones, N, &d, 0);
    for (int i = 0; i < N; i++) zeros += ones[i] == 0;
    ck_assert_double_le(fabs((double)zeros - 0.2 * N), 5 * sqrt(0.16 * N));
}
END_TEST

static void check_attention(const pq_kernels *fast, size_t T, size_t D, const pq_dropout *masks) {
    const pq_kernels *both[] = {fast, pq_kernels_of("ref")};
    size_t stride = 3 * D + 2, n = T * stride, m = T * D;
    float *qkv = numbers(n, 1, 1), *g = numbers(m, 2, 1), *out[2], *lse[2], *dqkv[2];
    float *scratch = malloc(pq_attention_scratch(T, D) * sizeof *scratch);
    for (int t = 0; t < 2; t++) {
        out[t] = copy(g, m), lse[t] = copy(g, T), dqkv[t] = copy(qkv, n);
        both[t]->attention_forward(qkv, qkv + D, qkv + 2 * D, stride, out[t], D, lse[t], T, D, masks, 640,
                                   scratch);
        both[t]->attention_backward(qkv, qkv + D, qkv + 2 * D, stride, out[t], g, D, lse[t], dqkv[t],
                                    dqkv[t] + D, dqkv[t] + 2 * D, stride, T, D, masks, 640, scratch);
    }
    near(out[0], out[1], m, 2e-6, 1, "attention");
    near(lse[0], lse[1], T, 2e-6, 1, "lse");
    near(dqkv[0], dqkv[1], n, 1e-5, 1, "attention gradient");
    for (int t = 0; t < 2; t++) free(out[t]), free(lse[t]), free(dqkv[t]);
    free(qkv), free(g), free(scratch);
}

START_TEST(attention) {
    const pq_kernels *fast = pq_kernels_of(sets[_i]);
    if (!fast) return;
    const size_t lengths[] = {1, 2, 31, 32, 33, 63, 64, 65, 130}, heads[] = {1, 4, 8, 16, 17, 32, 48, 64};
    const pq_dropout masks = pq_dropout_make(0.3, 9, 4, 2);
    for (size_t l = 0; l < 9; l++)
        for (size_t h = 0; h < 8; h++)
            for (int drop = 0; drop < 2; drop++)
                check_attention(fast, lengths[l], heads[h], drop ? &masks : NULL);
    check_attention(fast, 8191, 3, &masks);
}
END_TEST

START_TEST(cross_entropy) {
    const pq_kernels *fast = pq_kernels_of(sets[_i]), *ref = pq_kernels_of("ref");
    if (!fast) return;
    const size_t vocabs[] = {1, 2, 15, 16, 17, 65, 5003};
    for (size_t v = 0; v < 7; v++)
        for (int gradient = 0; gradient < 2; gradient++) {
            size_t V = vocabs[v], stride = V + 3, n = 4 * stride;
            float *x = numbers(n, 1, 4), *a = copy(x, n), *b = copy(x, n), la[4], lb[4];
            int32_t targets[4] = {0, -1, (int32_t)V - 1, (int32_t)V / 2};
            fast->cross_entropy(a, stride, targets, la, gradient, 0.25f, 4, V);
            ref->cross_entropy(b, stride, targets, lb, gradient, 0.25f, 4, V);
            near(la, lb, 4, 1e-6, 1, "loss");
            near(a, b, n, 1e-6, 1, "logit gradient");
            a[2 * stride] = NAN;
            fast->cross_entropy(a, stride, targets, la, false, 1, 4, V);
            ck_assert(isnan(la[2]) && !isnan(la[3]));
            free(x), free(a), free(b);
        }
}
END_TEST

/* Against ref/; equal logits, weight 0 and NaN are facts that each set must meet itself. */
START_TEST(distillation) {
    const pq_kernels *fast = pq_kernels_of(_i < 2 ? sets[_i] : "ref"), *ref = pq_kernels_of("ref");
    if (!fast) return;
    const size_t vocabs[] = {1, 2, 15, 16, 17, 65, 5003};
    const float weights[] = {0, 0.3f, 1}, temperatures[] = {1, 2, 0.5f};
    for (int v = 0; v < 7; v++)
        for (int k = 0; k < 9; k++) {
            size_t V = vocabs[v], stride = V + 3, n = 4 * stride;
            pq_distill_mix mix = {
                .weight = weights[k / 3], .temperature = temperatures[k % 3], .factor = 0.25f};
            float *x = numbers(n, 1, 4), *y = numbers(n, 2, 4), *a = copy(x, n), *b = copy(x, n),
                  *s = copy(y, n), *t = copy(y, n), la[4], lb[4], ka[4], kb[4];
            int32_t targets[4] = {0, -1, (int32_t)V - 1, (int32_t)V / 2};
            fast->distill_cross_entropy(a, s, stride, targets, la, ka, &mix, 4, V);
            ref->distill_cross_entropy(b, t, stride, targets, lb, kb, &mix, 4, V);
            near(la, lb, 4, 1e-6, 1, "loss");
            near(ka, kb, 4, 3e-6, 1, "divergence"); /* rounded arguments of exp up to 50 */
            near(a, b, n, 1e-6, 1, "distilled gradient");
            ck_assert(la[1] == 0 && ka[1] == 0 && a[stride] == 0 && a[stride + V - 1] == 0);
            if (mix.weight == 0) { /* the bits of cross-entropy alone */
                float *plain = copy(x, n);
                fast->cross_entropy(plain, stride, targets, lb, true, 0.25f, 4, V);
                ck_assert_mem_eq(la, lb, sizeof la);
                ck_assert_mem_eq(a, plain, n * sizeof *a);
                free(plain);
            }
            memcpy(a, y, n * sizeof *a), memcpy(s, y, n * sizeof *s);
            fast->distill_cross_entropy(a, s, stride, targets, la, ka, &mix, 4, V);
            for (int r = 0; r < 4; r++) {
                ck_assert_float_eq(ka[r], 0);
                for (size_t i = 0; i < V && mix.weight == 1; i++)
                    ck_assert_float_eq(a[(size_t)r * stride + i], 0);
            }
            memcpy(a, x, n * sizeof *a), memcpy(s, y, n * sizeof *s);
            s[2 * stride] = NAN;
            fast->distill_cross_entropy(a, s, stride, targets, la, ka, &mix, 4, V);
            ck_assert(isnan(ka[2]) && !isnan(ka[3]) && !isnan(la[2]));
            free(x), free(y), free(a), free(b), free(s), free(t);
        }
}
END_TEST

START_TEST(adamw_and_sums) {
    const pq_kernels *fast = pq_kernels_of(sets[_i]), *ref = pq_kernels_of("ref");
    if (!fast) return;
    pq_adamw_step step = {.lr = 1e-3f,
                          .beta1 = 0.9f,
                          .beta2 = 0.99f,
                          .epsilon = 1e-8f,
                          .decay = 0.1f,
                          .gradient_scale = 0.7f,
                          .correction1 = 0.19f,
                          .correction2 = 0.0199f};
    for (size_t s = 0; s < SIZES; s++) {
        size_t n = sizes[s];
        float *g = numbers(n, 1, 1), *w = numbers(n, 2, 1), *m = numbers(n, 3, 1), *v = numbers(n, 4, 1);
        for (size_t i = 0; i < n; i++) v[i] *= v[i];
        float *w2 = copy(w, n), *m2 = copy(m, n), *v2 = copy(v, n);
        fast->adamw(w, g, m, v, n, &step), ref->adamw(w2, g, m2, v2, n, &step);
        near(w, w2, n, 1e-6, 1e-3, "adamw w"), near(m, m2, n, 1e-6, 1e-3, "adamw m");
        near(v, v2, n, 1e-6, 1e-3, "adamw v");
        float *x = numbers(7 * (n + 1), 5, 1), *a = copy(w, n), *b = copy(w, n);
        fast->column_sums(x, n + 1, a, 7, n), ref->column_sums(x, n + 1, b, 7, n);
        near(a, b, n, 1e-6, 1, "column sums");
        free(g), free(w), free(m), free(v), free(w2), free(m2), free(v2), free(x), free(a), free(b);
    }
}
END_TEST

/* Rows are further apart than they are long: what lies between is not to be touched. */
enum { GAP = 3, FLAGS = 16 };

static pq_float_product product_of(unsigned flags, size_t M, size_t N, size_t K) {
    pq_float_product p = {.transpose_a = flags & 1, .transpose_b = flags & 2, .accumulate = flags & 4};
    p.M = M, p.N = N, p.K = K, p.ldc = N + GAP;
    p.lda = (p.transpose_a ? M : K) + GAP, p.ldb = (p.transpose_b ? K : N) + GAP;
    p.A = numbers((p.transpose_a ? K : M) * p.lda, 1, 1);
    p.B = numbers((p.transpose_b ? N : K) * p.ldb, 2, 1);
    p.bias = flags & 8 ? numbers(N, 4, 1) : NULL;
    return p;
}

static void drop_product(const pq_float_product *p) {
    free((void *)(uintptr_t)p->A), free((void *)(uintptr_t)p->B), free((void *)(uintptr_t)p->bias);
}

/* By one thread of an instruction set, or by pq_gemm where kernels is NULL; against sums in double. */
static void check_product(const pq_kernels *kernels, unsigned flags, size_t M, size_t N, size_t K) {
    pq_float_product p = product_of(flags, M, N, K);
    float *C = numbers(M * p.ldc, 3, 1), *start = copy(C, M * p.ldc);
    p.C = C;
    if (kernels) {
        float *scratch = malloc(PQ_MULTIPLY_SCRATCH * sizeof *scratch);
        memset(scratch, 0xFF, PQ_MULTIPLY_SCRATCH * sizeof *scratch); /* NaN */
        kernels->multiply(&p, scratch);
        free(scratch);
    } else {
        pq_gemm(&p);
    }
    for (size_t i = 0; i < M; i++)
        for (size_t j = 0; j < p.ldc; j++) {
            double c = start[i * p.ldc + j], sum = p.accumulate ? c : 0, size = 1;
            if (j >= N) sum = c;
            if (j < N && p.bias) sum += (double)p.bias[j];
            for (size_t k = 0; k < K && j < N; k++) {
                double term = (double)p.A[p.transpose_a ? k * p.lda + i : i * p.lda + k] *
                              (double)p.B[p.transpose_b ? j * p.ldb + k : k * p.ldb + j];
                sum += term, size += fabs(term);
            }
            double got = C[i * p.ldc + j];
            ck_assert_msg(j < N ? fabs(got - sum) <= 1e-6 * size : got == c,
                          "%zu x %zu x %zu, flags %u: (%zu, %zu) is %g, expected %g", M, N, K, flags, i, j,
                          got, sum);
        }
    drop_product(&p);
    free(C), free(start);
}

START_TEST(products) {
    const pq_kernels *kernels = _i < 3 ? pq_kernels_of(sets[_i]) : NULL;
    const size_t edges[] = {1, 2, 5, 6, 7, 11, 12, 13, 16, 17, 31, 32, 33, 47, 127, 129, 191, 193};
    if (_i < 3 && !kernels) return; /* said in main */
    for (unsigned flags = 0; flags < FLAGS; flags++) {
        for (size_t a = 0; a < 18; a++)
            check_product(kernels, flags, edges[a], edges[(5 * a + flags) % 18], edges[(7 * a + flags) % 18]);
        check_product(kernels, flags, 0, 5, 5);
        check_product(kernels, flags, 5, 0, 5);
        if (!kernels) check_product(kernels, flags, 200, 40, 0);
        check_product(kernels, flags, 385, 40, 259); /* beyond what is taken at a time, of each */
        check_product(kernels, flags, 13, 1061, 257);
    }
}
END_TEST

/* Cut into other parts, a product has the same bits: by rows or columns, with K beyond a block. */
START_TEST(threads) {
    const size_t shapes[][3] = {{520, 90, 300}, {200, 700, 130}, {2100, 33, 20}, {40, 60, 50}};
    for (unsigned flags = 0; flags < FLAGS; flags++)
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
            pq_float_product p = product_of(flags, shapes[s][0], shapes[s][1], shapes[s][2]);
            size_t n = p.M * p.ldc;
            float *start = numbers(n, 3, 1), *once = copy(start, n);
            for (int t = 1; t <= 5; t++) {
                float *again = copy(start, n);
                p.C = t == 1 ? once : again;
                pq_threads_set(t);
                pq_gemm(&p);
                ck_assert_msg(t == 1 || memcmp(once, again, n * sizeof *once) == 0,
                              "%zu x %zu x %zu, flags %u: %d threads give other bits", p.M, p.N, p.K, flags,
                              t);
                free(again);
            }
            drop_product(&p);
            free(start), free(once);
        }
}
END_TEST

START_TEST(blas_check) {
    ck_assert_int_eq(pq_gemm_check(NULL), PQ_OK);
}
END_TEST

int main(void) {
    for (int i = 0; i < 2; i++)
        if (!pq_kernels_of(sets[i])) printf("not compared: this CPU lacks %s\n", sets[i]);
    Suite *suite = suite_create("kernels");
    TCase *tc = tcase_create("against ref");
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, elementwise, 0, 2);
    tcase_add_loop_test(tc, gelu_range, 0, 2);
    tcase_add_loop_test(tc, layernorm, 0, 2);
    tcase_add_loop_test(tc, dropout, 0, 2);
    tcase_add_loop_test(tc, attention, 0, 2);
    tcase_add_loop_test(tc, cross_entropy, 0, 2);
    tcase_add_loop_test(tc, distillation, 0, 3);
    tcase_add_loop_test(tc, adamw_and_sums, 0, 2);
    tcase_add_loop_test(tc, products, 0, 4);
    tcase_add_test(tc, threads);
    tcase_add_test(tc, blas_check);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
