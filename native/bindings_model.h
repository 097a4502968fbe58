#pragma once

#include <nanobind/nanobind.h>

namespace herd {

// Adds ThreadPool and Model to the module. openherd/kernels/native.py is their one caller.
void bind_model(nanobind::module_& m);

}  // namespace herd
