/* What is counted about quantized matrices: ranks, changes and shares against plain definitions, and the
 * lines of whole trainings against counts made anew from a checkpoint of each iteration. */
#include <check.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/gpt2.h"
#include "potqat/trainer.h"
#include "store/checkpoint.h"
#include "tests/harness/suite.h"
#include "tests/train/places.h"
#include "tests/train/runs.h"
#include "train/matrix_stats.h"
#include "train/metrics.h"
#include "train/ptq/ptq.h"

static uint64_t draw(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

/* ---- pure functions ---- */

static const struct {
    const char *quantizer;
    int64_t levels;
    double range[2];
    pq_rounding rounding;
} codebooks[] = {{.quantizer = "pot", .levels = 3},
                 {.quantizer = "pot", .levels = 15},
                 {.quantizer = "pot", .levels = 63},
                 {.quantizer = "pot", .levels = 7, .rounding = PQ_ROUND_LOG},
                 {.quantizer = "pot-zero-free", .levels = 4},
                 {.quantizer = "pot-zero-free", .levels = 64},
                 {.quantizer = "uniform", .levels = 3},
                 {.quantizer = "uniform", .levels = 127},
                 {.quantizer = "uniform", .range = {-8, 7}},
                 {.quantizer = "uniform", .range = {-1, 126}},
                 {.quantizer = "pot-released", .range = {-8, 4}},
                 {.quantizer = "pot-released", .range = {-2147483648.0, 1}},
                 {.quantizer = "apot", .levels = 5},
                 {.quantizer = "apot", .levels = 15},
                 {.quantizer = "apot", .levels = 31},
                 {.quantizer = "apot", .levels = 63}};
enum { CODEBOOKS = sizeof codebooks / sizeof *codebooks };

static void make_codebook(int i, pq_codebook *codebook) {
    must(pq_codebook_init(codebook, codebooks[i].quantizer, codebooks[i].levels,
                          codebooks[i].levels ? NULL : codebooks[i].range, codebooks[i].rounding, &err));
}

/* A rank belongs to one level, follows its order and sign, and is the same at each scale and place. */
START_TEST(ranks_are_levels) {
    static const float scales[] = {1,          0.01171875f, 1.2345678e-3f,   0x1.FFFFFEp-70f,
                                   0x1.8p-63f, FLT_MIN,     1e-40f,          0x1p-149f,
                                   3.3333333f, 1e28f,       0x1p-126f * 1.5f};
    pq_codebook codebook;
    pq_ranks ranks;
    uint64_t random = 5;
    int8_t rank_of[256], out[200];
    make_codebook(_i, &codebook);
    pq_ranks_init(&ranks, &codebook);
    for (size_t s = 0; s < sizeof scales / sizeof *scales; s++)
        for (size_t n = 0; n <= 200; n += n < 70 ? 1 : 13) {
            uint8_t codes[200];
            float values[200];
            for (size_t i = 0; i < n; i++) {
                do codes[i] = (uint8_t)draw(&random);
                while (isnan(codebook.value[codes[i]]));
                if (s == 0 && n == 200) continue;
            }
            pq_decode(&codebook, codes, scales[s], values, n);
            pq_ranks_of(&ranks, values, scales[s], out, n);
            for (size_t i = 0; i < n; i++) {
                int8_t one;
                float value = codebook.value[codes[i]];
                pq_ranks_of(&ranks, &value, 1, &one, 1);
                ck_assert_msg(out[i] == one, "scale %g, value %g: rank %d, expected %d", (double)scales[s],
                              (double)value, out[i], one);
                rank_of[codes[i]] = one;
            }
        }
    for (int a = 0; a < 256; a++) {
        float x = codebook.value[a];
        if (isnan(x)) continue;
        ck_assert_int_eq((x > 0) - (x < 0), (rank_of[a] > 0) - (rank_of[a] < 0));
        for (int b = 0; b < 256; b++)
            if (!isnan(codebook.value[b]))
                ck_assert_int_eq((x > codebook.value[b]) - (x < codebook.value[b]),
                                 (rank_of[a] > rank_of[b]) - (rank_of[a] < rank_of[b]));
    }
}
END_TEST

/* The definitions, weight by weight, from whole histories. */
START_TEST(changes_follow_their_definitions) {
    enum { MOST = 300, STEPS = 60 };
    static const size_t sizes[] = {1, 2, 63, 64, 65, 128, 300};
    static int8_t history[STEPS][MOST], last[MOST], before[MOST];
    const size_t n = sizes[_i];
    uint64_t random = (uint64_t)_i + 1, expected[3] = {0};
    pq_rank_changes sums = {0};
    for (size_t i = 0; i < n; i++) history[0][i] = (int8_t)(draw(&random) % 5) - 2;
    for (int t = 1; t < STEPS; t++)
        for (size_t i = 0; i < n; i++) {
            history[t][i] = history[t - 1][i];
            if (draw(&random) % (t % 3 ? 4 : 100) == 0) history[t][i] = (int8_t)(draw(&random) % 5) - 2;
        }
    memcpy(last, history[0], n);
    memcpy(before, history[0], n);
    for (int t = 1; t < STEPS; t++) {
        pq_rank_changes_add(history[t], last, before, n, &sums);
        ck_assert_mem_eq(last, history[t], n);
        for (size_t i = 0; i < n; i++) {
            const int now = history[t][i], old = history[t - 1][i];
            if (now == old) continue;
            expected[0]++;
            expected[2] += (now > 0 && old < 0) || (now < 0 && old > 0);
            int k = t - 1; /* its previous change was from k - 1 to k */
            while (k > 0 && history[k - 1][i] == history[k][i]) k--;
            expected[1] += k > 0 && history[k - 1][i] == now;
        }
        ck_assert_uint_eq(sums.changed, expected[0]);
        ck_assert_uint_eq(sums.flipped_back, expected[1]);
        ck_assert_uint_eq(sums.sign_flips, expected[2]);
    }
    if (n > 60) ck_assert(expected[1] > 20 && expected[2] > 20 && expected[0] > expected[1]);
}
END_TEST

START_TEST(shares_count_codes) {
    enum { N = 960 };
    static const size_t groups[] = {N, 96, 32, 64};
    pq_codebook codebook;
    float w[N], hard[N], scales[N / 32];
    uint8_t codes[N];
    double shares[256];
    uint64_t random = 11;
    make_codebook(_i, &codebook);
    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
        const size_t group = groups[g];
        for (size_t i = 0; i < N / 32; i++) scales[i] = 0.01f * (float)(1 + draw(&random) % 50);
        for (size_t i = 0; i < N; i++)
            w[i] = ((float)(draw(&random) % 2001) / 1000 - 1) * 1.3f * scales[i / group] *
                   fminf((float)codebook.range[1] + 1, 100);
        pq_matrix_encode(&codebook, w, 10, N / 10, group, scales, codes);
        pq_matrix_fake_quantize(&codebook, w, 10, N / 10, group, scales, hard);
        pq_level_shares(&codebook, hard, group, scales, N, shares);
        double previous = -INFINITY;
        for (int level = 0; level < codebook.levels; level++) {
            double next = INFINITY;
            size_t count = 0;
            for (int code = 0; code < 256; code++)
                if ((double)codebook.value[code] > previous && (double)codebook.value[code] < next)
                    next = (double)codebook.value[code];
            for (size_t i = 0; i < N; i++) count += (double)codebook.value[codes[i]] == next;
            ck_assert_double_eq_tol(shares[level], (double)count / N, 1e-12);
            previous = next;
        }
    }
}
END_TEST

START_TEST(drift_is_the_mean_relative_change) {
    const float then[] = {1, 2, 0.5f, 4}, now[] = {1, 3, 0.25f, 5};
    ck_assert_double_eq(pq_scale_drift(now, then, 4), (0 + 0.5 + 0.5 + 0.25) / 4);
    ck_assert_double_eq(pq_scale_drift(then, then, 4), 0);
}
END_TEST

/* Where the codebook changes, that step is not one, and scales are compared from there on. */
START_TEST(other_codebooks_are_not_compared) {
    const char *const overrides[] = {"quant.quantizer=pot", "quant.levels=3", "quant.granularity=tensor",
                                     "qat.progressive=[[0, 15], [3, 3]]"};
    pq_gpt2_shape shape = {.layers = 1, .heads = 2, .width = 8, .context = 5, .vocab = 11};
    pq_config *config;
    pq_model *model;
    pq_qat *qat;
    pq_scale_options scale;
    must(pq_config_load(NULL, overrides, 4, &config, &err));
    must(pq_model_create(&shape, &model, &err));
    pq_gpt2_initialise(model, 7);
    float *w = model->weights + model->params.list[0].offset;
    for (int i = 0; i < 6; i++) w[i] = 0.1f;
    must(pq_ptq_scale_options(config, &scale, &err));
    must(pq_ptq_rtn(config, NULL, model, &err));
    must(pq_qat_create(model, config, &scale, 0, &qat, &err));
    float *shown = calloc(model->params.elements, sizeof *shown);
    const pq_param *p = &model->params.list[0];
    pq_watched seen = pq_watch_read(qat, 0);
    ck_assert(!seen.trained && isnan(seen.changed) && isnan(seen.scale_drift));
    pq_watch_restart(qat);
    for (int64_t iter = 0; iter < 6; iter++) {
        w[iter] = -w[iter]; /* one weight a step changes sign */
        pq_qat_show(qat, iter, 1e-3, &(pq_shown){.places = places_of(qat->model, shown)});
        pq_qat_updated(qat);
    }
    ck_assert_int_eq(model->quant[0].codebook.levels, 3);
    seen = pq_watch_read(qat, 0);
    ck_assert_double_eq_tol(seen.changed * (double)p->count, 1, 1e-9); /* 4 changes in 4 steps */
    ck_assert_double_eq_tol(seen.sign_flips * (double)p->count, 1, 1e-9);
    ck_assert_double_eq(seen.flipped_back, 0);
    ck_assert_double_eq(seen.scale_drift, 0);
    model->quant[0].scales[0] *= 1.5f;
    ck_assert_double_eq_tol(pq_watch_read(qat, 0).scale_drift, 0.5, 1e-6);
    pq_watch_restart(qat);
    seen = pq_watch_read(qat, 0);
    ck_assert(seen.trained && isnan(seen.changed) && seen.scale_drift == 0);
    free(shown);
    pq_qat_destroy(qat);
    pq_model_destroy(model);
    pq_config_destroy(config);
}
END_TEST

/* ---- whole trainings ---- */

enum { ITERS = 11, EVERY = 4 };

static pq_status train_watched(const char *run, const char *const *more, const char *last, bool resume,
                               int stop) {
    static const char *const base[] = {
        "data.tokenizer=char", "model.layers=1",    "model.heads=2",        "model.width=32",
        "model.context=8",     "train.batch=3",     "eval.every=4",         "eval.windows=5",
        "train.max_iters=11",  "save.every=1",      "save.keep=100",        "train.lr=3e-2",
        "log.every=2",         "train.grad_clip=0", "train.warmup_iters=2", NULL};
    const char *const ends[] = {last, NULL};
    const char *const *const lists[] = {base, more, ends, NULL};
    return train_lists(run, lists, resume, stop, NULL);
}

static pq_model *models[ITERS + 1];
static pq_training_state states[ITERS + 1];
static uint8_t *codes[ITERS + 1]; /* of the matrix that is looked at */

static void read_all(const char *run) {
    for (int i = 0; i <= ITERS; i++) {
        char path[120];
        snprintf(path, sizeof path, "%s/%s/ckpt-%d.h5", folder, run, i);
        must(pq_checkpoint_read(path, &models[i], &states[i], &err));
    }
}

static void forget_all(void) {
    for (int i = 0; i <= ITERS; i++) {
        pq_model_destroy(models[i]);
        pq_training_state_deinit(&states[i]);
    }
}

static double number(const json_t *line, const char *key) {
    const json_t *value = json_object_get(line, key);
    ck_assert_msg(value && (json_is_number(value) || json_is_null(value)), "%s", key);
    return json_is_null(value) ? NAN : json_number_value(value);
}

static void expect(const json_t *line, const char *key, double value) {
    double found = number(line, key);
    ck_assert_msg(isnan(value) ? isnan(found) : fabs(found - value) <= 1e-8 * fabs(value),
                  "%s: %s is %.9g, expected %.9g", json_string_value(json_object_get(line, "matrix")), key,
                  found, value);
}

/* Changes between iterations 1 .. iter - 1 that came after the line before. */
static void check_changes(const json_t *line, int iter, int previous, size_t count) {
    double changed = 0, back = 0, flips = 0;
    int steps = 0;
    const float *level = models[0]->quant[0].codebook.value;
    for (int t = previous > 0 ? previous : 1; t < iter; t++, steps++)
        for (size_t i = 0; i < count; i++) {
            float now = level[codes[t][i]], old = level[codes[t - 1][i]];
            if (now == old) continue;
            int k = t - 1;
            while (k > 0 && codes[k][i] == codes[k - 1][i]) k--;
            changed++;
            back += k > 0 && level[codes[k - 1][i]] == now;
            flips += now * old < 0;
        }
    double all = steps ? steps * (double)count : NAN;
    expect(line, "changed", changed / all);
    expect(line, "flipped_back", back / all);
    expect(line, "sign_flips", flips / all);
}

/* AdamW's first moment tells the gradient: m' = beta1 m + (1 - beta1) g. */
static double gradient_norm(int iter, const pq_param *p) {
    double sum = 0, beta1 = 0.9;
    for (size_t i = p->offset; i < p->offset + p->count; i++) {
        double g = ((double)states[iter].m[i] - beta1 * (double)states[iter - 1].m[i]) / (1 - beta1);
        sum += g * g;
    }
    return sqrt(sum);
}

static void check_line(const json_t *line, int previous) {
    const int iter = (int)json_integer_value(json_object_get(line, "iter"));
    const char *name = json_string_value(json_object_get(line, "matrix"));
    const size_t index = (size_t)(pq_params_find(&models[0]->params, name) - models[0]->params.list);
    const pq_param *p = &models[0]->params.list[index];
    for (int t = 0; t <= ITERS; t++) {
        const pq_param_quant *q = &models[t]->quant[index];
        codes[t] = realloc(codes[t], p->count);
        pq_matrix_encode(&q->codebook, models[t]->weights + p->offset, p->rows, p->columns, q->group,
                         q->scales, codes[t]);
    }
    check_changes(line, iter, previous, p->count);
    const pq_param_quant *now = &models[iter]->quant[index];
    double drift = previous < 0 ? NAN : 0, total = 0;
    for (size_t i = 0; i < now->scale_count && previous >= 0; i++) {
        double then = (double)models[previous]->quant[index].scales[i];
        drift += fabs((double)now->scales[i] - then) / then / (double)now->scale_count;
    }
    expect(line, "scale_drift", drift);
    double norm = iter ? gradient_norm(iter, p) : NAN;
    ck_assert_double_eq_tol(iter ? number(line, "grad_norm") / norm : 1, 1, 1e-4);
    if (!iter) expect(line, "grad_norm", NAN);
    const json_t *histogram = json_object_get(line, "histogram");
    ck_assert_uint_eq(json_array_size(histogram), (size_t)now->codebook.levels);
    for (size_t i = 0; i < json_array_size(histogram); i++)
        total += json_number_value(json_array_get(histogram, i));
    ck_assert_double_eq_tol(total, 1, 1e-6);
    if (now->codebook.levels % 2)
        expect(line, "zeros", json_number_value(json_array_get(histogram, (size_t)now->codebook.levels / 2)));
}

static const char *const variants[][16] = {
    {"quant.quantizer=pot", "quant.levels=7", "quant.granularity=row"},
    {"quant.quantizer=pot", "quant.levels=15", "quant.scale=learned", "qat.scale_lr=0.2", "qat.start_iter=2",
     "qat.anneal_iters=5"},
    {"quant.quantizer=apot", "quant.levels=63", "quant.granularity=tensor"},
    {"quant.quantizer=uniform", "quant.range=[-8, 7]", "quant.scale=learned", "qat.scale_lr=0.2",
     "quant.granularity=group32", "quant.gradient=ste"},
    {"quant.quantizer=pot-zero-free", "quant.levels=4", "qat.freeze=[[2, 0.3], [6, 0.6]]"},
    {"quant.quantizer=pot", "quant.levels=7", "quant.rounding=stochastic"}};
enum { VARIANTS = sizeof variants / sizeof *variants };

START_TEST(lines_agree_with_checkpoints) {
    json_t *lines;
    size_t i, matrices = 0, moved = 0;
    const json_t *line;
    char path[120];
    must(train_watched("run", variants[_i], NULL, false, -1));
    read_all("run");
    snprintf(path, sizeof path, "%s/run/metrics.jsonl", folder);
    must(pq_metrics_read(path, &lines, &err));
    json_array_foreach(lines, i, line) {
        if (!json_object_get(line, "matrix")) continue;
        const int iter = (int)json_integer_value(json_object_get(line, "iter"));
        check_line(line, iter == 0 ? -1 : (iter - 1) / EVERY * EVERY);
        matrices++;
        if (iter) moved += number(line, "changed") > 0;
    }
    ck_assert_uint_eq(matrices, 4 * 6); /* iterations 0, 4, 8, 11; six matrices in one layer's model */
    ck_assert_uint_ge(moved, 12);
    json_decref(lines);
    forget_all();
}
END_TEST

/* log.matrices may be another on --resume: counting begins anew, or ends; the training is the same. */
START_TEST(turned_on_and_off) {
    static const char *const words[] = {"log.matrices=false", "log.matrices=true"};
    pq_model *a, *b;
    char path[120];
    must(train_watched("whole", variants[1], words[1], false, -1));
    ck_assert_int_eq(train_watched("part", variants[1], words[_i], false, 6), PQ_STOPPED);
    must(train_watched("part", variants[1], words[1 - _i], true, -1));
    snprintf(path, sizeof path, "%s/whole/ckpt-%d.h5", folder, ITERS);
    must(pq_checkpoint_read(path, &a, NULL, &err));
    snprintf(path, sizeof path, "%s/part/ckpt-%d.h5", folder, ITERS);
    must(pq_checkpoint_read(path, &b, NULL, &err));
    ck_assert_mem_eq(a->weights, b->weights, a->params.elements * sizeof(float));
    pq_model_destroy(a);
    pq_model_destroy(b);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("watch");
    TCase *tests = tcase_create("watch");
    tcase_set_timeout(tests, 0);
    tcase_add_loop_test(tests, ranks_are_levels, 0, CODEBOOKS);
    tcase_add_loop_test(tests, changes_follow_their_definitions, 0, 7);
    tcase_add_loop_test(tests, shares_count_codes, 0, CODEBOOKS);
    tcase_add_test(tests, drift_is_the_mean_relative_change);
    tcase_add_test(tests, other_codebooks_are_not_compared);
    suite_add_tcase(suite, tests);
    TCase *trainings = tcase_create("trainings");
    tcase_set_timeout(trainings, 0);
    tcase_add_checked_fixture(trainings, make_folder, remove_folder);
    tcase_add_loop_test(trainings, lines_agree_with_checkpoints, 0, VARIANTS);
    tcase_add_loop_test(trainings, turned_on_and_off, 0, 2);
    suite_add_tcase(suite, trainings);
    return run_suite(suite);
}
