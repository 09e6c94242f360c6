/* Checkpoints: round trips of random models, equal bytes of equal states, and what is refused. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "store/layout.h"
#include "testing.h"
#include "tests/harness/suite.h"

static const pq_gpt2_shape shapes[] = {
    {.layers = 1, .heads = 1, .width = 32, .context = 1, .vocab = 1},
    {.layers = 2, .heads = 4, .width = 64, .context = 5, .vocab = 65, .bias = true},
    {.layers = 3, .heads = 2, .width = 32, .context = 16, .vocab = 257, .gelu_tanh = true},
    {.layers = 1, .heads = 1, .width = 320, .context = 2, .vocab = 1700, .bias = true}, /* several chunks */
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static char *folder;

static void setup(void) {
    folder = testing_folder();
}

static void teardown(void) {
    testing_remove(folder);
}

static void destroy(pq_model *model, pq_training_state *state) {
    pq_model_destroy(model);
    pq_training_state_deinit(state);
}

START_TEST(round_trip) {
    const pq_gpt2_shape *shape = &shapes[_i % SHAPES];
    char *path = testing_path(folder, "a.h5");
    pq_model *model, *back;
    pq_training_state state, state_back;
    pq_error err;
    testing_make((uint64_t)_i, shape, _i / SHAPES, &model, &state);
    ck_assert_msg(pq_checkpoint_write(path, false, model, &state, &err) == PQ_OK, "%s", err.message);
    ck_assert_msg(pq_checkpoint_read(path, &back, &state_back, &err) == PQ_OK, "%s", err.message);
    ck_assert(testing_equal(model, &state, back, &state_back));
    destroy(back, &state_back);
    /* Without the trainer's part. */
    ck_assert_msg(pq_checkpoint_read(path, &back, NULL, &err) == PQ_OK, "%s", err.message);
    pq_training_state none = {0};
    ck_assert(testing_equal(model, &none, back, &none));
    pq_model_destroy(back);
    ck_assert_uint_eq(testing_entries(folder, ""), 1);
    destroy(model, &state);
    free(path);
}
END_TEST

START_TEST(equal_states_give_equal_bytes) {
    char *a = testing_path(folder, "a.h5"), *b = testing_path(folder, "another-name.h5");
    pq_model *model;
    pq_training_state state;
    pq_file_view x, y;
    for (int kind = 0; kind < TESTING_KINDS; kind++) {
        testing_make(7, &shapes[1], kind, &model, &state);
        ck_assert_int_eq(pq_checkpoint_write(a, true, model, &state, NULL), PQ_OK);
        destroy(model, &state);
        if (kind == 0) usleep(1100000); /* a time stamp in the file would differ */
        testing_make(7, &shapes[1], kind, &model, &state);
        ck_assert_int_eq(pq_checkpoint_write(b, true, model, &state, NULL), PQ_OK);
        destroy(model, &state);
        ck_assert_int_eq(pq_file_read(a, &x, NULL), PQ_OK);
        ck_assert_int_eq(pq_file_read(b, &y, NULL), PQ_OK);
        ck_assert(x.size == y.size && memcmp(x.data, y.data, x.size) == 0);
        pq_file_view_close(&x);
        pq_file_view_close(&y);
    }
    free(a);
    free(b);
}
END_TEST

/* What a state borrows it does not free. */
START_TEST(borrowed_arrays_stay) {
    static float mine[] = {1, 2, 3};
    char *path = testing_path(folder, "a.h5");
    pq_model *model, *back;
    pq_training_state state, state_back;
    testing_make(9, &shapes[0], 0, &model, &state);
    pq_calloc(1, sizeof *state.arrays, "arrays", &state.arrays, NULL);
    state.arrays[0] = (pq_state_array){.name = "x", .count = 3, .data = mine, .borrowed = true};
    state.array_count = 1;
    ck_assert_int_eq(pq_checkpoint_write(path, false, model, &state, NULL), PQ_OK);
    ck_assert_int_eq(pq_checkpoint_read(path, &back, &state_back, NULL), PQ_OK);
    ck_assert(testing_equal(model, &state, back, &state_back) && !state_back.arrays[0].borrowed);
    destroy(back, &state_back);
    destroy(model, &state);
    ck_assert_ptr_null(state.arrays);
    ck_assert_float_eq(mine[2], 3);
    free(path);
}
END_TEST

START_TEST(replaces_only_when_asked) {
    char *path = testing_path(folder, "a.h5");
    pq_model *first, *second, *back;
    pq_training_state first_state, second_state, back_state;
    pq_error err;
    testing_make(1, &shapes[0], 1, &first, &first_state);
    testing_make(2, &shapes[0], 2, &second, &second_state);
    ck_assert_int_eq(pq_checkpoint_write(path, false, first, &first_state, NULL), PQ_OK);
    ck_assert_int_eq(pq_checkpoint_write(path, false, second, &second_state, &err), PQ_ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "exists already"));
    ck_assert_int_eq(pq_checkpoint_read(path, &back, &back_state, NULL), PQ_OK);
    ck_assert(testing_equal(first, &first_state, back, &back_state));
    /* What was read is saved over itself. */
    ck_assert_int_eq(pq_checkpoint_write(path, true, back, &back_state, NULL), PQ_OK);
    destroy(back, &back_state);
    ck_assert_int_eq(pq_checkpoint_write(path, true, second, &second_state, NULL), PQ_OK);
    ck_assert_int_eq(pq_checkpoint_read(path, &back, &back_state, NULL), PQ_OK);
    ck_assert(testing_equal(second, &second_state, back, &back_state));
    destroy(back, &back_state);
    destroy(first, &first_state);
    destroy(second, &second_state);
    free(path);
}
END_TEST

START_TEST(not_finite_is_not_saved) {
    char *path = testing_path(folder, "a.h5");
    pq_model *model;
    pq_training_state state;
    pq_error err;
    testing_make(3, &shapes[1], 1, &model, &state);
    const pq_param *p = &model->params.list[2];
    float *const places[] = {&model->weights[p->offset + 3], &state.m[p->offset], &state.v[p->offset + 1],
                             &model->quant[0].scales[1]};
    for (size_t i = 0; i < 4; i++) {
        float saved = *places[i];
        *places[i] = i % 2 ? NAN : INFINITY;
        ck_assert_int_eq(pq_checkpoint_write(path, true, model, &state, &err), PQ_DIVERGED);
        ck_assert_ptr_nonnull(strstr(err.message, i == 3 ? "wte.weight" : p->name));
        *places[i] = saved;
    }
    model->quant[0].scales[0] = 0;
    ck_assert_int_eq(pq_checkpoint_write(path, true, model, &state, &err), PQ_DIVERGED);
    model->quant[0].scales[0] = 1;
    ((float *)state.arrays[0].data)[6] = NAN;
    ck_assert_int_eq(pq_checkpoint_write(path, true, model, &state, &err), PQ_DIVERGED);
    ck_assert_ptr_nonnull(strstr(err.message, "learned.m holds nan at item 6"));
    ((float *)state.arrays[0].data)[6] = 0;
    static const char *const names[] = {"", ".", "a/b", "a b", "\xc3\xa9", "x\n"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        strcpy(state.arrays[1].name, names[i]);
        ck_assert_int_eq(pq_checkpoint_write(path, true, model, &state, &err), PQ_ERR_USAGE);
    }
    strcpy(state.arrays[1].name, "learned.m"); /* there is one already */
    ck_assert_int_ne(pq_checkpoint_write(path, true, model, &state, &err), PQ_OK);
    strcpy(state.arrays[1].name, "freeze.fixed");
    state.arrays[1].count = 0;
    ck_assert_int_eq(pq_checkpoint_write(path, true, model, &state, &err), PQ_ERR_USAGE);
    ck_assert_uint_eq(testing_entries(folder, ""), 0);
    destroy(model, &state);
    free(path);
}
END_TEST

/* ---- refusals ---- */

static char *victim;

static void expect_refusal(pq_status status, const char *part) {
    pq_model *model;
    pq_training_state state;
    pq_error err = {0};
    ck_assert_int_eq(pq_checkpoint_read(victim, &model, &state, &err), status);
    ck_assert_int_eq(err.code, status);
    ck_assert_ptr_null(model);
    ck_assert_ptr_null(state.m);
    ck_assert_ptr_null(state.state);
    ck_assert_ptr_null(state.arrays);
    ck_assert_uint_eq(state.array_count, 0);
    ck_assert_msg(strstr(err.message, part) && strstr(err.message, victim) && !strchr(err.message, '\n'),
                  "expected a sentence with \"%s\", found: %s", part, err.message);
}

static void reseal(void) {
    char seal[PQ_SEAL_BYTES];
    size_t bytes;
    uint64_t hash;
    ck_assert_int_eq(pq_file_hash(victim, PQ_SEAL_BYTES, &bytes, &hash, NULL), PQ_OK);
    pq_seal_make(seal, PQ_SEAL_BYTES + bytes, hash);
    FILE *file = fopen(victim, "r+b");
    ck_assert_uint_eq(fwrite(seal, 1, sizeof seal, file), sizeof seal);
    ck_assert_int_eq(fclose(file), 0);
}

static void make_victim(void) {
    pq_model *model;
    pq_training_state state;
    testing_make(5, &shapes[1], 1, &model, &state);
    free(model->tokenizer);
    model->tokenizer = strdup("{\"kind\": \"byte\"}");
    ck_assert_int_eq(pq_checkpoint_write(victim, true, model, &state, NULL), PQ_OK);
    destroy(model, &state);
}

START_TEST(foreign_newer_cut_or_missing) {
    pq_file_view whole;
    victim = testing_path(folder, "victim.h5");
    expect_refusal(PQ_ERR_IO, "could not be opened");
    testing_write(victim, "", 0);
    expect_refusal(PQ_ERR_FORMAT, "is empty");
    testing_write(victim, "hello, this is a text", 21);
    expect_refusal(PQ_ERR_FORMAT, "is not a potqat checkpoint");
    testing_write(victim, "\x89HDF\r\n\x1a\n and more", 17);
    expect_refusal(PQ_ERR_FORMAT, "HDF5 file but not a potqat checkpoint");
    testing_write(victim, "potqat checkpoint\nversion 12\n", 29);
    expect_refusal(PQ_ERR_FORMAT, "ends after 29 bytes");
    make_victim();
    ck_assert_int_eq(pq_file_read(victim, &whole, NULL), PQ_OK);
    testing_write(victim, whole.data, whole.size - 1);
    expect_refusal(PQ_ERR_FORMAT, "its seal speaks of");
    char *copy = malloc(whole.size);
    memcpy(copy, whole.data, whole.size);
    copy[whole.size / 2] ^= 16;
    testing_write(victim, copy, whole.size);
    expect_refusal(PQ_ERR_FORMAT, "checksum of its seal");
    memcpy(copy, whole.data, whole.size);
    memcpy(copy, "potqat checkpoint\nversion 12\n", 29);
    testing_write(victim, copy, whole.size);
    expect_refusal(PQ_ERR_FORMAT, "newer potqat: checkpoint version 12, this one reads up to 1");
    free(copy);
    pq_file_view_close(&whole);
    unlink(victim);
    ck_assert_ptr_nonnull(pq_file_exists(folder) ? folder : NULL);
    free(victim);
    victim = strdup(folder);
    expect_refusal(PQ_ERR_IO, "is not a file");
    free(victim);
}
END_TEST

/* One change each, made through HDF5 and sealed again: what someone else's program could do. */
static hid_t whole_file;

static void replace(const char *name, hid_t type, int rank, const hsize_t *size, bool checksum) {
    hid_t properties = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(rank, size, NULL);
    if (checksum) {
        H5Pset_chunk(properties, rank, size);
        H5Pset_fletcher32(properties);
    }
    if (H5Lexists(whole_file, name, H5P_DEFAULT) > 0) H5Ldelete(whole_file, name, H5P_DEFAULT);
    hid_t dataset = H5Dcreate2(whole_file, name, type, space, H5P_DEFAULT, properties, H5P_DEFAULT);
    ck_assert_msg(dataset >= 0, "%s", name);
    H5Dclose(dataset);
    H5Sclose(space);
    H5Pclose(properties);
}

static void set_attribute(const char *object, const char *name, hid_t type, const void *value) {
    hid_t parent = H5Oopen(whole_file, object, H5P_DEFAULT), space = H5Screate(H5S_SCALAR);
    H5Adelete(parent, name);
    hid_t attribute = H5Acreate2(parent, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    ck_assert(attribute >= 0 && H5Awrite(attribute, type, value) >= 0);
    H5Aclose(attribute);
    H5Sclose(space);
    H5Oclose(parent);
}

static void set_int(const char *object, const char *name, int64_t value) {
    set_attribute(object, name, H5T_NATIVE_INT64, &value);
}

static void set_text(const char *object, const char *name, const char *text) {
    char padded[PQ_FIELD_TEXT_BYTES] = "";
    memcpy(padded, text, strlen(text));
    hid_t type = pq_text_type(sizeof padded);
    set_attribute(object, name, type, padded);
    H5Tclose(type);
}

static void set_float(const char *name, float value) {
    float all[64 * 65];
    hid_t dataset = H5Dopen2(whole_file, name, H5P_DEFAULT);
    H5Dread(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, all);
    all[2] = value;
    H5Dwrite(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, all);
    H5Dclose(dataset);
}

#define MATRIX "quant/h.1.mlp.c_fc.weight"
static const hsize_t wte_size[2] = {65, 64}, wte_turned[2] = {64, 65}, long_size[1] = {65 * 64};
static const hsize_t few[1] = {7}, huge[1] = {1 << 30}, none[1] = {0};

static const char *change(int number) {
    switch (number) {
    case 0:
        H5Ldelete(whole_file, "weights/wte.weight", H5P_DEFAULT);
        return "entries in group weights";
    case 1:
        replace("weights/wte.weight", H5T_IEEE_F64LE, 2, wte_size, true);
        return "wte.weight is of another type";
    case 2:
        replace("weights/wte.weight", H5T_IEEE_F32LE, 2, wte_turned, true);
        return "expected shape 65 x 64 of wte.weight";
    case 3:
        replace("weights/wte.weight", H5T_IEEE_F32LE, 1, long_size, true);
        return "expected shape 65 x 64 of wte.weight";
    case 4:
        replace("weights/wte.weight", H5T_IEEE_F32LE, 2, wte_size, false);
        return "stored in another way";
    case 5: /* a chunk that was never written would read as zeros */
        replace("weights/wte.weight", H5T_IEEE_F32LE, 2, wte_size, true);
        return "or parts are missing";
    case 6:
        replace("weights/more", H5T_IEEE_F32LE, 2, wte_size, true);
        return "entries in group weights";
    case 7:
        H5Ldelete(whole_file, "weights/wte.weight", H5P_DEFAULT);
        H5Lcreate_soft("/moments/m/wte.weight", whole_file, "weights/wte.weight", H5P_DEFAULT, H5P_DEFAULT);
        return "expected a dataset wte.weight";
    case 8:
        H5Ldelete(whole_file, "weights/wte.weight", H5P_DEFAULT);
        H5Lcreate_external("/etc/passwd", "x", whole_file, "weights/wte.weight", H5P_DEFAULT, H5P_DEFAULT);
        return "expected a dataset wte.weight";
    case 9:
        H5Ldelete(whole_file, "quant", H5P_DEFAULT);
        return "entries in group /";
    case 10:
        set_int("/", "layers", INT64_C(1) << 40);
        return "layers";
    case 11:
        set_int("/", "width", 1 << 20);
        return "bytes of weights";
    case 12:
        set_int("/", "layers", 1);
        return "entries in group weights";
    case 13:
        set_int("/", "heads", 3);
        return "heads";
    case 14:
        set_int("/", "heads", -1);
        return "heads";
    case 15:
        set_int("/", "bias", 0);
        return "entries in group weights";
    case 16:
        set_int("/", "bias", 2);
        return "bias";
    case 17:
        set_text("/", "gelu", "relu");
        return "gelu";
    case 18:
        set_text("/", "format", "another");
        return "another";
    case 19:
        set_int("/", "version", 2);
        return "version 2";
    case 20:
        set_int("/", "surplus", 2);
        return "attributes of the root";
    case 21: {
        double real = 1;
        set_attribute("/", "iter", H5T_NATIVE_DOUBLE, &real);
        return "attribute iter";
    }
    case 22:
        set_int("/", "iter", -5);
        return "iter";
    case 23: {
        uint64_t hash = 12;
        set_attribute("/", "tokenizer_hash", H5T_NATIVE_UINT64, &hash);
        return "tokenizer has hash";
    }
    case 24:
        H5Ldelete(whole_file, "tokenizer", H5P_DEFAULT);
        return "tokenizer has hash";
    case 25:
        set_int(MATRIX, "levels", 14);
        return "no quantizer pot";
    case 26:
        set_text(MATRIX, "quantizer", "magic");
        return "no quantizer magic";
    case 27: {
        uint64_t id = 77;
        set_attribute(MATRIX, "wire_id", H5T_NATIVE_UINT64, &id);
        return "no quantizer pot (id 77)";
    }
    case 28:
        set_text(MATRIX, "granularity", "tensor");
        return "weights a scale";
    case 29:
        set_text(MATRIX, "granularity", "column");
        return "column";
    case 44:
        set_text(MATRIX, "granularity", "rows5");
        return "rows5 does not divide";
    case 45:
        set_text(MATRIX, "granularity", "rows-2");
        return "rows-2 does not divide";
    case 46:
        set_text(MATRIX, "granularity", "rows2");
        return "64 weights a scale, expected 128";
    case 30:
        set_int(MATRIX, "group", 32);
        return "32 weights a scale, expected 64";
    case 31:
        set_float(MATRIX "/scales", NAN);
        return "scales holds";
    case 32:
        set_float(MATRIX "/scales", 0);
        return "expected a positive number";
    case 33:
        set_float(MATRIX "/scales", -1);
        return "expected a positive number";
    case 34:
        set_float("weights/wte.weight", INFINITY);
        return "wte.weight holds inf at element 2";
    case 35:
        set_float("moments/v/wte.weight", NAN);
        return "wte.weight holds";
    case 36:
        H5Ldelete(whole_file, "moments/v", H5P_DEFAULT);
        return "entries in group moments";
    case 37:
        H5Lmove(whole_file, MATRIX, whole_file, "quant/ln_f.weight", H5P_DEFAULT, H5P_DEFAULT);
        return "ln_f.weight is not a matrix";
    case 38:
        H5Lmove(whole_file, MATRIX, whole_file, "quant/h.9.mlp.c_fc.weight", H5P_DEFAULT, H5P_DEFAULT);
        return "entries in group quant";
    case 39:
        replace("state", H5T_IEEE_F32LE, 2, wte_size, true);
        return "state is not a text";
    case 40: {
        const hsize_t one = 1;
        hid_t type = H5Tcopy(H5T_C_S1);
        H5Tset_size(type, H5T_VARIABLE);
        replace("config", type, 1, &one, false); /* HDF5 has no checksums for these */
        H5Tclose(type);
        return "config is";
    }
    case 41:
        H5Ldelete(whole_file, "config", H5P_DEFAULT);
        H5Lcreate_hard(whole_file, "weights", whole_file, "config", H5P_DEFAULT, H5P_DEFAULT);
        return "config is not a text";
    case 42:
        replace("extra", H5T_IEEE_F32LE, 2, wte_size, true);
        return "entries in group /";
    case 43: {
        double range[2] = {-64, 32};
        hid_t parent = H5Oopen(whole_file, MATRIX, H5P_DEFAULT);
        hid_t attribute = H5Aopen(parent, "range", H5P_DEFAULT);
        H5Awrite(attribute, H5T_NATIVE_DOUBLE, range);
        H5Aclose(attribute);
        H5Oclose(parent);
        return "no quantizer pot";
    }
    case 47:
        replace("arrays/learned.m", H5T_IEEE_F64LE, 1, few, true);
        return "learned.m is not a list";
    case 48:
        replace("arrays/learned.m", H5T_IEEE_F32LE, 2, wte_size, true);
        return "learned.m is not a list";
    case 49:
        replace("arrays/learned.m", H5T_IEEE_F32LE, 1, few, false);
        return "stored in another way";
    case 50: /* never written */
        replace("arrays/freeze.fixed", H5T_STD_U8LE, 1, few, true);
        return "or parts are missing";
    case 51:
        replace("arrays/freeze.fixed", H5T_STD_U8LE, 1, huge, true);
        return "freeze.fixed is not a list";
    case 52:
        replace("arrays/freeze.fixed", H5T_STD_U8LE, 1, none, false);
        return "freeze.fixed is not a list";
    case 53:
        set_float("arrays/learned.m", INFINITY);
        return "learned.m holds inf at element 2";
    case 54:
        H5Lmove(whole_file, "arrays/learned.m", whole_file, "arrays/learned m", H5P_DEFAULT, H5P_DEFAULT);
        return "a name that no training method uses";
    case 55: {
        char name[128] = "arrays/";
        memset(name + 7, 'a', 96);
        H5Lmove(whole_file, "arrays/learned.m", whole_file, name, H5P_DEFAULT, H5P_DEFAULT);
        return "a name that no training method uses";
    }
    case 56:
        H5Lcreate_external("/etc/passwd", "x", whole_file, "arrays/more", H5P_DEFAULT, H5P_DEFAULT);
        return "expected a dataset more";
    case 57:
        H5Lcreate_hard(whole_file, "weights", whole_file, "arrays/more", H5P_DEFAULT, H5P_DEFAULT);
        return "expected a dataset more";
    case 58:
        H5Ldelete(whole_file, "arrays", H5P_DEFAULT);
        H5Gclose(H5Gcreate2(whole_file, "arrays", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
        return "expected 1 to 4096 entries in group arrays";
    case 59:
    case 60: /* one dataset by many names */
        for (int i = 0; i < (number == 59 ? 4096 : 200); i++) {
            char name[32];
            snprintf(name, sizeof name, "arrays/again-%d", i);
            H5Lcreate_hard(whole_file, number == 59 ? "arrays/learned.m" : "arrays/freeze.fixed", whole_file,
                           name, H5P_DEFAULT, H5P_DEFAULT);
        }
        return number == 59 ? "expected 1 to 4096 entries" : "group arrays speaks of";
    default:
        return NULL;
    }
}

enum { CHANGES = 61 };

START_TEST(changed_by_another_program) {
    victim = testing_path(folder, "victim.h5");
    for (int number = 0; number < CHANGES; number++) {
        make_victim();
        hid_t access = pq_hdf5_access();
        whole_file = H5Fopen(victim, H5F_ACC_RDWR, access);
        H5Pclose(access);
        ck_assert(whole_file >= 0);
        H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
        const char *part = change(number);
        ck_assert_ptr_nonnull(part);
        ck_assert(H5Fclose(whole_file) >= 0);
        reseal();
        expect_refusal(PQ_ERR_FORMAT, part);
    }
    free(victim);
}
END_TEST

/* The host program's HDF5 settings are as they were. */
START_TEST(settings_are_restored) {
    unsigned plugins;
    H5E_auto2_t print;
    void *data;
    char *path = testing_path(folder, "a.h5");
    pq_model *model;
    H5Eset_auto2(H5E_DEFAULT, (H5E_auto2_t)H5Eprint2, stdout);
    H5PLset_loading_state(H5PL_FILTER_PLUGIN);
    testing_write(path, "x", 1);
    ck_assert_int_eq(pq_checkpoint_read(path, &model, NULL, NULL), PQ_ERR_FORMAT);
    H5PLget_loading_state(&plugins);
    H5Eget_auto2(H5E_DEFAULT, &print, &data);
    ck_assert_uint_eq(plugins, H5PL_FILTER_PLUGIN);
    ck_assert(print == (H5E_auto2_t)H5Eprint2 && data == stdout);
    free(path);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("checkpoint");
    TCase *tests = tcase_create("checkpoint");
    tcase_set_timeout(tests, 0);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, round_trip, 0, TESTING_KINDS * SHAPES);
    tcase_add_test(tests, equal_states_give_equal_bytes);
    tcase_add_test(tests, borrowed_arrays_stay);
    tcase_add_test(tests, replaces_only_when_asked);
    tcase_add_test(tests, not_finite_is_not_saved);
    tcase_add_test(tests, foreign_newer_cut_or_missing);
    tcase_add_test(tests, changed_by_another_program);
    tcase_add_test(tests, settings_are_restored);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
