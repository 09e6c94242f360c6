/* Owns the way of tokens through the model: embeddings, blocks with the key/value cache, logits. Exact, or by
 * the integer recipe of docs/formats.md. */
#include "infer/parts.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "infer/int8.h"
#include "kernels/gemm.h"
#include "kernels/kernels.h"

/* One block's parameters; biases are NULL where the model has none. */
typedef struct block {
    const pq_packed_tensor *c_attn, *attn_c_proj, *c_fc, *mlp_c_proj;
    const float *ln_1_gain, *ln_1_bias, *ln_2_gain, *ln_2_bias;
    const float *c_attn_bias, *attn_c_proj_bias, *c_fc_bias, *mlp_c_proj_bias;
} block;

/* Where a token of the batch stands. */
typedef struct place {
    size_t sequence, position;
} place;

struct pq_engine {
    const pq_packed *packed;
    bool int8, half; /* the options */
    const pq_packed_tensor *wte, *wpe;
    const float *ln_f_gain, *ln_f_bias;
    block *blocks; /* [layers] */
    size_t layers, heads, width, vocab, context, sequences;
    size_t *positions; /* [sequences]: tokens read */
    /* [sequences][layers][context][width] of fp32 or fp16 */
    char *keys, *values;
    place *places; /* [PQ_ENGINE_BATCH] */
    pq_cache_view *views;
    /* Activations of one batch: the residual stream, its norm, the widest inner layer, attention's result. */
    float *x, *norm, *wide, *attended;
    float *mean, *rstd;    /* [PQ_ENGINE_BATCH], what the layer norm kernel also gives */
    float *tiles, *scores; /* scratch of pq_packed_matmul and the attentions */
    /* With int8 activations. */
    pq_int8_matrix *matrices; /* [params.count] */
    pq_int8_inputs inputs;
    int32_t *dots; /* [PQ_ENGINE_LANES][lane_dots] */
    size_t lane_dots;
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

/* Scores that a lane of attention holds. */
static size_t lane_scores(const pq_engine *e) {
    return e->int8 || e->half ? pq_recipe_scores(e->context, PQ_RECIPE_QUERIES)
                              : PQ_ENGINE_BATCH * e->context;
}

static size_t cache_bytes(const pq_engine *e) {
    return e->half ? sizeof(uint16_t) : sizeof(float);
}

static pq_status allocate(pq_engine *e, pq_error *err) {
    const size_t C = e->width, B = PQ_ENGINE_BATCH, narrow = pq_tile_rows(C) * C,
                 wide = pq_tile_rows(4 * C) * 4 * C, cache = e->sequences * e->layers * e->context * C;
    const struct {
        void *out;
        size_t count, size;
    } buffers[] = {{&e->blocks, e->layers, sizeof *e->blocks},
                   {&e->positions, e->sequences, sizeof *e->positions},
                   {&e->keys, cache, cache_bytes(e)},
                   {&e->values, cache, cache_bytes(e)},
                   {&e->places, B, sizeof *e->places},
                   {&e->views, B, sizeof *e->views},
                   {&e->x, B * C, sizeof(float)},
                   {&e->norm, B * C, sizeof(float)},
                   {&e->wide, B * 4 * C, sizeof(float)},
                   {&e->attended, B * C, sizeof(float)},
                   {&e->mean, B, sizeof(float)},
                   {&e->rstd, B, sizeof(float)},
                   {&e->tiles, PQ_ENGINE_LANES * (narrow > wide ? narrow : wide), sizeof(float)},
                   {&e->scores, PQ_ENGINE_LANES * lane_scores(e), sizeof(float)}};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        PQ_TRY(pq_calloc(buffers[i].count, buffers[i].size, "key/value cache and activations", buffers[i].out,
                         err));
    return PQ_OK;
}

/* What whole numbers take besides. */
static pq_status prepare_int8(pq_engine *e, pq_error *err) {
    const pq_packed *packed = e->packed;
    PQ_TRY(pq_calloc(packed->params.count, sizeof *e->matrices, "matrices", &e->matrices, err));
    for (size_t i = 0; i < packed->params.count; i++) {
        const pq_packed_tensor *tensor = &packed->tensors[i];
        if (!tensor->codebook || tensor == e->wpe) continue;
        PQ_TRY(pq_int8_matrix_init(tensor, &e->matrices[i], err));
        const size_t scratch = pq_int8_scratch(&e->matrices[i]);
        if (scratch > e->lane_dots) e->lane_dots = scratch;
    }
    e->inputs.stride = 2 * pq_round_up(4 * e->width, 128);
    PQ_TRY(pq_calloc(PQ_ENGINE_BATCH * e->inputs.stride, 1, "activations", &e->inputs.bytes, err));
    PQ_TRY(pq_calloc(PQ_ENGINE_BATCH, sizeof *e->inputs.rows, "activations", &e->inputs.rows, err));
    return pq_calloc(PQ_ENGINE_LANES * e->lane_dots, sizeof *e->dots, "activations", &e->dots, err);
}

static pq_status check_options(const pq_gpt2_shape *shape, const pq_engine_options *o, pq_error *err) {
    if (o->context < 0 || o->context > shape->context)
        return PQ_FAIL(err, PQ_ERR_USAGE, "a context of %lld tokens was asked for; the model's is %lld",
                       (long long)o->context, (long long)shape->context);
    if (o->sequences < 0 || o->sequences > 65536)
        return PQ_FAIL(err, PQ_ERR_USAGE, "an engine has 1 to 65536 sequences, %lld were asked for",
                       (long long)o->sequences);
    return PQ_OK;
}

pq_status pq_engine_create_with(const pq_packed *packed, const pq_engine_options *options, pq_engine **out,
                                pq_error *err) {
    const pq_gpt2_shape shape = packed->params.shape;
    const pq_engine_options o = options ? *options : (pq_engine_options){0};
    pq_engine *e;
    *out = NULL;
    PQ_TRY(check_options(&shape, &o, err));
    PQ_TRY(pq_calloc(1, sizeof *e, "engine", &e, err));
    *e = (pq_engine){.packed = packed,
                     .int8 = o.int8,
                     .half = o.half_cache,
                     .layers = (size_t)shape.layers,
                     .heads = (size_t)shape.heads,
                     .width = (size_t)shape.width,
                     .vocab = (size_t)shape.vocab,
                     .context = (size_t)(o.context ? o.context : shape.context),
                     .sequences = (size_t)(o.sequences ? o.sequences : 1)};
    pq_status status = allocate(e, err);
    if (status == PQ_OK) find_parameters(e);
    if (status == PQ_OK && e->int8) status = prepare_int8(e, err);
    if (status != PQ_OK) {
        pq_engine_destroy(e);
        return status;
    }
    *out = e;
    return PQ_OK;
}

pq_status pq_engine_create(const pq_packed *packed, int64_t context, pq_engine **out, pq_error *err) {
    const pq_engine_options options = {.context = context};
    return pq_engine_create_with(packed, &options, out, err);
}

void pq_engine_destroy(pq_engine *engine) {
    if (!engine) return;
    for (size_t i = 0; engine->matrices && i < engine->packed->params.count; i++)
        pq_int8_matrix_deinit(&engine->matrices[i]);
    void *buffers[] = {engine->keys,  engine->values,     engine->x,        engine->norm,
                       engine->wide,  engine->attended,   engine->mean,     engine->rstd,
                       engine->tiles, engine->scores,     engine->blocks,   engine->positions,
                       engine->views, engine->places,     engine->matrices, engine->inputs.bytes,
                       engine->dots,  engine->inputs.rows};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) free(buffers[i]);
    free(engine);
}

void pq_engine_reset(pq_engine *engine) {
    for (size_t i = 0; i < engine->sequences; i++) engine->positions[i] = 0;
}

int64_t pq_engine_position(const pq_engine *engine) {
    return (int64_t)engine->positions[0];
}

int64_t pq_engine_context(const pq_engine *engine) {
    return (int64_t)engine->context;
}

size_t pq_engine_vocab(const pq_engine *engine) {
    return engine->vocab;
}

/* A kernel over the tokens of a batch, one a task. */
typedef struct per_token {
    const pq_engine *engine;
    const float *x, *gain, *bias;
    float *out;
} per_token;

static void add_token(void *context, size_t t) {
    const per_token *p = context;
    const size_t C = p->engine->width;
    pq_kernels_get()->add(p->out + t * C, p->x + t * C, p->out + t * C, C);
}

static void add_to_stream(pq_engine *e, const float *change, size_t n) {
    per_token p = {.engine = e, .x = change, .out = e->x};
    pq_tasks(n, n * e->width, add_token, &p);
}

static void normalize_token(void *context, size_t t) {
    const per_token *p = context;
    const size_t C = p->engine->width;
    pq_kernels_get()->recipe_norm(p->x + t * C, p->gain, p->bias, p->out + t * C, 1, C);
}

static void normalize(pq_engine *e, const float *x, const float *gain, const float *bias, size_t n) {
    per_token p = {e, x, gain, bias, e->norm};
    if (e->int8)
        pq_tasks(n, n * e->width, normalize_token, &p);
    else
        pq_kernels_get()->layernorm_forward(x, gain, bias, e->norm, e->mean, e->rstd, n, e->width);
}

static void activate_token(void *context, size_t t) {
    const per_token *p = context;
    const size_t n = 4 * p->engine->width;
    const pq_kernels *k = pq_kernels_get();
    (p->engine->packed->params.shape.gelu_tanh ? k->recipe_gelu_tanh : k->recipe_gelu_erf)(p->out + t * n,
                                                                                           p->out + t * n, n);
}

static void activate(pq_engine *e, float *x, size_t n) {
    const pq_kernels *k = pq_kernels_get();
    per_token p = {.engine = e, .out = x};
    if (e->int8)
        pq_tasks(n, n * 4 * e->width * 4, activate_token, &p);
    else
        (e->packed->params.shape.gelu_tanh ? k->gelu_tanh_forward : k->gelu_erf_forward)(x, x,
                                                                                         n * 4 * e->width);
}

typedef struct embedding {
    pq_engine *engine;
    const uint16_t *tokens;
} embedding;

static void embed_token(void *context, size_t t) {
    const embedding *m = context;
    pq_engine *e = m->engine;
    pq_packed_decode_rows(e->wte, m->tokens[t], 1, e->x + t * e->width);
    pq_packed_decode_rows(e->wpe, e->places[t].position, 1, e->norm + t * e->width);
}

static void embed(pq_engine *e, const uint16_t *tokens, size_t n) {
    embedding m = {e, tokens};
    pq_tasks(n, n * e->width, embed_token, &m);
    add_to_stream(e, e->norm, n);
}

/* out[n][stride] = x[n] weights^T + bias, with x as whole numbers or as it is; x may change. from_norm: x is
 * what a layer norm gave, where outliers get 16 bits unless the model was trained without that. */
static void multiply(pq_engine *e, const pq_packed_tensor *weights, const float *bias, float *x, size_t n,
                     bool from_norm, float *out, size_t stride) {
    const size_t columns = weights->param->columns;
    const bool trained = e->packed->activations == PQ_ACTIVATIONS_TOKEN;
    if (e->int8 && weights->codebook) {
        pq_int8_take(x, n, columns, from_norm && !trained, &e->inputs);
        pq_int8_product(&e->matrices[weights - e->packed->tensors], bias, &e->inputs, n, out, stride, e->dots,
                        e->lane_dots);
        return;
    }
    if (weights->codebook && trained) pq_kernels_get()->int8_rows(x, x, n, columns);
    pq_packed_matmul(weights, bias, x, n, out, stride, e->tiles);
}

/* Where keys or values of a token stand, in the layer's part of its sequence's cache. */
static char *cached(const pq_engine *e, char *cache, size_t sequence, size_t layer, size_t position) {
    return cache + ((sequence * e->layers + layer) * e->context + position) * e->width * cache_bytes(e);
}

static void keep(const pq_engine *e, const float *x, char *to) {
    if (e->half)
        pq_kernels_get()->to_half(x, (uint16_t *)to, e->width);
    else
        memcpy(to, x, e->width * sizeof *x);
}

typedef struct keeping {
    pq_engine *engine;
    size_t layer;
} keeping;

/* Keys and values of one token from q|k|v into the cache. */
static void keep_token(void *context, size_t t) {
    const keeping *k = context;
    const pq_engine *e = k->engine;
    const place *p = &e->places[t];
    const float *qkv = e->wide + t * 3 * e->width;
    keep(e, qkv + e->width, cached(e, e->keys, p->sequence, k->layer, p->position));
    keep(e, qkv + 2 * e->width, cached(e, e->values, p->sequence, k->layer, p->position));
}

/* The exact attention reads consecutive tokens of one sequence together. */
static void attend_exactly(pq_engine *e, size_t layer, size_t n) {
    const size_t C = e->width;
    for (size_t t = 0, count; t < n; t += count) {
        const place *p = &e->places[t];
        for (count = 1; t + count < n && p[count].sequence == p->sequence;) count++;
        pq_cached_attention(e->wide + t * 3 * C, 3 * C,
                            (const float *)cached(e, e->keys, p->sequence, layer, 0),
                            (const float *)cached(e, e->values, p->sequence, layer, 0), p->position, count,
                            e->heads, C / e->heads, e->attended + t * C, e->scores);
    }
}

/* The batch's tokens as views: those of one sequence follow each other, a few of them make one view. */
static size_t make_views(pq_engine *e, size_t layer, size_t n) {
    size_t views = 0;
    for (size_t t = 0, count; t < n; t += count) {
        const place *p = &e->places[t];
        for (count = 1; count < PQ_RECIPE_QUERIES && t + count < n && p[count].sequence == p->sequence;)
            count++;
        e->views[views++] = (pq_cache_view){.keys = cached(e, e->keys, p->sequence, layer, 0),
                                            .values = cached(e, e->values, p->sequence, layer, 0),
                                            .first = t,
                                            .queries = count,
                                            .count = p->position + 1};
    }
    return views;
}

static void attend(pq_engine *e, size_t layer, size_t n) {
    const size_t C = e->width;
    keeping k = {e, layer};
    pq_tasks(n, n * e->width, keep_token, &k);
    if (e->int8 || e->half)
        pq_recipe_attention(e->wide, 3 * C, e->views, e->half, make_views(e, layer, n), e->heads,
                            C / e->heads, e->attended, e->scores, lane_scores(e));
    else
        attend_exactly(e, layer, n);
}

static void run_attention(pq_engine *e, const block *b, size_t layer, size_t n) {
    const size_t C = e->width;
    normalize(e, e->x, b->ln_1_gain, b->ln_1_bias, n);
    multiply(e, b->c_attn, b->c_attn_bias, e->norm, n, true, e->wide, 3 * C);
    attend(e, layer, n);
    multiply(e, b->attn_c_proj, b->attn_c_proj_bias, e->attended, n, false, e->norm, C);
    add_to_stream(e, e->norm, n);
}

static void run_mlp(pq_engine *e, const block *b, size_t n) {
    const size_t C = e->width;
    normalize(e, e->x, b->ln_2_gain, b->ln_2_bias, n);
    multiply(e, b->c_fc, b->c_fc_bias, e->norm, n, true, e->wide, 4 * C);
    activate(e, e->wide, n);
    multiply(e, b->mlp_c_proj, b->mlp_c_proj_bias, e->wide, n, false, e->norm, C);
    add_to_stream(e, e->norm, n);
}

/* Logits of the last `n` of the batch's `batch` tokens. */
static void run_head(pq_engine *e, size_t batch, size_t n, float *logits) {
    normalize(e, e->x + (batch - n) * e->width, e->ln_f_gain, e->ln_f_bias, n);
    multiply(e, e->wte, NULL, e->norm, n, true, logits, e->vocab);
}

/* The batch's tokens, at e->places, through the blocks; their sequences are then longer. */
static void run_batch(pq_engine *e, const uint16_t *tokens, size_t n) {
    embed(e, tokens, n);
    for (size_t layer = 0; layer < e->layers; layer++) {
        run_attention(e, &e->blocks[layer], layer, n);
        run_mlp(e, &e->blocks[layer], n);
    }
    for (size_t t = 0; t < n; t++) e->positions[e->places[t].sequence]++;
}

static pq_status check_ids(const pq_engine *e, const uint16_t *tokens, size_t count, pq_error *err) {
    if (count == 0) return PQ_FAIL(err, PQ_ERR_USAGE, "there are no tokens to read: the prompt is empty");
    for (size_t i = 0; i < count; i++)
        if (tokens[i] >= e->vocab)
            return PQ_FAIL(err, PQ_ERR_USAGE, "token %zu has id %u; the model's vocabulary has %zu", i,
                           (unsigned)tokens[i], e->vocab);
    return PQ_OK;
}

static pq_status check_room(const pq_engine *e, size_t sequence, size_t count, pq_error *err) {
    if (count > e->context - e->positions[sequence])
        return PQ_FAIL(err, PQ_ERR_USAGE, "%zu tokens after %zu are more than the context of %zu holds",
                       count, e->positions[sequence], e->context);
    return PQ_OK;
}

static size_t batch_at(size_t first, size_t count) {
    return count - first < PQ_ENGINE_BATCH ? count - first : PQ_ENGINE_BATCH;
}

pq_status pq_engine_forward_in(pq_engine *engine, int64_t sequence, const uint16_t *tokens, size_t count,
                               bool last_only, float *logits, pq_error *err) {
    if (sequence < 0 || (size_t)sequence >= engine->sequences)
        return PQ_FAIL(err, PQ_ERR_USAGE, "there is no sequence %lld: the engine has %zu, from 0",
                       (long long)sequence, engine->sequences);
    PQ_TRY(check_room(engine, (size_t)sequence, count, err));
    PQ_TRY(check_ids(engine, tokens, count, err));
    const pq_gemm_threads host_threads = pq_gemm_threads_take();
    for (size_t first = 0; first < count; first += PQ_ENGINE_BATCH) {
        const size_t n = batch_at(first, count);
        for (size_t t = 0; t < n; t++)
            engine->places[t] = (place){(size_t)sequence, engine->positions[sequence] + t};
        run_batch(engine, tokens + first, n);
        if (logits && !last_only)
            run_head(engine, n, n, logits + first * engine->vocab);
        else if (logits && first + n == count)
            run_head(engine, n, 1, logits);
    }
    pq_gemm_threads_restore(host_threads);
    return PQ_OK;
}

pq_status pq_engine_forward(pq_engine *engine, const uint16_t *tokens, size_t count, bool last_only,
                            float *logits, pq_error *err) {
    return pq_engine_forward_in(engine, 0, tokens, count, last_only, logits, err);
}

pq_status pq_engine_step(pq_engine *engine, const uint16_t *tokens, size_t count, float *logits,
                         pq_error *err) {
    if (count > engine->sequences)
        return PQ_FAIL(err, PQ_ERR_USAGE, "tokens for %zu sequences, the engine has %zu", count,
                       engine->sequences);
    PQ_TRY(check_ids(engine, tokens, count, err));
    for (size_t i = 0; i < count; i++) PQ_TRY(check_room(engine, i, 1, err));
    const pq_gemm_threads host_threads = pq_gemm_threads_take();
    for (size_t first = 0; first < count; first += PQ_ENGINE_BATCH) {
        const size_t n = batch_at(first, count);
        for (size_t t = 0; t < n; t++) engine->places[t] = (place){first + t, engine->positions[first + t]};
        run_batch(engine, tokens + first, n);
        if (logits) run_head(engine, n, n, logits + first * engine->vocab);
    }
    pq_gemm_threads_restore(host_threads);
    return PQ_OK;
}
