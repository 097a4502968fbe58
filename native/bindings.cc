#include <nanobind/nanobind.h>

#include "bindings_linear.h"
#include "bindings_model.h"

NB_MODULE(_native, m) {
  m.doc() = "The compute core of openherd.";
  herd::bind_linear(m);
  herd::bind_model(m);
}
