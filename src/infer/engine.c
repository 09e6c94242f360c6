/* Owns one sequence's way through the model: embeddings, blocks with the key/value cache, logits. */
#include "infer/engine.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "kernels/gemm.h"
#include "kernels/kernels.h"

/* One block's parameters; biases are NULL where the model has none. */
typedef struct block {
    const pq_packed_tensor *c_attn, *attn_c_proj, *c_fc, *mlp_c_proj;
    const float *ln_1_gain, *ln_1_bias, *ln_2_gain, *ln_2_bias;
    const float *c_attn_bias, *attn_c_proj_bias, *c_fc_bias, *mlp_c_proj_bias;
} block;

struct pq_engine {
    const pq_packed *packed;
    const pq_packed_tensor *wte, *wpe;
    const float *ln_f_gain, *ln_f_bias;
    block *blocks; /* [layers] */
    size_t layers, heads, width, vocab, context, position;
    float *keys, *values; /* [layers][context][width] */
    /* Activations of one batch: the residual stream, its norm, the widest inner layer, attention's result. */
    float *x, *norm, *wide, *attended;
    float *mean, *rstd;    /* [PQ_ENGINE_BATCH], what the layer norm kernel also gives */
    float *tiles, *scores; /* scratch of pq_packed_matmul and pq_cached_attention */
};

static const pq_packed_tensor *tensor_at(const pq_packed *packed, pq_param_id id, int layer) {
    const pq_param *p = pq_params_at(&packed->params, id, layer);
    return p ? &packed->tensors[p - packed->params.list] : NULL;
}

static const float *vector_at(const pq_packed *packed, pq_param_id id, int layer) {
    const pq_packed_tensor *tensor = tensor_at(packed, id, layer);
    return tensor ? tensor->dense : NULL;
}

static void find_parameters(pq_engine *e) {
    const pq_packed *packed = e->packed;
    e->wte = tensor_at(packed, PQ_PARAM_WTE, -1);
    e->wpe = tensor_at(packed, PQ_PARAM_WPE, -1);
    e->ln_f_gain = vector_at(packed, PQ_PARAM_LN_F_WEIGHT, -1);
    e->ln_f_bias = vector_at(packed, PQ_PARAM_LN_F_BIAS, -1);
    for (int layer = 0; layer < (int)e->layers; layer++)
        e->blocks[layer] = (block){.c_attn = tensor_at(packed, PQ_PARAM_C_ATTN_WEIGHT, layer),
                                   .attn_c_proj = tensor_at(packed, PQ_PARAM_ATTN_C_PROJ_WEIGHT, layer),
                                   .c_fc = tensor_at(packed, PQ_PARAM_C_FC_WEIGHT, layer),
                                   .mlp_c_proj = tensor_at(packed, PQ_PARAM_MLP_C_PROJ_WEIGHT, layer),
                                   .ln_1_gain = vector_at(packed, PQ_PARAM_LN_1_WEIGHT, layer),
                                   .ln_1_bias = vector_at(packed, PQ_PARAM_LN_1_BIAS, layer),
                                   .ln_2_gain = vector_at(packed, PQ_PARAM_LN_2_WEIGHT, layer),
                                   .ln_2_bias = vector_at(packed, PQ_PARAM_LN_2_BIAS, layer),
                                   .c_attn_bias = vector_at(packed, PQ_PARAM_C_ATTN_BIAS, layer),
                                   .attn_c_proj_bias = vector_at(packed, PQ_PARAM_ATTN_C_PROJ_BIAS, layer),
                                   .c_fc_bias = vector_at(packed, PQ_PARAM_C_FC_BIAS, layer),
                                   .mlp_c_proj_bias = vector_at(packed, PQ_PARAM_MLP_C_PROJ_BIAS, layer)};
}

static pq_status allocate(pq_engine *e, pq_error *err) {
    const size_t C = e->width, B = PQ_ENGINE_BATCH, narrow = pq_tile_rows(C) * C,
                 wide = pq_tile_rows(4 * C) * 4 * C;
    const struct {
        float **out;
        size_t count;
    } buffers[] = {{&e->keys, e->layers * e->context * C},
                   {&e->values, e->layers * e->context * C},
                   {&e->x, B * C},
                   {&e->norm, B * C},
                   {&e->wide, B * 4 * C},
                   {&e->attended, B * C},
                   {&e->mean, B},
                   {&e->rstd, B},
                   {&e->tiles, PQ_ENGINE_LANES * (narrow > wide ? narrow : wide)},
                   {&e->scores, PQ_ENGINE_LANES * B * e->context}};
    PQ_TRY(pq_calloc(e->layers, sizeof *e->blocks, "blocks", &e->blocks, err));
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        PQ_TRY(pq_calloc(buffers[i].count, sizeof(float), "key/value cache and activations", buffers[i].out,
                         err));
    return PQ_OK;
}

pq_status pq_engine_create(const pq_packed *packed, int64_t context, pq_engine **out, pq_error *err) {
    const pq_gpt2_shape shape = packed->params.shape;
    pq_engine *e;
    *out = NULL;
    if (context < 0 || context > shape.context)
        return PQ_FAIL(err, PQ_ERR_USAGE, "a context of %lld tokens was asked for; the model's is %lld",
                       (long long)context, (long long)shape.context);
    PQ_TRY(pq_calloc(1, sizeof *e, "engine", &e, err));
    e->packed = packed;
    e->layers = (size_t)shape.layers;
    e->heads = (size_t)shape.heads;
    e->width = (size_t)shape.width;
    e->vocab = (size_t)shape.vocab;
    e->context = (size_t)(context ? context : shape.context);
    pq_status status = allocate(e, err);
    if (status != PQ_OK) {
        pq_engine_destroy(e);
        return status;
    }
    find_parameters(e);
    *out = e;
    return PQ_OK;
}

void pq_engine_destroy(pq_engine *engine) {
    if (!engine) return;
    float *buffers[] = {engine->keys,     engine->values, engine->x,    engine->norm,  engine->wide,
                        engine->attended, engine->mean,   engine->rstd, engine->tiles, engine->scores};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) free(buffers[i]);
    free(engine->blocks);
    free(engine);
}

void pq_engine_reset(pq_engine *engine) {
    engine->position = 0;
}

int64_t pq_engine_position(const pq_engine *engine) {
    return (int64_t)engine->position;
}

int64_t pq_engine_context(const pq_engine *engine) {
    return (int64_t)engine->context;
}

size_t pq_engine_vocab(const pq_engine *engine) {
    return engine->vocab;
}

static void add_to_stream(pq_engine *e, const float *change, size_t n) {
    pq_kernels_get()->add(e->x, change, e->x, n * e->width);
}

static void normalize(pq_engine *e, const float *x, const float *gain, const float *bias, size_t n) {
    pq_kernels_get()->layernorm_forward(x, gain, bias, e->norm, e->mean, e->rstd, n, e->width);
}

static void embed(pq_engine *e, const uint16_t *tokens, size_t n) {
    for (size_t t = 0; t < n; t++) pq_packed_decode_rows(e->wte, tokens[t], 1, e->x + t * e->width);
    pq_packed_decode_rows(e->wpe, e->position, n, e->norm);
    add_to_stream(e, e->norm, n);
}

/* x[n] as the product with `weights` reads it; in place. */
static void quantize_input(const pq_engine *e, const pq_packed_tensor *weights, float *x, size_t n) {
    if (weights->codebook && e->packed->activations == PQ_ACTIVATIONS_TOKEN)
        pq_kernels_get()->int8_rows(x, x, n, weights->param->columns);
}

static void run_attention(pq_engine *e, const block *b, size_t layer, size_t n) {
    const size_t C = e->width;
    float *keys = e->keys + layer * e->context * C, *values = e->values + layer * e->context * C;
    normalize(e, e->x, b->ln_1_gain, b->ln_1_bias, n);
    quantize_input(e, b->c_attn, e->norm, n);
    pq_packed_matmul(b->c_attn, b->c_attn_bias, e->norm, n, e->wide, 3 * C, e->tiles);
    for (size_t t = 0; t < n; t++) {
        const float *qkv = e->wide + t * 3 * C;
        memcpy(keys + (e->position + t) * C, qkv + C, C * sizeof *keys);
        memcpy(values + (e->position + t) * C, qkv + 2 * C, C * sizeof *values);
    }
    pq_cached_attention(e->wide, 3 * C, keys, values, e->position, n, e->heads, C / e->heads, e->attended,
                        e->scores);
    quantize_input(e, b->attn_c_proj, e->attended, n);
    pq_packed_matmul(b->attn_c_proj, b->attn_c_proj_bias, e->attended, n, e->norm, C, e->tiles);
    add_to_stream(e, e->norm, n);
}

static void run_mlp(pq_engine *e, const block *b, size_t n) {
    const size_t C = e->width;
    const pq_kernels *kernels = pq_kernels_get();
    normalize(e, e->x, b->ln_2_gain, b->ln_2_bias, n);
    quantize_input(e, b->c_fc, e->norm, n);
    pq_packed_matmul(b->c_fc, b->c_fc_bias, e->norm, n, e->wide, 4 * C, e->tiles);
    (e->packed->params.shape.gelu_tanh ? kernels->gelu_tanh_forward
                                       : kernels->gelu_erf_forward)(e->wide, e->wide, n * 4 * C);
    quantize_input(e, b->mlp_c_proj, e->wide, n);
    pq_packed_matmul(b->mlp_c_proj, b->mlp_c_proj_bias, e->wide, n, e->norm, C, e->tiles);
    add_to_stream(e, e->norm, n);
}

/* Logits of the last `n` of the batch's `batch` tokens. */
static void run_head(pq_engine *e, size_t batch, size_t n, float *logits) {
    normalize(e, e->x + (batch - n) * e->width, e->ln_f_gain, e->ln_f_bias, n);
    quantize_input(e, e->wte, e->norm, n);
    pq_packed_matmul(e->wte, NULL, e->norm, n, logits, e->vocab, e->tiles);
}

static pq_status check_tokens(const pq_engine *e, const uint16_t *tokens, size_t count, pq_error *err) {
    if (count == 0) return PQ_FAIL(err, PQ_ERR_USAGE, "there are no tokens to read: the prompt is empty");
    if (count > e->context - e->position)
        return PQ_FAIL(err, PQ_ERR_USAGE, "%zu tokens after %zu are more than the context of %zu holds",
                       count, e->position, e->context);
    for (size_t i = 0; i < count; i++)
        if (tokens[i] >= e->vocab)
            return PQ_FAIL(err, PQ_ERR_USAGE, "token %zu has id %u; the model's vocabulary has %zu", i,
                           (unsigned)tokens[i], e->vocab);
    return PQ_OK;
}

pq_status pq_engine_forward(pq_engine *engine, const uint16_t *tokens, size_t count, bool last_only,
                            float *logits, pq_error *err) {
    PQ_TRY(check_tokens(engine, tokens, count, err));
    const pq_gemm_threads host_threads = pq_gemm_threads_take();
    for (size_t first = 0; first < count; first += PQ_ENGINE_BATCH) {
        const size_t n = count - first < PQ_ENGINE_BATCH ? count - first : PQ_ENGINE_BATCH;
        embed(engine, tokens + first, n);
        for (size_t layer = 0; layer < engine->layers; layer++) {
            run_attention(engine, &engine->blocks[layer], layer, n);
            run_mlp(engine, &engine->blocks[layer], n);
        }
        engine->position += n;
        if (logits && !last_only)
            run_head(engine, n, n, logits + first * engine->vocab);
        else if (logits && first + n == count)
            run_head(engine, n, 1, logits);
    }
    pq_gemm_threads_restore(host_threads);
    return PQ_OK;
}
