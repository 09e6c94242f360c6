/* Products with packed codes: the reference against a plain sum over codes packed by quant/pack.c, and each
 * kernel set against the reference, to the integer: random and extreme input, all tails, and buffers that end
 * at a page nobody may touch. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/random.h"
#include "kernels/kernels.h"
#include "quant/quantizer.h"
#include "tests/harness/suite.h"

static const char *const sets[] = {"ref", "avx2", "avx-vnni", "avx512", "avx512-vnni"};
enum { SETS = sizeof sets / sizeof *sets, BLOCK = 128, MOST_BLOCKS = 24, MOST_ROWS = 11, MOST_TOKENS = 9 };

/* `bytes` bytes that end where the next page begins, which faults. */
typedef struct guarded {
    char *map;
    size_t size;
    void *data;
} guarded;

static guarded guard(size_t bytes) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), size = (bytes + page - 1) / page * page + page;
    guarded g = {.size = size};
    g.map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert(g.map != MAP_FAILED);
    ck_assert_int_eq(mprotect(g.map + size - page, page, PROT_NONE), 0);
    g.data = g.map + size - page - bytes;
    return g;
}

static void release(guarded *g) {
    munmap(g->map, g->size);
}

static uint32_t draw(uint64_t seed, uint64_t i) {
    uint32_t random[4];
    pq_random4(seed, PQ_STREAM_INIT, 1, i, random);
    return random[0];
}

typedef struct problem {
    int bits;
    size_t rows, blocks, group, tokens, groups; /* groups: of a row */
    uint8_t plain[MOST_ROWS * MOST_BLOCKS * BLOCK];
    int8_t digit[128];
    guarded codes, x[MOST_TOKENS];
    const uint8_t *inputs[MOST_TOKENS];
} problem;

static problem *make(int bits, size_t rows, size_t blocks, size_t group, size_t tokens, bool extreme,
                     uint64_t seed) {
    problem *p = calloc(1, sizeof *p);
    ck_assert_ptr_nonnull(p);
    p->bits = bits, p->rows = rows, p->blocks = blocks, p->group = group, p->tokens = tokens;
    p->groups = group ? blocks * BLOCK / group : 1;
    const int8_t ends[] = {64, -64, 64, -64, 0, 1, -1};
    for (int i = 0; i < 1 << bits; i++)
        p->digit[i] = extreme ? ends[i % (int)(seed % 7 + 1)]
                              : (int8_t)((int)(draw(seed, 1000000 + (uint64_t)i) % 129) - 64);
    p->codes = guard(rows * pq_packed_row_bytes(bits, blocks * BLOCK));
    for (size_t r = 0; r < rows; r++) {
        uint8_t *row = p->plain + r * blocks * BLOCK;
        for (size_t i = 0; i < blocks * BLOCK; i++)
            row[i] = (uint8_t)(draw(seed, r * blocks * BLOCK + i) % (1u << bits));
        pq_pack_row(bits, row, blocks * BLOCK,
                    (uint8_t *)p->codes.data + r * pq_packed_row_bytes(bits, blocks * BLOCK));
    }
    for (size_t t = 0; t < tokens; t++) {
        p->x[t] = guard(blocks * BLOCK);
        uint8_t *x = p->x[t].data;
        for (size_t i = 0; i < blocks * BLOCK; i++) x[i] = extreme ? 255 : (uint8_t)draw(seed + 1 + t, i);
        p->inputs[t] = x;
    }
    return p;
}

static void discard(problem *p) {
    for (size_t t = 0; t < p->tokens; t++) release(&p->x[t]);
    release(&p->codes);
    free(p);
}

static int64_t expected(const problem *p, size_t t, size_t r, size_t g) {
    const size_t columns = p->blocks * BLOCK, run = columns / p->groups;
    int64_t sum = 0;
    for (size_t i = g * run; i < (g + 1) * run; i++)
        sum += (int64_t)p->inputs[t][i] * p->digit[p->plain[r * columns + i]];
    return sum;
}

static void check(const pq_kernels *k, const problem *p) {
    const size_t n = p->rows * p->groups, stride = n + 1;
    guarded out = guard(((p->tokens - 1) * stride + n) * sizeof(int32_t));
    int32_t *sums = out.data;
    for (size_t i = 0; i < (p->tokens - 1) * stride + n; i++) sums[i] = 99;
    k->packed_dots(p->bits, p->digit, p->codes.data, p->rows, p->blocks, p->group, p->inputs, p->tokens, sums,
                   stride);
    for (size_t t = 0; t < p->tokens; t++) {
        for (size_t i = 0; i < n; i++)
            ck_assert_msg(sums[t * stride + i] == expected(p, t, i / p->groups, i % p->groups),
                          "%s: %d bits, %zu rows of %zu blocks, groups of %zu, token %zu of %zu: sum %zu is "
                          "%d, expected %lld",
                          k->name, p->bits, p->rows, p->blocks, p->group, t, p->tokens, i,
                          sums[t * stride + i], (long long)expected(p, t, i / p->groups, i % p->groups));
        if (t + 1 < p->tokens) ck_assert_int_eq(sums[t * stride + n], 99);
    }
    release(&out);
}

START_TEST(dots_are_exact) {
    const pq_kernels *k = pq_kernels_of(sets[_i]);
    if (!k) return; /* said in main */
    static const size_t groups[] = {0, 32, 64, 128};
    uint64_t seed = 0;
    for (int bits = 1; bits <= 7; bits++)
        for (size_t rows = 1; rows <= MOST_ROWS; rows += rows < 9 ? 1 : 2)
            for (size_t tokens = 1; tokens <= MOST_TOKENS; tokens += tokens < 5 ? 1 : 4) {
                const size_t blocks = 1 + seed % 3;
                problem *p = make(bits, rows, blocks, groups[seed / 3 % 4], tokens, seed % 5 == 4, seed);
                check(k, p);
                discard(p);
                seed++;
            }
}
END_TEST

/* A row of 3,072 columns, all at the ends of their ranges: sums of 50 million, where 16 bits would saturate.
 */
START_TEST(dots_at_the_ends) {
    const pq_kernels *k = pq_kernels_of(sets[_i]);
    if (!k) return;
    for (int bits = 3; bits <= 5; bits++)
        for (uint64_t seed = 0; seed < 7; seed++) {
            problem *p = make(bits, 9, MOST_BLOCKS, 0, 5, true, seed);
            check(k, p);
            discard(p);
        }
}
END_TEST

/* Of 128 blocks with one odd code each place is found. */
START_TEST(any_finds_each_place) {
    const pq_kernels *k = pq_kernels_of(sets[_i]);
    if (!k) return;
    for (int bits = 1; bits <= 7; bits++) {
        const size_t bytes = pq_packed_row_bytes(bits, BLOCK);
        guarded codes = guard(3 * bytes), table = guard((size_t)1 << bits);
        memset(table.data, 0, (size_t)1 << bits);
        const int odd = (1 << bits) - 1;
        ((uint8_t *)table.data)[odd] = 0x41;
        for (size_t place = 0; place <= 3 * BLOCK; place++) {
            uint8_t plain[3 * BLOCK], any = 7;
            for (size_t i = 0; i < 3 * BLOCK; i++) plain[i] = (uint8_t)(i * 5 % (size_t)odd);
            if (place < 3 * BLOCK) plain[place] = (uint8_t)odd;
            pq_pack_row(bits, plain, 3 * BLOCK, codes.data);
            k->packed_any(bits, table.data, codes.data, 3, &any);
            ck_assert_msg(any == (place < 3 * BLOCK ? 0x41 : 0), "%s: %d bits, place %zu", k->name, bits,
                          place);
        }
        release(&codes), release(&table);
    }
}
END_TEST

START_TEST(outputs_are_rounded_in_order) {
    const pq_kernels *k = pq_kernels_of(sets[_i]);
    if (!k) return;
    for (size_t n = 0; n <= 70; n++)
        for (int with_bias = 0; with_bias < 2; with_bias++) {
            guarded d = guard(n * 4), s = guard(n * 4), f = guard(n * 4), b = guard(n * 4),
                    out = guard(n * 4);
            for (size_t i = 0; i < n; i++) {
                ((int32_t *)s.data)[i] = (int32_t)(draw(1, i) % 400000) - 200000;
                ((int32_t *)d.data)[i] = (int32_t)(draw(2, i) % 100000000) - 50000000;
                ((float *)f.data)[i] = (float)(draw(3, i) % 1000 + 1) * 1.1e-4f;
                ((float *)b.data)[i] = (float)(draw(4, i) % 1000) * 0.013f;
            }
            const pq_int8_row row = {.scale = 0.0123f, .zero = (int32_t)(draw(5, n) % 256)};
            k->packed_outputs(d.data, s.data, f.data, with_bias ? b.data : NULL, &row, out.data, n);
            for (size_t i = 0; i < n; i++) {
                /* Each step in double, rounded to float: products of two floats are exact in double. */
                float y = (float)(((const int32_t *)d.data)[i] - row.zero * ((const int32_t *)s.data)[i]);
                y = (float)((double)y * (double)((const float *)f.data)[i]);
                y = (float)((double)y * (double)row.scale);
                if (with_bias) y = (float)((double)y + (double)((const float *)b.data)[i]);
                ck_assert(((const float *)out.data)[i] == y);
            }
            release(&d), release(&s), release(&f), release(&b), release(&out);
        }
}
END_TEST

int main(void) {
    for (int i = 0; i < SETS; i++)
        if (!pq_kernels_of(sets[i])) printf("not compared: this CPU lacks %s\n", sets[i]);
    Suite *suite = suite_create("packed kernels");
    TCase *tc = tcase_create("packed");
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, dots_are_exact, 0, SETS);
    tcase_add_loop_test(tc, dots_at_the_ends, 0, SETS);
    tcase_add_loop_test(tc, any_finds_each_place, 0, SETS);
    tcase_add_loop_test(tc, outputs_are_rounded_in_order, 0, SETS);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
