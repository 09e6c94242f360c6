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
#include "train/ptq.h"

static pq_status read_config(const pq_model *model, const char *const *overrides, size_t count,
                             pq_config **out, pq_error *err) {
    if (!model->config) return pq_config_load(NULL, overrides, count, out, err);
    return pq_config_from_text(model->config, strlen(model->config), "the model's config", overrides, count,
                               out, err);
}

/* The model's own config with the overrides on top; pot where neither names a quantizer. */
static pq_status load_config(const pq_cli *cli, const pq_model *model, pq_config **out, pq_error *err) {
    size_t count;
    const char *const *given = pq_cli_overrides(cli, &count), **overrides;
    for (size_t i = 0; i < count; i++)
        if (strncmp(given[i], "quant.", 6) != 0 && strncmp(given[i], "ptq.", 4) != 0)
            return PQ_FAIL(err, PQ_ERR_USAGE,
                           "potqat quantize takes quant.* and ptq.* keys alone; found %.80s", given[i]);
    PQ_TRY(read_config(model, NULL, 0, out, err));
    bool none = strcmp((*out)->quant.quantizer, "none") == 0;
    pq_config_destroy(*out);
    *out = NULL;
    PQ_TRY(pq_calloc(count + 1, sizeof *overrides, "overrides", &overrides, err));
    if (none) overrides[0] = "quant.quantizer=pot";
    for (size_t i = 0; i < count; i++) overrides[i + none] = given[i];
    pq_status status = read_config(model, overrides, count + none, out, err);
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

static pq_status print_json(const pq_model *model, const pq_config *c, const char *out, const total *t,
                            json_t *list, pq_error *err) {
    size_t bytes = pq_model_weight_bytes(model), weights = model->params.weights;
    json_t *json =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:O, s:o, s:f, s:f, s:I, s:I, s:I, s:f}", "path", out,
                  "method", c->ptq.method, "quantizer", c->quant.quantizer, "rounding", c->quant.rounding,
                  "granularity", c->quant.granularity, "scale", c->quant.scale, "matrices", list, "sqnr_db",
                  pq_json_real(sqnr_db(&t->error)), "matrix_bits_per_weight",
                  bits_a_weight(t->bytes, t->weights), "bits_per_weight", bits_a_weight(bytes, weights),
                  "weights", (json_int_t)weights, "weight_bytes", (json_int_t)bytes, "fp32_bytes",
                  (json_int_t)(4 * weights), "share_of_fp32", (double)bytes / (4.0 * (double)weights));
    char *line = json ? json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(json);
    if (!line) return PQ_FAIL(err, PQ_ERR_MEMORY, "the result could not be allocated");
    printf("%s\n", line);
    free(line);
    return PQ_OK;
}

static void print_totals(const pq_model *model, const pq_config *c, const char *out, const total *t) {
    size_t bytes = pq_model_weight_bytes(model), weights = model->params.weights;
    printf("%s: %s, rounding %s, scales by %s, one a %s\n", out, c->quant.quantizer, c->quant.rounding,
           c->quant.scale, c->quant.granularity);
    printf("  %zu matrices: %.3f bits a weight, scales included; SQNR %.2f dB; %.2f %% zeros\n", t->matrices,
           bits_a_weight(t->bytes, t->weights), sqnr_db(&t->error),
           100.0 * (double)t->error.zeros / (double)t->weights);
    printf("  %zu weights in %zu bytes, %.2f %% of fp32's %zu: %.3f bits a weight over all\n", weights, bytes,
           100.0 * (double)bytes / (4.0 * (double)weights), 4 * weights, bits_a_weight(bytes, weights));
}

static pq_status print_result(const pq_cli *cli, const pq_model *model, const pq_config *config,
                              const char *out, pq_error *err) {
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
        pq_matrix_error e = pq_ptq_measure(model, i, hard);
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
    pq_status status = print_json(model, config, out, &t, list, err);
    json_decref(list);
    return status;
}

static pq_status quantize(const pq_cli *cli, pq_model *model, pq_config *config, const char *out,
                          pq_error *err) {
    PQ_TRY(pq_ptq_rtn(config, NULL, model, err));
    PQ_TRY(pq_model_check_ranges(model, err));
    free(model->config);
    model->config = pq_config_to_yaml(config, true);
    if (!model->config) return PQ_FAIL(err, PQ_ERR_MEMORY, "the config's text could not be allocated");
    model->val_loss = NAN; /* another model than the one that was evaluated */
    PQ_TRY(pq_checkpoint_write(out, pq_cli_has(cli, "overwrite"), model, NULL, err));
    return print_result(cli, model, config, out, err);
}

static pq_status run(const pq_cli *cli, pq_error *err) {
    const char *spec = pq_cli_at(cli, 0), *out = pq_cli_text(cli, "out");
    pq_model *model = NULL;
    pq_config *config = NULL;
    if (!out) return PQ_FAIL(err, PQ_ERR_USAGE, "potqat quantize needs -o FILE.h5, the checkpoint to write");
    if (!pq_cli_has(cli, "overwrite") && pq_file_exists(out))
        return PQ_FAIL(err, PQ_ERR_USAGE, "%s exists already; --overwrite replaces it", out);
    PQ_TRY(check_target(spec, out, err));
    pq_status status = pq_load_model(spec, &model, err);
    if (status == PQ_OK) status = load_config(cli, model, &config, err);
    if (status == PQ_OK) status = quantize(cli, model, config, out, err);
    pq_config_destroy(config);
    pq_model_destroy(model);
    return status;
}

static const char details[] =
    "Rounds each matrix of MODEL that quant.params names to the nearest levels of a codebook and writes a "
    "checkpoint (.h5) that every command reads; the fp32 weights stay inside, so it can be trained further "
    "or "
    "quantized anew. MODEL is a run folder (its best), RUN@last, RUN@N, a checkpoint .h5, a packed "
    ".safetensors or a Hugging Face folder.\n"
    "\n"
    "The config is the model's own with the given keys on top; where that names no quantizer: pot, 15 "
    "levels, "
    "one scale a row, found by least squared error. Matrices that quant.params does not match are kept in "
    "fp32. "
    "`potqat config --help` lists quant.* and ptq.*; docs/quantizers.md says what they mean.\n"
    "\n"
    "Prints for each matrix: levels, bits of a code (9 levels take the same 4 bits as 15), scales, bits a "
    "weight "
    "counted from the tensors with their scales, the signal-to-noise ratio (SQNR) of the rounded weights, "
    "and "
    "the share of zeros.\n"
    "\n"
    "EXAMPLES\n"
    "    potqat quantize runs/char-fp32 -o ptq.h5\n"
    "    potqat quantize runs/char-fp32 -o ptq7.h5 quant.levels=7 quant.granularity=group32\n"
    "    potqat quantize runs/char-fp32 -o released.h5 quant.quantizer=pot-released 'quant.range=[-16, 16]' "
    "quant.scale=absmax quant.scale_grid=fp32 quant.scale_eps=0.000244140625 quant.granularity=tensor\n"
    "    potqat eval ptq.h5 --against runs/char-fp32";

const pq_command pq_cmd_quantize = {
    .verb = "quantize",
    .synopsis = "MODEL -o FILE.h5 [quant.*=...]",
    .summary = "quantize a model after training (PTQ)",
    .details = details,
    .flags = (const pq_flag[]){{0}},
    .writes = true,
    .overrides = true,
    .least = 1,
    .most = 1,
    .run = run,
};
