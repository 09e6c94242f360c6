/* Damaged copies (2,000, or as many as the first argument says) of a folder of token shards: cut, bits
 * flipped, bytes and fields changed, JSON values given another type. Each is refused with a sentence, or
 * loads exactly what was written. */
#include <jansson.h>

#include "base/file.h"
#include "base/random.h"
#include "data/shards.h"
#include "tests/data/scratch.h"

enum { TEXT = 600 };

static int copies = 2000;

static const char *const names[] = {"tokenizer.json",    "shards.json",     "train-00000.shard",
                                    "train-00001.shard", "val-00000.shard", "test-00000.shard"};
enum { FILES = sizeof names / sizeof *names };

static pq_error err;
static pq_file_view original[FILES];
static uint32_t words[4];
static uint64_t draws;
static bool forged; /* the index was changed and has a hash that fits: what it says now is what counts */

/* The next random number below n. */
static size_t below(size_t n) {
    if (draws % 4 == 0) pq_random4(3, PQ_STREAM_SAMPLE, 1, draws, words);
    return words[draws++ % 4] % n;
}

static const char *path_of(size_t file) {
    char name[64];
    snprintf(name, sizeof name, "shards/%s", names[file]);
    return scratch_path(name);
}

static void write_at(size_t file, const void *data, size_t bytes) {
    char name[64];
    snprintf(name, sizeof name, "shards/%s", names[file]);
    scratch_write(name, data, bytes);
}

static json_t *other_value(void) {
    switch (below(9)) {
    case 0:
        return json_null();
    case 1:
        return json_true();
    case 2:
        return json_integer(-1);
    case 3:
        return json_integer(INT64_MAX);
    case 4:
        return json_real(1e300);
    case 5:
        return json_string("");
    case 6:
        return json_array();
    case 7:
        return json_object();
    default:
        return json_string("ffffffffffffffff");
    }
}

/* Give one value somewhere inside another type; half of the indexes get a hash that fits again, so that the
 * checks behind the hash are reached too. */
static void change_type(size_t file) {
    json_t *root = json_loadb(original[file].data, original[file].size, 0, NULL), *at = root;
    const char *key = NULL;
    for (;;) {
        size_t n = json_is_object(at) ? json_object_size(at) : json_array_size(at), i = below(n);
        json_t *inner;
        if (json_is_object(at)) {
            void *place = json_object_iter(at);
            while (i--) place = json_object_iter_next(at, place);
            key = json_object_iter_key(place);
            inner = json_object_iter_value(place);
            if (json_object_size(inner) + json_array_size(inner) == 0 || below(3) == 0) {
                below(4) ? json_object_set_new(at, key, other_value()) : json_object_del(at, key);
                break;
            }
        } else {
            inner = json_array_get(at, i);
            if (json_object_size(inner) + json_array_size(inner) == 0 || below(3) == 0) {
                below(4) ? json_array_set_new(at, i, other_value()) : json_array_remove(at, i);
                break;
            }
        }
        at = inner;
    }
    if (file == 1 && below(2)) {
        forged = true;
        char hash[17];
        snprintf(hash, sizeof hash, "%016llx", (unsigned long long)pq_shards_index_hash(root));
        json_object_set_new(root, "hash", json_string(hash));
    }
    char *text = json_dumps(root, 0);
    write_at(file, text, strlen(text));
    free(text);
    json_decref(root);
}

/* Set a field of a shard's header to an extreme or a neighbour. */
static void change_header(size_t file, char *data) {
    static const size_t offsets[] = {8, 12, 16, 24, 32, 40, 48, 56};
    size_t at = offsets[below(8)], bytes = at < 16 ? 4 : 8;
    uint64_t old = 0, values[8];
    memcpy(&old, data + at, bytes);
    values[0] = 0, values[1] = 1, values[2] = UINT64_MAX, values[3] = old + 1, values[4] = old - 1;
    values[5] = old | (uint64_t)1 << (8 * bytes - 1), values[6] = 2 * old, values[7] = (uint64_t)1 << 31;
    memcpy(data + at, &values[below(8)], bytes);
    write_at(file, data, original[file].size);
}

/* Damage one file; returns which, what was done in *how. */
static size_t damage(const char **how) {
    size_t file = below(FILES), size = original[file].size;
    char *data = malloc(size + 64);
    memcpy(data, original[file].data, size);
    switch (below(6)) {
    case 0:
        *how = "cut";
        write_at(file, data, below(size));
        break;
    case 1:
        *how = "longer";
        for (size_t i = size; i < size + 64; i++) data[i] = (char)below(256);
        write_at(file, data, size + 1 + below(64));
        break;
    case 2:
        *how = "bits flipped";
        for (size_t n = 1 + below(3); n--;) data[below(size)] ^= (char)(1 << below(8));
        write_at(file, data, size);
        break;
    case 3:
        *how = "bytes changed";
        for (size_t n = 1 + below(8); n--;) data[below(size < 96 ? size : 96)] = (char)below(256);
        write_at(file, data, size);
        break;
    case 4:
        *how = "a run doubled or zeroed";
        {
            size_t from = below(size), n = 1 + below(size - from);
            if (below(2))
                memset(data + from, 0, n);
            else
                memcpy(data + from, original[file].data, n);
        }
        write_at(file, data, size);
        break;
    default:
        *how = "types or header fields changed";
        if (file < 2)
            change_type(file);
        else
            change_header(file, data);
    }
    free(data);
    return file;
}

START_TEST(damaged_shards_are_refused_or_right) {
    static char text[TEXT];
    static uint16_t expected[TEXT], found[TEXT];
    pq_data_options options = {.path = scratch_path("text.txt"), .split = {0.8, 0.1, 0.1}};
    pq_dataset *plain, *dataset;
    size_t refused = 0, right = 0;
    char folder[256];
    for (size_t i = 0; i < TEXT; i++) text[i] = (char)('a' + below(26));
    scratch_write("text.txt", text, TEXT);
    assert_ok(pq_dataset_open(&options, &plain, &err), &err);
    snprintf(folder, sizeof folder, "%s", scratch_path("shards"));
    assert_ok(pq_shards_write(plain, folder, false, 300, &err), &err);
    for (size_t i = 0; i < FILES; i++) assert_ok(pq_file_read(path_of(i), &original[i], &err), &err);
    options.path = folder;
    for (int copy = 0; copy < copies; copy++) {
        const char *how;
        forged = false;
        size_t file = damage(&how);
        memset(&err, 0, sizeof err);
        pq_status status = pq_dataset_open(&options, &dataset, &err);
        if (status != PQ_OK) {
            ck_assert_msg(err.message[0] && err.code == status, "no sentence: copy %d, %s: %s", copy,
                          names[file], how);
            ck_assert_ptr_null(dataset);
            refused++;
        } else if (forged) {
            pq_dataset_close(dataset);
        } else {
            ck_assert_msg(pq_dataset_hash(dataset) == pq_dataset_hash(plain), "copy %d, %s: %s", copy,
                          names[file], how);
            for (pq_split split = PQ_TRAIN; split <= PQ_TEST; split++) {
                size_t n = pq_dataset_tokens(plain, split);
                ck_assert_uint_eq(pq_dataset_tokens(dataset, split), n);
                pq_dataset_read(plain, split, 0, n, expected);
                pq_dataset_read(dataset, split, 0, n, found);
                ck_assert_int_eq(memcmp(expected, found, 2 * n), 0);
            }
            pq_dataset_close(dataset);
            right++;
        }
        write_at(file, original[file].data, original[file].size);
    }
    printf("%zu damaged copies refused, %zu loaded what was written\n", refused, right);
    ck_assert_uint_gt(refused, (size_t)copies * 9 / 10);
    assert_ok(pq_dataset_open(&options, &dataset, &err), &err);
    pq_dataset_close(dataset);
    pq_dataset_close(plain);
    for (size_t i = 0; i < FILES; i++) pq_file_view_close(&original[i]);
}
END_TEST

int main(int count, char **arguments) {
    if (count > 1) copies = atoi(arguments[1]);
    TCase *tests = tcase_create("fuzz shards");
    scratch_make();
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, damaged_shards_are_refused_or_right);
    int failed = run_suite(tests);
    scratch_remove();
    return failed;
}
