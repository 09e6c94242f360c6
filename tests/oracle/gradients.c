/* What the trainer's graph makes of any MODEL and some tokens, for other programs to be compared with.
 * usage: gradients MODEL BATCH CONTEXT TOKENS OUT.safetensors
 * TOKENS is a file of uint16 [BATCH][CONTEXT + 1]: each position is to predict the next. OUT holds, in fp32,
 *   logits              [BATCH][CONTEXT][vocab], of a forward pass alone
 *   losses              [BATCH][CONTEXT], nats, of that pass
 *   training.losses     the same, of the pass with gradients
 *   grad.NAME           of the mean loss, for each row of gpt2_params.def in the table's order; where the
 * model quantizes a matrix, that of the quantized weights There is no dropout. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "formats/safetensors.h"
#include "model/gpt2.h"
#include "ops/ops.h"
#include "store/model_read.h"

typedef struct job {
    pq_model *model;
    size_t batch, context, count; /* count: targets */
    uint16_t *tokens;             /* [count] */
    int32_t *targets;             /* [count] */
    float *weights, *gradients, *logits, *losses, *training_losses;
} job;

/* Memory that the library leaves to its callers holds NaNs: what is read before it is written shows. */
static pq_status nans(size_t count, const char *what, void *out, pq_error *err) {
    PQ_TRY(pq_calloc(count, sizeof(float), what, out, err));
    memset(*(void **)out, 0xFF, count * sizeof(float));
    return PQ_OK;
}

static pq_status read_tokens(job *j, const char *path, pq_error *err) {
    pq_file_view file;
    const size_t row = j->context + 1, vocab = (size_t)j->model->params.shape.vocab;
    PQ_TRY(pq_calloc(j->count, sizeof *j->tokens, "tokens", &j->tokens, err));
    PQ_TRY(pq_calloc(j->count, sizeof *j->targets, "targets", &j->targets, err));
    PQ_TRY(pq_file_read(path, &file, err));
    const uint16_t *ids = (const uint16_t *)(const void *)file.data;
    pq_status status = PQ_OK;
    if (file.size != j->batch * row * sizeof *ids)
        status = PQ_FAIL(err, PQ_ERR_FORMAT, "%s: expected %zu bytes, found %zu", path,
                         j->batch * row * sizeof *ids, file.size);
    for (size_t i = 0; status == PQ_OK && i < j->batch * row; i++)
        if (ids[i] >= vocab)
            status =
                PQ_FAIL(err, PQ_ERR_FORMAT, "%s: token %zu is %d, the model has %zu", path, i, ids[i], vocab);
    for (size_t i = 0; status == PQ_OK && i < j->count; i++) {
        j->tokens[i] = ids[i / j->context * row + i % j->context];
        j->targets[i] = ids[i / j->context * row + i % j->context + 1];
    }
    pq_file_view_close(&file);
    return status;
}

static pq_status allocate(job *j, pq_error *err) {
    const pq_params *params = &j->model->params;
    PQ_TRY(nans(params->elements, "weights", &j->weights, err));
    PQ_TRY(nans(params->elements, "gradients", &j->gradients, err));
    PQ_TRY(nans(j->count * (size_t)params->shape.vocab, "logits", &j->logits, err));
    PQ_TRY(nans(j->count, "losses", &j->losses, err));
    PQ_TRY(nans(j->count, "losses in training", &j->training_losses, err));
    pq_model_effective_weights(j->model, j->weights);
    return PQ_OK;
}

static pq_status run_in(job *j, pq_graph *graph, bool training, void **activations, void **scratch,
                        pq_error *err) {
    pq_plan_size size;
    PQ_TRY(pq_graph_plan(graph, training, false, &size, err));
    PQ_TRY(nans(size.activations / sizeof(float) + 1, "activations", activations, err));
    PQ_TRY(nans(size.scratch / sizeof(float) + 1, "scratch", scratch, err));
    pq_graph_place(graph, *activations, *scratch);
    pq_graph_bind(graph, j->weights, j->weights, j->gradients);
    const pq_batch batch = {.tokens = j->tokens,
                            .targets = j->targets,
                            .losses = training ? j->training_losses : j->losses,
                            .loss_scale = 1.0f / (float)j->count,
                            .training = training,
                            .first = true};
    pq_graph_forward(graph, &batch);
    if (training)
        pq_graph_backward(graph, &batch);
    else
        pq_op_head_logits(graph, 0, j->count, j->logits);
    return PQ_OK;
}

/* The forward pass alone, or with the backward pass. */
static pq_status run(job *j, bool training, pq_error *err) {
    pq_graph *graph;
    void *activations = NULL, *scratch = NULL;
    PQ_TRY(pq_gpt2_graph(j->model, PQ_F32, j->batch, j->context, 0, &graph, err));
    pq_status status = run_in(j, graph, training, &activations, &scratch, err);
    pq_graph_destroy(graph);
    free(activations);
    free(scratch);
    return status;
}

static pq_status write_tensors(pq_safetensor *tensors, size_t count, const char *path, pq_error *err) {
    char *header;
    size_t bytes;
    PQ_TRY(pq_safetensors_header(tensors, count, NULL, 0, &header, &bytes, err));
    FILE *file = fopen(path, "wb");
    bool good = file && fwrite(header, 1, bytes, file) == bytes;
    for (size_t i = 0; good && i < count; i++)
        good = fwrite(tensors[i].data, 1, tensors[i].bytes, file) == tensors[i].bytes;
    if (file) good = fclose(file) == 0 && good;
    free(header);
    return good ? PQ_OK : PQ_FAIL(err, PQ_ERR_IO, "%s could not be written", path);
}

static pq_status write_all(const job *j, const char *path, pq_error *err) {
    const pq_params *params = &j->model->params;
    const uint64_t B = j->batch, T = j->context, V = (uint64_t)params->shape.vocab;
    pq_safetensor *tensors;
    char(*names)[80];
    size_t n = 0;
    PQ_TRY(pq_calloc(params->count, sizeof *names, "names", &names, err));
    pq_status status = pq_calloc(params->count + 3, sizeof *tensors, "tensors", &tensors, err);
    if (status == PQ_OK) {
        tensors[n++] = (pq_safetensor){.name = "logits", .rank = 3, .shape = {B, T, V}, .data = j->logits};
        tensors[n++] = (pq_safetensor){.name = "losses", .rank = 2, .shape = {B, T}, .data = j->losses};
        tensors[n++] = (pq_safetensor){
            .name = "training.losses", .rank = 2, .shape = {B, T}, .data = j->training_losses};
        for (size_t i = 0; i < params->count; i++) {
            const pq_param *p = &params->list[i];
            snprintf(names[i], sizeof names[i], "grad.%s", p->name);
            tensors[n] = (pq_safetensor){
                .name = names[i], .rank = 1, .shape = {p->columns}, .data = j->gradients + p->offset};
            if (p->rows) tensors[n].rank = 2, tensors[n].shape[0] = p->rows, tensors[n].shape[1] = p->columns;
            n++;
        }
        for (size_t i = 0; i < n; i++) tensors[i].dtype = "F32";
        status = write_tensors(tensors, n, path, err);
        free(tensors);
    }
    free(names);
    return status;
}

static pq_status do_all(job *j, char **words, pq_error *err) {
    j->batch = strtoul(words[1], NULL, 10), j->context = strtoul(words[2], NULL, 10);
    j->count = j->batch * j->context;
    if (!j->count)
        return PQ_FAIL(err, PQ_ERR_USAGE, "expected BATCH and CONTEXT above 0, found %s and %s", words[1],
                       words[2]);
    PQ_TRY(pq_model_read(words[0], &j->model, NULL, err));
    PQ_TRY(read_tokens(j, words[3], err));
    PQ_TRY(allocate(j, err));
    for (int training = 0; training < 2; training++) PQ_TRY(run(j, training, err));
    return write_all(j, words[4], err);
}

int main(int argc, char **argv) {
    job j = {0};
    pq_error err = {0};
    if (argc != 6) {
        fputs("usage: gradients MODEL BATCH CONTEXT TOKENS OUT.safetensors\n", stderr);
        return 2;
    }
    pq_status status = do_all(&j, argv + 1, &err);
    if (status != PQ_OK) fprintf(stderr, "%s\n", err.message);
    free(j.tokens), free(j.targets), free(j.weights), free(j.gradients);
    free(j.logits), free(j.losses), free(j.training_losses);
    pq_model_destroy(j.model);
    return status != PQ_OK;
}
