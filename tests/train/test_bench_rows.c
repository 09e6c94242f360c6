/* What potqat bench kernels calls: every kernel has a row, and each row stays within the memory it is given,
 * with every kernel set. How fast they are is nobody's business here. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "tests/harness/suite.h"
#include "train/bench_rows.h"

/* Those that bench_kernels.c calls by itself. */
static const char *const others[] = {"attention_forward",
                                     "attention_backward",
                                     "attention_forward_bf16",
                                     "attention_backward_bf16",
                                     "multiply",
                                     "multiply_bf16",
                                     "peak_multiply_add",
                                     "peak_multiply_add_bf16",
                                     "peak_read",
                                     "peak_copy",
                                     "peak_update"};
static const char *const kernels[] = {
#define PQ_KERNEL(name, x86, arguments) #name,
#include "kernels/kernels.def"
#undef PQ_KERNEL
};

static size_t rows_of(const char *name) {
    size_t count = 0;
    for (size_t i = 0; i < pq_bench_kernel_count; i++)
        count += strcmp(pq_bench_kernel_rows[i].name, name) == 0;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) count += strcmp(others[i], name) == 0;
    return count;
}

START_TEST(every_kernel_once) {
    const size_t count = sizeof kernels / sizeof *kernels;
    for (size_t i = 0; i < count; i++)
        ck_assert_msg(rows_of(kernels[i]) == 1, "%s has %zu rows", kernels[i], rows_of(kernels[i]));
    ck_assert_uint_eq(pq_bench_kernel_count + sizeof others / sizeof *others, count);
}
END_TEST

enum { GUARD = 64 };

/* An area of exactly the bytes asked for, on the heap, so that sanitizers see what goes beyond. */
START_TEST(within_memory) {
    const pq_bench_kernel *row = &pq_bench_kernel_rows[_i];
    static const size_t sizes[] = {1 << 16, (1 << 16) + 4096, 300000};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        size_t bytes = sizes[s] / 64 * 64, small = pq_bench_small_bytes(bytes);
        unsigned char *memory = aligned_alloc(64, bytes + GUARD), *beside = calloc(1, small);
        pq_bench_data data;
        ck_assert(memory && beside);
        memset(memory + bytes, 0xA5, GUARD);
        pq_bench_fill((float *)(void *)memory, bytes / sizeof(float));
        pq_bench_place(row, (float *)(void *)memory, bytes, (float *)(void *)beside, &data);
        ck_assert(data.n > 0 && data.n % 768 == 0);
        ck_assert(row->streams >= 1 && row->streams <= PQ_BENCH_STREAMS && row->bytes > 0);
        ck_assert(data.n * row->streams * sizeof(float) <= bytes); /* and little is left over */
        ck_assert((data.n + 768) * row->streams * sizeof(float) > bytes);
        row->run(&data), row->run(&data); /* what it wrote it can read again */
        for (int i = 0; i < GUARD; i++) ck_assert_msg(memory[bytes + (size_t)i] == 0xA5, "%s", row->name);
        free(memory), free(beside);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("bench_rows");
    TCase *tc = tcase_create("rows");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, every_kernel_once);
    tcase_add_loop_test(tc, within_memory, 0, (int)pq_bench_kernel_count);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
