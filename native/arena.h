// Aligned memory without initialisation: pages that are never touched are never resident.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

namespace herd {

constexpr size_t kAlignment = 64;  // a cache line, and a vector of the widest instruction set

constexpr size_t aligned_size(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

class Arena {
 public:
  Arena() = default;
  explicit Arena(size_t bytes) : data_(static_cast<std::byte*>(std::aligned_alloc(kAlignment, aligned_size(bytes + 1)))) {
    if (!data_) throw std::bad_alloc();
  }
  std::byte* data() const { return data_.get(); }

 private:
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };
  std::unique_ptr<std::byte, Free> data_;
};

}  // namespace herd
