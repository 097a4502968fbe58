// What this machine can do at best: the rates that decoding (reading weights) and prefill (multiplying int8) are held
// against. Loops that do nothing else, with the instruction set and the threads that the engine uses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "isa.h"
#include "thread_pool.h"

namespace herd {

struct LimitKernels {
  // Loads every byte of [from, from + bytes), bytes a multiple of kReadGrain; the result depends on all of them, so that
  // none is left out. `streams` (1 or 4) places are read in turn: one is best from huge pages, four from small ones, whose
  // table walks then overlap (94 MB, two Zen 4 cores, GB/s: huge 50 and 40, small 32 and 38).
  uint32_t (*read)(const uint8_t* from, size_t bytes, int streams);

  // rounds * products_per_round products of 4-bit codes and int8, added up in int32: dot4 of simd.h, or
  // the matrix unit, on registers alone.
  uint32_t (*multiply)(int64_t rounds);
  int64_t products_per_round;
};

constexpr size_t kReadGrain = 2048;

const LimitKernels& limit_kernels(Isa isa);

// Memory to read, touched by the threads that will read it. In huge pages where the system gives them: walks of page tables
// are not the memory's limit (94 MB, two Zen 4 cores: 50 GB/s, 32 from small pages).
class ReadBuffer {
 public:
  // `bytes` is rounded up to whole huge pages. Throws std::bad_alloc.
  ReadBuffer(size_t bytes, ThreadPool& pool);
  size_t size() const { return size_; }

  // Bytes a second, each of the pool's threads reading its part `passes` times.
  double read_rate(ThreadPool& pool, Isa isa, int passes, int streams) const;

 private:
  struct Free {
    void operator()(uint8_t* p) const;
  };
  size_t size_;
  std::unique_ptr<uint8_t, Free> data_;
};

// Products of 4-bit codes and int8 a second, of all of the pool's threads.
double multiply_rate(ThreadPool& pool, Isa isa, int64_t rounds);

}  // namespace herd
