/* Overlays the kernel table with this instruction set's versions. */
#include "kernels/x86/x86.h"

#define OVERLAY_2(name) table->name = PQ_ISA_NAME(name);
#ifdef PQ_VNNI /* these alone have a VNNI form */
#define OVERLAY_1(name)
#else
#define OVERLAY_1(name) OVERLAY_2(name)
#endif
#define OVERLAY_0(name)

void PQ_ISA_NAME(kernels_overlay)(pq_kernels *table);
void PQ_ISA_NAME(kernels_overlay)(pq_kernels *table) {
#define PQ_KERNEL(name, x86, arguments) OVERLAY_##x86(name)
#include "kernels/kernels.def"
#undef PQ_KERNEL
}
