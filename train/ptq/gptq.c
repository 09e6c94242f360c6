/* Owns GPTQ itself: the order of the columns, the factor of the inverse Hessian, the rounding. */
#include "train/ptq/gptq.h"

#include <math.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/threads.h"
#include "kernels/gemm.h"
#include "kernels/kernels.h"

enum { BLOCK = 128, TILE_ROWS = 64 };

void pq_gptq_damp(size_t n, double damping, float *H) {
    double mean = 0;
    for (size_t i = 0; i < n; i++) mean += (double)H[i * n + i] / (double)n;
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < i; j++) H[j * n + i] = H[i * n + j];
        H[i * n + i] = mean > 0 ? (float)((double)H[i * n + i] + damping * mean) : 1;
    }
}

typedef struct column {
    float weight; /* H_ii */
    size_t index;
} column;

static int heavier_first(const void *a, const void *b) {
    const column *x = a, *y = b;
    if (x->weight != y->weight) return x->weight < y->weight ? 1 : -1;
    return x->index < y->index ? -1 : 1;
}

typedef struct work {
    const pq_gptq_problem *problem;
    const float *scales;
    const column *order;
    const float *factor; /* U[columns][columns], H^-1 = U^T U in the order above */
    float *W, *scratch;
} work;

/* With the columns in reverse order H is L L^T. Turned back L^-1 becomes the upper U with H^-1 = U^T U:
 * neither the inverse nor a second factorization is needed. */
static pq_status make_factor(const pq_gptq_problem *p, const column *order, float *factor, pq_error *err) {
    size_t n = p->columns;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j <= i; j++)
            factor[i * n + j] = p->H[order[n - 1 - i].index * n + order[n - 1 - j].index];
    if (!pq_gemm_inverse_factor(n, factor))
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "the inputs' second moments (%zu x %zu) are not positive definite: are all weights "
                       "finite?",
                       n, n);
    for (size_t i = 0, last = n * n - 1; i < n * n / 2; i++) {
        float swapped = factor[i];
        factor[i] = factor[last - i], factor[last - i] = swapped;
    }
    return PQ_OK;
}

/* Round columns [first, end) of a tile, w[rows][columns] in order; errors[rows][BLOCK] become minus what the
 * later blocks are to make up for. */
static void round_block(const work *k, size_t row, size_t rows, size_t first, size_t end, float *w,
                        float *errors) {
    size_t n = k->problem->columns;
    for (size_t r = 0; r < rows; r++) {
        float *line = w + r * n;
        for (size_t j = first; j < end; j++) {
            const float *u = k->factor + j * n;
            size_t place = (row + r) * n + k->order[j].index;
            float q;
            pq_fake_quantize(k->problem->codebook, &line[j], k->scales[place / k->problem->group], &q, 1);
            float e = (line[j] - q) / u[j];
            k->W[place] = line[j];
            for (size_t i = j + 1; i < end; i++) line[i] -= e * u[i];
            errors[r * BLOCK + j - first] = -e;
        }
    }
}

static void round_tile(void *context, size_t tile) {
    const work *k = context;
    size_t n = k->problem->columns, row = tile * TILE_ROWS, left = k->problem->rows - row;
    size_t rows = left < TILE_ROWS ? left : TILE_ROWS;
    float *w = k->scratch + (size_t)pq_thread_index() * TILE_ROWS * (n + BLOCK), *errors = w + TILE_ROWS * n;
    for (size_t r = 0; r < rows; r++)
        for (size_t j = 0; j < n; j++) w[r * n + j] = k->W[(row + r) * n + k->order[j].index];
    for (size_t first = 0; first < n; first += BLOCK) {
        size_t end = first + BLOCK < n ? first + BLOCK : n;
        round_block(k, row, rows, first, end, w, errors);
        pq_gemm_serial(&(pq_float_product){.accumulate = true,
                                           .M = rows,
                                           .N = n - end,
                                           .K = end - first,
                                           .lda = BLOCK,
                                           .ldb = n,
                                           .ldc = n,
                                           .A = errors,
                                           .B = k->factor + first * n + end,
                                           .C = w + end});
    }
}

pq_status pq_gptq(const pq_gptq_problem *problem, const float *scales, float *W, pq_error *err) {
    work k = {.problem = problem, .scales = scales, .W = W};
    size_t n = problem->columns;
    column *order = NULL;
    float *factor = NULL;
    pq_status status;
    pq_kernels_get(); /* chosen before there are threads */
    PQ_TRY_TO(status, done, pq_calloc(n, sizeof *order, "order of columns", &order, err));
    PQ_TRY_TO(status, done, pq_calloc(n * n, sizeof *factor, "second moments", &factor, err));
    PQ_TRY_TO(status, done,
              pq_calloc((size_t)pq_threads_get() * TILE_ROWS * (n + BLOCK), sizeof *k.scratch, "weights",
                        &k.scratch, err));
    for (size_t i = 0; i < n; i++) order[i] = (column){problem->H[i * n + i], i};
    qsort(order, n, sizeof *order, heavier_first);
    PQ_TRY_TO(status, done, make_factor(problem, order, factor, err));
    k.order = order, k.factor = factor;
    pq_parallel_for((problem->rows + TILE_ROWS - 1) / TILE_ROWS, round_tile, &k);
done:
    free(order);
    free(factor);
    free(k.scratch);
    return status;
}

double pq_gptq_objective(const pq_gptq_problem *p, const float *W, const float *Q) {
    double sum = 0;
    size_t n = p->columns;
    for (size_t r = 0; r < p->rows; r++)
        for (size_t i = 0; i < n; i++) {
            double d = (double)W[r * n + i] - (double)Q[r * n + i], inner = 0;
            for (size_t j = 0; j < i; j++)
                inner += (double)p->H[i * n + j] * ((double)W[r * n + j] - (double)Q[r * n + j]);
            sum += d * (2 * inner + d * (double)p->H[i * n + i]);
        }
    return sum;
}
