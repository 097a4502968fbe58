#pragma once

#include <nanobind/nanobind.h>

#include <mutex>

#include "float_environment.h"
#include "model.h"
#include "released_gil.h"

namespace herd {

// Runs `work` without the GIL, alone on the model's pool. What may change while another Python thread has its turn is
// looked at in `work`, not before. The pool's workers have the default float environment, and so has the caller meanwhile.
template <class Work>
auto compute(Model& model, Work work) {
  const ReleasedGil released;
  const std::lock_guard turn(model.pool().turn());
  const DefaultFloatEnvironment floats;
  return work();
}

// Adds sample and score to the class Model.
void bind_sampling(nanobind::class_<Model>& model);

}  // namespace herd
