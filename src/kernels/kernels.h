/* The kernel table: filled with ref/, overlaid by what the CPU has. Kernels work on plain arrays in one
 * thread. */
#ifndef PQ_KERNELS_KERNELS_H
#define PQ_KERNELS_KERNELS_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* A number as the upper half of a float: 8 significant bits, the range of a float. */
typedef uint16_t pq_bf16;

/* A dropout mask: element e of tensor `tensor` in iteration `iter` is kept where its 32 random bits are at
 * least `threshold`. Element e is word (e % 64) / 16 of the Philox block with counter e / 64 * 16 + e % 16,
 * so that masks depend on nothing but their place and vectors of 8 or 16 lanes make them without shuffles. */
typedef struct pq_dropout {
    uint64_t seed, iter;
    uint32_t tensor;
    uint32_t threshold; /* p * 2^32 */
    float keep_scale;   /* 1 / (1 - threshold / 2^32) */
} pq_dropout;

/* p in [0, 1). */
pq_dropout pq_dropout_make(double p, uint64_t seed, uint64_t iter, uint32_t tensor);

/* What one AdamW step shares over all weights. g is multiplied by gradient_scale first (clipping). */
typedef struct pq_adamw_step {
    float lr, beta1, beta2, epsilon, decay, gradient_scale;
    float correction1, correction2; /* 1 - beta^t */
} pq_adamw_step;

/* How magnitudes are rounded to powers of two 1, 2, 4, ... by their bits: those whose bits are below
 * zero_below become 0; `up` is added to the bits, so that it carries into the exponent from the switch point
 * on (0x400000: 1.5 * 2^k). */
typedef struct pq_pow2_grid {
    uint32_t up, zero_below;
    float top[2]; /* largest power for positive and for negative numbers */
    bool whole;   /* magnitudes are rounded to integers first, half to even */
} pq_pow2_grid;

/* What distillation mixes: the share of the teacher's term, the temperature of both softmaxes, and the factor
 * of the whole gradient (1 / targets). */
typedef struct pq_distill_mix {
    float weight, temperature, factor;
} pq_distill_mix;

/* An affine grid: the values (q - zero) * scale for whole q from low to high, all of them floats. */
typedef struct pq_affine {
    float scale, inverse, zero, low, high;
} pq_affine;

#define PQ_INT8_ROW_LEAST                                                                                    \
    0x1p-126f /* least scale of a row: the least normal float, so that 1 / scale is finite */

/* The grid of the numbers from `lowest` to `highest` (whole) that takes in 0 and, of x, low to high. In fp32,
 * each step rounded: scale = (high - low) / (highest - lowest), at least `least`; inverse = 1 / scale; zero =
 * lowest - low / scale, the quotient rounded half to even. A span that is not finite gives a scale of NaN. */
static inline pq_affine pq_affine_make(float low, float high, float lowest, float highest, float least) {
    low = low > 0 ? 0 : low; /* NaN stays */
    high = high < 0 ? 0 : high;
    float scale = (high - low) / (highest - lowest);
    if (scale < least) scale = least;
    if (!isfinite(scale)) scale = NAN;
    float zero = lowest - rintf(low / scale);
    zero = zero < lowest ? lowest : zero > highest ? highest : zero;
    return (pq_affine){.scale = scale, .inverse = 1 / scale, .zero = zero, .low = lowest, .high = highest};
}

/* A row of inputs as whole numbers u: x is near (u - zero) * scale. u is below 256, or 65536 where it is
 * wide. */
typedef struct pq_int8_row {
    float scale;
    int32_t zero;
    bool wide;
} pq_int8_row;

/* Inputs whose span is above this many times their mean magnitude have outliers, and get 16 bits. */
#define PQ_WIDE_SPAN 32.0f

/* C[M][N] = op(A)[M][K] op(B)[K][N] + bias in each row (+ C with accumulate), op a transpose or nothing: A is
 * then stored [K][M], B [N][K]. Rows of what is stored are ld. apart. */
typedef struct pq_float_product {
    bool transpose_a, transpose_b, accumulate;
    size_t M, N, K, lda, ldb, ldc;
    const float *A, *B;
    const float *bias; /* [N]; NULL: none */
    float *C;
} pq_float_product;

/* Floats of scratch that multiply needs, and multiples of rows and columns by which it loses nothing. */
enum { PQ_MULTIPLY_SCRATCH = (1 << 17) + 4096, PQ_MULTIPLY_GRAIN_ROWS = 12, PQ_MULTIPLY_GRAIN_COLUMNS = 32 };

/* The same of bf16 numbers. C is bf16, or fp32 where `wide` is set. */
typedef struct pq_bf16_product {
    bool transpose_a, transpose_b, accumulate, wide;
    size_t M, N, K, lda, ldb, ldc;
    const pq_bf16 *A, *B;
    const float *bias; /* [N]; NULL: none */
    void *C;
} pq_bf16_product;

/* How multiply_bf16 cuts a product where the CPU has tiles, and what scratch it takes: strips of A and panels
 * of B are SIDE wide and as deep as K, or DEPTH where sums over K are kept: in a wide C, or, where a bf16 C
 * is deeper than DEEP, in ROWS x WIDTH floats. PANELS: floats of a block of panels; ROWS: columns of a
 * transposed A that are laid out at once. */
enum {
    PQ_MULTIPLY_SIDE = 32,
    PQ_MULTIPLY_DEPTH = 512,
    PQ_MULTIPLY_DEEP = 4096,
    PQ_MULTIPLY_ROWS = 512,
    PQ_MULTIPLY_WIDTH = 1024,
    PQ_MULTIPLY_PANELS = 1 << 18
};

/* Floats of scratch that multiply_bf16 needs. */
size_t pq_multiply_bf16_scratch(const pq_bf16_product *product);

/* Floats of scratch that attention needs a thread. */
size_t pq_attention_scratch(size_t T, size_t head_size);
size_t pq_attention_bf16_scratch(size_t T, size_t head_size);

/* The same for recipe_attention, which takes up to PQ_RECIPE_QUERIES at a time. */
enum { PQ_RECIPE_QUERIES = 4 };
static inline size_t pq_recipe_scores(size_t n, size_t queries) {
    return PQ_RECIPE_QUERIES * ((n + queries + 15) / 16 * 16);
}

typedef struct pq_kernels {
    const char *name; /* ref, avx2, avx-vnni, avx512, avx512-vnni, avx512-bf16, amx */
#define PQ_KERNEL(name, x86, arguments) void(*name) arguments;
#include "kernels/kernels.def"
#undef PQ_KERNEL
} pq_kernels;

/* The table for this CPU, capped by the environment variable POTQAT_CPU (a name from dispatch.c, or above).
 */
const pq_kernels *pq_kernels_get(void);
/* The table of one instruction set (tests compare them); NULL where the CPU or the build lacks it. */
const pq_kernels *pq_kernels_of(const char *name);

/* Whether this CPU multiplies bf16 (AVX512_BF16) and POTQAT_CPU lets it. */
bool pq_kernels_have_bf16(void);

#define PQ_KERNEL(name, x86, arguments) void pq_##name##_ref arguments;
#include "kernels/kernels.def"
#undef PQ_KERNEL

#endif
