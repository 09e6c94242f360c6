/* Owns how GPT-2's ops are put together and how its weights start. */
#include "model/gpt2.h"

#include "base/random.h"
#include "base/threads.h"
#include "ops/ops.h"

typedef struct builder {
    const pq_model *model;
    pq_graph *graph;
    pq_activations activations;
    int parameters[PQ_PARAM_IDS]; /* tensors of the current layer, PQ_NONE where absent */
} builder;

/* Add the parameters of `layer` (-1: those outside the blocks). */
static pq_status add_parameters(builder *b, int layer, pq_error *err) {
    const pq_params *params = &b->model->params;
    for (int id = 0; id < PQ_PARAM_IDS; id++) {
        const pq_param *p = pq_params_at(params, (pq_param_id)id, layer);
        if (!p) {
            if (layer >= 0 || !pq_params_at(params, (pq_param_id)id, 0)) continue;
            b->parameters[id] = PQ_NONE;
            continue;
        }
        PQ_TRY(pq_graph_add_parameter(b->graph, p->rows, p->columns, p->offset,
                                      b->model->quant[p - params->list].quantized, &b->parameters[id], err));
    }
    return PQ_OK;
}

/* How the matrix product of this site reads its input: quantized where its matrix is. */
static pq_activations input_of(const builder *b, size_t site) {
    const pq_param *p = pq_model_site_param(b->model, site);
    return b->model->quant[p - b->model->params.list].quantized ? b->activations : PQ_ACTIVATIONS_NONE;
}

/* *x as it reads it. */
static pq_status add_input(builder *b, size_t site, int *x, pq_error *err) {
    switch (input_of(b, site)) {
    case PQ_ACTIVATIONS_TOKEN:
        return pq_op_int8_token(b->graph, *x, x, err);
    case PQ_ACTIVATIONS_AFFINE:
        return pq_op_int8_affine(b->graph, *x, site, x, err);
    case PQ_ACTIVATIONS_NONE:
        break;
    }
    return PQ_OK;
}

/* How much of a half of a block is built: up to what its first linear layer reads, up to what its second one
 * reads, or all. */
typedef enum depth { TO_FIRST, TO_SECOND, WHOLE } depth;

/* *x becomes the output: x + c_proj(attention(c_attn(ln_1(x)))), or what comes before. The sum is recomputed
 * where what was added takes less room. */
static pq_status add_attention_half(builder *b, double dropout, depth end, int *x, pq_error *err) {
    const int *p = b->parameters;
    size_t site = 4 * (size_t)b->graph->block;
    int in = *x, y, z;
    PQ_TRY(pq_op_layernorm(b->graph, in, p[PQ_PARAM_LN_1_WEIGHT], p[PQ_PARAM_LN_1_BIAS], x, err));
    PQ_TRY(add_input(b, site, x, err));
    if (end == TO_FIRST) return PQ_OK;
    PQ_TRY(pq_op_linear(b->graph, *x, p[PQ_PARAM_C_ATTN_WEIGHT], p[PQ_PARAM_C_ATTN_BIAS], &y, err));
    PQ_TRY(pq_op_attention(b->graph, y, (size_t)b->model->params.shape.heads, dropout, x, err));
    PQ_TRY(add_input(b, site + 1, x, err));
    if (end == TO_SECOND) return PQ_OK;
    PQ_TRY(pq_op_linear(b->graph, *x, p[PQ_PARAM_ATTN_C_PROJ_WEIGHT], p[PQ_PARAM_ATTN_C_PROJ_BIAS], &z, err));
    return pq_op_residual(b->graph, in, z, dropout, b->graph->type != b->graph->stream, x, err);
}

/* *x becomes the output: x + c_proj(gelu(c_fc(ln_2(x)))), or what comes before. */
static pq_status add_mlp_half(builder *b, double dropout, depth end, int *x, pq_error *err) {
    const int *p = b->parameters;
    size_t site = 4 * (size_t)b->graph->block + 2;
    bool tanh = b->model->params.shape.gelu_tanh;
    int in = *x, y, z;
    PQ_TRY(pq_op_layernorm(b->graph, in, p[PQ_PARAM_LN_2_WEIGHT], p[PQ_PARAM_LN_2_BIAS], x, err));
    PQ_TRY(add_input(b, site, x, err));
    if (end == TO_FIRST) return PQ_OK;
    PQ_TRY(pq_op_linear(b->graph, *x, p[PQ_PARAM_C_FC_WEIGHT], p[PQ_PARAM_C_FC_BIAS], &y, err));
    if (end == WHOLE && input_of(b, site + 1) == PQ_ACTIVATIONS_NONE) {
        PQ_TRY(pq_op_gelu_linear(b->graph, y, tanh, p[PQ_PARAM_MLP_C_PROJ_WEIGHT],
                                 p[PQ_PARAM_MLP_C_PROJ_BIAS], &z, err));
        return pq_op_residual(b->graph, in, z, dropout, false, x, err);
    }
    PQ_TRY(pq_op_gelu(b->graph, y, tanh, x, err));
    PQ_TRY(add_input(b, site + 1, x, err));
    if (end == TO_SECOND) return PQ_OK;
    PQ_TRY(pq_op_linear(b->graph, *x, p[PQ_PARAM_MLP_C_PROJ_WEIGHT], p[PQ_PARAM_MLP_C_PROJ_BIAS], &z, err));
    return pq_op_residual(b->graph, in, z, dropout, false, x, err);
}

static pq_status add_all(builder *b, double dropout, pq_error *err) {
    pq_graph *g = b->graph;
    int x;
    for (int id = 0; id < PQ_PARAM_IDS; id++) b->parameters[id] = PQ_NONE;
    PQ_TRY(add_parameters(b, -1, err));
    PQ_TRY(pq_op_embedding(g, b->parameters[PQ_PARAM_WTE], b->parameters[PQ_PARAM_WPE], &x, err));
    PQ_TRY(pq_op_dropout(g, x, dropout, &x, err));
    for (int layer = 0; layer < b->model->params.shape.layers; layer++) {
        PQ_TRY(add_parameters(b, layer, err));
        g->block = layer;
        PQ_TRY(add_attention_half(b, dropout, WHOLE, &x, err));
        PQ_TRY(add_mlp_half(b, dropout, WHOLE, &x, err));
    }
    g->block = PQ_NONE;
    PQ_TRY(pq_op_layernorm(g, x, b->parameters[PQ_PARAM_LN_F_WEIGHT], b->parameters[PQ_PARAM_LN_F_BIAS], &x,
                           err));
    PQ_TRY(add_input(b, pq_model_sites(b->model) - 1, &x, err));
    return pq_op_head(g, x, b->parameters[PQ_PARAM_WTE], err);
}

pq_status pq_gpt2_graph(const pq_model *model, pq_type type, size_t batch, size_t context, double dropout,
                        pq_graph **out, pq_error *err) {
    builder b = {.model = model, .activations = model->activations};
    *out = NULL;
    PQ_TRY(pq_graph_create(batch, context, (size_t)model->params.shape.vocab, &b.graph, err));
    pq_graph_set_types(b.graph, type, PQ_F32);
    pq_status status = add_all(&b, dropout, err);
    if (status != PQ_OK)
        pq_graph_destroy(b.graph);
    else
        *out = b.graph, pq_graph_bind_ranges(b.graph, model->ranges);
    return status;
}

static pq_status add_part(builder *b, int layer, pq_gpt2_part part, int *in, int *out, pq_error *err) {
    const int *p = b->parameters;
    for (int id = 0; id < PQ_PARAM_IDS; id++) b->parameters[id] = PQ_NONE;
    PQ_TRY(add_parameters(b, -1, err));
    if (part == PQ_PART_EMBEDDING) {
        *in = PQ_NONE;
        return pq_op_embedding(b->graph, p[PQ_PARAM_WTE], p[PQ_PARAM_WPE], out, err);
    }
    PQ_TRY(pq_graph_add_activation(b->graph, (size_t)b->model->params.shape.width, false, in, err));
    *out = *in;
    if (part == PQ_PART_HEAD_INPUT)
        return pq_op_layernorm(b->graph, *in, p[PQ_PARAM_LN_F_WEIGHT], p[PQ_PARAM_LN_F_BIAS], out, err);
    PQ_TRY(add_parameters(b, layer, err));
    b->graph->block = layer;
    if (part <= PQ_PART_ATTENTION)
        return add_attention_half(b, 0, (depth)(part - PQ_PART_C_ATTN_INPUT), out, err);
    return add_mlp_half(b, 0, (depth)(part - PQ_PART_C_FC_INPUT), out, err);
}

pq_status pq_gpt2_part_graph(const pq_model *model, int layer, pq_gpt2_part part, size_t batch,
                             size_t context, int *in, int *out, pq_graph **graph, pq_error *err) {
    builder b = {.model = model};
    *graph = NULL;
    PQ_TRY(pq_graph_create(batch, context, (size_t)model->params.shape.vocab, &b.graph, err));
    pq_status status = add_part(&b, layer, part, in, out, err);
    if (status != PQ_OK)
        pq_graph_destroy(b.graph);
    else
        *graph = b.graph;
    return status;
}

typedef struct initial_work {
    pq_model *model;
    uint64_t seed;
} initial_work;

static void initialise_param(void *context, size_t i) {
    const initial_work *work = context;
    const pq_param *p = &work->model->params.list[i];
    float *w = work->model->weights + p->offset;
    for (size_t j = 0; j < p->count; j++) {
        double pair[2];
        if (p->initial_std == 0) {
            w[j] = p->initial_value;
            continue;
        }
        pq_random_normal2(work->seed, PQ_STREAM_INIT, i, j / 2, pair);
        w[j] = (float)(pair[0] * p->initial_std);
        if (++j < p->count) w[j] = (float)(pair[1] * p->initial_std);
    }
}

void pq_gpt2_initialise(pq_model *model, uint64_t seed) {
    initial_work work = {.model = model, .seed = seed};
    pq_parallel_for(model->params.count, initialise_param, &work);
}
