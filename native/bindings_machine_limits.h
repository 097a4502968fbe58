#pragma once

#include <nanobind/nanobind.h>

namespace herd {

// Adds ReadBuffer, multiply_rate and products_per_round to the module.
void bind_machine_limits(nanobind::module_& m);

}  // namespace herd
