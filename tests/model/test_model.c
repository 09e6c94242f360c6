/* The parameter table laid out for real shapes, and the memory plan of the graph built from it. */
#include <check.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "graph/plan.h"
#include "model/gpt2.h"
#include "tests/harness/suite.h"

static pq_error err;
static void must(pq_status status) {
    ck_assert_msg(status == PQ_OK, "%s", err.message);
}

static const pq_gpt2_shape small = {.layers = 12,
                                    .heads = 12,
                                    .width = 768,
                                    .context = 1024,
                                    .vocab = 50257,
                                    .bias = true,
                                    .gelu_tanh = true};
static const pq_gpt2_shape character = {.layers = 4, .heads = 4, .width = 128, .context = 64, .vocab = 65};

START_TEST(known_counts) {
    pq_params p;
    must(pq_params_init(&small, &p, &err));
    ck_assert_uint_eq(p.weights, 124439808); /* GPT-2 small */
    ck_assert_uint_eq(p.count, 2 + 12 * 12 + 2);
    for (size_t i = 0; i < p.count; i++) {
        ck_assert_uint_eq(p.list[i].offset % 16, 0);
        ck_assert_uint_ge(i + 1 < p.count ? p.list[i + 1].offset : p.elements,
                          p.list[i].offset + p.list[i].count);
        ck_assert_ptr_eq(pq_params_find(&p, p.list[i].name), &p.list[i]);
        ck_assert_ptr_eq(pq_params_at(&p, p.list[i].id, p.list[i].layer), &p.list[i]);
    }
    const pq_param *w = pq_params_find(&p, "h.11.mlp.c_proj.weight");
    ck_assert(w && w->rows == 768 && w->columns == 3072 && w->decay && w->quantizable);
    ck_assert_float_eq_tol(w->initial_std, (float)(0.02 / sqrt(24)), 1e-9f);
    pq_params_deinit(&p);
    must(pq_params_init(&character, &p, &err));
    ck_assert_uint_eq(p.weights, 804096);
    ck_assert_ptr_null(pq_params_find(&p, "h.0.ln_1.bias"));
    pq_params_deinit(&p);
    pq_gpt2_shape bad = character;
    bad.heads = 3;
    ck_assert_int_eq(pq_params_init(&bad, &p, &err), PQ_ERR_USAGE);
    bad = character, bad.layers = 0;
    ck_assert_int_eq(pq_params_init(&bad, &p, &err), PQ_ERR_USAGE);
}
END_TEST

/* Buffers that live at the same time never overlap, and lie inside what the plan asks for. */
START_TEST(plan_keeps_buffers_apart) {
    bool backward = _i & 1, recompute = _i & 2;
    pq_model *model;
    pq_graph *graph;
    pq_plan_size size;
    must(pq_model_create(&character, &model, &err));
    must(pq_gpt2_graph(model, PQ_F32, 3, 64, _i & 4 ? 0.1 : 0, &graph, &err));
    must(pq_graph_plan(graph, backward, recompute, &size, &err));
    const pq_plan *plan = graph->plan;
    size_t n = graph->tensor_count * ROLES, used = 0, together = 0;
    for (size_t i = 0; i < n; i++) {
        const pq_buffer *a = &plan->buffers[i];
        if (a->first > a->last) continue;
        used++;
        ck_assert_uint_le(a->offset + a->bytes, size.activations);
        for (size_t j = 0; j < i; j++) {
            const pq_buffer *b = &plan->buffers[j];
            if (b->first > b->last || a->first > b->last || b->first > a->last) continue;
            together++;
            ck_assert(a->offset + a->bytes <= b->offset || b->offset + b->bytes <= a->offset);
        }
    }
    ck_assert_uint_gt(used, 10);
    ck_assert_uint_gt(together, 10);
    pq_graph_destroy(graph);
    pq_model_destroy(model);
}
END_TEST

START_TEST(recomputing_saves_memory) {
    size_t bytes[3];
    for (int kind = 0; kind < 3; kind++) { /* forward alone, recomputed blocks, all kept */
        pq_model *model;
        pq_graph *graph;
        pq_plan_size size;
        must(pq_model_create(&character, &model, &err));
        must(pq_gpt2_graph(model, PQ_F32, 12, 64, 0, &graph, &err));
        must(pq_graph_plan(graph, kind > 0, kind == 1, &size, &err));
        bytes[kind] = size.activations;
        pq_graph_destroy(graph);
        pq_model_destroy(model);
    }
    ck_assert_uint_lt(bytes[0], bytes[1]);
    ck_assert_uint_lt(bytes[1], bytes[2]);
}
END_TEST

START_TEST(initial_values) {
    pq_model *model;
    must(pq_model_create(&character, &model, &err));
    pq_gpt2_initialise(model, 1337);
    for (size_t i = 0; i < model->params.count; i++) {
        const pq_param *p = &model->params.list[i];
        double sum = 0, squares = 0, n = (double)p->count;
        for (size_t j = 0; j < p->count; j++) {
            double w = model->weights[p->offset + j];
            sum += w, squares += w * w;
        }
        if (p->initial_std > 0) {
            ck_assert_double_le(fabs(sum / n), 5 * p->initial_std / sqrt(n));
            ck_assert_double_le(fabs(squares / n / p->initial_std / p->initial_std - 1), 5 * sqrt(2 / n));
        } else {
            ck_assert_double_eq(sum, n * p->initial_value);
        }
    }
    pq_model_destroy(model);
}
END_TEST

static void quantize(pq_model *model, const char *pattern) {
    pq_codebook codebook;
    must(pq_codebook_init(&codebook, "pot", 15, NULL, PQ_ROUND_NEAREST, &err));
    for (size_t i = 0; i < model->params.count; i++)
        if (model->params.list[i].quantizable && strstr(model->params.list[i].name, pattern))
            must(pq_model_quantize_param(model, i, &codebook, "row", &err));
}

/* An op before each product whose matrix is quantized, none elsewhere; the memory plan holds them. */
START_TEST(activations_in_the_graph) {
    static const char *const patterns[] = {"", "mlp.c_fc", "wte"};
    static const size_t expected[] = {4 * 4 + 1, 4, 1};
    for (int p = 0; p < 3; p++)
        for (int kind = 0; kind < 3; kind++) {
            pq_model *model;
            pq_graph *graph;
            pq_plan_size size;
            size_t found = 0;
            must(pq_model_create(&character, &model, &err));
            quantize(model, patterns[p]);
            must(pq_model_quantize_activations(model, (pq_activations)kind, &err));
            must(pq_gpt2_graph(model, PQ_F32, 2, 64, 0, &graph, &err));
            must(pq_graph_plan(graph, true, false, &size, &err));
            ck_assert_ptr_eq(graph->ranges, model->ranges);
            for (size_t n = 0; n < graph->node_count; n++) {
                const pq_node *node = &graph->nodes[n];
                if (strcmp(node->op->name, pq_activations_name((pq_activations)kind)) != 0) continue;
                found++;
                if (kind == PQ_ACTIVATIONS_AFFINE && p == 1)
                    ck_assert_uint_eq(node->attributes.site, 4 * (size_t)node->block + 2);
                if (p == 2) ck_assert_ptr_eq(&graph->nodes[n + 1], &graph->nodes[graph->node_count - 1]);
            }
            ck_assert_uint_eq(found, kind ? expected[p] : 0);
            pq_graph_destroy(graph);
            pq_model_destroy(model);
        }
}
END_TEST

START_TEST(ranges) {
    pq_model *model, *copy;
    pq_activations kind;
    ck_assert(!pq_activations_parse("int8", &kind) && !pq_activations_parse("", &kind));
    must(pq_model_create(&character, &model, &err));
    ck_assert_uint_eq(pq_model_sites(model), 17);
    for (size_t i = 0; i < 17; i++) {
        static const char *const names[] = {"h.%zu.attn.c_attn.weight", "h.%zu.attn.c_proj.weight",
                                            "h.%zu.mlp.c_fc.weight", "h.%zu.mlp.c_proj.weight"};
        char name[64] = "wte.weight", number[2] = {(char)('0' + i / 4), 0};
        if (i < 16) {
            strcpy(name, names[i % 4]);
            memmove(name + 3, name + 5, strlen(name + 5) + 1);
            name[2] = number[0];
        }
        ck_assert_str_eq(pq_model_site_param(model, i)->name, name);
    }
    ck_assert_int_eq(pq_model_set_range(model, 0, 0, 1, &err), PQ_ERR_USAGE); /* none are kept */
    must(pq_model_check_ranges(model, &err));
    must(pq_model_quantize_activations(model, PQ_ACTIVATIONS_AFFINE, &err));
    must(pq_model_check_ranges(model, &err)); /* no matrix is quantized */
    quantize(model, "attn.c_proj");
    ck_assert_int_eq(pq_model_check_ranges(model, &err), PQ_ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "h.0.attn.c_proj.weight"));
    for (size_t i = 0; i < 4; i++) must(pq_model_set_range(model, 4 * i + 1, -1 - (float)i, 2, &err));
    must(pq_model_check_ranges(model, &err));
    const float bad[][2] = {{1, -1},       {NAN, 1},        {0, NAN},    {-INFINITY, 0},
                            {0, INFINITY}, {-3e38f, 3e38f}, {FLT_MAX, 0}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ck_assert_int_eq(pq_model_set_range(model, 1, bad[i][0], bad[i][1], &err), PQ_ERR_USAGE);
    ck_assert_int_eq(pq_model_set_range(model, 17, 0, 1, &err), PQ_ERR_USAGE);
    must(pq_model_copy(model, &copy, &err));
    ck_assert_mem_eq(copy->ranges, model->ranges, 17 * sizeof *model->ranges);
    must(pq_model_set_range(model, 5, 0, 7, &err));
    ck_assert(copy->ranges[5][0] == -2 && copy->ranges[5][1] == 2);
    pq_model_copy_values(model, copy);
    ck_assert(copy->ranges[5][0] == 0 && copy->ranges[5][1] == 7);
    pq_model_destroy(model);
    pq_model_destroy(copy);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("model");
    TCase *tc = tcase_create("model");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, known_counts);
    tcase_add_loop_test(tc, plan_keeps_buffers_apart, 0, 8);
    tcase_add_test(tc, recomputing_saves_memory);
    tcase_add_test(tc, initial_values);
    tcase_add_test(tc, activations_in_the_graph);
    tcase_add_test(tc, ranges);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
