/* Owns the export as C99: the data of a model as arrays, and around them the program of c_model.c.in. */
#include "formats/c_source.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <libgen.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "formats/origin.h"
#include "formats/packed.h"

static const char program[] =
#include "formats/c_model.c.inc"
    ;
#define DATA_MARK "@DATA@\n"

/* How an array's elements are written and read again. */
static const struct kind {
    const char *type, *format;
    size_t size;
} kinds[] = {{"uint8_t", NULL, 1}, {"int8_t", NULL, 1}, {"uint16_t", NULL, 2}, {"float", NULL, 4}};
enum { U8, S8, U16, F32, MOST_NAME = 96, LEVELS = 256, STRUCT_BYTES = 48 };

typedef struct array {
    char name[MOST_NAME];
    int kind;
    const void *data;
    size_t count;
} array;

typedef struct job {
    const pq_model *model;
    pq_packed *packed;
    char name[64];
    array *arrays; /* codes or dense values, scales, and levels of each parameter */
    size_t count;
    int8_t (*levels)[LEVELS]; /* [params.count] */
    bool may_widen;
    int sum_bits;
    pq_c_summary *summary;
} job;

static void job_deinit(job *j) {
    pq_packed_close(j->packed);
    free(j->arrays);
    free(j->levels);
}

/* The parameter's name as C has names, with a suffix. */
static void array_name(const pq_param *p, const char *suffix, char out[MOST_NAME]) {
    snprintf(out, MOST_NAME, "%s_%s", p->name, suffix);
    for (char *c = out; *c; c++)
        if (!isalnum((unsigned char)*c)) *c = '_';
}

static void add_array(job *j, const pq_param *p, const char *suffix, int kind, const void *data,
                      size_t count) {
    array *a = &j->arrays[j->count++];
    *a = (array){.kind = kind, .data = data, .count = count};
    array_name(p, suffix, a->name);
    j->summary->flash += count * kinds[kind].size;
}

/* 0, or +-(k + 1) for +-2^k; false where a value is none of these. */
static bool make_levels(const pq_codebook *codebook, int8_t *levels, double *largest) {
    for (int code = 0; code < 1 << codebook->bits; code++) {
        const float value = codebook->value[code];
        int exponent = 0;
        levels[code] = 0;
        if (isnan(value) || value == 0) continue;
        if (frexpf(fabsf(value), &exponent) != 0.5f || exponent < 1) return false;
        levels[code] = (int8_t)(value < 0 ? -exponent : exponent);
        *largest = fmax(*largest, fabs((double)value));
    }
    return true;
}

/* Bits of the sums of a product: so many that none overflows. */
static void bound_sum(job *j, const pq_param *p, double largest) {
    const double top = j->may_widen ? 65535 : 255;
    if (top * largest * (double)p->columns >= 0x1p31) j->sum_bits = 64;
}

static pq_status add_param(job *j, size_t i, pq_error *err) {
    const pq_packed_tensor *t = &j->packed->tensors[i];
    const pq_param *p = t->param;
    double largest = 0;
    if (!t->codebook) {
        if (p->quantizable && p->id != PQ_PARAM_WPE)
            return PQ_FAIL(
                err, PQ_ERR_USAGE,
                "%s is not quantized: a C export multiplies by shifts alone, so every matrix has to "
                "be (wpe.weight need not)",
                p->name);
        add_array(j, p, "values", F32, t->dense, p->count);
        return PQ_OK;
    }
    if (!make_levels(t->codebook, j->levels[i], &largest))
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "%s has levels that are no powers of two (%s): a C export multiplies by shifts alone",
                       p->name, t->codebook->type->name);
    bound_sum(j, p, largest);
    add_array(j, p, "codes", U8, t->codes, p->rows * pq_packed_row_bytes(t->codebook->bits, p->columns));
    add_array(j, p, "levels", S8, j->levels[i], (size_t)1 << t->codebook->bits);
    if (t->scales_bf16)
        add_array(j, p, "halves", U16, t->scales_bf16, t->scale_count);
    else
        add_array(j, p, "floats", F32, t->scales_fp32, t->scale_count);
    j->summary->flash += STRUCT_BYTES;
    return PQ_OK;
}

static size_t ram_of(const pq_gpt2_shape *s, int sum_bits) {
    const size_t C = (size_t)s->width, T = (size_t)s->context;
    return 2 * (size_t)s->layers * T * C * 2 + 4 * (6 * C + T + (size_t)s->vocab) +
           4 * C * (size_t)sum_bits / 8 + 8;
}

static pq_status job_init(job *j, pq_error *err) {
    const pq_model *model = j->model;
    PQ_TRY(pq_packed_from_model(model, &j->packed, err));
    const size_t count = j->packed->params.count;
    if (j->packed->weight_bytes > PQ_C_LIMIT)
        return PQ_FAIL(err, PQ_ERR_USAGE, "the model takes %zu bytes packed; a C export may take %zu",
                       j->packed->weight_bytes, PQ_C_LIMIT);
    if (model->activations == PQ_ACTIVATIONS_AFFINE)
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "quant.activations: the model's activations are quantized on fixed ranges "
                       "(int8-affine), which no C export does; expected none or int8-token");
    PQ_TRY(pq_calloc(3 * count, sizeof *j->arrays, "arrays", &j->arrays, err));
    PQ_TRY(pq_calloc(count, sizeof *j->levels, "levels", &j->levels, err));
    j->may_widen = model->activations != PQ_ACTIVATIONS_TOKEN;
    j->sum_bits = 32;
    for (size_t i = 0; i < count; i++) PQ_TRY(add_param(j, i, err));
    j->summary->weight_bytes = j->packed->weight_bytes;
    j->summary->ram = ram_of(&model->params.shape, j->sum_bits);
    return PQ_OK;
}

/* ---- writing ---- */

static pq_status print(pq_file_writer *w, pq_error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static pq_status print(pq_file_writer *w, pq_error *err, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const int printed = vfprintf(w->stream, format, arguments);
    va_end(arguments);
    return printed >= 0 ? PQ_OK
                        : PQ_FAIL(err, PQ_ERR_IO, "%s could not be written: %s", w->path, strerror(errno));
}

static int print_element(char *out, size_t bytes, const array *a, size_t i) {
    switch (a->kind) {
    case U8:
        return snprintf(out, bytes, "%u,", ((const uint8_t *)a->data)[i]);
    case S8:
        return snprintf(out, bytes, "%d,", ((const int8_t *)a->data)[i]);
    case U16:
        return snprintf(out, bytes, "%u,", ((const uint16_t *)a->data)[i]);
    default:
        return snprintf(out, bytes, "%af,", (double)((const float *)a->data)[i]);
    }
}

static pq_status write_array(pq_file_writer *w, const array *a, pq_error *err) {
    enum { COLUMNS = 110, ELEMENT = 40 };
    char line[COLUMNS + ELEMENT];
    size_t length = 0;
    PQ_TRY(print(w, err, "static const %s %s[%zu] = {\n", kinds[a->kind].type, a->name, a->count));
    for (size_t i = 0; i < a->count; i++) {
        length += (size_t)print_element(line + length, ELEMENT, a, i);
        if (length < COLUMNS && i + 1 < a->count) continue;
        line[length++] = '\n';
        PQ_TRY(pq_file_write(w, line, length, err));
        length = 0;
    }
    return print(w, err, "};\n");
}

static const array *find_array(const job *j, const char *name) {
    for (size_t i = 0; i < j->count; i++)
        if (strcmp(j->arrays[i].name, name) == 0) return &j->arrays[i];
    return NULL;
}

/* The name of one of a parameter's arrays, or 0, C's null pointer. */
static const char *or_null(const job *j, pq_param_id id, int layer, const char *suffix, char out[MOST_NAME]) {
    const pq_param *p = pq_params_at(&j->packed->params, id, layer);
    if (p) array_name(p, suffix, out);
    return p && find_array(j, out) ? out : "0";
}

static const pq_param_id bias_of[PQ_PARAM_IDS] = {[PQ_PARAM_C_ATTN_WEIGHT] = PQ_PARAM_C_ATTN_BIAS,
                                                  [PQ_PARAM_ATTN_C_PROJ_WEIGHT] = PQ_PARAM_ATTN_C_PROJ_BIAS,
                                                  [PQ_PARAM_C_FC_WEIGHT] = PQ_PARAM_C_FC_BIAS,
                                                  [PQ_PARAM_MLP_C_PROJ_WEIGHT] = PQ_PARAM_MLP_C_PROJ_BIAS};

/* A matrix as the struct of c_model.c.in has it. */
static pq_status write_matrix(const job *j, pq_file_writer *w, pq_param_id id, int layer, const char *end,
                              pq_error *err) {
    static const char *const suffixes[] = {"codes", "levels", "halves", "floats"};
    const pq_param *p = pq_params_at(&j->packed->params, id, layer);
    const pq_packed_tensor *t = &j->packed->tensors[p - j->packed->params.list];
    char name[MOST_NAME];
    PQ_TRY(print(w, err, "{"));
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++)
        PQ_TRY(print(w, err, "%s, ", or_null(j, id, layer, suffixes[i], name)));
    PQ_TRY(print(w, err, "%s, ", bias_of[id] ? or_null(j, bias_of[id], layer, "values", name) : "0"));
    PQ_TRY(print(w, err, "%s, ", t->dense ? or_null(j, id, layer, "values", name) : "0"));
    return print(w, err, "%zuu, %zuu, %zuu, %d}%s", p->rows, p->columns, t->codebook ? t->group : 1,
                 t->codebook ? t->codebook->bits : 0, end);
}

static pq_status write_block(const job *j, pq_file_writer *w, int layer, pq_error *err) {
    static const pq_param_id norms[] = {PQ_PARAM_LN_1_WEIGHT, PQ_PARAM_LN_1_BIAS, PQ_PARAM_LN_2_WEIGHT,
                                        PQ_PARAM_LN_2_BIAS},
                             matrices[] = {PQ_PARAM_C_ATTN_WEIGHT, PQ_PARAM_ATTN_C_PROJ_WEIGHT,
                                           PQ_PARAM_C_FC_WEIGHT, PQ_PARAM_MLP_C_PROJ_WEIGHT};
    char name[MOST_NAME];
    PQ_TRY(print(w, err, "    {"));
    for (size_t i = 0; i < 4; i++) PQ_TRY(print(w, err, "%s, ", or_null(j, norms[i], layer, "values", name)));
    for (size_t i = 0; i < 4; i++) {
        PQ_TRY(print(w, err, "\n     "));
        PQ_TRY(write_matrix(j, w, matrices[i], layer, i < 3 ? "," : "},\n", err));
    }
    return PQ_OK;
}

static pq_status write_data(const job *j, pq_file_writer *w, pq_error *err) {
    const pq_gpt2_shape *s = &j->model->params.shape;
    char name[MOST_NAME];
    PQ_TRY(print(w, err,
                 "#define LAYERS %" PRId64 "\n#define HEADS %" PRId64 "\n#define WIDTH %" PRId64 "\n"
                 "#define CONTEXT %" PRId64 "\n#define VOCAB %" PRId64 "\n#define GELU_TANH %d\n"
                 "#define MAY_WIDEN %d\n#define RESET %s_reset\n#define LOGITS %s_logits\n"
                 "#define NEXT_TOKEN %s_next_token\ntypedef uint%d_t sum; /* no product overflows it */\n\n",
                 s->layers, s->heads, s->width, s->context, s->vocab, s->gelu_tanh, j->may_widen, j->name,
                 j->name, j->name, j->sum_bits));
    for (size_t i = 0; i < j->count; i++) PQ_TRY(write_array(w, &j->arrays[i], err));
    PQ_TRY(print(w, err, "\nstatic const matrix wte = "));
    PQ_TRY(write_matrix(j, w, PQ_PARAM_WTE, -1, ";\n", err));
    PQ_TRY(print(w, err, "static const matrix wpe = "));
    PQ_TRY(write_matrix(j, w, PQ_PARAM_WPE, -1, ";\n", err));
    PQ_TRY(print(w, err, "static const float *const norm_f = %s;\n",
                 or_null(j, PQ_PARAM_LN_F_WEIGHT, -1, "values", name)));
    PQ_TRY(print(w, err, "static const float *const norm_f_bias = %s;\n",
                 or_null(j, PQ_PARAM_LN_F_BIAS, -1, "values", name)));
    PQ_TRY(print(w, err, "static const block blocks[LAYERS] = {\n"));
    for (int layer = 0; layer < (int)s->layers; layer++) PQ_TRY(write_block(j, w, layer, err));
    return print(w, err, "};\n");
}

static pq_status write_source(const job *j, pq_file_writer *w, pq_error *err) {
    const char *mark = strstr(program, DATA_MARK), *rest = mark + strlen(DATA_MARK);
    PQ_TRY(print(
        w, err,
        "/* Made by potqat: a GPT-2 model with power-of-two weights. Products of matrices are shifts and "
        "sums of integers.\n * %zu bytes of constants, %zu bytes of variables. With -DTEST_PROGRAM it "
        "is a program; link with -lm. */\n#include \"%s.h\"\n\n",
        j->summary->flash, j->summary->ram, j->name));
    PQ_TRY(pq_file_write(w, program, (size_t)(mark - program), err));
    PQ_TRY(write_data(j, w, err));
    PQ_TRY(pq_file_write(w, rest, strlen(rest), err));
    return fflush(w->stream) == 0
               ? PQ_OK
               : PQ_FAIL(err, PQ_ERR_IO, "%s could not be written: %s", w->path, strerror(errno));
}

static pq_status write_header(const job *j, pq_file_writer *w, pq_error *err) {
    const pq_gpt2_shape *s = &j->model->params.shape;
    const char *n = j->name;
    return print(
        w, err,
        "/* Made by potqat. One sequence at a time; not for two threads. */\n"
        "#ifndef %s_h\n#define %s_h\n\n#include <stdint.h>\n\n#ifdef __cplusplus\nextern \"C\" {\n"
        "#endif\n\nenum { %s_vocab = %" PRId64 ", %s_context = %" PRId64 " }; /* ids of tokens; tokens "
        "of a sequence */\n\n"
        "/* Forget the tokens that were read. */\nvoid %s_reset(void);\n"
        "/* Read one more token; the likeliest next one, or -1 for an id out of range or a full context. "
        "*/\nlong %s_next_token(long token);\n"
        "/* What the last call found: [%s_vocab], to draw from instead. */\n"
        "const float *%s_logits(void);\n\n#ifdef __cplusplus\n}\n#endif\n#endif\n",
        n, n, n, s->vocab, n, s->context, n, n, n, n);
}

/* ---- reading it again ---- */

static bool same_element(const array *a, size_t i, const char *at, char **end) {
    switch (a->kind) {
    case U8:
        return strtol(at, end, 10) == ((const uint8_t *)a->data)[i];
    case S8:
        return strtol(at, end, 10) == ((const int8_t *)a->data)[i];
    case U16:
        return strtol(at, end, 10) == ((const uint16_t *)a->data)[i];
    default: {
        const float value = strtof(at, end);
        if (*end != at && **end == 'f') ++*end;
        return memcmp(&value, (const float *)a->data + i, sizeof value) == 0;
    }
    }
}

static bool same_array(const array *a, const char **at) {
    char start[MOST_NAME + 64], *end;
    snprintf(start, sizeof start, "%s %s[%zu] = {\n", kinds[a->kind].type, a->name, a->count);
    const char *found = strstr(*at, start);
    if (!found) return false;
    found += strlen(start);
    for (size_t i = 0; i < a->count; i++) {
        if (!same_element(a, i, found, &end) || end == found || *end != ',') return false;
        found = end + 1;
    }
    *at = found;
    return strncmp(found, "\n};", 3) == 0;
}

/* The arrays of the file are the packed ones, and those decode to the weights that count. */
static pq_status compare(const job *j, const char *path, pq_error *err) {
    pq_file_view view;
    float *meant, *found;
    size_t most;
    pq_params unused;
    PQ_TRY(pq_origin_with_biases(j->model, &unused, &most, err));
    pq_params_deinit(&unused);
    PQ_TRY(pq_calloc(2 * most, sizeof *meant, "weights to compare", &meant, err));
    found = meant + most;
    pq_status status = pq_file_read(path, &view, err);
    const char *at = view.data;
    for (size_t i = 0; status == PQ_OK && i < j->count; i++)
        if (!same_array(&j->arrays[i], &at))
            status = PQ_FAIL(err, PQ_ERR_IO, "%s reads back differently", j->arrays[i].name);
    for (size_t i = 0; status == PQ_OK && i < j->packed->params.count; i++) {
        const pq_param *p = &j->packed->params.list[i];
        pq_packed_decode_rows(&j->packed->tensors[i], 0, p->count / p->columns, found);
        if (memcmp(found, pq_origin_values(j->model, p, meant), p->count * sizeof *found) != 0)
            status = PQ_FAIL(err, PQ_ERR_IO, "%s reads back differently from the model's weights", p->name);
    }
    pq_file_view_close(&view);
    free(meant);
    return status;
}

/* ---- the two files ---- */

/* The file's name without folder and ending, as C has names. */
static pq_status find_name(job *j, const char *path, pq_error *err) {
    char *copy;
    const size_t length = strlen(path);
    if (length < 3 || strcmp(path + length - 2, ".c") != 0)
        return PQ_FAIL(err, PQ_ERR_USAGE, "-o: expected a name that ends in .c for --format c, found %.200s",
                       path);
    PQ_TRY(pq_copy_text(path, &copy, err));
    const char *base = basename(copy);
    bool good =
        snprintf(j->name, sizeof j->name, "%.*s", (int)(strlen(base) - 2), base) < (int)sizeof j->name &&
        (isalpha((unsigned char)*j->name) || *j->name == '_');
    for (const char *c = j->name; *c; c++) good = good && (isalnum((unsigned char)*c) || *c == '_');
    free(copy);
    return good
               ? PQ_OK
               : PQ_FAIL(err, PQ_ERR_USAGE,
                         "-o: functions are named after the file, so its name may have letters, digits and _ "
                         "alone and start with no digit, at most 63 of them; found %.200s",
                         path);
}

static pq_status write_both(const job *j, const char *path, bool overwrite, pq_file_writer *source,
                            pq_file_writer *header, char *header_path, pq_error *err) {
    memcpy(header_path, path, strlen(path) + 1);
    header_path[strlen(path) - 1] = 'h';
    PQ_TRY(pq_file_create(path, overwrite, source, err));
    PQ_TRY(pq_file_create(header_path, overwrite, header, err));
    PQ_TRY(write_source(j, source, err));
    PQ_TRY(write_header(j, header, err));
    pq_status status = compare(j, source->temporary, err);
    if (status != PQ_OK) return pq_prefix(err, status, "%s was not written", path);
    PQ_TRY(pq_file_commit(header, err));
    status = pq_file_commit(source, err);
    if (status != PQ_OK && !overwrite) unlink(header_path);
    return status;
}

pq_status pq_c_write(const char *path, bool overwrite, const pq_model *model, pq_c_summary *out,
                     pq_error *err) {
    job j = {.model = model, .summary = out};
    pq_file_writer source = {0}, header = {0};
    char *header_path = NULL;
    pq_status status;
    *out = (pq_c_summary){0};
    PQ_TRY(find_name(&j, path, err));
    PQ_TRY_TO(status, done, job_init(&j, err));
    PQ_TRY_TO(status, done, pq_copy_text(path, &header_path, err));
    status = write_both(&j, path, overwrite, &source, &header, header_path, err);
    memcpy(out->name, j.name, sizeof out->name);
done:
    if (source.path) pq_file_abort(&source);
    if (header.path) pq_file_abort(&header);
    free(header_path);
    job_deinit(&j);
    return status;
}
