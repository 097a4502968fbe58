#include "linear.h"

#include <stdexcept>
#include <string>

namespace herd {

HERD_DECLARE(const LinearKernels linear_kernels)

const LinearKernels& linear_kernels(Isa isa) {
  if (!is_granted(isa)) throw std::runtime_error(std::string("the system refuses this process the registers of ") + isa_name(isa));
  HERD_SELECT(isa, linear_kernels)
}

}  // namespace herd
