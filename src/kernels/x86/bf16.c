/* bf16 to fp32 and back, vectorised. By integers: the instructions for it flush subnormals. */
#include <string.h>

#include "kernels/x86/x86.h"

void PQ_ISA_NAME(widen)(const pq_bf16 *x, float *out, size_t n) {
    size_t i = 0;
    for (; i + VL <= n; i += VL) v_store(out + i, v_load_halves(x + i));
    if (i < n) {
        pq_bf16 rest[VL] = {0};
        memcpy(rest, x + i, (n - i) * sizeof *x);
        v_store_some(v_first(n - i), out + i, v_load_halves(rest));
    }
}

ALWAYS_INLINE vi to_nearest(vf x) {
    vi bits = v_bits(x), upper = v_shift_right(bits, 16);
    vi rounded = v_iadd(bits, v_iadd(v_iset(0x7FFF), v_iand(upper, v_iset(1))));
    vm nan = v_iless(v_iset(0x7F800000), v_bits(v_abs(x)));
    return v_bits(
        v_select(nan, v_from_bits(v_ior(upper, v_iset(0x40))), v_from_bits(v_shift_right(rounded, 16))));
}

void PQ_ISA_NAME(narrow)(const float *x, pq_bf16 *out, size_t n) {
    size_t i = 0;
    for (; i + VL <= n; i += VL) v_store_halves(out + i, to_nearest(v_load(x + i)));
    if (i < n) {
        pq_bf16 rest[VL];
        v_store_halves(rest, to_nearest(v_load_some(v_first(n - i), x + i)));
        memcpy(out + i, rest, (n - i) * sizeof *out);
    }
}
