#pragma once

#include <nanobind/nanobind.h>

#include <mutex>

#include "model.h"

namespace herd {

// Runs `work` without the GIL, alone on the model's pool.
template <class Work>
auto compute(Model& model, Work work) {
  const nanobind::gil_scoped_release release;
  const std::lock_guard turn(model.pool().turn());
  return work();
}

// Adds sample and score to the class Model.
void bind_sampling(nanobind::class_<Model>& model);

}  // namespace herd
