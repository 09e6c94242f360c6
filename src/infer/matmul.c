/* Owns the product of activations with a packed matrix: decode a tile of rows, multiply, add the bias. */
#include "infer/parts.h"
#include "kernels/gemm.h"

enum { TILE_FLOATS = 65536, MOST_ROWS = 64, LEAST_ROWS = 8 };

size_t pq_tile_rows(size_t columns) {
    size_t rows = TILE_FLOATS / columns;
    return rows > MOST_ROWS ? MOST_ROWS : rows < LEAST_ROWS ? LEAST_ROWS : rows;
}

typedef struct product {
    const pq_packed_tensor *weights;
    const float *bias, *x;
    float *out, *scratch;
    size_t n, stride;
} product;

static void multiply_tile(const product *p, size_t first, size_t count, float *scratch) {
    const size_t columns = p->weights->param->columns;
    const float *tile = scratch;
    if (p->weights->dense)
        tile = p->weights->dense + first * columns;
    else
        pq_packed_decode_rows(p->weights, first, count, scratch);
    pq_gemm_serial(&(pq_float_product){.transpose_b = true,
                                       .M = p->n,
                                       .N = count,
                                       .K = columns,
                                       .lda = columns,
                                       .ldb = columns,
                                       .ldc = p->stride,
                                       .A = p->x,
                                       .B = tile,
                                       .bias = p->bias ? p->bias + first : NULL,
                                       .C = p->out + first});
}

static void multiply_lane(void *context, size_t lane) {
    const product *p = context;
    const size_t rows = p->weights->param->rows, columns = p->weights->param->columns;
    const size_t step = pq_tile_rows(columns);
    for (size_t first = lane * step; first < rows; first += PQ_ENGINE_LANES * step)
        multiply_tile(p, first, rows - first < step ? rows - first : step,
                      p->scratch + lane * step * columns);
}

void pq_packed_matmul(const pq_packed_tensor *weights, const float *bias, const float *x, size_t n,
                      float *out, size_t stride, float *scratch) {
    product p = {weights, bias, x, out, scratch, n, stride};
    const size_t step = pq_tile_rows(weights->param->columns);
    size_t tiles = (weights->param->rows + step - 1) / step;
    pq_tasks(tiles < PQ_ENGINE_LANES ? tiles : PQ_ENGINE_LANES, (n + 1) * weights->param->count / 4,
             multiply_lane, &p);
}
