/* potqat export: a model in a form that other programs use. */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/load.h"
#include "formats/c_source.h"
#include "formats/gguf.h"
#include "store/run.h"

/* What an export says about itself. */
typedef struct summary {
    size_t weights, bytes;                     /* of the whole model, scales included */
    size_t quantized_weights, quantized_bytes; /* of its quantized matrices */
} summary;

static summary summarize(const pq_packed *packed) {
    summary s = {.weights = packed->params.weights, .bytes = packed->weight_bytes};
    for (size_t i = 0; i < packed->params.count; i++) {
        const pq_packed_tensor *t = &packed->tensors[i];
        if (!t->codebook) continue;
        s.quantized_weights += t->param->count;
        s.quantized_bytes += t->param->rows * pq_packed_row_bytes(t->codebook->bits, t->param->columns) +
                             t->scale_count * (t->scales_bf16 ? 2 : 4);
    }
    return s;
}

/* The result as one line, for programs; takes over `json`. */
static pq_status print_json(json_t *json, pq_error *err) {
    char *line = json ? json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(json);
    if (!line) return PQ_FAIL(err, PQ_ERR_MEMORY, "the result could not be allocated");
    printf("%s\n", line);
    free(line);
    return PQ_OK;
}

static pq_status refuse_dtype(const pq_cli *cli, pq_error *err) {
    if (pq_cli_has(cli, "dtype") || pq_cli_has(cli, "lossy"))
        return PQ_FAIL(err, PQ_ERR_USAGE, "--dtype and --lossy go with --format hf and gguf alone");
    return PQ_OK;
}

/* One line a codebook: what the matrices are made of. */
static void print_codebooks(const pq_packed *packed) {
    for (size_t i = 0; i < packed->params.count; i++) {
        const pq_codebook *codebook = packed->tensors[i].codebook;
        size_t matrices = 0, earlier = 0;
        if (!codebook) continue;
        for (size_t k = 0; k < packed->params.count; k++) {
            matrices += packed->tensors[k].codebook == codebook;
            earlier += k < i && packed->tensors[k].codebook == codebook;
        }
        if (!earlier)
            printf("  %zu matrices of %s with %d levels, %d bits a code\n", matrices, codebook->type->name,
                   codebook->levels, codebook->bits);
    }
}

static pq_status print_summary(const pq_cli *cli, const char *path, const pq_packed *packed, pq_error *err) {
    const summary s = summarize(packed);
    const double bits = 8.0 * (double)s.bytes / (double)s.weights,
                 quantized_bits =
                     s.quantized_weights ? 8.0 * (double)s.quantized_bytes / (double)s.quantized_weights : 0,
                 share = (double)s.bytes / (4.0 * (double)s.weights);
    if (pq_cli_json(cli)) {
        json_t *json =
            json_pack("{s:s, s:s, s:I, s:I, s:I, s:f, s:f, s:f, s:b}", "path", path, "format", "packed",
                      "weights", (json_int_t)s.weights, "weight_bytes", (json_int_t)s.bytes, "fp32_bytes",
                      (json_int_t)(4 * s.weights), "bits_per_weight", bits, "matrix_bits_per_weight",
                      quantized_bits, "share_of_fp32", share, "equal", 1);
        return print_json(json, err);
    }
    printf("%s: %zu weights in %zu bytes, %.2f %% of fp32's %zu\n", path, s.weights, s.bytes, 100 * share,
           4 * s.weights);
    printf("  %.3f bits a weight over all; %.3f in the quantized matrices, scales included\n", bits,
           quantized_bits);
    print_codebooks(packed);
    printf("  read back: every weight equal, bit for bit\n");
    return PQ_OK;
}

/* A packed file in the place of the checkpoint it is made from would end the training. */
static pq_status check_target(const char *model, const char *out, pq_error *err) {
    char *path;
    pq_model_kind kind;
    PQ_TRY(pq_model_locate(model, &path, &kind, err));
    bool destroys = kind == PQ_MODEL_CHECKPOINT && pq_file_same(path, out);
    free(path);
    return destroys
               ? PQ_FAIL(err, PQ_ERR_USAGE,
                         "%s is the checkpoint to be exported; its moments would be lost: choose another -o",
                         out)
               : PQ_OK;
}

static pq_status export_packed(const pq_cli *cli, const pq_model *model, const char *out, pq_error *err) {
    pq_packed *packed;
    PQ_TRY(refuse_dtype(cli, err));
    PQ_TRY(pq_packed_write(out, pq_cli_has(cli, "overwrite"), model, err));
    PQ_TRY(pq_packed_open(out, &packed, err));
    pq_status status = print_summary(cli, out, packed, err);
    pq_packed_close(packed);
    return status;
}

static pq_status print_dense(const pq_cli *cli, const pq_model *model, const char *out, const char *format,
                             const pq_export_summary *s, pq_error *err) {
    if (!pq_cli_json(cli)) {
        printf("%s: %zu weights in %zu bytes, matrices in %s\n", out, model->params.weights, s->bytes,
               s->dtype);
        if (s->largest_error > 0)
            printf("  read back: the largest error of a weight is %.6g, in %s\n", s->largest_error, s->worst);
        else
            printf("  read back: every weight equal, bit for bit\n");
        return PQ_OK;
    }
    json_t *json =
        json_pack("{s:s, s:s, s:s, s:I, s:I, s:f, s:s, s:b}", "path", out, "format", format, "dtype",
                  s->dtype, "weights", (json_int_t)model->params.weights, "bytes", (json_int_t)s->bytes,
                  "largest_error", s->largest_error, "worst", s->worst, "equal", s->largest_error == 0);
    return print_json(json, err);
}

static pq_status export_hf(const pq_cli *cli, const pq_model *model, const char *out, pq_error *err) {
    static const char *const dtypes[][2] = {{"fp32", "F32"}, {"fp16", "F16"}, {"bf16", "BF16"}};
    const char *dtype = pq_cli_has(cli, "dtype") ? pq_cli_text(cli, "dtype") : "fp32", *found = NULL;
    pq_export_summary result;
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (strcmp(dtype, dtypes[i][0]) == 0) found = dtypes[i][1];
    if (!found) return PQ_FAIL(err, PQ_ERR_USAGE, "--dtype: expected fp32, fp16 or bf16, found %.60s", dtype);
    PQ_TRY(
        pq_hf_write(out, pq_cli_has(cli, "overwrite"), model, found, pq_cli_has(cli, "lossy"), &result, err));
    snprintf(result.dtype, sizeof result.dtype, "%s", dtype);
    return print_dense(cli, model, out, "hf", &result, err);
}

static pq_status export_gguf(const pq_cli *cli, const pq_model *model, const char *out, pq_error *err) {
    pq_export_summary result;
    PQ_TRY(pq_gguf_write(out, pq_cli_has(cli, "overwrite"), model, pq_cli_text(cli, "dtype"),
                         pq_cli_has(cli, "lossy"), &result, err));
    if (!model->params.shape.gelu_tanh)
        pq_log(PQ_LOG_WARNING,
               "the model's GELU is the exact one (model.gelu: erf), llama.cpp computes GPT-2's "
               "by tanh: its logits will differ a little");
    if (!model->tokenizer)
        pq_log(PQ_LOG_WARNING,
               "the model carries no tokenizer, so the file has none: it takes token ids alone");
    return print_dense(cli, model, out, "gguf", &result, err);
}

static pq_status export_c(const pq_cli *cli, const pq_model *model, const char *out, pq_error *err) {
    pq_c_summary s;
    PQ_TRY(refuse_dtype(cli, err));
    PQ_TRY(pq_c_write(out, pq_cli_has(cli, "overwrite"), model, &s, err));
    if (!pq_cli_json(cli)) {
        printf(
            "%s: %zu bytes of flash for weights and tables, %zu bytes of RAM, code and stack not counted\n",
            out, s.flash, s.ram);
        printf("  read back: every weight equal, bit for bit\n");
        printf("  %s_next_token() in %.*sh; cc -std=c99 -O2 -DTEST_PROGRAM %s -lm makes a program\n", s.name,
               (int)strlen(out) - 1, out, out);
        return PQ_OK;
    }
    return print_json(json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:b}", "path", out, "format", "c",
                                "name", s.name, "weights", (json_int_t)model->params.weights, "weight_bytes",
                                (json_int_t)s.weight_bytes, "flash_bytes", (json_int_t)s.flash, "ram_bytes",
                                (json_int_t)s.ram, "equal", 1),
                      err);
}

/* One row a format. */
static const struct format {
    const char *name;
    pq_status (*write)(const pq_cli *cli, const pq_model *model, const char *out, pq_error *err);
} formats[] = {{"packed", export_packed}, {"hf", export_hf}, {"gguf", export_gguf}, {"c", export_c}};

static pq_status find_format(const char *name, const struct format **out, pq_error *err) {
    *out = &formats[0];
    if (!name) return PQ_OK;
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (strcmp(name, formats[i].name) != 0) continue;
        *out = &formats[i];
        return PQ_OK;
    }
    return PQ_FAIL(err, PQ_ERR_USAGE, "--format: expected packed, hf, gguf or c, found %.60s", name);
}

static pq_status run(const pq_cli *cli, pq_error *err) {
    const char *name = pq_cli_at(cli, 0), *out = pq_cli_text(cli, "out");
    const struct format *format;
    pq_model *model;
    PQ_TRY(find_format(pq_cli_text(cli, "format"), &format, err));
    if (!out) return PQ_FAIL(err, PQ_ERR_USAGE, "potqat export needs -o PATH, the file or folder to write");
    PQ_TRY(check_target(name, out, err));
    PQ_TRY(pq_load_model(name, &model, err));
    pq_status status = format->write(cli, model, out, err);
    pq_model_destroy(model);
    return status;
}

static const char details[] =
    "Writes MODEL as other programs read it. MODEL is a run folder (its best), RUN@last, RUN@N, a checkpoint "
    ".h5, a packed .safetensors or a Hugging Face folder.\n"
    "\n"
    "packed (the default): one safetensors file that carries all it needs, weights, codebooks, tokenizer and "
    "config: the codes of each quantized matrix (4 bits for 9 and for 15 levels alike), its scales, and fp32 "
    "for what is not quantized. docs/formats.md specifies it and reads it in ten lines of Python. Prints the "
    "bytes of all tensors, scales included, and the bits a weight counted from them.\n"
    "\n"
    "hf: a folder with config.json and model.safetensors that transformers' GPT2LMHeadModel.from_pretrained "
    "loads. A quantized matrix is written as the values it stands for. --dtype is the type of the matrices; "
    "each of their weights must be exact in it, as quantized ones are in bf16 with quant.scale_grid=bf16; "
    "norms and biases stay fp32. With --lossy everything is rounded to that type, and the largest error is "
    "printed.\n"
    "\n"
    "gguf: one file that llama.cpp loads (architecture gpt2), the tokenizer inside. Each matrix gets the "
    "smallest "
    "type that holds it exactly: mxfp4 (up to 9 levels with quant.scale_grid=pot, 4.25 bits a weight), q8_0 "
    "(up "
    "to 15 levels, 8.5 bits), fp16 or fp32; --dtype asks for one, and --lossy rounds to it. The position "
    "table, "
    "norms and biases are fp32. llama.cpp computes GELU by tanh: a model with model.gelu=erf, which is told, "
    "and quantized activations are not the same there.\n"
    "\n"
    "c: a C99 source file, whose name ends in .c, and its header, for a device: the packed weights as "
    "constant "
    "arrays, integer activations, products of matrices by shifts and sums alone, no malloc, libm at most. "
    "Every "
    "matrix has to be quantized to power-of-two levels, and all weights may take 8 MB packed. Prints the "
    "flash "
    "and the RAM it needs.\n"
    "\n"
    "Before the file or folder gets its name it is opened again and every weight is compared, bit for bit, "
    "with the one that evaluation uses (with --lossy: within the error that is printed).\n"
    "\n"
    "EXAMPLES\n"
    "    potqat export runs/char-qat --format packed -o char.safetensors\n"
    "    potqat export runs/char-qat@last -o char.safetensors --overwrite --json\n"
    "    potqat export runs/gpt2-qat --format hf --dtype bf16 -o gpt2-qat\n"
    "    potqat export runs/gpt2-qat --format gguf -o gpt2-qat.gguf\n"
    "    potqat export runs/char-qat --format c -o model.c";

static const pq_flag flags[] = {
    {.name = "format", .value = "FORMAT", .help = "packed (the default), hf, gguf or c"},
    {.name = "dtype",
     .value = "T",
     .help = "hf: fp32 (the default), fp16 or bf16; gguf: fp32, fp16, q8_0 or mxfp4 (default: the smallest "
             "exact one)"},
    {.name = "lossy", .help = "hf, gguf: round what the type cannot hold, and print the largest error"},
    {0},
};

const pq_command pq_cmd_export = {
    .verb = "export",
    .synopsis = "MODEL [--format packed|hf|gguf|c] -o PATH",
    .summary = "write a model in a form that other programs use",
    .details = details,
    .flags = flags,
    .writes = true,
    .least = 1,
    .most = 1,
    .run = run,
};
