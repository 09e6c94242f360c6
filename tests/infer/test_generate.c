/* Generation: each token is the one that reading its window anew would give, also when the window slides. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "formats/packed.h"
#include "infer/generate.h"
#include "random_model.h"
#include "tests/harness/suite.h"

enum { VOCAB = 23, MOST = 64 };

typedef struct sink {
    uint16_t tokens[MOST];
    size_t count, limit;
} sink;

static pq_status take(void *user, uint16_t token, pq_error *err) {
    sink *s = user;
    if (s->count == s->limit) return pq_raise(err, PQ_STOPPED, "", 0, "enough");
    s->tokens[s->count++] = token;
    return PQ_OK;
}

static pq_packed *make(int64_t context) {
    const pq_gpt2_shape shape = {
        .layers = 2, .heads = 2, .width = 32, .context = context, .vocab = VOCAB, .bias = true};
    const coding how = {"pot", 15, NULL, "row", PQ_GRID_BF16, PQ_ROUND_NEAREST};
    pq_model *model = random_model(&shape, &how, 9);
    pq_packed *packed;
    ck_assert_int_eq(pq_packed_from_model(model, &packed, NULL), PQ_OK);
    pq_model_destroy(model);
    return packed;
}

/* The same by the documented rule, in other words: `start` is where the window begins; a full window moves so
 * that the last half of the context is left. */
static void expect(const pq_packed *packed, size_t context, const pq_sampling *sampling,
                   const uint16_t *prompt, size_t count, size_t tokens, uint16_t *out) {
    pq_engine *engine;
    float logits[VOCAB];
    uint16_t text[2 * MOST];
    size_t start = count > context ? count - context : 0;
    memcpy(text, prompt, count * sizeof *text);
    ck_assert_int_eq(pq_engine_create(packed, 0, &engine, NULL), PQ_OK);
    for (size_t i = 0; i < tokens; i++) {
        size_t end = count + i;
        if (end - start > context) start = end - (context > 1 ? context / 2 : 1);
        pq_engine_reset(engine);
        ck_assert_int_eq(pq_engine_forward(engine, text + start, end - start, true, logits, NULL), PQ_OK);
        ck_assert_int_eq(pq_sample(sampling, logits, VOCAB, i, &text[end], NULL), PQ_OK);
        out[i] = text[end];
    }
    pq_engine_destroy(engine);
}

static const struct {
    int64_t context;
    size_t prompt, tokens;
    pq_sampling sampling;
} cases[] = {
    {16, 1, 15, {.temperature = 0, .top_p = 1}},
    {16, 1, 60, {.temperature = 0, .top_p = 1}},
    {16, 16, 40, {.temperature = 0.7, .top_p = 0.9, .seed = 3}},
    {16, 40, 40, {.temperature = 1, .top_k = 5, .top_p = 1, .seed = 4}},
    {5, 3, 50, {.temperature = 1, .top_p = 1, .seed = 5}},
    {2, 1, 20, {.temperature = 1, .top_p = 1, .seed = 6}},
    {1, 2, 20, {.temperature = 1, .top_p = 1, .seed = 7}},
};

START_TEST(slides_as_documented) {
    uint16_t prompt[MOST], expected[MOST];
    pq_packed *packed = make(cases[_i].context);
    pq_engine *engine;
    for (size_t i = 0; i < cases[_i].prompt; i++) prompt[i] = (uint16_t)((i * 5 + 2) % VOCAB);
    expect(packed, (size_t)cases[_i].context, &cases[_i].sampling, prompt, cases[_i].prompt, cases[_i].tokens,
           expected);
    ck_assert_int_eq(pq_engine_create(packed, 0, &engine, NULL), PQ_OK);
    for (int again = 0; again < 2; again++) { /* the engine's past does not matter */
        sink s = {.limit = MOST};
        ck_assert_int_eq(pq_generate(engine, &cases[_i].sampling, prompt, cases[_i].prompt, cases[_i].tokens,
                                     take, &s, NULL),
                         PQ_OK);
        ck_assert_uint_eq(s.count, cases[_i].tokens);
        ck_assert_mem_eq(s.tokens, expected, s.count * sizeof *expected);
    }
    pq_engine_destroy(engine);
    pq_packed_close(packed);
}
END_TEST

START_TEST(ends_early_and_refuses) {
    pq_packed *packed = make(8);
    pq_engine *engine;
    pq_error err = {0};
    sink s = {.limit = 3};
    uint16_t prompt[] = {1, VOCAB};
    const pq_sampling greedy = {.top_p = 1}, bad = {.temperature = -1, .top_p = 1};
    ck_assert_int_eq(pq_engine_create(packed, 0, &engine, NULL), PQ_OK);
    ck_assert_int_eq(pq_generate(engine, &greedy, prompt, 1, 10, take, &s, &err), PQ_STOPPED);
    ck_assert_uint_eq(s.count, 3);
    ck_assert_int_eq(pq_generate(engine, &greedy, prompt, 0, 10, take, &s, &err), PQ_ERR_USAGE);
    ck_assert_msg(strstr(err.message, "prompt is empty"), "%s", err.message);
    ck_assert_int_eq(pq_generate(engine, &greedy, prompt, 2, 10, take, &s, &err), PQ_ERR_USAGE);
    ck_assert_int_eq(pq_generate(engine, &bad, prompt, 1, 10, take, &s, &err), PQ_ERR_USAGE);
    ck_assert_int_eq(pq_generate(engine, &greedy, prompt, 1, 0, take, &s, &err), PQ_OK);
    ck_assert_uint_eq(s.count, 3);
    pq_engine_destroy(engine);
    pq_packed_close(packed);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("generate");
    TCase *tests = tcase_create("generate");
    tcase_set_timeout(tests, 0);
    tcase_add_loop_test(tests, slides_as_documented, 0, sizeof cases / sizeof *cases);
    tcase_add_test(tests, ends_early_and_refuses);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
