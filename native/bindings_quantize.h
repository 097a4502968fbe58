#pragma once

#include <nanobind/nanobind.h>

namespace herd {

// Adds quantize_rows to the module.
void bind_quantize(nanobind::module_& m);

}  // namespace herd
