/* bf16: rounding against the definition, each instruction set against ref/, products against sums in double.
 */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "base/threads.h"
#include "kernels/gemm_bf16.h"
#include "tests/harness/suite.h"

static const char *const sets[] = {"ref", "avx2", "avx512"}, *const products_sets[] = {"avx512-bf16", "amx"};

static float from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* The nearest bf16 by its definition: of the two around x, the nearer one, or the even one. */
static pq_bf16 nearest(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    pq_bf16 below = (pq_bf16)(bits >> 16), above = (pq_bf16)(below + 1);
    double low = fabs((double)from_bits((uint32_t)below << 16)), size = fabs((double)x);
    double high = (above & 0x7FFF) == 0x7F80 ? 0x1p128 : fabs((double)from_bits((uint32_t)above << 16));
    if (size - low != high - size) return size - low < high - size ? below : above;
    return below & 1 ? above : below;
}

START_TEST(rounding) {
    enum { STEPS = 1 << 16, MOST = 67 };
    const pq_kernels *k = pq_kernels_of(sets[_i]);
    if (!k) return; /* said in main */
    static const uint32_t tails[] = {0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF};
    float x[MOST], wide[MOST];
    pq_bf16 narrow[MOST + 1];
    for (uint32_t upper = 0; upper < STEPS; upper++) {
        for (size_t i = 0; i < 6; i++) x[i] = from_bits(upper << 16 | tails[i]);
        k->narrow(x, narrow, 6);
        for (size_t i = 0; i < 6; i++) {
            if (isnan(x[i]))
                ck_assert_msg((narrow[i] & 0x7F80) == 0x7F80 && narrow[i] & 0x7F, "NaN became %x", narrow[i]);
            else
                ck_assert_msg(narrow[i] == (isinf(x[i]) ? upper : nearest(x[i])), "%a became %x",
                              (double)x[i], narrow[i]);
        }
    }
    for (size_t n = 0; n < MOST; n++) { /* tails */
        for (size_t i = 0; i < MOST; i++) x[i] = (float)cos((double)(i + n)), narrow[i] = 0xABCD;
        k->narrow(x, narrow, n);
        memset(wide, 0xFF, sizeof wide);
        k->widen(narrow, wide, n);
        ck_assert_uint_eq(narrow[n], 0xABCD);
        ck_assert(n == MOST || isnan(wide[n]));
        for (size_t i = 0; i < n; i++) {
            ck_assert_uint_eq(narrow[i], nearest(x[i]));
            ck_assert(wide[i] == from_bits((uint32_t)narrow[i] << 16));
        }
    }
}
END_TEST

static pq_bf16 *numbers(size_t n, uint64_t seed) {
    pq_bf16 *x = malloc((n + 1) * sizeof *x);
    ck_assert_ptr_nonnull(x);
    for (size_t i = 0; i < n; i++) {
        double pair[2];
        pq_random_normal2(seed, PQ_STREAM_INIT, 1, i, pair);
        x[i] = nearest((float)pair[0]);
    }
    return x;
}

static float value(pq_bf16 x) {
    return from_bits((uint32_t)x << 16);
}

/* Rows are further apart than they are long: what lies between is not to be touched. */
static void check_product(size_t M, size_t N, size_t K, unsigned flags) {
    enum { GAP = 3 };
    pq_bf16_product p = {.transpose_a = flags & 1, .transpose_b = flags & 2, .accumulate = flags & 4};
    p.wide = flags & 8, p.M = M, p.N = N, p.K = K, p.ldc = N + GAP;
    p.lda = (p.transpose_a ? M : K) + GAP, p.ldb = (p.transpose_b ? K : N) + GAP;
    size_t rows_a = p.transpose_a ? K : M, rows_b = p.transpose_b ? N : K;
    pq_bf16 *A = numbers(rows_a * p.lda, 1), *B = numbers(rows_b * p.ldb, 2), *narrow = numbers(M * p.ldc, 3);
    pq_bf16 *start = numbers(M * p.ldc, 3);
    float *wide = malloc((M * p.ldc + 1) * sizeof *wide), *bias = malloc((N + 1) * sizeof *bias);
    for (size_t i = 0; i < M * p.ldc; i++) wide[i] = value(start[i]);
    for (size_t i = 0; i < N; i++) bias[i] = (float)sin((double)i);
    p.A = A, p.B = B, p.C = p.wide ? (void *)wide : (void *)narrow, p.bias = flags & 16 ? bias : NULL;
    pq_gemm_bf16(&p);
    for (size_t i = 0; i < M; i++)
        for (size_t j = 0; j < p.ldc; j++) {
            double c = (double)value(start[i * p.ldc + j]), sum = p.accumulate ? c : 0, size = 1;
            float got = p.wide ? wide[i * p.ldc + j] : value(narrow[i * p.ldc + j]);
            if (j >= N) {
                ck_assert((double)got == c);
                continue;
            }
            if (p.bias) sum += (double)bias[j];
            for (size_t k = 0; k < K; k++) {
                double term =
                    (double)from_bits((uint32_t)A[p.transpose_a ? k * p.lda + i : i * p.lda + k] << 16) *
                    (double)from_bits((uint32_t)B[p.transpose_b ? j * p.ldb + k : k * p.ldb + j] << 16);
                sum += term, size += fabs(term);
            }
            double bound = 1e-6 * size + (p.wide ? 0 : 0x1p-8 * fabs(sum));
            ck_assert_msg(fabs((double)got - sum) <= bound,
                          "%zu x %zu x %zu, flags %u: found %g, expected %g", M, N, K, flags, (double)got,
                          sum);
        }
    free(A), free(B), free(narrow), free(start), free(wide), free(bias);
}

START_TEST(products) {
    static const size_t edges[] = {1, 2, 17, 64, 255, 260};
    for (unsigned flags = 0; flags < 32; flags++) {
        check_product(0, 5, 5, flags);
        check_product(5, 3, 0, flags);
        for (size_t a = 0; a < 6; a++)
            check_product(edges[a], edges[(a + flags) % 6], edges[(2 * a + flags / 6) % 6], flags);
    }
    for (unsigned flags = 0; flags < 32; flags++) { /* beyond what a kernel takes at a time */
        check_product(35, 70, 4100, flags);
        check_product(530, 33, 550, flags);
    }
    check_product(3, 1060, 600, 0);
    check_product(1030, 9, 33, 8);
    check_product(9, 1030, 33, 8);
}
END_TEST

/* Cut into other parts, a product has the same bits: wide or not, begun or added to, with K beyond a block.
 */
START_TEST(threads) {
    enum { M = 520, N = 90, K = 1100, FORMS = 16, BYTES = M * N * sizeof(float) };
    pq_bf16 *A = numbers(M * K, 1), *B = numbers(K * N, 2), *start = numbers(2 * M * N, 3);
    static float once[M * N], again[M * N], bias[N] = {1, 2, 3};
    for (unsigned form = 0; form < FORMS; form++) {
        pq_bf16_product p = {
            .wide = form & 1, .transpose_a = form & 2, .accumulate = form & 4, .M = M, .N = N};
        p.transpose_b = !p.transpose_a, p.K = form & 8 ? K : K / 3;
        p.A = A, p.B = B, p.lda = p.transpose_a ? M : p.K, p.ldb = p.transpose_b ? p.K : N, p.ldc = N;
        p.bias = p.accumulate ? NULL : bias;
        for (int n = 1; n <= 5; n++) {
            p.C = n == 1 ? once : again;
            memcpy(p.C, start, BYTES);
            if (p.wide) /* halves of bf16 are no sensible floats */
                for (size_t i = 0; i < M * N; i++) ((float *)p.C)[i] = value(start[i]);
            pq_threads_set(n);
            pq_gemm_bf16(&p);
            if (n > 1)
                ck_assert_msg(memcmp(once, again, BYTES) == 0, "form %u: %d threads give other bits", form,
                              n);
        }
    }
    free(A), free(B), free(start);
}
END_TEST

/* Rows as training has them, q|k|v beside each other, with what must not be touched between. The other form
 * sums in another order: where that decides a rounding, a number is the next bf16; over few queries such a
 * step weighs more. */
static void check_attention(const char *set, size_t T, size_t D, const pq_dropout *dropout) {
    enum { FORMS = 2 };
    const char *const forms[FORMS] = {"ref", set};
    size_t stride = 3 * D + 2, n = T * stride, m = T * D, floats = pq_attention_bf16_scratch(T, D);
    pq_bf16 *qkv = numbers(n, 1), *g = numbers(m, 2), *out[FORMS], *dqkv[FORMS];
    float *lse[FORMS], *scratch = malloc(floats * sizeof *scratch);
    for (int f = 0; f < FORMS; f++) {
        const pq_kernels *k = pq_kernels_of(forms[f]);
        out[f] = numbers(m, 3), dqkv[f] = numbers(n, 4), lse[f] = malloc(T * sizeof *lse[f]);
        memset(scratch, 0xFF, floats * sizeof *scratch); /* NaN */
        k->attention_forward_bf16(qkv, qkv + D, qkv + 2 * D, stride, out[f], D, lse[f], T, D, dropout, 640,
                                  scratch);
        memset(scratch, 0xFF, floats * sizeof *scratch);
        k->attention_backward_bf16(qkv, qkv + D, qkv + 2 * D, stride, out[f], g, D, lse[f], dqkv[f],
                                   dqkv[f] + D, dqkv[f] + 2 * D, stride, T, D, dropout, 640, scratch);
    }
    double worst = 0, size = 1;
    for (size_t i = 0; i < m; i++)
        worst = fmax(worst, fabs((double)value(out[0][i]) - (double)value(out[1][i])));
    ck_assert_msg(worst <= 0x1p-7, "%zu x %zu: outputs differ by %g", T, D, worst);
    for (size_t t = 0; t < T; t++) ck_assert_double_le(fabs((double)lse[0][t] - (double)lse[1][t]), 1e-5);
    worst = 0;
    for (size_t i = 0; i < n; i++) {
        double a = (double)value(dqkv[0][i]), b = (double)value(dqkv[1][i]);
        ck_assert_msg(isfinite(b), "%zu x %zu: gradient %zu is %g", T, D, i, b);
        if (i % stride >= 3 * D) ck_assert(a == b);
        worst = fmax(worst, fabs(a - b)), size = fmax(size, fabs(a));
    }
    ck_assert_msg(worst <= 0x1p-7 * size, "%zu x %zu: gradients differ by %g of %g", T, D, worst, size);
    for (int f = 0; f < FORMS; f++) free(out[f]), free(dqkv[f]), free(lse[f]);
    free(qkv), free(g), free(scratch);
}

START_TEST(attention) {
    const size_t lengths[] = {1, 2, 31, 32, 33, 63, 64, 65, 130},
                 heads[] = {1, 2, 7, 16, 31, 32, 33, 48, 64, 80};
    const pq_dropout dropout = pq_dropout_make(0.3, 9, 4, 2);
    const char *set = products_sets[_i];
    if (!pq_kernels_of(set)) return; /* said in main */
    for (size_t l = 0; l < 9; l++)
        for (size_t h = 0; h < 10; h++)
            for (int drop = 0; drop < 2; drop++)
                check_attention(set, lengths[l], heads[h], drop ? &dropout : NULL);
    check_attention(set, 8191, 3, &dropout);
}
END_TEST

/* The readable form against that of fp32: what bf16 rounds is all that sets them apart. */
START_TEST(attention_of_floats) {
    enum { T = 45, D = 12, STRIDE = 3 * D, N = T * STRIDE, M = T * D };
    const pq_kernels *k = pq_kernels_of("ref");
    const pq_dropout dropout = pq_dropout_make(0.3, 9, 4, 2);
    pq_bf16 *qkv = numbers(N, 1), *g = numbers(M, 2), *out = numbers(M, 3), *dqkv = numbers(N, 4);
    static float wide[N], wide_g[M], wide_out[M], wide_d[N], lse[T];
    float *scratch = malloc(pq_attention_bf16_scratch(T, D) * sizeof *scratch);
    k->attention_forward_bf16(qkv, qkv + D, qkv + 2 * D, STRIDE, out, D, lse, T, D, &dropout, 64, scratch);
    k->attention_backward_bf16(qkv, qkv + D, qkv + 2 * D, STRIDE, out, g, D, lse, dqkv, dqkv + D,
                               dqkv + 2 * D, STRIDE, T, D, &dropout, 64, scratch);
    k->widen(qkv, wide, N), k->widen(g, wide_g, M);
    k->attention_forward(wide, wide + D, wide + 2 * D, STRIDE, wide_out, D, lse, T, D, &dropout, 64, scratch);
    k->attention_backward(wide, wide + D, wide + 2 * D, STRIDE, wide_out, wide_g, D, lse, wide_d, wide_d + D,
                          wide_d + 2 * D, STRIDE, T, D, &dropout, 64, scratch);
    double worst = 0, largest = 0, differ = 0, steepest = 0;
    for (size_t i = 0; i < M; i++) {
        worst = fmax(worst, fabs((double)value(out[i]) - (double)wide_out[i]));
        largest = fmax(largest, fabs((double)wide_out[i]));
    }
    ck_assert_double_le(worst, 0x1p-7 * largest);
    ck_assert_double_gt(worst, 0);
    for (size_t i = 0; i < N; i++) {
        differ = fmax(differ, fabs((double)value(dqkv[i]) - (double)wide_d[i]));
        steepest = fmax(steepest, fabs((double)wide_d[i]));
    }
    ck_assert_double_le(differ, 0x1p-7 * steepest);
    free(qkv), free(g), free(out), free(dqkv), free(scratch);
}
END_TEST

START_TEST(self_check) {
    pq_error err = {0};
    pq_status status = pq_gemm_bf16_check(&err);
    if (pq_kernels_have_bf16() && status == PQ_OK) return;
    ck_assert_int_eq(status, PQ_ERR_USAGE);
    ck_assert_msg(strstr(err.message, "oneDNN") || strstr(err.message, "AVX512_BF16"), "%s", err.message);
}
END_TEST

int main(void) {
    for (size_t i = 0; i < 3; i++)
        if (!pq_kernels_of(sets[i])) printf("not compared: this CPU lacks %s\n", sets[i]);
    for (size_t i = 0; i < 2; i++)
        if (!pq_kernels_of(products_sets[i]))
            printf("attention not compared: this CPU lacks %s\n", products_sets[i]);
    Suite *suite = suite_create("bf16");
    TCase *tc = tcase_create("bf16");
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, rounding, 0, 3);
    tcase_add_test(tc, products);
    tcase_add_test(tc, threads);
    tcase_add_loop_test(tc, attention, 0, 2);
    tcase_add_test(tc, attention_of_floats);
    tcase_add_test(tc, self_check);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
