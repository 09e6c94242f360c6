/* Dropout, vectorised: Philox4x32-10 in lanes (base/random.h), one counter a lane, four masks a block. */
#include "base/random.h"
#include "kernels/x86/x86.h"

/* The four words of the counters block * 16 + lane0 + (0 .. VL-1). */
ALWAYS_INLINE void words(const pq_dropout *d, uint64_t block, int32_t lane0, vi out[4]) {
    uint64_t counter = block * 16, place = d->iter << 24 | d->tensor;
    uint32_t key0 = (uint32_t)d->seed;
    uint32_t key1 = (uint32_t)(d->seed >> 32) ^ ((uint32_t)PQ_STREAM_DROPOUT * 0x9E3779B9u);
    /* counter is a multiple of 16, so adding a lane never carries into the high word. */
    vi c0 = v_iadd(v_iset((int32_t)(uint32_t)counter), v_iadd(v_lanes(), v_iset(lane0)));
    vi c1 = v_iset((int32_t)(uint32_t)(counter >> 32));
    vi c2 = v_iset((int32_t)(uint32_t)place), c3 = v_iset((int32_t)(uint32_t)(place >> 32));
    vi multiplier0 = v_iset((int32_t)0xD2511F53u), multiplier1 = v_iset((int32_t)0xCD9E8D57u);
    for (int round = 0; round < 10; round++) {
        vi high0, low0, high1, low1;
        v_multiply_wide(c0, multiplier0, &high0, &low0);
        v_multiply_wide(c2, multiplier1, &high1, &low1);
        c0 = v_ixor(v_ixor(high1, c1), v_iset((int32_t)key0));
        c1 = low1;
        c2 = v_ixor(v_ixor(high0, c3), v_iset((int32_t)key1));
        c3 = low0;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

void PQ_ISA_NAME(dropout)(const float *base, const float *x, float *out, size_t n, const pq_dropout *dropout,
                          uint64_t first) {
    vi threshold = v_iset((int32_t)dropout->threshold);
    vf keep = v_set(dropout->keep_scale);
    for (size_t start = 0; start < n; start += 64) {
        for (int lane0 = 0; lane0 < 16; lane0 += VL) {
            vi random[4];
            words(dropout, (first + start) / 64, lane0, random);
            for (size_t word = 0; word < 4; word++) {
                size_t i = start + word * 16 + (size_t)lane0;
                if (i >= n) break;
                vm some = v_first(n - i);
                vf mask = v_select(v_iless_unsigned(random[word], threshold), v_zero(), keep);
                vf value = v_mul(v_load_some(some, x + i), mask);
                if (base) value = v_add(v_load_some(some, base + i), value);
                v_store_some(some, out + i, value);
            }
        }
    }
}
