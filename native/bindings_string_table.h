#pragma once

#include <nanobind/nanobind.h>

namespace herd {

// Adds walk_strings and decode_strings to the module.
void bind_string_table(nanobind::module_& m);

}  // namespace herd
