/* Protocols, text counts and comparisons of two models against the loops written out, over the logits of the
 * packed engine in double precision: no code is shared with the graph. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/packed.h"
#include "model/gpt2.h"
#include "potqat/engine.h"
#include "tests/harness/suite.h"
#include "train/evaluate.h"

enum { CONTEXT = 12, LENGTH = 331 }; /* of the text, and of the test split, in characters */

static char path[] = "/tmp/potqat-evaluate-XXXXXX";
static pq_dataset *dataset;
static uint16_t tokens[LENGTH];
static size_t vocab;
static pq_error err;

static void must(pq_status status) {
    ck_assert_msg(status == PQ_OK, "%s", err.message);
}

/* Words of all lengths, all kinds of space, and letters of two bytes. */
static void setup(void) {
    FILE *file = fdopen(mkstemp(path), "w");
    unsigned state = 5;
    for (int i = 0; i < 2 * LENGTH; i++) {
        state = state * 1103515245u + 12345u;
        unsigned draw = (state >> 16) % 40;
        fputs(draw < 26   ? (char[]){(char)('a' + draw), 0}
              : draw < 30 ? "\u00e9"
              : draw < 36 ? " "
                          : (const char *[]){"\n", "\t", "\r", "\v"}[draw - 36],
              file);
    }
    ck_assert_int_eq(fclose(file), 0);
    const pq_data_options options = {.path = path, .tokenizer = "char", .split = {0.5, 0, 0.5}};
    must(pq_dataset_open(&options, &dataset, &err));
    ck_assert_uint_eq(pq_dataset_tokens(dataset, PQ_TEST), LENGTH);
    pq_dataset_read(dataset, PQ_TEST, 0, LENGTH, tokens);
    vocab = pq_tokenizer_vocab(pq_dataset_tokenizer(dataset));
}

static void teardown(void) {
    pq_dataset_close(dataset);
    unlink(path);
}

static pq_model *make_model(int width, uint64_t seed) {
    const pq_gpt2_shape shape = {.layers = 2,
                                 .heads = 2,
                                 .width = width,
                                 .context = CONTEXT + 4,
                                 .vocab = (int64_t)vocab,
                                 .bias = true};
    pq_model *model;
    must(pq_model_create(&shape, &model, &err));
    pq_gpt2_initialise(model, seed);
    for (size_t i = 0; i < model->params.elements; i++) model->weights[i] *= 6;
    return model;
}

/* The engine's logits of the tokens from `start` on, for the last two models asked for, one after the other.
 */
static struct table {
    const pq_model *model;
    pq_packed *packed;
    pq_engine *engine;
    size_t start;
    float logits[CONTEXT * 64];
} tables[2];

static void forget(void) {
    for (int i = 0; i < 2; i++) {
        pq_engine_destroy(tables[i].engine);
        pq_packed_close(tables[i].packed);
        tables[i] = (struct table){0};
    }
}

static const struct table *table_of(const pq_model *model, size_t start) {
    struct table *t = &tables[tables[0].model && tables[0].model != model];
    size_t count = LENGTH - start < CONTEXT ? LENGTH - start : CONTEXT;
    if (t->model && t->start == start) return t;
    if (!t->model) {
        must(pq_packed_from_model(model, &t->packed, &err));
        must(pq_engine_create(t->packed, 0, &t->engine, &err));
    }
    t->model = model, t->start = start;
    pq_engine_reset(t->engine);
    must(pq_engine_forward(t->engine, tokens + start, count, false, t->logits, &err));
    return t;
}

/* log softmax of the token at `position` behind those since `start`, [vocab]. */
static void log_probabilities(const pq_model *model, size_t start, size_t position, double *out) {
    const float *logits = table_of(model, start)->logits + (position - start - 1) * vocab;
    double sum = 0;
    for (size_t i = 0; i < vocab; i++) sum += exp((double)logits[i]);
    for (size_t i = 0; i < vocab; i++) out[i] = (double)logits[i] - log(sum);
}

static void close_to(double found, double expected) {
    ck_assert_msg(fabs(found - expected) <= 2e-5 * (1 + fabs(expected)), "found %.9g, expected %.9g", found,
                  expected);
}

/* Windows as [start, first target, behind the last target). */
typedef struct span {
    size_t start, from, to;
} span;

/* The loop of Hugging Face's guide, word for word, over positions of tokens. */
static size_t guide(size_t max_length, size_t stride, size_t length, span *out) {
    size_t previous_end = 0, count = 0;
    for (size_t begin = 0; begin < length; begin += stride) {
        size_t end = begin + max_length < length ? begin + max_length : length,
               target_length = end - previous_end;
        size_t from = end - target_length;
        if (from == begin) from++; /* labels are shifted: nothing predicts a window's first token */
        out[count++] = (span){begin, from, end};
        previous_end = end;
        if (end == length) break;
    }
    return count;
}

/* A number that belongs to a prediction of token `position` from those since `start`. */
typedef double (*measured)(const pq_model *a, const pq_model *b, size_t start, size_t position);

static double loss_of(const pq_model *a, const pq_model *b, size_t start, size_t position) {
    double p[64];
    (void)b;
    log_probabilities(a, start, position, p);
    return -p[tokens[position]];
}
static double divergence_of(const pq_model *a, const pq_model *b, size_t start, size_t position) {
    double p[64], q[64], sum = 0;
    log_probabilities(a, start, position, p);
    log_probabilities(b, start, position, q);
    for (size_t i = 0; i < vocab; i++) sum += exp(q[i]) * (q[i] - p[i]);
    return sum;
}
static double agreement_of(const pq_model *a, const pq_model *b, size_t start, size_t position) {
    double p[64], q[64];
    size_t x = 0, y = 0;
    log_probabilities(a, start, position, p);
    log_probabilities(b, start, position, q);
    for (size_t i = 1; i < vocab; i++) {
        if (p[i] > p[x]) x = i;
        if (q[i] > q[y]) y = i;
    }
    return x == y;
}

/* Mean over tokens, and the standard error of a ratio of sums over windows; windows' means to means[]. */
static pq_difference expected(const span *spans, size_t count, measured of, const pq_model *a,
                              const pq_model *b, double *means) {
    double sum = 0, n = 0, squares = 0, W = (double)count;
    for (size_t w = 0; w < count; w++) {
        double window = 0;
        for (size_t t = spans[w].from; t < spans[w].to; t++) window += of(a, b, spans[w].start, t);
        sum += window, n += (double)(spans[w].to - spans[w].from);
        means[w] = window / (double)(spans[w].to - spans[w].from);
    }
    for (size_t w = 0; w < count; w++) {
        double d = (means[w] - sum / n) * (double)(spans[w].to - spans[w].from);
        squares += d * d;
    }
    return (pq_difference){sum / n, count > 1 ? sqrt(squares * W / (W - 1)) / n : NAN};
}

static void text_of(const span *spans, size_t count, pq_text_size *out) {
    char bytes[8 * LENGTH] = "", *words = bytes;
    size_t length = 0;
    for (size_t w = 0; w < count; w++)
        for (size_t t = spans[w].from; t < spans[w].to; t++) {
            char *text;
            size_t n;
            must(pq_tokenizer_decode(pq_dataset_tokenizer(dataset), &tokens[t], 1, &text, &n, &err));
            memcpy(bytes + length, text, n);
            length += n;
            free(text);
        }
    *out = (pq_text_size){.bytes = length};
    for (char *state, *word = strtok_r(words, " \t\n\v\f\r", &state); word;
         word = strtok_r(NULL, " \t\n\v\f\r", &state))
        out->words++;
}

static void same_as(const pq_evaluation *e, const span *spans, size_t count, const pq_evaluation_options *o,
                    const pq_model *model) {
    double means[LENGTH];
    size_t targets = 0;
    pq_text_size text, wanted;
    pq_difference loss = expected(spans, count, loss_of, model, NULL, means);
    ck_assert_uint_eq(e->windows, count);
    for (size_t w = 0; w < count; w++)
        close_to(e->window_loss[w], means[w]), targets += spans[w].to - spans[w].from;
    ck_assert_uint_eq(e->tokens, targets);
    close_to(e->loss, loss.mean);
    if (count > 1)
        close_to(e->loss_se, loss.se);
    else
        ck_assert(isnan(e->loss_se));
    must(pq_evaluation_count_text(e, dataset, o, &text, &err));
    text_of(spans, count, &wanted);
    ck_assert_uint_eq(text.bytes, wanted.bytes);
    ck_assert_uint_eq(text.words, o->protocol == PQ_LAST_TOKEN ? 0 : wanted.words);
}

/* Strides that leave a short last window, and those that do not; 10 divides 330 - 10. */
static const struct {
    size_t context, stride, windows;
} sliding[] = {{12, 5, 0}, {12, 12, 0}, {12, 1, 0}, {10, 10, 0},
               {10, 5, 0}, {12, 7, 3},  {12, 7, 1}, {1, 1, 0}};

START_TEST(sliding_is_the_guide) {
    pq_model *model = make_model(16, 1);
    const pq_evaluation_options options = {.split = PQ_TEST,
                                           .protocol = PQ_SLIDING,
                                           .context = sliding[_i].context,
                                           .stride = sliding[_i].stride,
                                           .windows = sliding[_i].windows};
    span spans[LENGTH];
    pq_evaluation e;
    size_t count = guide(options.context + 1, options.stride, LENGTH, spans);
    if (options.windows) count = options.windows;
    must(pq_evaluate(model, dataset, &options, &e, &err));
    same_as(&e, spans, count, &options, model);
    if (!options.windows) ck_assert_uint_eq(e.tokens, LENGTH - 1);
    pq_evaluation_deinit(&e);
    forget();
    pq_model_destroy(model);
}
END_TEST

START_TEST(windows_side_by_side) {
    pq_model *model = make_model(16, 1);
    for (pq_protocol protocol = PQ_ALL_TOKENS; protocol <= PQ_LAST_TOKEN; protocol++) {
        const pq_evaluation_options options = {.split = PQ_TEST, .protocol = protocol, .context = CONTEXT};
        span spans[LENGTH];
        pq_evaluation e;
        size_t count = (LENGTH - 1) / CONTEXT;
        for (size_t w = 0; w < count; w++)
            spans[w] = (span){w * CONTEXT, w * CONTEXT + (protocol == PQ_ALL_TOKENS ? 1 : CONTEXT),
                              (w + 1) * CONTEXT + 1};
        must(pq_evaluate(model, dataset, &options, &e, &err));
        same_as(&e, spans, count, &options, model);
        pq_evaluation_deinit(&e);
    }
    forget();
    pq_model_destroy(model);
}
END_TEST

/* Losses have the bits that each model has alone; divergence and agreement as their definitions say. */
START_TEST(two_models) {
    pq_model *a = make_model(16, 1), *b = make_model(24, 1);
    const pq_evaluation_options options = {
        .split = PQ_TEST, .protocol = _i ? PQ_SLIDING : PQ_ALL_TOKENS, .context = CONTEXT, .stride = 7};
    span spans[LENGTH];
    double means[LENGTH];
    pq_evaluation x, y, alone;
    pq_nearness nearness;
    pq_difference d;
    size_t count = guide(CONTEXT + 1, _i ? 7 : CONTEXT, _i ? LENGTH : LENGTH / CONTEXT * CONTEXT + 1, spans);
    must(pq_evaluate_both(a, b, dataset, &options, &x, &y, &nearness, &err));
    for (int i = 0; i < 2; i++) {
        const pq_evaluation *found = i ? &y : &x;
        must(pq_evaluate(i ? b : a, dataset, &options, &alone, &err));
        ck_assert_uint_eq(found->tokens, alone.tokens);
        for (size_t w = 0; w < alone.windows; w++) close_to(found->window_loss[w], alone.window_loss[w]);
        pq_evaluation_deinit(&alone);
    }
    ck_assert_uint_eq(x.windows, count);
    pq_difference kl = expected(spans, count, divergence_of, a, b, means);
    close_to(nearness.kl, kl.mean);
    close_to(nearness.kl_se, kl.se);
    pq_difference agreement = expected(spans, count, agreement_of, a, b, means);
    ck_assert(agreement.mean > 0 && agreement.mean < 1);
    close_to(nearness.agreement, agreement.mean);
    close_to(nearness.agreement_se, agreement.se);
    must(pq_evaluation_compare(&x, &y, &d, &err));
    close_to(d.mean, x.loss - y.loss);
    pq_evaluation_deinit(&x);
    pq_evaluation_deinit(&y);
    must(pq_evaluate_both(a, a, dataset, &options, &x, &y, &nearness, &err));
    ck_assert_double_eq(nearness.kl, 0);
    close_to(nearness.agreement, 1);
    pq_evaluation_deinit(&x);
    pq_evaluation_deinit(&y);
    forget();
    pq_model_destroy(a);
    pq_model_destroy(b);
}
END_TEST

START_TEST(refusals) {
    pq_model *a = make_model(16, 1), *b = make_model(16, 2);
    pq_evaluation_options options = {.split = PQ_TEST, .context = CONTEXT};
    pq_evaluation x, y;
    pq_nearness nearness;
    a->tokenizer = strdup("{\"kind\": \"byte\"}");
    b->tokenizer = strdup("{\"kind\": \"char\"}");
    ck_assert_int_eq(pq_evaluate_both(a, b, dataset, &options, &x, &y, &nearness, &err), PQ_ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "tokenizers differ"));
    ck_assert(!x.window_loss && !y.window_loss);
    options.context = CONTEXT + 5;
    ck_assert_int_eq(pq_evaluate(a, dataset, &options, &x, &err), PQ_ERR_USAGE);
    options.context = CONTEXT, options.split = PQ_VAL; /* empty */
    ck_assert_int_eq(pq_evaluate(a, dataset, &options, &x, &err), PQ_ERR_USAGE);
    forget();
    pq_model_destroy(a);
    pq_model_destroy(b);
}
END_TEST

int main(void) {
    TCase *c = tcase_create("evaluate");
    tcase_add_unchecked_fixture(c, setup, teardown);
    tcase_add_loop_test(c, sliding_is_the_guide, 0, sizeof sliding / sizeof *sliding);
    tcase_add_test(c, windows_side_by_side);
    tcase_add_loop_test(c, two_models, 0, 2);
    tcase_add_test(c, refusals);
    Suite *s = suite_create("evaluate");
    suite_add_tcase(s, c);
    return run_suite(s);
}
