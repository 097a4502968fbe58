// Where packed weights live: large chunks that the system is asked to back with huge pages (2 MB).
//
// A decode step reads every weight once, so with pages of 4 kB each costs a walk of the page table, and prefetches stop at
// a page's end. SmolLM2-135M Q4_1, two Zen 4 cores, old and new in turn: 1.06 times the tokens per second
// (median; 0.96 to 1.23).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace herd {

class WeightMemory {
 public:
  // `bytes` of memory, 64-byte aligned, not initialised; it lives as long as the pointer. Throws std::bad_alloc.
  std::shared_ptr<uint8_t> take(size_t bytes);

 private:
  std::shared_ptr<uint8_t> chunk_;
  size_t chunk_bytes_ = 0;
  size_t used_ = 0;
};

}  // namespace herd
