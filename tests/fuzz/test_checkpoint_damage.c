/* Damaged checkpoints: 2,000 copies as they are, which the seal must refuse before HDF5 sees them, and 2,000
 * whose seal was made anew, which HDF5 has to read. A load that succeeds must equal the original. */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "store/layout.h"
#include "testing.h"
#include "tests/harness/suite.h"

enum { COPIES = 2000 };

/* HDF5 1.10 itself leaks when it meets damaged metadata. */
__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
    return "leak:libhdf5";
}

static char *folder, *path;
static pq_model *original;
static pq_training_state original_state;
static pq_file_view whole;

static void setup(void) {
    const pq_gpt2_shape shape = {.layers = 1, .heads = 2, .width = 32, .context = 3, .vocab = 5};
    folder = testing_folder();
    path = testing_path(folder, "damaged.h5");
    testing_make(11, &shape, 6, &original, &original_state);
    ck_assert_int_eq(pq_checkpoint_write(path, false, original, &original_state, NULL), PQ_OK);
    ck_assert_int_eq(pq_file_read(path, &whole, NULL), PQ_OK);
}

static void teardown(void) {
    pq_file_view_close(&whole);
    pq_model_destroy(original);
    pq_training_state_deinit(&original_state);
    free(path);
    testing_remove(folder);
}

/* An offset of the file: half of them where HDF5 keeps its structure, the first kilobytes. */
static size_t somewhere(uint64_t *random, size_t size) {
    size_t within = testing_random(random) % 2 && size > 8192 ? 8192 : size;
    return (size_t)(testing_random(random) % within);
}

/* Changes data[*size] (capacity twice the original's size), one to three times. */
static void damage(char *data, size_t *size, uint64_t *random) {
    static const uint32_t values[] = {0, 1, 0x7F, 0x80, 0xFF, 0x100, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF};
    for (int times = 1 + (int)(testing_random(random) % 3); times > 0 && *size > 1; times--) {
        const size_t at = somewhere(random, *size), from = somewhere(random, *size);
        size_t run = (size_t)(testing_random(random) % 200) + 1;
        if (run > *size - at) run = *size - at;
        if (run > *size - from) run = *size - from;
        switch (testing_random(random) % 9) {
        case 0:
        case 1:
            data[at] ^= (char)(1 << (testing_random(random) % 8));
            break;
        case 2:
            data[at] = (char)testing_random(random);
            break;
        case 3:
            memcpy(data + at, &values[testing_random(random) % 9], *size - at < 4 ? *size - at : 4);
            break;
        case 4:
            memset(data + at, testing_random(random) % 2 ? 0 : 0xFF, run);
            break;
        case 5:
            memmove(data + at, data + from, run);
            break;
        case 6: /* a hole */
            memmove(data + at, data + at + run, *size - at - run);
            *size -= run;
            break;
        case 7: /* surplus bytes */
            if (*size + run > 2 * whole.size) break;
            memmove(data + at + run, data + at, *size - at);
            *size += run;
            break;
        default:
            *size = at;
        }
    }
}

static void reseal(char *data, size_t size) {
    if (size > PQ_SEAL_BYTES) pq_seal_make(data, size, pq_hash(data + PQ_SEAL_BYTES, size - PQ_SEAL_BYTES));
}

static void run_copies(bool sealed, int counts[2]) {
    uint64_t random = sealed ? 2 : 1;
    char *data = malloc(2 * whole.size);
    for (int copy = 0; copy < COPIES; copy++) {
        size_t size = whole.size;
        pq_model *model;
        pq_training_state state;
        pq_error err = {0};
        memcpy(data, whole.data, size);
        damage(data, &size, &random);
        if (sealed) reseal(data, size);
        testing_write(path, data, size);
        pq_status status = pq_checkpoint_read(path, &model, &state, &err);
        const bool untouched = size == whole.size && memcmp(data, whole.data, size) == 0;
        counts[status == PQ_OK]++;
        if (status != PQ_OK) {
            ck_assert_int_eq(status, PQ_ERR_FORMAT);
            ck_assert_msg(strstr(err.message, path) && strlen(err.message) > strlen(path) + 10, "%s",
                          err.message);
            ck_assert_ptr_null(model);
            ck_assert(!untouched);
            continue;
        }
        if (!sealed) ck_assert_msg(untouched, "copy %d", copy);
        ck_assert_msg(testing_equal(original, &original_state, model, &state), "copy %d", copy);
        pq_model_destroy(model);
        pq_training_state_deinit(&state);
    }
    free(data);
}

START_TEST(damaged) {
    int counts[2] = {0};
    run_copies(false, counts);
    printf("%d damaged copies refused, %d undamaged ones loaded\n", counts[0], counts[1]);
    ck_assert_int_lt(counts[1], COPIES / 20);
}
END_TEST

START_TEST(damaged_and_sealed_again) {
    int counts[2] = {0};
    run_copies(true, counts);
    printf("%d damaged copies with a seal of their own refused, %d loaded, equal to the original\n",
           counts[0], counts[1]);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("checkpoint-damage");
    TCase *tests = tcase_create("checkpoint-damage");
    tcase_set_timeout(tests, 0);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, damaged);
    tcase_add_test(tests, damaged_and_sealed_again);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
