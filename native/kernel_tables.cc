// The tables of this part's kernels for each instruction set.
#include "attention.h"
#include "isa.h"
#include "row_kernels.h"
#include "sampling_kernels.h"

namespace herd {

HERD_DECLARE(const RowKernels row_kernels)
HERD_DECLARE(const AttentionKernels attention_kernels)
HERD_DECLARE(const SamplingKernels sampling_kernels)

const RowKernels& row_kernels(Isa isa) { HERD_SELECT(isa, row_kernels) }
const AttentionKernels& attention_kernels(Isa isa) { HERD_SELECT(isa, attention_kernels) }
const SamplingKernels& sampling_kernels(Isa isa) { HERD_SELECT(isa, sampling_kernels) }

}  // namespace herd
