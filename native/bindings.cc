#include <nanobind/nanobind.h>

#include "bindings_linear.h"
#include "bindings_machine_limits.h"
#include "bindings_model.h"
#include "bindings_quantize.h"
#include "bindings_string_table.h"

NB_MODULE(_native, m) {
  // A thread that still computes when the interpreter ends keeps its model: see released_gil.h.
  nanobind::set_leak_warnings(false);
  m.doc() = "The compute core of openherd.";
  herd::bind_linear(m);
  herd::bind_machine_limits(m);
  herd::bind_model(m);
  herd::bind_quantize(m);
  herd::bind_string_table(m);
}
