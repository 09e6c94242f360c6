/* The only place that knows levels. A quantizer is a const descriptor; with its parameters (levels or range,
 * rounding) it makes a codebook, the one meaning shared by QAT (fake quantization), PTQ, export (encode,
 * pack) and inference (decode table).
 *
 * A codebook's values are in units of the scale s; for power-of-two codebooks s is the smallest positive
 * level, the values are 0 and +-2^k, k = 0 .. exponents-1. Exponents come from the bits of a float, never
 * from log2f. Ties between two levels go away from zero (pot); uniform rounds half to even. */
#ifndef PQ_QUANT_QUANTIZER_H
#define PQ_QUANT_QUANTIZER_H

#include <potqat/quantizer.h> /* pq_encode, pq_decode, pq_fake_quantize are declared there */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef struct pq_quantizer pq_quantizer;

typedef enum pq_rounding { PQ_ROUND_NEAREST, PQ_ROUND_LOG } pq_rounding;

/* A quantizer with its parameters resolved. Plain data: copy freely. */
struct pq_codebook {
    const pq_quantizer *type;
    int levels;      /* canonical codes */
    int bits;        /* bits of a code: the least that hold them */
    int exponents;   /* K: exponents of power-of-two codebooks, 0 otherwise */
    double range[2]; /* least and largest value in units of s */
    double clip[2];  /* the ends of their cells, where the clip mask starts, in units of s */
    pq_rounding rounding;
    bool jumps; /* some weights get a value that is not the nearest: the error jumps as the scale moves */
    float value[256]; /* code -> value in units of s; NaN for codes that are not canonical */
};

/* How a scale is found from weights: from the largest magnitude; by least squared error; from the largest as
 * a moving average has it (pq_scale_follow; pq_scale_fit: as absmax); from a percentile of the magnitudes; or
 * learned, which starts at the least squared error. */
typedef enum pq_scale_method {
    PQ_SCALE_ABSMAX,
    PQ_SCALE_MSE,
    PQ_SCALE_EMA_ABSMAX,
    PQ_SCALE_PERCENTILE,
    PQ_SCALE_LEARNED
} pq_scale_method;
/* Which floats a scale may be. */
typedef enum pq_scale_grid { PQ_GRID_BF16, PQ_GRID_FP32, PQ_GRID_POT } pq_scale_grid;
/* The straight-through gradient: as it is, or 0 where |w| is beyond the codebook's last cell. */
typedef enum pq_gradient { PQ_GRADIENT_STE, PQ_GRADIENT_CLIP } pq_gradient;

/* One quantizer. Adding one means one row in the table of quantizer.c and one file. */
struct pq_quantizer {
    const char *name;
    uint32_t wire_id; /* in files; never reused */
    /* Fill the codebook's levels, bits, exponents, range, clip, value from its parameters; refuse what it
     * cannot be. */
    pq_status (*resolve)(pq_codebook *codebook, int64_t levels, const double *range, pq_error *err);
    uint8_t (*encode)(const pq_codebook *codebook, float weight, float scale);
    /* out[i] = decode(encode(w[i])) for n weights of one scale, by the fast path of the CPU. */
    void (*fake_quantize)(const pq_codebook *codebook, const float *w, float scale, float *out, size_t n);
    /* The absmax scale before it is put on the grid; least is the smallest scale allowed. */
    float (*absmax_scale)(const pq_codebook *codebook, float absmax);
    /* sums[3] = sums of d^2, d q and q^2 for the values q that w / scale gets and its errors d = w / scale -
     * q: the squared error is scale^2 sums[0], and these values have the least at scale (1 + sums[1] /
     * sums[2]). */
    void (*error_sums)(const pq_codebook *codebook, const float *w, float scale, double *sums, size_t n);
};

/* NULL where the name or id is not in the table. */
const pq_quantizer *pq_quantizer_find(const char *name);
const pq_quantizer *pq_quantizer_find_id(uint32_t wire_id);
const pq_quantizer *pq_quantizer_at(size_t index); /* NULL past the last: for loops over all of them */

/* Make a codebook. `levels` counts codes (ignored where range is given); `range` = {least, largest} in units
 * of s or NULL. Errors: PQ_ERR_USAGE with what this quantizer allows. */
pq_status pq_codebook_init(pq_codebook *codebook, const char *quantizer, int64_t levels, const double *range,
                           pq_rounding rounding, pq_error *err);

/* Names as the config and files spell them <-> enums; false where the name is unknown. */
bool pq_rounding_parse(const char *name, pq_rounding *out);
bool pq_scale_method_parse(const char *name, pq_scale_method *out);
bool pq_scale_grid_parse(const char *name, pq_scale_grid *out);
bool pq_gradient_parse(const char *name, pq_gradient *out);
const char *pq_rounding_name(pq_rounding rounding);

/* Fit one scale to n weights. `least` > 0 is the smallest scale (an all-zero group gets it). Non-finite
 * weights are PQ_ERR_USAGE. The result lies on the grid.
 *
 * Percentile p of n magnitudes is the one of rank ceil(p n / 100), the least having rank 1; where that is 0,
 * the largest one is taken.
 *
 * With an importance the squared error of weight i counts importance[i % period] times (period 0: n); where
 * all that a group has are 0 they count alike. pq_matrix_fit: importance[columns], period is not read. Only
 * mse and learned look at it. PQ_ERR_USAGE where one is negative or not finite. */
typedef struct pq_scale_options {
    pq_scale_method method;
    pq_scale_grid grid;
    float least;
    const float *importance; /* NULL: all 1 */
    size_t period;
    double percentile; /* above 0, at most 100; read by PQ_SCALE_PERCENTILE alone */
} pq_scale_options;
pq_status pq_scale_fit(const pq_codebook *codebook, const pq_scale_options *options, const float *w, size_t n,
                       float *scale, pq_error *err);
/* The least and the greatest scale of the grid that a fit may give: the largest level stays finite, and no
 * scale is below options->least. PQ_ERR_USAGE where there is none. */
typedef struct pq_scale_limits {
    float least, greatest;
} pq_scale_limits;
pq_status pq_scale_limits_of(const pq_codebook *codebook, const pq_scale_options *options,
                             pq_scale_limits *out, pq_error *err);
/* A fit within limits that are known, for many groups. With `running` (may be NULL) by the moving average of
 * the largest magnitude, as the released code has it: *running becomes running + 0.01 (absmax - running), or
 * absmax where it is NaN, and *scale is what absmax gives for it; options->method is then not read. Errors as
 * above; *running is then as it was. */
pq_status pq_scale_follow(const pq_codebook *codebook, const pq_scale_options *options,
                          const pq_scale_limits *limits, const float *w, size_t n, float *running,
                          float *scale, pq_error *err);
float pq_scale_to_grid(float scale,
                       pq_scale_grid grid); /* nearest, half to even, never 0 for positive input */

/* Where the clip mask ends on the side of `level` (range[0] or range[1]), rounded once to float; infinite
 * where that is past every float. */
float pq_clip_end(const pq_codebook *codebook, double level, float scale);
/* Stochastic rounding, for training's forward pass alone: w / scale gets one of the two values next to it,
 * the nearer the likelier, so that inside the range its mean is the weight; beyond the range, the last value.
 * Weight i draws word (first + i) % 4 of the block (first + i) / 4 of the stream of `iter` and `tensor`: what
 * it gets does not depend on the threads nor on how a matrix is cut. NaN becomes the largest value. out may
 * be w. */
typedef struct pq_draws {
    uint64_t seed, iter; /* iter below 2^40 */
    uint32_t tensor;     /* its number, below 2^24 */
} pq_draws;
void pq_fake_quantize_stochastic(const pq_codebook *codebook, const float *w, float scale,
                                 const pq_draws *draws, uint64_t first, float *out, size_t n);
/* gradient[i] *= 0 where the clip mask ends; PQ_GRADIENT_STE leaves it alone. */
void pq_surrogate(const pq_codebook *codebook, pq_gradient kind, const float *w, float scale, float *gradient,
                  size_t n);

/* Whole matrices [rows][columns], `group` weights a scale (columns, a divisor of it, or rows x columns):
 * loops of the above over pq_parallel_for. Scales are in the order of the weights they belong to. */
size_t pq_scale_count(size_t rows, size_t columns, size_t group);
pq_status pq_matrix_fit(const pq_codebook *codebook, const pq_scale_options *options, const float *w,
                        size_t rows, size_t columns, size_t group, float *scales, pq_error *err);
/* Of the groups that n weights from element `first` of w on are; with running[pq_scale_count] (may be NULL)
 * by moving averages, as pq_scale_follow has it. A group without a fit keeps its scale; the error is that of
 * the first one. */
pq_status pq_matrix_fit_part(const pq_codebook *codebook, const pq_scale_options *options, const float *w,
                             size_t first, size_t n, size_t columns, size_t group, float *running,
                             float *scales, pq_error *err);
void pq_matrix_fake_quantize(const pq_codebook *codebook, const float *w, size_t rows, size_t columns,
                             size_t group, const float *scales, float *out);
/* out[n]: n weights from element `first` of w on; stochastic with `draws`, NULL: the nearest value. */
void pq_matrix_fake_quantize_part(const pq_codebook *codebook, const float *w, size_t first, size_t n,
                                  size_t group, const float *scales, const pq_draws *draws, float *out);
void pq_matrix_surrogate(const pq_codebook *codebook, pq_gradient kind, const float *w, size_t rows,
                         size_t columns, size_t group, const float *scales, float *gradient);
/* codes[rows][columns] */
void pq_matrix_encode(const pq_codebook *codebook, const float *w, size_t rows, size_t columns, size_t group,
                      const float *scales, uint8_t *codes);

/* Packed codes. A row is cut into blocks of 128 weights (the last one padded with the code of 0, or code 0).
 * The bits of a code are split into planes of 4, 2 and 1 bits (the binary digits of `bits`, the largest plane
 * first and holding the code's lowest bits); in a plane of width p, weight i of the block is in byte i % (16
 * p), at bit p x (i / (16 p)). So 4 bits are 64 bytes whose low nibbles are the first 64 weights. bits 1 ..
 * 7; a block takes 16 x bits bytes. */
size_t pq_packed_row_bytes(int bits, size_t columns);
void pq_pack_row(int bits, const uint8_t *codes, size_t columns, uint8_t *out);
void pq_unpack_row(int bits, const uint8_t *packed, size_t columns, uint8_t *codes);
/* Are all codes of a packed row in the codebook, and those of its padding 0? */
bool pq_packed_row_valid(const pq_codebook *codebook, const uint8_t *packed, size_t columns);

#endif
