/* potqat quantize: quantization after training (PTQ). */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "cli/cli.h"
#include "cli/load.h"
#include "store/checkpoint.h"
#include "store/run.h"
#include "train/metrics.h"
#include "train/ptq/ptq.h"
#include "train/ptq/sensitivity.h"

static pq_status read_config(const pq_model *model, const char *const *overrides, size_t count,
                             pq_config **out, pq_error *err) {
    if (!model->config) return pq_config_load(NULL, overrides, count, out, err);
    return pq_config_from_text(model->config, strlen(model->config), "the model's config", overrides, count,
                               out, err);
}

/* The model's own config with the overrides on top; pot where neither names a quantizer. Keys of eval are for
 * the measurement alone. `more` (NULL: none) is one override more. */
static pq_status load_config(const pq_cli *cli, const pq_model *model, bool with_eval, const char *more,
                             pq_config **out, pq_error *err) {
    size_t given_count, count = 0;
    const char *const *given = pq_cli_overrides(cli, &given_count), **overrides;
    for (size_t i = 0; i < given_count; i++)
        if (strncmp(given[i], "quant.", 6) != 0 && strncmp(given[i], "ptq.", 4) != 0 &&
            (strncmp(given[i], "eval.", 5) != 0 || !pq_cli_has(cli, "sensitivity")))
            return PQ_FAIL(err, PQ_ERR_USAGE,
                           "potqat quantize takes quant.* and ptq.* keys alone (with --sensitivity also "
                           "eval.*); found %.80s",
                           given[i]);
    PQ_TRY(read_config(model, NULL, 0, out, err));
    bool none = strcmp((*out)->quant.quantizer, "none") == 0;
    pq_config_destroy(*out);
    *out = NULL;
    PQ_TRY(pq_calloc(given_count + 2, sizeof *overrides, "overrides", &overrides, err));
    if (none) overrides[count++] = "quant.quantizer=pot";
    for (size_t i = 0; i < given_count; i++)
        if (with_eval || strncmp(given[i], "eval.", 5) != 0) overrides[count++] = given[i];
    if (more) overrides[count++] = more;
    pq_status status = read_config(model, overrides, count, out, err);
    free(overrides);
    PQ_TRY(status);
    if (strcmp((*out)->quant.quantizer, "none") != 0) return PQ_OK;
    pq_config_destroy(*out);
    *out = NULL;
    return PQ_FAIL(err, PQ_ERR_USAGE,
                   "quant.quantizer: expected pot, pot-zero-free, uniform, pot-released or apot, found none");
}

/* Writing over the checkpoint that is read would lose its moments, and the fp32 model with the packed one. */
static pq_status check_target(const char *spec, const char *out, pq_error *err) {
    char *path;
    pq_model_kind kind;
    PQ_TRY(pq_model_locate(spec, &path, &kind, err));
    bool same = pq_file_same(path, out);
    free(path);
    if (!same) return PQ_OK;
    return PQ_FAIL(err, PQ_ERR_USAGE, "%s is the model to be quantized; choose another -o", out);
}

typedef struct total {
    pq_matrix_error error;
    size_t weights, bytes, matrices;
} total;

static double sqnr_db(const pq_matrix_error *e) {
    return 10 * log10(e->signal / e->noise);
}

static double bits_a_weight(size_t bytes, size_t weights) {
    return 8.0 * (double)bytes / (double)weights;
}

/* One matrix: a row of the table, or an object in `list`. */
static void print_matrix(const pq_model *model, size_t i, const pq_matrix_error *e, json_t *list) {
    const pq_param *p = &model->params.list[i];
    const pq_param_quant *q = &model->quant[i];
    double bits = bits_a_weight(pq_model_param_bytes(model, i), p->count),
           zeros = (double)e->zeros / (double)p->count;
    if (list)
        json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:i, s:I, s:f, s:o, s:f}", "matrix", p->name,
                                              "rows", (json_int_t)p->rows, "columns", (json_int_t)p->columns,
                                              "levels", q->codebook.levels, "scales",
                                              (json_int_t)q->scale_count, "bits_per_weight", bits, "sqnr_db",
                                              pq_json_real(sqnr_db(e)), "zeros", zeros));
    else
        printf("%-28s%7zu x %-6zu%8d%8d%12zu%10.3f%10.2f%9.2f\n", p->name, p->rows, p->columns,
               q->codebook.levels, q->codebook.bits, q->scale_count, bits, sqnr_db(e), 100 * zeros);
}

/* `more`: put into the object; borrowed, may be NULL. */
static pq_status print_json(const pq_model *model, const pq_config *c, const char *out, const total *t,
                            json_t *list, json_t *more, pq_error *err) {
    size_t bytes = pq_model_weight_bytes(model), weights = model->params.weights;
    json_t *json =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:O, s:o, s:f, s:f, s:I, s:I, s:I, s:f}", "path", out,
                  "method", c->ptq.method, "quantizer", c->quant.quantizer, "rounding", c->quant.rounding,
                  "granularity", c->quant.granularity, "scale", c->quant.scale, "matrices", list, "sqnr_db",
                  pq_json_real(sqnr_db(&t->error)), "matrix_bits_per_weight",
                  bits_a_weight(t->bytes, t->weights), "bits_per_weight", bits_a_weight(bytes, weights),
                  "weights", (json_int_t)weights, "weight_bytes", (json_int_t)bytes, "fp32_bytes",
                  (json_int_t)(4 * weights), "share_of_fp32", (double)bytes / (4.0 * (double)weights));
    if (json && more) json_object_update(json, more);
    return pq_cli_print_json(json, err);
}

static void print_totals(const pq_model *model, const pq_config *c, const char *out, const total *t) {
    size_t bytes = pq_model_weight_bytes(model), weights = model->params.weights;
    printf("%s: %s by %s, rounding %s, scales by %s, one a %s\n", out, c->quant.quantizer, c->ptq.method,
           c->quant.rounding, c->quant.scale, c->quant.granularity);
    printf("  %zu matrices: %.3f bits a weight, scales included; SQNR %.2f dB; %.2f %% zeros\n", t->matrices,
           bits_a_weight(t->bytes, t->weights), sqnr_db(&t->error),
           100.0 * (double)t->error.zeros / (double)t->weights);
    printf("  %zu weights in %zu bytes, %.2f %% of fp32's %zu: %.3f bits a weight over all\n", weights, bytes,
           100.0 * (double)bytes / (4.0 * (double)weights), 4 * weights, bits_a_weight(bytes, weights));
}

static pq_status print_result(const pq_cli *cli, const pq_model *model, const pq_config *config,
                              const char *out, json_t *more, pq_error *err) {
    total t = {0};
    float *hard;
    bool json = pq_cli_json(cli);
    json_t *list = json ? json_array() : NULL;
    PQ_TRY(pq_calloc(model->params.elements, sizeof *hard, "quantized weights", &hard, err));
    pq_model_effective_weights(model, hard);
    if (!json)
        printf("%-28s%16s%8s%8s%12s%10s%10s%9s\n", "matrix", "shape   ", "levels", "bits", "scales", "bits/w",
               "SQNR dB", "zeros %");
    for (size_t i = 0; i < model->params.count; i++) {
        if (!model->quant[i].quantized) continue;
        pq_matrix_error e = pq_ptq_measure(model, i, hard + model->params.list[i].offset);
        print_matrix(model, i, &e, list);
        t.error.signal += e.signal, t.error.noise += e.noise, t.error.zeros += e.zeros;
        t.weights += model->params.list[i].count;
        t.bytes += pq_model_param_bytes(model, i);
        t.matrices++;
    }
    free(hard);
    if (!json) {
        print_totals(model, config, out, &t);
        return PQ_OK;
    }
    pq_status status = print_json(model, config, out, &t, list, more, err);
    json_decref(list);
    return status;
}

/* What one call works on. */
typedef struct job {
    const pq_cli *cli;
    const char *out, *csv; /* NULL: not asked for */
    long long budget;      /* bytes; 0: none */
    pq_model *model;
    pq_config *config;
    pq_dataset *dataset;
    pq_sensitivity table;
    const pq_sensitivity_row **chosen; /* [parameters] */
    char *override;
    json_t *json; /* what is printed besides the quantized matrices */
} job;

/* ---- sensitivity and budget ---- */

static json_t *row_json(const pq_model *model, const pq_sensitivity_row *r) {
    return json_pack("{s:s, s:i, s:i, s:I, s:o, s:f, s:o}", "matrix", model->params.list[r->index].name,
                     "levels", r->levels, "bits", r->bits, "bytes", (json_int_t)r->bytes, "sqnr_db",
                     pq_json_real(r->sqnr_db), "loss_rise", r->rise, "loss_rise_se",
                     pq_json_real(r->rise_se));
}

static void print_row(const pq_model *model, const pq_sensitivity_row *r) {
    printf("%-28s%8d%8d%12zu%10.2f  %s\n", model->params.list[r->index].name, r->levels, r->bits, r->bytes,
           r->sqnr_db, pq_format_loss(r->rise, r->rise_se).text);
}

static void print_header(void) {
    printf("%-28s%8s%8s%12s%10s  %s\n", "matrix alone", "levels", "bits", "bytes", "SQNR dB",
           "loss above fp32");
}

/* With a budget a table that is there is read; else it is measured, and written where asked. */
static pq_status make_table(job *j, pq_error *err) {
    pq_evaluation_options options;
    if (j->budget && j->csv && pq_file_exists(j->csv))
        return pq_sensitivity_read(j->csv, j->config, j->model, &j->table, err);
    size_t context = j->config->train.context != PQ_UNSET ? (size_t)j->config->train.context
                                                          : (size_t)j->model->params.shape.context;
    PQ_TRY(pq_evaluation_options_make(j->config, context, &options, err));
    PQ_TRY(pq_sensitivity_measure(j->config, j->model, j->dataset, &options, &j->table, err));
    if (j->csv)
        PQ_TRY(pq_sensitivity_write(&j->table, j->model, j->csv, pq_cli_has(j->cli, "overwrite"), err));
    if (pq_cli_json(j->cli)) {
        json_t *list = json_array();
        for (size_t i = 0; i < j->table.count; i++)
            json_array_append_new(list, row_json(j->model, &j->table.rows[i]));
        json_object_set_new(j->json, "fp32_loss", pq_json_real(j->table.loss));
        json_object_set_new(j->json, "sensitivity", list);
    } else {
        print_header();
        for (size_t i = 0; i < j->table.count; i++) print_row(j->model, &j->table.rows[i]);
        printf("fp32: %.4f nats a token\n\n", j->table.loss);
    }
    return PQ_OK;
}

static pq_status allocate(job *j, pq_error *err) {
    double rise = 0;
    json_t *list = json_array();
    PQ_TRY(pq_calloc(j->model->params.count, sizeof *j->chosen, "allocation", &j->chosen, err));
    PQ_TRY(pq_sensitivity_allocate(&j->table, j->model, (size_t)j->budget, j->chosen, err));
    if (!pq_cli_json(j->cli)) print_header();
    for (size_t i = 0; i < j->model->params.count; i++) {
        if (!j->chosen[i]) continue;
        rise += j->chosen[i]->rise;
        json_array_append_new(list, row_json(j->model, j->chosen[i]));
        if (!pq_cli_json(j->cli)) print_row(j->model, j->chosen[i]);
    }
    if (!pq_cli_json(j->cli))
        printf("the best within %lld bytes: together %.4f nats above fp32\n\n", j->budget, rise);
    json_object_set_new(j->json, "budget", json_integer(j->budget));
    json_object_set_new(j->json, "allocation_rise", json_real(rise));
    json_object_set_new(j->json, "allocation", list);
    return pq_sensitivity_override(j->model, j->chosen, &j->override, err);
}

/* ---- the quantized model ---- */

static pq_status quantize(job *j, pq_error *err) {
    pq_model *model = j->model;
    pq_config_destroy(j->config);
    j->config = NULL;
    PQ_TRY(load_config(j->cli, model, false, j->override, &j->config, err));
    PQ_TRY(pq_ptq_run(j->config, j->dataset, model, err));
    PQ_TRY(pq_model_check_ranges(model, err));
    if (j->budget && pq_model_weight_bytes(model) > (size_t)j->budget)
        return PQ_FAIL(
            err, PQ_ERR_USAGE,
            "--budget: with fp32 scales the model takes %zu bytes; quant.scale_grid=bf16 stores them in two",
            pq_model_weight_bytes(model));
    free(model->config);
    model->config = pq_config_to_yaml(j->config, true);
    if (!model->config) return PQ_FAIL(err, PQ_ERR_MEMORY, "the config's text could not be allocated");
    model->val_loss = NAN; /* another model than the one that was evaluated */
    PQ_TRY(pq_checkpoint_write(j->out, pq_cli_has(j->cli, "overwrite"), model, NULL, err));
    return print_result(j->cli, model, j->config, j->out, j->json, err);
}

static pq_status check_words(job *j, pq_error *err) {
    const char *spec = pq_cli_at(j->cli, 0);
    bool overwrite = pq_cli_has(j->cli, "overwrite");
    PQ_TRY(pq_cli_int(j->cli, "budget", 0, 1, (long long)1 << 52, &j->budget, err));
    if (!j->out && (!j->csv || j->budget))
        return PQ_FAIL(err, PQ_ERR_USAGE, "potqat quantize needs -o FILE.h5, the checkpoint to write");
    if (j->out && !overwrite && pq_file_exists(j->out))
        return PQ_FAIL(err, PQ_ERR_USAGE, "%s exists already; --overwrite replaces it", j->out);
    if (j->csv && !j->budget && !overwrite && pq_file_exists(j->csv))
        return PQ_FAIL(err, PQ_ERR_USAGE, "%s exists already; --overwrite replaces it, --budget reads it",
                       j->csv);
    if (j->csv) PQ_TRY(check_target(spec, j->csv, err));
    return j->out ? check_target(spec, j->out, err) : PQ_OK;
}

static pq_status work(job *j, pq_error *err) {
    bool table = j->csv || j->budget, measure = table && !(j->budget && j->csv && pq_file_exists(j->csv));
    PQ_TRY(pq_load_model(pq_cli_at(j->cli, 0), &j->model, err));
    PQ_TRY(load_config(j->cli, j->model, true, NULL, &j->config, err));
    if (measure || (j->out && pq_ptq_needs_data(j->config)))
        PQ_TRY(pq_load_dataset(j->model, j->config, pq_cli_text(j->cli, "data"), &j->dataset, err));
    if (j->out) PQ_TRY(pq_ptq_check(j->config, j->dataset, j->model, err));
    if (j->budget) PQ_TRY(pq_sensitivity_check_budget(j->config, j->model, (size_t)j->budget, err));
    if (table) PQ_TRY(make_table(j, err));
    if (j->budget) PQ_TRY(allocate(j, err));
    if (j->out) return quantize(j, err);
    return pq_cli_json(j->cli) ? pq_cli_print_json(json_incref(j->json), err) : PQ_OK;
}

static pq_status run(const pq_cli *cli, pq_error *err) {
    job j = {.cli = cli, .out = pq_cli_text(cli, "out"), .csv = pq_cli_text(cli, "sensitivity")};
    PQ_TRY(check_words(&j, err));
    j.json = json_object();
    pq_status status = j.json ? work(&j, err) : PQ_FAIL(err, PQ_ERR_MEMORY, "no memory for the result");
    json_decref(j.json);
    pq_sensitivity_deinit(&j.table);
    free(j.chosen);
    free(j.override);
    pq_dataset_close(j.dataset);
    pq_config_destroy(j.config);
    pq_model_destroy(j.model);
    return status;
}

static const char details[] =
    "Rounds each matrix of MODEL that quant.params names to the levels of a codebook and writes a checkpoint "
    "(.h5) "
    "that every command reads and that training can go on from. MODEL is a run folder (its best), RUN@last, "
    "RUN@N, a "
    "checkpoint .h5, a packed .safetensors or a Hugging Face folder.\n"
    "\n"
    "ptq.method=rtn rounds to nearest and keeps the fp32 weights inside. hessian fits the scales to what "
    "each input "
    "column weighs on a text; gptq rounds so that the outputs on that text change little, and keeps the "
    "weights as "
    "they were when they were rounded. Both read ptq.calib_sequences windows of ptq.calib_context tokens of "
    "the train "
    "split; more text makes a better model.\n"
    "\n"
    "The config is the model's own with the given keys on top; where that names no quantizer: pot, 15 "
    "levels, one "
    "scale a row, found by least squared error. Matrices that quant.params does not match are kept in fp32. "
    "`potqat "
    "config --help` lists quant.* and ptq.*; docs/quantizers.md says what they mean.\n"
    "\n"
    "Prints for each matrix: levels, bits of a code (9 levels take the same 4 bits as 15), scales, bits a "
    "weight "
    "counted from the tensors with their scales, the signal-to-noise ratio (SQNR) of the rounded weights, "
    "and the "
    "share of zeros.\n"
    "\n"
    "--sensitivity measures how much the loss rises (eval.*, window by window against fp32) when one matrix "
    "alone is "
    "rounded to nearest, at 3, 5, 7, 9, 15, 31 and 63 levels, and writes it as CSV; -o can be left out then. "
    "One "
    "evaluation a row: eval.windows=N makes it cheaper. --budget chooses the level count of each matrix so "
    "that all "
    "weights take at most so many bytes (packed, with scales and what stays fp32) and the sum of these rises "
    "is the "
    "least; it reads the table of --sensitivity where that file exists, and measures it where not. The "
    "choice is in "
    "the checkpoint's quant.overrides, so that training from it keeps it.\n"
    "\n"
    "EXAMPLES\n"
    "    potqat quantize runs/char-fp32 -o ptq.h5\n"
    "    potqat quantize runs/char-fp32 -o gptq7.h5 ptq.method=gptq quant.levels=7 ptq.calib_sequences=4096\n"
    "    potqat quantize runs/char-fp32 -o ptq7.h5 quant.levels=7 quant.granularity=group32\n"
    "    potqat quantize runs/char-fp32 -o released.h5 quant.quantizer=pot-released 'quant.range=[-16, 16]' "
    "quant.scale=absmax quant.scale_grid=fp32 quant.scale_eps=0.000244140625 quant.granularity=tensor\n"
    "    potqat quantize runs/char-fp32 --sensitivity table.csv\n"
    "    potqat quantize runs/char-fp32 -o small.h5 --sensitivity table.csv --budget 300000 ptq.method=gptq\n"
    "    potqat eval ptq.h5 --against runs/char-fp32";

static const pq_flag flags[] = {
    {"data", 0, "P",
     "text to calibrate and measure with, as data.path; default: what the model was trained on"},
    {"sensitivity", 0, "FILE", "CSV of the loss above fp32, matrix by matrix, for each number of levels"},
    {"budget", 0, "BYTES",
     "the best numbers of levels, matrix by matrix, for weights of at most so many bytes"},
    {NULL, 0, NULL, NULL},
};

const pq_command pq_cmd_quantize = {
    .verb = "quantize",
    .synopsis = "MODEL -o FILE.h5 [quant.*=... ptq.*=...]",
    .summary = "quantize a model after training (PTQ)",
    .details = details,
    .flags = flags,
    .writes = true,
    .overrides = true,
    .least = 1,
    .most = 1,
    .run = run,
};
