/* Owns the choice of reader, and nanoGPT's parameters: one safetensors file, nothing transposed. */
#include "formats/foreign.h"

#include <stdlib.h>
#include <string.h>

#include "formats/origin.h"

static bool ends_with(const char *text, const char *end) {
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

/* The number of heads is in no tensor. */
static pq_status read_heads(const pq_safetensors *file, const char *path, const pq_foreign_options *options,
                            int64_t *heads, pq_error *err) {
    static const char *const keys[] = {"heads", "n_head"};
    int64_t said = 0;
    for (size_t i = 0; i < sizeof keys / sizeof *keys && !said; i++) {
        const char *text = pq_safetensors_metadata(file, keys[i]);
        if (!text) continue;
        if (strspn(text, "0123456789") != strlen(text) || strlen(text) > 6 || (said = atoi(text)) < 1)
            return PQ_FAIL(err, PQ_ERR_FORMAT, "%s: __metadata__ %s: expected a number of heads, found %.40s",
                           path, keys[i], text);
    }
    if (said && options->heads && said != options->heads)
        return PQ_FAIL(err, PQ_ERR_USAGE, "%s says %lld heads, --heads %lld", path, (long long)said,
                       (long long)options->heads);
    *heads = said ? said : options->heads;
    if (*heads) return PQ_OK;
    return PQ_FAIL(err, PQ_ERR_USAGE,
                   "%s does not say how many heads its attention has; give --heads N (or write heads into "
                   "its __metadata__)",
                   path);
}

static pq_status read_gelu(const pq_safetensors *file, const char *path, const pq_foreign_options *options,
                           bool *tanh, pq_error *err) {
    const char *said = pq_safetensors_metadata(file, "gelu"), *gelu = said ? said : options->gelu;
    if (said && options->gelu && strcmp(said, options->gelu) != 0)
        return PQ_FAIL(err, PQ_ERR_USAGE, "%s says GELU %.40s, --gelu %s", path, said, options->gelu);
    *tanh = gelu && strcmp(gelu, "tanh") == 0;
    if (!gelu || *tanh || strcmp(gelu, "erf") == 0) return PQ_OK;
    return PQ_FAIL(err, PQ_ERR_USAGE, "%s: gelu: expected erf or tanh, found %.40s",
                   said ? path : "potqat import", gelu);
}

static pq_status read_nanogpt(const char *path, const pq_foreign_options *options, pq_model **out,
                              pq_error *err) {
    pq_tensors tensors;
    pq_gpt2_shape shape = {0};
    pq_status status;
    PQ_TRY(pq_tensors_open(&path, 1, &tensors, err));
    const pq_safetensors *file = &tensors.files[0].parsed;
    const char *format = pq_safetensors_metadata(file, "format");
    if (format && strcmp(format, "potqat packed") == 0) {
        status = PQ_FAIL(err, PQ_ERR_USAGE,
                         "%s is a packed model, which every command takes as MODEL without import", path);
        goto done;
    }
    PQ_TRY_TO(status, done, pq_tensors_shape(&tensors, path, &shape, err));
    PQ_TRY_TO(status, done, read_heads(file, path, options, &shape.heads, err));
    PQ_TRY_TO(status, done, read_gelu(file, path, options, &shape.gelu_tanh, err));
    status = pq_tensors_to_model(&tensors, path, &shape, false, out, err);
done:
    pq_tensors_close(&tensors);
    return status;
}

/* Files that say their shape take no word from outside. */
static pq_status check_agrees(const pq_gpt2_shape *shape, const char *path, const pq_foreign_options *options,
                              pq_error *err) {
    const char *gelu = shape->gelu_tanh ? "tanh" : "erf";
    if (options->heads && options->heads != shape->heads)
        return PQ_FAIL(err, PQ_ERR_USAGE, "%s says %lld heads, --heads %lld", path, (long long)shape->heads,
                       (long long)options->heads);
    if (options->gelu && strcmp(options->gelu, gelu) != 0)
        return PQ_FAIL(err, PQ_ERR_USAGE, "%s says GELU %s, --gelu %.40s", path, gelu, options->gelu);
    return PQ_OK;
}

pq_status pq_foreign_read(const char *path, const pq_foreign_options *options, pq_model **out,
                          pq_error *err) {
    static const pq_foreign_options none = {0};
    pq_status status;
    *out = NULL;
    if (!options) options = &none;
    if (!pq_file_exists(path)) return PQ_FAIL(err, PQ_ERR_IO, "there is no file or folder %s", path);
    if (pq_folder_exists(path))
        status = pq_hf_read(path, options->bare, out, err);
    else if (ends_with(path, ".safetensors"))
        return read_nanogpt(path, options, out, err);
    else if (ends_with(path, ".bin"))
        status = pq_llmc_read(path, out, err);
    else
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "%s: expected a Hugging Face folder, a .safetensors file with nanoGPT's names, or an "
                       "llm.c checkpoint .bin",
                       path);
    if (status == PQ_OK) status = check_agrees(&(*out)->params.shape, path, options, err);
    if (status != PQ_OK) {
        pq_model_destroy(*out);
        *out = NULL;
    }
    return status;
}
