/* Owns the measurement of single matrices and its table as CSV. */
#include "train/ptq/sensitivity.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "train/ptq/ptq.h"

static const char header[] = "matrix,levels,bits,bytes,sqnr_db,loss_rise,loss_rise_se";

/* Those of pot and uniform, and of pot-zero-free; each takes what it can be. */
static const int level_counts[] = {3, 4, 5, 7, 8, 9, 15, 16, 31, 32, 63, 64};
enum { LEVEL_COUNTS = sizeof level_counts / sizeof *level_counts };

static bool make_codebook(const pq_config *config, int64_t levels, pq_codebook *out) {
    pq_rounding rounding;
    return pq_rounding_parse(config->quant.rounding, &rounding) &&
           pq_codebook_init(out, config->quant.quantizer, levels, NULL, rounding, NULL) == PQ_OK;
}

/* The matrices that count, and their number of rows in a table. */
static pq_status select_matrices(const pq_config *config, pq_model *model, bool **selected, size_t *rows,
                                 pq_error *err) {
    size_t counts = 0, matrices = 0;
    pq_codebook codebook;
    if (config->quant.range.count)
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "quant.range: level counts are tried, which %s does not take beside a range",
                       config->quant.quantizer);
    PQ_TRY(pq_ptq_select(config, model, err));
    PQ_TRY(pq_calloc(model->params.count, sizeof **selected, "matrices", selected, err));
    for (int i = 0; i < LEVEL_COUNTS; i++) counts += make_codebook(config, level_counts[i], &codebook);
    for (size_t i = 0; i < model->params.count; i++) matrices += (*selected)[i] = model->quant[i].quantized;
    *rows = counts * matrices;
    return PQ_OK;
}

static void unmark(pq_model *model) {
    for (size_t i = 0; i < model->params.count; i++) {
        free(model->quant[i].scales);
        model->quant[i] = (pq_param_quant){.quantized = false};
    }
}

typedef struct measurement {
    const pq_config *config;
    pq_model *model;
    const pq_dataset *dataset;
    const pq_evaluation_options *options;
    pq_scale_options scale;
    pq_evaluation plain; /* of fp32 */
    float *hard;
    double start;
    size_t rows; /* to be measured */
} measurement;

/* The codebook is set, nothing is marked. */
static pq_status measure_row(measurement *m, const pq_codebook *codebook, size_t index,
                             pq_sensitivity_row *row, pq_error *err) {
    pq_evaluation e;
    pq_difference d;
    PQ_TRY(pq_ptq_mark(m->config, codebook->levels, m->model, index, err));
    PQ_TRY(pq_ptq_fit(&m->scale, m->model, index, err));
    pq_model_effective_weights(m->model, m->hard);
    pq_matrix_error error = pq_ptq_measure(m->model, index, m->hard + m->model->params.list[index].offset);
    *row = (pq_sensitivity_row){.index = index,
                                .levels = codebook->levels,
                                .bits = codebook->bits,
                                .bytes = pq_model_param_bytes(m->model, index),
                                .sqnr_db = 10 * log10(error.signal / error.noise)};
    PQ_TRY(pq_evaluate(m->model, m->dataset, m->options, &e, err));
    pq_status status = pq_evaluation_compare(&e, &m->plain, &d, err);
    row->rise = d.mean, row->rise_se = d.se;
    pq_evaluation_deinit(&e);
    unmark(m->model);
    return status;
}

static pq_status measure_all(measurement *m, const bool *selected, pq_sensitivity *out, pq_error *err) {
    pq_codebook codebook;
    unmark(m->model);
    PQ_TRY(pq_evaluate(m->model, m->dataset, m->options, &m->plain, err));
    out->loss = m->plain.loss;
    pq_log(PQ_LOG_INFO, "sensitivity: %zu evaluations of %zu tokens, about %.0f s", m->rows, m->plain.tokens,
           (double)m->rows * m->plain.seconds);
    m->start = pq_seconds();
    for (size_t i = 0; i < m->model->params.count; i++) {
        for (int k = 0; k < LEVEL_COUNTS && selected[i]; k++)
            if (make_codebook(m->config, level_counts[k], &codebook))
                PQ_TRY(measure_row(m, &codebook, i, &out->rows[out->count++], err));
        if (selected[i])
            pq_log(PQ_LOG_INFO, "sensitivity: %zu of %zu, %.0f s, %s", out->count, m->rows,
                   pq_seconds() - m->start, m->model->params.list[i].name);
    }
    return PQ_OK;
}

pq_status pq_sensitivity_measure(const pq_config *config, pq_model *model, const pq_dataset *dataset,
                                 const pq_evaluation_options *options, pq_sensitivity *out, pq_error *err) {
    measurement m = {.config = config, .model = model, .dataset = dataset, .options = options};
    bool *selected = NULL;
    pq_status status;
    *out = (pq_sensitivity){.loss = NAN};
    PQ_TRY(pq_ptq_scale_options(config, &m.scale, err));
    PQ_TRY(pq_ptq_activations(config, NULL, model, err));
    PQ_TRY(select_matrices(config, model, &selected, &m.rows, err));
    PQ_TRY_TO(status, done, pq_model_check_ranges(model, err));
    PQ_TRY_TO(status, done, pq_calloc(m.rows, sizeof *out->rows, "sensitivities", &out->rows, err));
    PQ_TRY_TO(status, done, pq_calloc(model->params.elements, sizeof *m.hard, "weights", &m.hard, err));
    status = measure_all(&m, selected, out, err);
done:
    if (status != PQ_OK) pq_sensitivity_deinit(out);
    pq_evaluation_deinit(&m.plain);
    free(m.hard);
    free(selected);
    return status;
}

void pq_sensitivity_deinit(pq_sensitivity *table) {
    free(table->rows);
    *table = (pq_sensitivity){.loss = NAN};
}

pq_status pq_sensitivity_write(const pq_sensitivity *table, const pq_model *model, const char *path,
                               bool overwrite, pq_error *err) {
    pq_file_writer file;
    PQ_TRY(pq_file_create(path, overwrite, &file, err));
    fprintf(file.stream, "%s\n", header);
    for (size_t i = 0; i < table->count; i++) {
        const pq_sensitivity_row *r = &table->rows[i];
        fprintf(file.stream, "%s,%d,%d,%zu,%.9g,%.17g,%.9g\n", model->params.list[r->index].name, r->levels,
                r->bits, r->bytes, r->sqnr_db, r->rise, r->rise_se);
    }
    return pq_file_commit(&file, err); /* checks the stream's error flag */
}

/* One line of the CSV; the model has the matrix marked, with scales of 0. */
static pq_status read_row(const char *line, const pq_config *config, const pq_model *model,
                          pq_sensitivity_row *row, pq_error *err) {
    char name[64];
    int end = -1;
    pq_codebook codebook;
    if (sscanf(line, "%63[^,],%d,%d,%zu,%lf,%lf,%lf%n", name, &row->levels, &row->bits, &row->bytes,
               &row->sqnr_db, &row->rise, &row->rise_se, &end) != 7 ||
        line[end] || !isfinite(row->rise))
        return PQ_FAIL(err, PQ_ERR_FORMAT, "expected %s, found %.80s", header, line);
    const pq_param *p = pq_params_find(&model->params, name);
    if (!p || !model->quant[p - model->params.list].quantized)
        return PQ_FAIL(err, PQ_ERR_USAGE, "%s is not a matrix of this model that quant.params names", name);
    row->index = (size_t)(p - model->params.list);
    if (!make_codebook(config, row->levels, &codebook) || codebook.bits != row->bits)
        return PQ_FAIL(err, PQ_ERR_USAGE, "%s: quantizer %s has no codebook of %d levels in %d bits", name,
                       config->quant.quantizer, row->levels, row->bits);
    size_t codes = p->rows * pq_packed_row_bytes(codebook.bits, p->columns),
           scales = model->quant[row->index].scale_count;
    if (row->bytes != codes + 2 * scales && row->bytes != codes + 4 * scales)
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "%s: %d levels take %zu bytes with quant.granularity %s, the table has %zu", name,
                       row->levels, codes + 2 * scales, config->quant.granularity, row->bytes);
    return PQ_OK;
}

static pq_status read_rows(char *text, const pq_config *config, const pq_model *model, size_t most,
                           pq_sensitivity *out, pq_error *err) {
    char *rest = NULL, *line = strtok_r(text, "\n", &rest);
    if (!line || strcmp(line, header) != 0)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "expected the header %s, found %.80s", header,
                       line ? line : "nothing");
    while ((line = strtok_r(NULL, "\n", &rest))) {
        pq_sensitivity_row row = {0};
        PQ_TRY(read_row(line, config, model, &row, err));
        for (size_t i = 0; i < out->count; i++)
            if (out->rows[i].index == row.index && out->rows[i].levels == row.levels)
                return PQ_FAIL(err, PQ_ERR_FORMAT, "two rows for %d levels of %s", row.levels,
                               model->params.list[row.index].name);
        if (out->count == most) return PQ_FAIL(err, PQ_ERR_FORMAT, "more than %zu rows", most);
        out->rows[out->count++] = row;
    }
    for (size_t i = 0; i < model->params.count; i++) {
        bool found = !model->quant[i].quantized;
        for (size_t k = 0; k < out->count; k++) found |= out->rows[k].index == i;
        if (!found) return PQ_FAIL(err, PQ_ERR_USAGE, "no row for %s", model->params.list[i].name);
    }
    return PQ_OK;
}

pq_status pq_sensitivity_read(const char *path, const pq_config *config, pq_model *model, pq_sensitivity *out,
                              pq_error *err) {
    pq_file_view file = {0};
    bool *selected = NULL;
    char *text = NULL;
    size_t rows;
    pq_status status;
    *out = (pq_sensitivity){.loss = NAN};
    PQ_TRY(select_matrices(config, model, &selected, &rows, err));
    size_t most = 64 * model->params.count; /* level counts that a table may hold */
    PQ_TRY_TO(status, done, pq_file_read(path, &file, err));
    PQ_TRY_TO(status, done, pq_copy_text(file.data, &text, err));
    PQ_TRY_TO(status, done, pq_calloc(most, sizeof *out->rows, "sensitivities", &out->rows, err));
    status = read_rows(text, config, model, most, out, err);
    if (status != PQ_OK) status = pq_prefix(err, status, "%s", path);
done:
    if (status != PQ_OK) pq_sensitivity_deinit(out);
    pq_file_view_close(&file);
    free(text);
    free(selected);
    unmark(model);
    return status;
}

pq_status pq_sensitivity_check_budget(const pq_config *config, pq_model *model, size_t budget,
                                      pq_error *err) {
    bool *selected = NULL;
    size_t rows, least;
    pq_codebook codebook;
    pq_status status = PQ_OK;
    int first = 0;
    PQ_TRY(select_matrices(config, model, &selected, &rows, err));
    while (first < LEVEL_COUNTS && !make_codebook(config, level_counts[first], &codebook)) first++;
    for (size_t i = 0; i < model->params.count && status == PQ_OK; i++)
        if (selected[i]) status = pq_ptq_mark(config, codebook.levels, model, i, err);
    least = pq_model_weight_bytes(model);
    if (status == PQ_OK && least > budget)
        status = PQ_FAIL(
            err, PQ_ERR_USAGE,
            "--budget: the model takes at least %zu bytes (%d levels for every matrix of quant.params); "
            "found %zu",
            least, codebook.levels, budget);
    free(selected);
    unmark(model);
    return status;
}
