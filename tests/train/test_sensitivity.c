/* The table of sensitivities against evaluations of models quantized otherwise, and the choice against all
 * choices. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/random.h"
#include "tests/harness/suite.h"
#include "train/ptq/ptq.h"
#include "train/ptq/sensitivity.h"

static pq_dataset *dataset;
static const pq_evaluation_options options = {.split = PQ_VAL, .context = 8, .windows = 20};
static char csv[] = "/tmp/potqat-sensitivity-XXXXXX";

static pq_config *read_config(const char *yaml) {
    pq_config *config = NULL;
    pq_error err = {0};
    ck_assert_msg(pq_config_from_text(yaml, strlen(yaml), "test", NULL, 0, &config, &err) == PQ_OK, "%s",
                  err.message);
    return config;
}

static pq_model *make_model(void) {
    const pq_gpt2_shape shape = {.layers = 1,
                                 .heads = 2,
                                 .width = 16,
                                 .context = 8,
                                 .vocab = (int64_t)pq_tokenizer_vocab(pq_dataset_tokenizer(dataset))};
    pq_model *model;
    ck_assert_int_eq(pq_model_create(&shape, &model, NULL), PQ_OK);
    pq_gpt2_initialise(model, 3);
    for (size_t i = 0; i < model->params.elements; i++) model->weights[i] *= 8;
    return model;
}

static pq_sensitivity measured(const pq_config *config, pq_model *model) {
    pq_sensitivity table;
    pq_error err = {0};
    ck_assert_msg(pq_sensitivity_measure(config, model, dataset, &options, &table, &err) == PQ_OK, "%s",
                  err.message);
    return table;
}

/* A table with the sizes of pot, and rises of nothing. */
static pq_sensitivity sized(const pq_config *config, pq_model *model) {
    static const int counts[] = {3, 5, 7, 9, 15, 31, 63};
    pq_sensitivity table = {.rows = calloc(6 * 7, sizeof *table.rows)};
    for (size_t i = 0; i < model->params.count; i++)
        for (int k = 0; model->params.list[i].quantizable && k < 7; k++) {
            ck_assert_int_eq(pq_ptq_mark(config, counts[k], model, i, NULL), PQ_OK);
            table.rows[table.count] = (pq_sensitivity_row){.index = i,
                                                           .levels = counts[k],
                                                           .bits = model->quant[i].codebook.bits,
                                                           .bytes = pq_model_param_bytes(model, i),
                                                           .rise = 0.1 / (double)(table.count + 1)};
            table.count++;
        }
    return table;
}

/* Every row is what evaluating a model tells in which quant.params names that matrix alone. */
START_TEST(rows) {
    static const int counts[] = {3, 5, 7, 9, 15, 31, 63};
    pq_config *config = read_config("quant: {quantizer: pot, granularity: tensor, scale: absmax}");
    pq_model *model = make_model();
    pq_sensitivity table = measured(config, model);
    pq_evaluation plain, e;
    pq_difference d;
    ck_assert_uint_eq(table.count, 6 * 7);
    for (size_t i = 0; i < model->params.count; i++) ck_assert(!model->quant[i].quantized);
    ck_assert_int_eq(pq_evaluate(model, dataset, &options, &plain, NULL), PQ_OK);
    ck_assert(table.loss == plain.loss);
    for (size_t i = 0; i < table.count; i++) {
        const pq_sensitivity_row *r = &table.rows[i];
        char yaml[200];
        ck_assert_int_eq(r->levels, counts[i % 7]);
        snprintf(yaml, sizeof yaml,
                 "quant: {quantizer: pot, granularity: tensor, scale: absmax, params: [%s], levels: %d}",
                 model->params.list[r->index].name, r->levels);
        pq_config *one = read_config(yaml);
        ck_assert_int_eq(pq_ptq_rtn(one, NULL, model, NULL), PQ_OK);
        ck_assert_int_eq(pq_evaluate(model, dataset, &options, &e, NULL), PQ_OK);
        ck_assert_int_eq(pq_evaluation_compare(&e, &plain, &d, NULL), PQ_OK);
        ck_assert(r->rise == d.mean && r->rise_se == d.se);
        ck_assert_uint_eq(r->bytes, pq_model_param_bytes(model, r->index));
        ck_assert_int_eq(r->bits, model->quant[r->index].codebook.bits);
        pq_evaluation_deinit(&e);
        pq_config_destroy(one);
    }
    ck_assert(table.rows[0].rise != table.rows[1].rise);
    pq_evaluation_deinit(&plain);
    pq_sensitivity_deinit(&table);
    pq_config_destroy(config);
    pq_model_destroy(model);
}
END_TEST

START_TEST(files) {
    pq_config *config = read_config("quant: {quantizer: pot}"),
              *uniform = read_config("quant: {quantizer: uniform}"),
              *tensor = read_config("quant: {quantizer: pot, granularity: tensor}"),
              *some = read_config("quant: {quantizer: pot, params: [\"h.*\"]}"),
              *range = read_config("quant: {quantizer: uniform, range: [-8, 7]}"),
              *free_of_zero =
                  read_config("quant: {quantizer: pot-zero-free, levels: 8, params: [wte.weight]}");
    pq_model *model = make_model();
    pq_sensitivity table = sized(config, model), read;
    pq_error err;
    ck_assert_int_eq(pq_sensitivity_write(&table, model, csv, true, &err), PQ_OK);
    ck_assert_int_eq(pq_sensitivity_write(&table, model, csv, false, &err), PQ_ERR_USAGE);
    ck_assert_msg(pq_sensitivity_read(csv, config, model, &read, &err) == PQ_OK, "%s", err.message);
    ck_assert_uint_eq(read.count, table.count);
    for (size_t i = 0; i < table.count; i++) {
        ck_assert_uint_eq(read.rows[i].index, table.rows[i].index);
        ck_assert_int_eq(read.rows[i].levels, table.rows[i].levels);
        ck_assert_uint_eq(read.rows[i].bytes, table.rows[i].bytes);
        ck_assert(read.rows[i].rise == table.rows[i].rise);
    }
    pq_sensitivity_deinit(&read);
    ck_assert_int_eq(pq_sensitivity_read(csv, tensor, model, &read, &err), PQ_ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "with quant.granularity tensor"));
    ck_assert_int_eq(pq_sensitivity_read(csv, some, model, &read, &err), PQ_ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "wte.weight is not a matrix"));
    ck_assert_int_eq(pq_sensitivity_measure(range, model, dataset, &options, &read, &err), PQ_ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "quant.range"));
    pq_sensitivity_deinit(&table);
    table = measured(free_of_zero, model);
    ck_assert_uint_eq(table.count, 5); /* 4, 8, 16, 32, 64 */
    ck_assert_int_eq(pq_sensitivity_write(&table, model, csv, true, &err), PQ_OK);
    ck_assert_int_eq(pq_sensitivity_read(csv, uniform, model, &read, &err), PQ_ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "no codebook of 4 levels"));
    pq_sensitivity_deinit(&table);
    pq_model_destroy(model);
    pq_config_destroy(config), pq_config_destroy(uniform), pq_config_destroy(tensor), pq_config_destroy(some);
    pq_config_destroy(range), pq_config_destroy(free_of_zero);
}
END_TEST

START_TEST(damaged_files) {
    static const struct {
        const char *text, *sentence;
    } cases[] = {
        {"", "expected the header"},
        {"matrix,levels\n", "expected the header"},
        {"matrix,levels,bits,bytes,sqnr_db,loss_rise,loss_rise_se\n", "no row for wte.weight"},
        {"matrix,levels,bits,bytes,sqnr_db,loss_rise,loss_rise_se\nwte.weight,3,2\n", "found wte.weight,3,2"},
        {"matrix,levels,bits,bytes,sqnr_db,loss_rise,loss_rise_se\nwte.weight,3,2,5,1,nan,1\n",
         "found wte.weight"},
        {"matrix,levels,bits,bytes,sqnr_db,loss_rise,loss_rise_se\nwte.weight,3,2,5,1,1,1x\n",
         "found wte.weight"},
        {"matrix,levels,bits,bytes,sqnr_db,loss_rise,loss_rise_se\nwtf.weight,3,2,5,1,1,1\n",
         "wtf.weight is not"},
        {"matrix,levels,bits,bytes,sqnr_db,loss_rise,loss_rise_se\nwte.weight,3,2,5,1,1,1\n",
         "the table has 5"},
    };
    pq_config *config = read_config("quant: {quantizer: pot}");
    pq_model *model = make_model();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pq_sensitivity read;
        pq_error err;
        FILE *file = fopen(csv, "w");
        fputs(cases[i].text, file);
        fclose(file);
        ck_assert_int_ne(pq_sensitivity_read(csv, config, model, &read, &err), PQ_OK);
        ck_assert_msg(strstr(err.message, cases[i].sentence) != NULL, "%s", err.message);
        ck_assert_ptr_null(read.rows);
    }
    pq_model_destroy(model);
    pq_config_destroy(config);
}
END_TEST

/* The first four counts of each of six matrices: 4096 choices. */
START_TEST(choices) {
    pq_config *config = read_config("quant: {quantizer: pot}");
    pq_model *model = make_model();
    pq_sensitivity all = sized(config, model);
    pq_sensitivity_row list[24];
    const pq_sensitivity_row *chosen[32];
    pq_error err;
    size_t fixed = 0, least = 0, most = 0, seen = 0;
    ck_assert_uint_le(model->params.count, 32);
    for (size_t i = 0; i < model->params.count; i++)
        if (!model->params.list[i].quantizable) fixed += 4 * model->params.list[i].count;
    for (uint64_t trial = 0; trial < 60; trial++) {
        const pq_sensitivity table = {.rows = list, .count = 24};
        for (size_t i = 0; i < 24; i++) {
            double pair[2];
            list[i] = all.rows[i / 4 * 7 + i % 4];
            pq_random_normal2(trial, PQ_STREAM_INIT, 0, i, pair);
            /* Rises fall with the levels, or (odd trials) do what they like. */
            list[i].rise = trial % 2 ? pair[0] : fabs(pair[0]) / (1 + 3 * (double)(i % 4));
        }
        least = most = fixed;
        for (size_t m = 0; m < 6; m++) least += list[4 * m].bytes, most += list[4 * m + 3].bytes;
        size_t budget = least + (most - least) * trial / 50;
        double best = INFINITY, rise = 0;
        size_t bytes = fixed;
        for (int choice = 0; choice < 4096; choice++) {
            double r = 0;
            size_t b = fixed;
            for (int m = 0; m < 6; m++) {
                const pq_sensitivity_row *row = &list[4 * m + (choice >> (2 * m) & 3)];
                r += row->rise, b += row->bytes;
            }
            if (b <= budget && r < best) best = r;
        }
        ck_assert_int_eq(pq_sensitivity_allocate(&table, model, budget, chosen, &err), PQ_OK);
        for (size_t i = 0; i < model->params.count; i++) {
            ck_assert_int_eq(chosen[i] != NULL, model->params.list[i].quantizable);
            if (!chosen[i]) continue;
            ck_assert_uint_eq(chosen[i]->index, i);
            rise += chosen[i]->rise, bytes += chosen[i]->bytes;
            seen |= (size_t)1 << chosen[i]->levels;
        }
        ck_assert_uint_le(bytes, budget);
        ck_assert_msg(fabs(rise - best) < 1e-12, "%g against %g", rise, best);
        ck_assert_int_eq(pq_sensitivity_allocate(&table, model, least - 1, chosen, &err), PQ_ERR_USAGE);
        ck_assert_ptr_nonnull(strstr(err.message, "at least"));
    }
    ck_assert_uint_eq(seen, 1u << 3 | 1u << 5 | 1u << 7 | 1u << 9);
    /* The bytes are those that the model then has. */
    ck_assert_int_eq(pq_sensitivity_allocate(&all, model, (least + most) / 2, chosen, &err), PQ_OK);
    char *override;
    const char *overrides[2] = {"quant.quantizer=pot", NULL};
    pq_config *with = NULL;
    ck_assert_int_eq(pq_sensitivity_override(model, chosen, &override, &err), PQ_OK);
    overrides[1] = override;
    ck_assert_msg(pq_config_load(NULL, overrides, 2, &with, &err) == PQ_OK, "%s", err.message);
    ck_assert_int_eq(pq_ptq_rtn(with, NULL, model, &err), PQ_OK);
    size_t bytes = fixed;
    for (size_t i = 0; i < model->params.count; i++)
        if (chosen[i]) {
            ck_assert_int_eq(model->quant[i].codebook.levels, chosen[i]->levels);
            bytes += chosen[i]->bytes;
        }
    ck_assert_uint_eq(bytes, pq_model_weight_bytes(model));
    ck_assert_int_eq(pq_sensitivity_check_budget(config, model, least, &err), PQ_OK);
    ck_assert_int_eq(pq_sensitivity_check_budget(config, model, least - 1, &err), PQ_ERR_USAGE);
    free(override);
    pq_config_destroy(with), pq_config_destroy(config);
    pq_sensitivity_deinit(&all);
    pq_model_destroy(model);
}
END_TEST

int main(void) {
    const pq_data_options data = {.path = "builtin", .tokenizer = "char", .split = {0.8, 0.1, 0.1}};
    Suite *suite = suite_create("sensitivity");
    TCase *all = tcase_create("sensitivity");
    int file = mkstemp(csv);
    if (file < 0 || pq_dataset_open(&data, &dataset, NULL) != PQ_OK) return 1;
    close(file);
    tcase_add_test(all, rows);
    tcase_add_test(all, files);
    tcase_add_test(all, damaged_files);
    tcase_add_test(all, choices);
    suite_add_tcase(suite, all);
    int failed = run_suite(suite);
    pq_dataset_close(dataset);
    unlink(csv);
    return failed;
}
