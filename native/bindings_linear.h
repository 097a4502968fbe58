#pragma once

#include <nanobind/nanobind.h>

namespace herd {

// Adds PackedWeight, packed_bytes, quantize_activations, available_isas and default_isa to the module.
void bind_linear(nanobind::module_& m);

}  // namespace herd
