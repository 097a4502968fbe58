#include "linear.h"

namespace herd {

HERD_DECLARE(const LinearKernels linear_kernels)

const LinearKernels& linear_kernels(Isa isa) {
  require_granted(isa);
  HERD_SELECT(isa, linear_kernels)
}

}  // namespace herd
