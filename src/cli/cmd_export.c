/* potqat export: a model in a form that other programs use. */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cli/cli.h"
#include "cli/load.h"
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
        char *line = json ? json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
        json_decref(json);
        if (!line) return PQ_FAIL(err, PQ_ERR_MEMORY, "the result could not be allocated");
        printf("%s\n", line);
        free(line);
        return PQ_OK;
    }
    printf("%s: %zu weights in %zu bytes, %.2f %% of fp32's %zu\n", path, s.weights, s.bytes, 100 * share,
           4 * s.weights);
    printf("  %.3f bits a weight over all; %.3f in the quantized matrices, scales included\n", bits,
           quantized_bits);
    print_codebooks(packed);
    printf("  read back: every weight equal, bit for bit\n");
    return PQ_OK;
}

static pq_status check_format(const char *format, pq_error *err) {
    static const char *const later[] = {"hf", "gguf", "c"};
    if (!format || strcmp(format, "packed") == 0) return PQ_OK;
    for (size_t i = 0; i < sizeof later / sizeof *later; i++)
        if (strcmp(format, later[i]) == 0)
            return PQ_FAIL(err, PQ_ERR_USAGE, "--format %s is not in this build; packed is", format);
    return PQ_FAIL(err, PQ_ERR_USAGE, "--format: expected packed, found %.60s", format);
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

static pq_status run(const pq_cli *cli, pq_error *err) {
    const char *name = pq_cli_at(cli, 0), *out = pq_cli_text(cli, "out");
    pq_model *model;
    pq_packed *packed;
    PQ_TRY(check_format(pq_cli_text(cli, "format"), err));
    if (!out) return PQ_FAIL(err, PQ_ERR_USAGE, "potqat export needs -o PATH, the file to write");
    PQ_TRY(check_target(name, out, err));
    PQ_TRY(pq_load_model(name, &model, err));
    pq_status status = pq_packed_write(out, pq_cli_has(cli, "overwrite"), model, err);
    pq_model_destroy(model);
    PQ_TRY(status);
    PQ_TRY(pq_packed_open(out, &packed, err));
    status = print_summary(cli, out, packed, err);
    pq_packed_close(packed);
    return status;
}

static const char details[] =
    "Writes MODEL as one file that carries all it needs: weights, codebooks, tokenizer and config. "
    "MODEL is a run folder (its best), RUN@last, RUN@N, a checkpoint .h5 or a packed .safetensors.\n"
    "\n"
    "The packed format is a safetensors file: the codes of each quantized matrix (4 bits for 9 and "
    "for 15 levels alike), its scales, and fp32 for what is not quantized. docs/formats.md specifies "
    "it and reads it in ten lines of Python. Before the file gets its name it is opened again and "
    "every weight is compared, bit for bit, with the one that evaluation uses.\n"
    "\n"
    "Prints the bytes of all tensors, scales included, and the bits a weight counted from them.\n"
    "\n"
    "EXAMPLES\n"
    "    potqat export runs/char-qat --format packed -o char.safetensors\n"
    "    potqat export runs/char-qat@last -o char.safetensors --overwrite --json";

static const pq_flag flags[] = {
    {.name = "format",
     .value = "FORMAT",
     .help = "packed (the default); hf, gguf and c are not in this build"},
    {0},
};

const pq_command pq_cmd_export = {
    .verb = "export",
    .synopsis = "MODEL --format packed -o PATH",
    .summary = "write a model in a form that other programs use",
    .details = details,
    .flags = flags,
    .writes = true,
    .least = 1,
    .most = 1,
    .run = run,
};
