// Arrays at the border to Python: the types that functions accept (another dtype, rank or layout is a TypeError), and
// the arrays they return.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <stdexcept>

namespace herd {

template <class T, int Rank>
using Array = nanobind::ndarray<const T, nanobind::ndim<Rank>, nanobind::c_contig, nanobind::device::cpu>;

template <class T>
using NewArray = nanobind::ndarray<nanobind::numpy, T>;

// All values in C order. NumPy also makes arrays whose values are not aligned, which vector code must not be given.
template <class T, class... Form>
std::span<const T> view(const nanobind::ndarray<const T, Form...>& array) {
  if (reinterpret_cast<uintptr_t>(array.data()) % alignof(T) != 0)
    throw std::invalid_argument("an array's values are not aligned: pass a copy");
  return {array.data(), array.size()};
}

template <class T>
NewArray<T> new_array(std::initializer_list<size_t> shape) {
  size_t size = 1;
  for (const size_t n : shape) size *= n;
  auto data = std::make_unique<T[]>(size);
  nanobind::capsule owner(data.get(), [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return NewArray<T>(data.release(), shape, owner);
}

}  // namespace herd
