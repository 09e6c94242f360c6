/* Overlays the kernel table with this instruction set's versions. */
#include "kernels/x86/x86.h"

#define TAKE(name) table->name = PQ_ISA_NAME(name);
#define LEAVE(name)
#define OVERLAY_0 LEAVE
#ifdef PQ_BF16
#define OVERLAY_1 LEAVE
#define OVERLAY_2 LEAVE
#define OVERLAY_3 TAKE
#ifdef PQ_AMX
#define OVERLAY_4 TAKE
#else
#define OVERLAY_4 LEAVE
#endif
#else
#ifdef PQ_VNNI
#define OVERLAY_1 LEAVE
#else
#define OVERLAY_1 TAKE
#endif
#define OVERLAY_2 TAKE
#define OVERLAY_3 LEAVE
#define OVERLAY_4 LEAVE
#endif

void PQ_ISA_NAME(kernels_overlay)(pq_kernels *table);
void PQ_ISA_NAME(kernels_overlay)(pq_kernels *table) {
#define PQ_KERNEL(name, x86, arguments) OVERLAY_##x86(name)
#include "kernels/kernels.def"
#undef PQ_KERNEL
}
