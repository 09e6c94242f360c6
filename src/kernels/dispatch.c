/* Owns the choice of kernels: the table starts as ref/ and is overlaid by the instruction sets this CPU has.
 */
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "kernels/kernels.h"

static const pq_kernels reference = {
    .name = "ref",
#define PQ_KERNEL(name, x86, arguments) .name = pq_##name##_ref,
#include "kernels/kernels.def"
#undef PQ_KERNEL
};

#if defined(__x86_64__)
void pq_kernels_overlay_avx2(pq_kernels *table);
void pq_kernels_overlay_avxvnni(pq_kernels *table);
void pq_kernels_overlay_avx512(pq_kernels *table);
void pq_kernels_overlay_avx512vnni(pq_kernels *table);
void pq_kernels_overlay_avx512bf16(pq_kernels *table);
void pq_kernels_overlay_amx(pq_kernels *table);

/* F16C came before AVX2 in every CPU; clang's list of names lacks it. */
static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

/* The compiler's own list lacks AVX-VNNI: leaf 7, subleaf 1, bit 4 of eax. */
static bool has_avxvnni(void) {
    unsigned a, b, c, d;
    return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4);
}

static bool has_avx512vnni(void) {
    return has_avx512() && __builtin_cpu_supports("avx512vnni");
}

/* Each CPU that multiplies bf16 has VNNI. */
static bool has_avx512bf16(void) {
    return has_avx512vnni() && __builtin_cpu_supports("avx512bf16");
}

/* Leaf 7: AMX-BF16 and AMX-TILE are bits 22 and 24 of edx. Linux saves tiles for a process that asked for
 * them (feature 18 of ARCH_REQ_XCOMP_PERM), if it knows them at all. */
static bool has_amx(void) {
    enum { REQUEST = 0x1023, TILE_DATA = 18 };
    const unsigned both = 1u << 22 | 1u << 24;
    unsigned a, b, c, d;
    return has_avx512bf16() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & both) == both &&
           syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}

static void overlay_avxvnni(pq_kernels *table) {
    pq_kernels_overlay_avx2(table);
    pq_kernels_overlay_avxvnni(table);
}

static void overlay_avx512vnni(pq_kernels *table) {
    pq_kernels_overlay_avx512(table);
    pq_kernels_overlay_avx512vnni(table);
}

static void overlay_avx512bf16(pq_kernels *table) {
    overlay_avx512vnni(table);
    pq_kernels_overlay_avx512bf16(table);
}

static void overlay_amx(pq_kernels *table) {
    overlay_avx512bf16(table);
    pq_kernels_overlay_amx(table);
}
#endif

/* Instruction sets in rising order. */
static struct level {
    const char *name;
    bool (*supported)(void);
    void (*overlay)(pq_kernels *);
    pq_kernels table;
} levels[] = {
    {.name = "ref"},
#if defined(__x86_64__)
    {.name = "avx2", .supported = has_avx2, .overlay = pq_kernels_overlay_avx2},
    {.name = "avx-vnni", .supported = has_avxvnni, .overlay = overlay_avxvnni},
    {.name = "avx512", .supported = has_avx512, .overlay = pq_kernels_overlay_avx512},
    {.name = "avx512-vnni", .supported = has_avx512vnni, .overlay = overlay_avx512vnni},
    {.name = "avx512-bf16", .supported = has_avx512bf16, .overlay = overlay_avx512bf16},
    {.name = "amx", .supported = has_amx, .overlay = overlay_amx},
#endif
};
enum { LEVELS = sizeof levels / sizeof *levels };

const pq_kernels *pq_kernels_of(const char *name) {
    for (size_t i = 0; i < LEVELS; i++) {
        if (strcmp(levels[i].name, name) != 0) continue;
        if (levels[i].supported && !levels[i].supported()) return NULL;
        if (!levels[i].table.name) {
            pq_kernels table = reference;
            if (levels[i].overlay) levels[i].overlay(&table);
            table.name = levels[i].name;
            levels[i].table = table;
        }
        return &levels[i].table;
    }
    return NULL;
}

const pq_kernels *pq_kernels_get(void) {
    static const pq_kernels *chosen;
    if (chosen) return chosen;
    const char *cap = getenv("POTQAT_CPU");
    size_t last = LEVELS - 1;
    for (size_t i = 0; cap && i < LEVELS; i++)
        if (strcmp(levels[i].name, cap) == 0) last = i;
    for (size_t i = last + 1; i-- > 0 && !chosen;) chosen = pq_kernels_of(levels[i].name);
    return chosen;
}

bool pq_kernels_have_bf16(void) {
    return pq_kernels_get()->attention_forward_bf16 != pq_attention_forward_bf16_ref;
}
