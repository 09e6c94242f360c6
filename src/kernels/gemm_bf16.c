/* Owns the products of bf16 numbers: by the CPU's kernel, or a cache of oneDNN's primitives by shape, made
 * once under one thread. */
#include "kernels/gemm_bf16.h"

#include <omp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#ifdef PQ_ONEDNN
#include <oneapi/dnnl/dnnl.h>
#endif

#include "base/threads.h"
#include "kernels/cut.h"
#include "kernels/scratch.h"

/* As in gemm.c. A kernel makes no difference of how a product is cut, and lays B out anew for each tile. */
static const pq_cut_sizes kernel_sizes = {2048, 32, 32}, code_sizes = {256, 32, 32};

#ifdef PQ_ONEDNN

/* What code is made for. */
typedef struct key {
    size_t M, N, K, lda, ldb, ldc;
    size_t flags;
} key;

typedef struct code {
    key key;
    dnnl_memory_desc_t A, B, C, bias, scratch;
    dnnl_primitive_t primitive;
    struct code *next;
} code;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static dnnl_engine_t engine; /* with the codes, until the program ends */
static code *codes;

static key key_of(const pq_bf16_product *p) {
    return (key){.M = p->M,
                 .N = p->N,
                 .K = p->K,
                 .lda = p->lda,
                 .ldb = p->ldb,
                 .ldc = p->ldc,
                 .flags = (size_t)p->transpose_a | (size_t)p->transpose_b << 1 | (size_t)p->accumulate << 2 |
                          (size_t)p->wide << 3 | (size_t)(p->bias != NULL) << 4};
}

static bool describe(dnnl_memory_desc_t *out, size_t rows, size_t columns, size_t stride, bool transpose,
                     dnnl_data_type_t type) {
    dnnl_dims_t dims = {(dnnl_dim_t)rows, (dnnl_dim_t)columns};
    dnnl_dims_t strides = {transpose ? 1 : (dnnl_dim_t)stride, transpose ? (dnnl_dim_t)stride : 1};
    return dnnl_memory_desc_init_by_strides(out, 2, dims, type, strides) == dnnl_success;
}

static bool make_primitive(const pq_bf16_product *p, code *c) {
    dnnl_matmul_desc_t matmul;
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_post_ops_t sum = NULL;
    dnnl_primitive_desc_t description = NULL;
    bool made =
        describe(&c->A, p->M, p->K, p->lda, p->transpose_a, dnnl_bf16) &&
        describe(&c->B, p->K, p->N, p->ldb, p->transpose_b, dnnl_bf16) &&
        describe(&c->C, p->M, p->N, p->ldc, false, p->wide ? dnnl_f32 : dnnl_bf16) &&
        describe(&c->bias, 1, p->N, p->N, false, dnnl_f32) &&
        dnnl_matmul_desc_init(&matmul, &c->A, &c->B, p->bias ? &c->bias : NULL, &c->C) == dnnl_success &&
        dnnl_primitive_attr_create(&attributes) == dnnl_success &&
        dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user) == dnnl_success;
    if (made && p->accumulate)
        made = dnnl_post_ops_create(&sum) == dnnl_success &&
               dnnl_post_ops_append_sum(sum, 1.0f) == dnnl_success &&
               dnnl_primitive_attr_set_post_ops(attributes, sum) == dnnl_success;
    made =
        made && dnnl_primitive_desc_create(&description, &matmul, attributes, engine, NULL) == dnnl_success;
    if (made) {
        c->scratch = *dnnl_primitive_desc_query_md(description, dnnl_query_scratchpad_md, 0);
        made = dnnl_primitive_create(&c->primitive, description) == dnnl_success;
    }
    if (description) dnnl_primitive_desc_destroy(description);
    if (sum) dnnl_post_ops_destroy(sum);
    if (attributes) dnnl_primitive_attr_destroy(attributes);
    return made;
}

/* NULL where it cannot be made. */
static const code *find_code(const pq_bf16_product *p) {
    key wanted = key_of(p);
    pthread_mutex_lock(&lock);
    code *c = codes;
    while (c && memcmp(&c->key, &wanted, sizeof wanted) != 0) c = c->next;
    if (!c && (engine || dnnl_engine_create(&engine, dnnl_cpu, 0) == dnnl_success)) {
        int threads = omp_get_max_threads();
        omp_set_num_threads(1); /* which a primitive remembers: results depend on it */
        c = calloc(1, sizeof *c);
        if (c && make_primitive(p, c)) {
            c->key = wanted;
            c->next = codes;
            codes = c;
        } else {
            free(c);
            c = NULL;
        }
        omp_set_num_threads(threads);
    }
    pthread_mutex_unlock(&lock);
    return c;
}

static bool execute(const code *c, const pq_bf16_product *p, const void *scratch) {
    enum { A, B, C, BIAS, SCRATCH, ARGUMENTS };
    const struct {
        int name;
        const dnnl_memory_desc_t *layout;
        const void *data;
    } all[ARGUMENTS] = {{DNNL_ARG_SRC, &c->A, p->A},
                        {DNNL_ARG_WEIGHTS, &c->B, p->B},
                        {DNNL_ARG_DST, &c->C, p->C},
                        {DNNL_ARG_BIAS, &c->bias, p->bias},
                        {DNNL_ARG_SCRATCHPAD, &c->scratch, scratch}};
    dnnl_exec_arg_t arguments[ARGUMENTS];
    dnnl_stream_t stream = NULL;
    int count = 0;
    bool done = dnnl_stream_create(&stream, engine, dnnl_stream_default_flags) == dnnl_success;
    for (int i = 0; i < ARGUMENTS && done; i++) {
        if (!all[i].data) continue;
        arguments[count].arg = all[i].name;
        done = dnnl_memory_create(&arguments[count].memory, all[i].layout, engine,
                                  (void *)(uintptr_t)all[i].data) == dnnl_success;
        count += done;
    }
    done = done && dnnl_primitive_execute(c->primitive, stream, count, arguments) == dnnl_success &&
           dnnl_stream_wait(stream) == dnnl_success;
    while (count-- > 0) dnnl_memory_destroy(arguments[count].memory);
    if (stream) dnnl_stream_destroy(stream);
    return done;
}

static bool multiply_by_code(const pq_bf16_product *p) {
    const code *c = find_code(p);
    size_t bytes = c ? dnnl_memory_desc_get_size(&c->scratch) : 0;
    void *scratch = bytes ? pq_scratch(bytes) : NULL;
    return c && (scratch || bytes == 0) && execute(c, p, scratch);
}

#else

static bool multiply_by_code(const pq_bf16_product *p) {
    (void)p;
    return false;
}

#endif

/* Whether a kernel multiplies. */
static bool have_kernel(void) {
    return pq_kernels_get()->multiply_bf16 != pq_multiply_bf16_ref;
}

static void multiply(const pq_bf16_product *p) {
    float *scratch = p->K && have_kernel() ? pq_scratch(pq_multiply_bf16_scratch(p) * sizeof *scratch) : NULL;
    if (scratch)
        pq_kernels_get()->multiply_bf16(p, scratch);
    else if (!p->K || !multiply_by_code(p))
        pq_multiply_bf16_ref(p, NULL);
}

typedef struct tiling {
    const pq_bf16_product *whole;
    pq_cut cut;
} tiling;

static void run_tile(void *context, size_t i) {
    const tiling *t = context;
    const pq_cut_tile at = pq_cut_tile_at(&t->cut, i);
    pq_bf16_product p = *t->whole;
    size_t place = at.row * p.ldc + at.column;
    p.M = at.rows, p.N = at.columns;
    p.A += at.row * (p.transpose_a ? 1 : p.lda);
    p.B += at.column * (p.transpose_b ? p.ldb : 1);
    p.C = p.wide ? (void *)((float *)p.C + place) : (void *)((pq_bf16 *)p.C + place);
    if (p.bias) p.bias += at.column;
    multiply(&p);
}

void pq_gemm_bf16(const pq_bf16_product *p) {
    const bool kernel = have_kernel();
    const size_t parts = kernel ? (size_t)pq_threads_get() : 2;
    tiling t = {p, pq_cut_make(p->M, p->N, parts, kernel ? &kernel_sizes : &code_sizes)};
    pq_parallel_for(t.cut.count, run_tile, &t);
}

pq_status pq_gemm_bf16_check(pq_error *err) {
    enum { M = 37, N = 65, K = 130 };
    static pq_bf16 a[M * K], b[K * N];
    static float c[M * N];
#ifndef PQ_ONEDNN
    if (!have_kernel())
        return PQ_FAIL(
            err, PQ_ERR_USAGE,
            "bf16 needs a CPU with AMX, or a build with oneDNN (libdnnl-dev), and this one has none");
#endif
    if (!pq_kernels_have_bf16())
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "bf16 needs a CPU with AVX512_BF16, and this one has none (or POTQAT_CPU hides it)");
    for (int i = 0; i < M * K; i++) pq_narrow_ref(&(float){(float)(i * 7 % 17 - 8)}, &a[i], 1);
    for (int i = 0; i < K * N; i++) pq_narrow_ref(&(float){(float)(i * 5 % 13 - 6)}, &b[i], 1);
    for (int t = 0; t < 4; t++) {
        bool ta = t & 1, tb = t >> 1;
        pq_gemm_bf16(&(pq_bf16_product){.transpose_a = ta,
                                        .transpose_b = tb,
                                        .wide = true,
                                        .M = M,
                                        .N = N,
                                        .K = K,
                                        .lda = ta ? M : K,
                                        .ldb = tb ? K : N,
                                        .ldc = N,
                                        .A = a,
                                        .B = b,
                                        .C = c});
        for (int i = 0; i < M; i++)
            for (int j = 0; j < N; j++) {
                int sum = 0; /* of small integers: exact */
                for (int k = 0; k < K; k++)
                    sum += ((ta ? k * M + i : i * K + k) * 7 % 17 - 8) *
                           ((tb ? j * K + k : k * N + j) * 5 % 13 - 6);
                if (c[i * N + j] != (float)sum)
                    return PQ_FAIL(err, PQ_ERR_IO,
                                   "bf16 products come out wrong on this CPU (expected %d, found %g): "
                                   "train.precision=fp32 does without",
                                   sum, (double)c[i * N + j]);
            }
    }
    return PQ_OK;
}
