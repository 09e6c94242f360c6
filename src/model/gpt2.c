/* Owns how GPT-2's ops are put together and how its weights start. */
#include "model/gpt2.h"

#include "base/random.h"
#include "base/threads.h"
#include "ops/ops.h"

typedef struct builder {
    const pq_model *model;
    pq_graph *graph;
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

/* *x as the matrix product of this site reads it: quantized where its matrix is. */
static pq_status add_input(builder *b, size_t site, int *x, pq_error *err) {
    const pq_model *model = b->model;
    const pq_param *p = pq_model_site_param(model, site);
    if (!model->quant[p - model->params.list].quantized) return PQ_OK;
    switch (model->activations) {
    case PQ_ACTIVATIONS_TOKEN:
        return pq_op_int8_token(b->graph, *x, x, err);
    case PQ_ACTIVATIONS_AFFINE:
        return pq_op_int8_affine(b->graph, *x, site, x, err);
    case PQ_ACTIVATIONS_NONE:
        break;
    }
    return PQ_OK;
}

static pq_status add_block(builder *b, double dropout, int *x, pq_error *err) {
    const pq_gpt2_shape *shape = &b->model->params.shape;
    const int *p = b->parameters;
    pq_graph *g = b->graph;
    size_t site = 4 * (size_t)g->block;
    int y, z, after;
    PQ_TRY(pq_op_layernorm(g, *x, p[PQ_PARAM_LN_1_WEIGHT], p[PQ_PARAM_LN_1_BIAS], &y, err));
    PQ_TRY(add_input(b, site, &y, err));
    PQ_TRY(pq_op_linear(g, y, p[PQ_PARAM_C_ATTN_WEIGHT], p[PQ_PARAM_C_ATTN_BIAS], &z, err));
    PQ_TRY(pq_op_attention(g, z, (size_t)shape->heads, dropout, &y, err));
    PQ_TRY(add_input(b, site + 1, &y, err));
    PQ_TRY(pq_op_linear(g, y, p[PQ_PARAM_ATTN_C_PROJ_WEIGHT], p[PQ_PARAM_ATTN_C_PROJ_BIAS], &z, err));
    PQ_TRY(pq_op_residual(g, *x, z, dropout, &after, err));
    PQ_TRY(pq_op_layernorm(g, after, p[PQ_PARAM_LN_2_WEIGHT], p[PQ_PARAM_LN_2_BIAS], &y, err));
    PQ_TRY(add_input(b, site + 2, &y, err));
    PQ_TRY(pq_op_linear(g, y, p[PQ_PARAM_C_FC_WEIGHT], p[PQ_PARAM_C_FC_BIAS], &z, err));
    PQ_TRY(pq_op_gelu(g, z, shape->gelu_tanh, &y, err));
    PQ_TRY(add_input(b, site + 3, &y, err));
    PQ_TRY(pq_op_linear(g, y, p[PQ_PARAM_MLP_C_PROJ_WEIGHT], p[PQ_PARAM_MLP_C_PROJ_BIAS], &z, err));
    return pq_op_residual(g, after, z, dropout, x, err);
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
        PQ_TRY(add_block(b, dropout, &x, err));
    }
    g->block = PQ_NONE;
    PQ_TRY(pq_op_layernorm(g, x, b->parameters[PQ_PARAM_LN_F_WEIGHT], b->parameters[PQ_PARAM_LN_F_BIAS], &x,
                           err));
    PQ_TRY(add_input(b, pq_model_sites(b->model) - 1, &x, err));
    return pq_op_head(g, x, b->parameters[PQ_PARAM_WTE], err);
}

pq_status pq_gpt2_graph(const pq_model *model, size_t batch, size_t context, double dropout, pq_graph **out,
                        pq_error *err) {
    builder b = {.model = model};
    *out = NULL;
    PQ_TRY(pq_graph_create(batch, context, (size_t)model->params.shape.vocab, &b.graph, err));
    pq_status status = add_all(&b, dropout, err);
    if (status != PQ_OK)
        pq_graph_destroy(b.graph);
    else
        *out = b.graph, pq_graph_bind_ranges(b.graph, model->ranges);
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
