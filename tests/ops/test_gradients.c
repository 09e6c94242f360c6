/* Each op's backward pass against central differences of the loss, summed in double: every entry of every
 * input and parameter. A case puts the op between an embedding and the head, so that its input is
 * differentiable too. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/random.h"
#include "ops/ops.h"
#include "tests/harness/suite.h"

enum { B = 2, T = 5, C = 6, V = 7, MOST = 4096 };

/* Parameters are added one after the other into flat buffers. */
typedef struct bench {
    pq_graph *graph;
    size_t used;
    float weights[MOST], gradients[MOST];
    int wte;
    const pq_soft_targets *teacher;
    void *activations, *scratch;
    pq_bf16 narrow[MOST]; /* the weights, for graphs that store matrices so */
} bench;

static pq_error err;
static void must(pq_status status) {
    ck_assert_msg(status == PQ_OK, "%s", err.message);
}

static int parameter(bench *b, size_t rows, size_t columns, double mean, double deviation) {
    int tensor;
    size_t count = (rows ? rows : 1) * columns;
    ck_assert_uint_le(b->used + count, MOST);
    for (size_t i = 0; i < count; i++) {
        double pair[2];
        pq_random_normal2(3, PQ_STREAM_INIT, b->used, i, pair);
        b->weights[b->used + i] = (float)(mean + deviation * pair[0]);
    }
    must(pq_graph_add_parameter(b->graph, rows, columns, b->used, false, &tensor, &err));
    b->used += count;
    return tensor;
}

typedef int (*builder)(bench *b, int x);

static int plain(bench *b, int x) {
    (void)b;
    return x;
}
static int linear(bench *b, int x) {
    int out;
    must(pq_op_linear(b->graph, x, parameter(b, C, C, 0, 0.5), PQ_NONE, &out, &err));
    return out;
}
static int linear_bias(bench *b, int x) {
    int out, w = parameter(b, C, C, 0, 0.5), bias = parameter(b, 0, C, 0, 0.5);
    must(pq_op_linear(b->graph, x, w, bias, &out, &err));
    return out;
}
static int layernorm(bench *b, int x) {
    int out;
    must(pq_op_layernorm(b->graph, x, parameter(b, 0, C, 1, 0.3), PQ_NONE, &out, &err));
    return out;
}
static int layernorm_bias(bench *b, int x) {
    int out, gain = parameter(b, 0, C, 1, 0.3), bias = parameter(b, 0, C, 0, 0.3);
    must(pq_op_layernorm(b->graph, x, gain, bias, &out, &err));
    return out;
}
static int attention_with(bench *b, int x, double p) {
    int qkv, out;
    must(pq_op_linear(b->graph, x, parameter(b, 3 * C, C, 0, 0.7), PQ_NONE, &qkv, &err));
    must(pq_op_attention(b->graph, qkv, 2, p, &out, &err));
    return out;
}
static int attention(bench *b, int x) {
    return attention_with(b, x, 0);
}
static int attention_dropout(bench *b, int x) {
    return attention_with(b, x, 0.4);
}
static int gelu_erf(bench *b, int x) {
    int out;
    must(pq_op_gelu(b->graph, linear(b, x), false, &out, &err));
    return out;
}
static int gelu_tanh(bench *b, int x) {
    int out;
    must(pq_op_gelu(b->graph, linear(b, x), true, &out, &err));
    return out;
}
static int gelu_linear_erf(bench *b, int x) {
    int out, y = linear(b, x);
    must(pq_op_gelu_linear(b->graph, y, false, parameter(b, C, C, 0, 0.5), PQ_NONE, &out, &err));
    return out;
}
static int gelu_linear_tanh(bench *b, int x) {
    int out, y = linear(b, x), w = parameter(b, C, C, 0, 0.5), bias = parameter(b, 0, C, 0, 0.5);
    must(pq_op_gelu_linear(b->graph, y, true, w, bias, &out, &err));
    return out;
}
static int dropout(bench *b, int x) {
    int out;
    must(pq_op_dropout(b->graph, x, 0.4, &out, &err));
    return out;
}
static int residual(bench *b, int x) {
    int out;
    must(pq_op_residual(b->graph, x, linear(b, x), 0, false, &out, &err));
    return out;
}
static int residual_dropout(bench *b, int x) {
    int out;
    must(pq_op_residual(b->graph, x, linear(b, x), 0.4, false, &out, &err));
    return out;
}
/* A whole block: gradients shared in place, inputs used twice, recomputed values. */
static int block(bench *b, int x) {
    int y, z, after;
    b->graph->block = 0;
    y = layernorm_bias(b, x);
    z = attention_with(b, y, 0.2);
    must(pq_op_residual(b->graph, x, z, 0.2, b->graph->type != b->graph->stream, &after, &err));
    y = gelu_linear_tanh(b, layernorm(b, after));
    must(pq_op_residual(b->graph, after, y, 0, false, &x, &err));
    b->graph->block = PQ_NONE;
    return x;
}
/* The same tensor three times, among them both sides of a sum. */
static int reuse(bench *b, int x) {
    int a, c;
    must(pq_op_residual(b->graph, x, x, 0, false, &a, &err));
    must(pq_op_residual(b->graph, linear(b, a), x, 0, false, &c, &err));
    return c;
}

/* A sum that is recomputed, with its mask. */
static int residual_again(bench *b, int x) {
    int out;
    must(pq_op_residual(b->graph, x, linear(b, x), 0.4, true, &out, &err));
    return layernorm(b, out);
}

static const struct {
    const char *name;
    builder build;
} cases[] = {
    {"embedding and head", plain},
    {"linear", linear},
    {"linear with bias", linear_bias},
    {"layernorm", layernorm},
    {"layernorm with bias", layernorm_bias},
    {"attention", attention},
    {"attention with dropout", attention_dropout},
    {"gelu erf", gelu_erf},
    {"gelu tanh", gelu_tanh},
    {"linear of gelu erf", gelu_linear_erf},
    {"linear of gelu tanh", gelu_linear_tanh},
    {"dropout", dropout},
    {"residual", residual},
    {"residual with dropout", residual_dropout},
    {"residual, recomputed", residual_again},
    {"block", block},
    {"reuse", reuse},
};
enum { CASES = sizeof cases / sizeof *cases };

static const uint16_t tokens[B * T] = {0, 3, 6, 1, 1, 2, 5, 4, 0, 3};
static const int32_t targets[B * T] = {3, 6, 1, 1, 2, 5, -1, 0, 3, 6};
enum { VALID = 9 };

static double loss_of(bench *b) {
    float losses[B * T];
    double sum = 0;
    pq_batch batch = {.tokens = tokens,
                      .targets = targets,
                      .losses = losses,
                      .loss_scale = 1.0f / VALID,
                      .training = true,
                      .first = true,
                      .seed = 11,
                      .iter = 5,
                      .sequence = 3,
                      .teacher = b->teacher};
    pq_graph_forward(b->graph, &batch);
    pq_graph_backward(b->graph, &batch);
    for (int i = 0; i < B * T; i++) sum += losses[i];
    if (!b->teacher) return sum / VALID;
    double weight = (double)b->teacher->weight, temperature = (double)b->teacher->temperature;
    sum *= 1 - weight;
    for (int i = 0; i < B * T; i++)
        sum += weight * temperature * temperature * (double)b->teacher->divergences[i];
    return sum / VALID;
}

/* The graph of a case, ready to run; with a layer norm before the head where `norm` is set. */
static void bind_narrow(pq_graph *graph, pq_bf16 *matrices) {
    for (size_t t = 0; t < graph->tensor_count; t++)
        if (graph->tensors[t].parameter && graph->tensors[t].type == PQ_BF16)
            pq_graph_bind_matrix(graph, graph->tensors[t].offset, matrices + graph->tensors[t].offset);
}

static void open_case(bench *b, int number, bool recompute, const pq_soft_targets *teacher, pq_type type,
                      pq_type stream, bool norm) {
    pq_plan_size size;
    *b = (bench){.teacher = teacher};
    must(pq_graph_create(B, T, V, &b->graph, &err));
    pq_graph_set_types(b->graph, type, stream);
    b->wte = parameter(b, V, C, 0, 0.8);
    int wpe = parameter(b, T + 1, C, 0, 0.8), x;
    must(pq_op_embedding(b->graph, b->wte, wpe, &x, &err));
    x = cases[number].build(b, x);
    if (norm) x = layernorm(b, x);
    must(pq_op_head(b->graph, x, b->wte, &err));
    must(pq_graph_plan(b->graph, true, recompute, &size, &err));
    must(pq_calloc(1, size.activations, "activations", &b->activations, &err));
    must(pq_calloc(1, size.scratch, "scratch", &b->scratch, &err));
    memset(b->activations, 0xFF, size.activations); /* NaN: what is read must have been written */
    memset(b->scratch, 0xFF, size.scratch);
    pq_graph_place(b->graph, b->activations, b->scratch);
    pq_graph_bind(b->graph, b->weights, NULL, b->gradients);
    bind_narrow(b->graph, b->narrow);
    memset(b->gradients, 0xFF, sizeof b->gradients);
}

static void close_case(bench *b) {
    pq_graph_destroy(b->graph);
    free(b->activations);
    free(b->scratch);
}

static void check_gradient(int number, bool recompute, const pq_soft_targets *teacher) {
    static bench b;
    static float expected[MOST];
    open_case(&b, number, recompute, teacher, PQ_F32, PQ_F32, false);
    double norm = 0, difference = 0;
    const double step = 4e-3;
    for (size_t i = 0; i < b.used; i++) {
        float saved = b.weights[i];
        b.weights[i] = (float)(saved + step);
        double above = b.weights[i], high = loss_of(&b);
        b.weights[i] = (float)(saved - step);
        double below = b.weights[i], low = loss_of(&b);
        b.weights[i] = saved;
        expected[i] = (float)((high - low) / (above - below));
    }
    loss_of(&b);
    for (size_t i = 0; i < b.used; i++) {
        norm += (double)expected[i] * expected[i];
        difference += ((double)b.gradients[i] - expected[i]) * ((double)b.gradients[i] - expected[i]);
    }
    ck_assert_msg(sqrt(difference) <= 2e-3 * sqrt(norm), "%s: gradient differs by %g of %g",
                  cases[number].name, sqrt(difference), sqrt(norm));
    close_case(&b);
}

START_TEST(gradient) {
    check_gradient(_i % CASES, _i >= CASES, NULL);
}
END_TEST

/* In bf16 against fp32, from weights that both can hold: each op rounds to 8 significant bits, by at most
 * 2^-9 of a number, and a case has some ten of them one behind the other; were they all to pull one way, it
 * would be 2^-9 x 10. */
START_TEST(narrow_gradient) {
    static bench wide, narrow;
    int number = _i % CASES, variant = _i / CASES; /* 0: bf16 alone, 1: recomputed, 2: with an fp32 stream */
    if (variant == 2 && strcmp(cases[number].name, "block") != 0)
        return; /* products need bf16 from their input */
    open_case(&wide, number, variant == 1, NULL, PQ_F32, PQ_F32, variant == 2);
    open_case(&narrow, number, variant == 1, NULL, PQ_BF16, variant == 2 ? PQ_F32 : PQ_BF16, variant == 2);
    wide.graph->kernels->narrow(wide.weights, narrow.narrow, wide.used);
    wide.graph->kernels->widen(narrow.narrow, wide.weights, wide.used);
    memcpy(narrow.weights, wide.weights, sizeof wide.weights);
    for (size_t t = 0; t < narrow.graph->tensor_count; t++) /* matrices come from the copies alone */
        if (narrow.graph->tensors[t].type == PQ_BF16 && narrow.graph->tensors[t].parameter)
            for (size_t i = 0; i < narrow.graph->tensors[t].rows * narrow.graph->tensors[t].columns; i++)
                narrow.weights[narrow.graph->tensors[t].offset + i] = NAN;
    double expected = loss_of(&wide), found = loss_of(&narrow), norm = 0, difference = 0;
    for (size_t i = 0; i < wide.used; i++) {
        double d = (double)narrow.gradients[i] - (double)wide.gradients[i];
        norm += (double)wide.gradients[i] * (double)wide.gradients[i], difference += d * d;
    }
    ck_assert_msg(fabs(found - expected) <= 0.02 * expected, "%s: loss %g, in fp32 %g", cases[number].name,
                  found, expected);
    ck_assert_msg(sqrt(difference) <= 0.02 * sqrt(norm), "%s: gradient differs by %g of %g",
                  cases[number].name, sqrt(difference), sqrt(norm));
    ck_assert_msg(difference > 0, "%s: the same in fp32", cases[number].name);
    close_case(&wide), close_case(&narrow);
}
END_TEST

/* More tokens than a linear layer of GELU takes at a time, and its matrix where its gradient goes, against
 * the two ops apart. */
START_TEST(gelu_linear_in_chunks) {
    enum { TOKENS = 2 * 2048 + 3, COUNT = (V + TOKENS + C + 1) * C, W = (V + TOKENS) * C };
    static float weights[COUNT], gradients[2][COUNT], losses[2][TOKENS];
    static pq_bf16 narrow[COUNT];
    static uint16_t ids[TOKENS];
    static int32_t next[TOKENS];
    const pq_type type = _i ? PQ_BF16 : PQ_F32;
    for (size_t i = 0; i < COUNT; i++) weights[i] = (float)sin(0.7 * (double)i);
    for (size_t i = 0; i < TOKENS; i++) ids[i] = (uint16_t)(i % V), next[i] = (int32_t)(i * 3 % V);
    pq_kernels_get()->narrow(weights, narrow, COUNT);
    for (int apart = 0; apart < 2; apart++) {
        bench b = {.used = 0};
        pq_plan_size size;
        int wte, wpe, w, bias, x;
        pq_batch batch = {
            .tokens = ids, .targets = next, .losses = losses[apart], .loss_scale = 1.0f / TOKENS};
        batch.training = batch.first = true;
        must(pq_graph_create(1, TOKENS, V, &b.graph, &err));
        pq_graph_set_types(b.graph, type, type);
        must(pq_graph_add_parameter(b.graph, V, C, 0, false, &wte, &err));
        must(pq_graph_add_parameter(b.graph, TOKENS, C, V * C, false, &wpe, &err));
        must(pq_graph_add_parameter(b.graph, C, C, W, false, &w, &err));
        must(pq_graph_add_parameter(b.graph, 0, C, W + C * C, false, &bias, &err));
        must(pq_op_embedding(b.graph, wte, wpe, &x, &err));
        if (apart) {
            must(pq_op_gelu(b.graph, x, false, &x, &err));
            must(pq_op_linear(b.graph, x, w, bias, &x, &err));
        } else {
            must(pq_op_gelu_linear(b.graph, x, false, w, bias, &x, &err));
        }
        must(pq_op_head(b.graph, x, wte, &err));
        must(pq_graph_plan(b.graph, true, false, &size, &err));
        must(pq_calloc(1, size.activations, "activations", &b.activations, &err));
        must(pq_calloc(1, size.scratch, "scratch", &b.scratch, &err));
        memset(b.scratch, 0xFF, size.scratch);
        pq_graph_place(b.graph, b.activations, b.scratch);
        pq_graph_bind(b.graph, weights, NULL, gradients[apart]);
        bind_narrow(b.graph, narrow);
        memcpy(gradients[apart] + W, type == PQ_F32 ? (void *)(weights + W) : (void *)(narrow + W),
               C * C * pq_type_bytes(type));
        pq_graph_bind_matrix(b.graph, W, gradients[apart] + W);
        pq_graph_forward(b.graph, &batch);
        pq_graph_backward(b.graph, &batch);
        close_case(&b);
    }
    double norm = 0, difference = 0, bound = type == PQ_F32 ? 1e-5 : 1e-3;
    for (size_t i = 0; i < COUNT; i++) {
        double d = (double)gradients[0][i] - (double)gradients[1][i];
        norm += (double)gradients[1][i] * (double)gradients[1][i], difference += d * d;
    }
    for (size_t i = 0; i < TOKENS; i++)
        ck_assert_double_le(fabs((double)losses[0][i] - (double)losses[1][i]), bound);
    ck_assert_msg(sqrt(difference) <= bound * sqrt(norm), "gradient differs by %g of %g", sqrt(difference),
                  sqrt(norm));
}
END_TEST

/* A vocabulary whose logits come in three slices, the last one shorter, in bf16 narrowed where they lie: what
 * all of them give to wte and to x. */
START_TEST(narrow_head_in_slices) {
    enum { LARGE = 65536, WIDE = 2, ROWS = 5 * 128 + 7 };
    static float weights[(LARGE + ROWS) * WIDE], gradients[2][(LARGE + ROWS) * WIDE];
    static pq_bf16 narrow[(LARGE + ROWS) * WIDE];
    static uint16_t ids[ROWS];
    static int32_t next[ROWS];
    static float losses[2][ROWS];
    const size_t used = (LARGE + ROWS) * WIDE;
    for (size_t i = 0; i < used; i++) weights[i] = (float)sin(0.7 * (double)i) * 2;
    pq_kernels_get()->narrow(weights, narrow, used);
    pq_kernels_get()->widen(narrow, weights, used);
    for (size_t i = 0; i < ROWS; i++) ids[i] = (uint16_t)(i * 97), next[i] = (int32_t)(i * 101 % LARGE);
    for (int type = PQ_F32; type <= PQ_BF16; type++) {
        pq_graph *graph;
        pq_plan_size size;
        int wte, wpe, x;
        void *activations, *scratch;
        pq_batch batch = {.tokens = ids, .targets = next, .losses = losses[type], .loss_scale = 1.0f / ROWS};
        batch.training = batch.first = true;
        must(pq_graph_create(1, ROWS, LARGE, &graph, &err));
        pq_graph_set_types(graph, (pq_type)type, (pq_type)type);
        must(pq_graph_add_parameter(graph, LARGE, WIDE, 0, false, &wte, &err));
        must(pq_graph_add_parameter(graph, ROWS, WIDE, LARGE * WIDE, false, &wpe, &err));
        must(pq_op_embedding(graph, wte, wpe, &x, &err));
        must(pq_op_head(graph, x, wte, &err));
        must(pq_graph_plan(graph, true, false, &size, &err));
        must(pq_calloc(1, size.activations, "activations", &activations, &err));
        must(pq_calloc(1, size.scratch, "scratch", &scratch, &err));
        pq_graph_place(graph, activations, scratch);
        pq_graph_bind(graph, weights, NULL, gradients[type]);
        bind_narrow(graph, narrow);
        pq_graph_forward(graph, &batch);
        pq_graph_backward(graph, &batch);
        pq_graph_destroy(graph);
        free(activations), free(scratch);
    }
    double norm = 0, difference = 0;
    for (size_t i = 0; i < used; i++) {
        double d = (double)gradients[1][i] - (double)gradients[0][i];
        norm += (double)gradients[0][i] * (double)gradients[0][i], difference += d * d;
    }
    for (size_t i = 0; i < ROWS; i++)
        ck_assert_double_le(fabs((double)losses[0][i] - (double)losses[1][i]), 0.1);
    ck_assert_msg(sqrt(difference) <= 0.02 * sqrt(norm), "gradient differs by %g of %g", sqrt(difference),
                  sqrt(norm));
}
END_TEST

/* What cannot be stored in bf16 says so. */
START_TEST(types_are_checked) {
    static bench b;
    int x, out;
    b = (bench){0};
    must(pq_graph_create(B, T, V, &b.graph, &err));
    pq_graph_set_types(b.graph, PQ_BF16, PQ_F32);
    int wte = parameter(&b, V, C, 0, 1), wpe = parameter(&b, T, C, 0, 1), square = parameter(&b, C, C, 0, 1);
    must(pq_op_embedding(b.graph, wte, wpe, &x, &err));
    ck_assert_int_eq(pq_op_linear(b.graph, x, square, PQ_NONE, &out, &err), PQ_ERR_USAGE);
    ck_assert_int_eq(pq_op_head(b.graph, x, wte, &err), PQ_ERR_USAGE);
    must(pq_op_gelu(b.graph, x, false, &x, &err));
    ck_assert_int_eq(pq_op_int8_token(b.graph, x, &out, &err), PQ_ERR_USAGE);
    ck_assert_int_eq(pq_op_int8_affine(b.graph, x, 0, &out, &err), PQ_ERR_USAGE);
    pq_graph_destroy(b.graph);
}
END_TEST

/* The head with a teacher wider than the student: the mixed loss, masked targets left out. */
START_TEST(distilled_gradient) {
    static const float weights[] = {0, 0.3f, 1}, temperatures[] = {1, 2, 0.7f};
    enum { WIDE = 9 };
    float x[B * T * WIDE], wte[V * WIDE], logits[B * T * V], divergences[B * T];
    for (size_t i = 0; i < B * T * WIDE; i++) x[i] = (float)cos(1.7 * (double)i);
    for (size_t i = 0; i < V * WIDE; i++) wte[i] = (float)sin(2.9 * (double)i);
    pq_soft_targets teacher = {.x = x,
                               .wte = wte,
                               .columns = WIDE,
                               .weight = weights[_i % 3],
                               .temperature = temperatures[_i / 3],
                               .logits = logits,
                               .divergences = divergences};
    check_gradient(CASES - 2, false, &teacher);
    ck_assert_float_eq(divergences[6], 0);
    ck_assert_float_gt(divergences[0], 0);
}
END_TEST

START_TEST(shapes_are_checked) {
    bench b = {0};
    int out, x;
    must(pq_graph_create(B, T, V, &b.graph, &err));
    int wte = parameter(&b, V, C, 0, 1), wpe = parameter(&b, T, C, 0, 1), odd = parameter(&b, 3, C + 1, 0, 1);
    int small = parameter(&b, T - 1, C, 0, 1), vector = parameter(&b, 0, C + 2, 0, 1);
    ck_assert_int_eq(pq_op_embedding(b.graph, wte, odd, &out, &err), PQ_ERR_USAGE);
    ck_assert_int_eq(pq_op_embedding(b.graph, wte, small, &out, &err), PQ_ERR_USAGE);
    must(pq_op_embedding(b.graph, wte, wpe, &x, &err));
    ck_assert_int_eq(pq_op_linear(b.graph, x, odd, PQ_NONE, &out, &err), PQ_ERR_USAGE);
    ck_assert_int_eq(pq_op_linear(b.graph, x, wte, vector, &out, &err), PQ_ERR_USAGE);
    ck_assert_int_eq(pq_op_layernorm(b.graph, x, vector, PQ_NONE, &out, &err), PQ_ERR_USAGE);
    ck_assert_int_eq(pq_op_attention(b.graph, x, 5, 0, &out, &err), PQ_ERR_USAGE);
    ck_assert_int_eq(pq_op_head(b.graph, x, odd, &err), PQ_ERR_USAGE);
    pq_graph_destroy(b.graph);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("gradients");
    TCase *tc = tcase_create("finite differences");
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, gradient, 0, 2 * CASES); /* kept, then recomputed */
    tcase_add_loop_test(tc, distilled_gradient, 0, 9);
    tcase_add_loop_test(tc, narrow_gradient, 0, 3 * CASES);
    tcase_add_test(tc, narrow_head_in_slices);
    tcase_add_loop_test(tc, gelu_linear_in_chunks, 0, 2);
    tcase_add_test(tc, types_are_checked);
    tcase_add_test(tc, shapes_are_checked);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
