// The tiles of one operation, divided among threads: each begins with a part of its own and then takes from what others
// have left. Two threads on shared memory seldom run at one speed, and the slower one would make the other wait at every
// operation. Who computes a tile changes no bit of it.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "thread_pool.h"

namespace herd {

class TileShares {
 public:
  explicit TileShares(int threads) : parts_(static_cast<size_t>(threads)) {}

  // Before threads take from it: part `thread` is [begin, end), which fits 32 bits.
  void set(int thread, int64_t begin, int64_t end) { part(thread).store(pack(begin, end), std::memory_order_relaxed); }

  // The next tiles for `thread`, empty when none are left: half of its part's rest, in ascending order, then halves of
  // the others' rests from their ends. Halves, so that few calls are made and the last ones are short; even numbers, since
  // most kernels for many columns take tiles by two.
  Range take(int thread) {
    Range run = take_from(thread, false);
    const auto threads = static_cast<int>(parts_.size());
    for (int i = 1; i < threads && run.begin >= run.end; ++i) run = take_from((thread + i) % threads, true);
    return run;
  }

 private:
  struct alignas(64) Part {
    std::atomic<uint64_t> range{0};  // begin in the upper half, end in the lower
  };

  static uint64_t pack(int64_t begin, int64_t end) { return static_cast<uint64_t>(begin) << 32 | static_cast<uint64_t>(end); }

  std::atomic<uint64_t>& part(int thread) { return parts_[static_cast<size_t>(thread)].range; }

  Range take_from(int owner, bool from_end) {
    std::atomic<uint64_t>& range = part(owner);
    for (uint64_t seen = range.load(std::memory_order_relaxed);;) {
      const auto begin = static_cast<int64_t>(seen >> 32), end = static_cast<int64_t>(seen & 0xffffffffu);
      if (begin >= end) return {end, end};
      const int64_t half = (end - begin + 1) / 2, count = std::min(half + half % 2, end - begin);
      const Range run = from_end ? Range{end - count, end} : Range{begin, begin + count};
      const uint64_t left = from_end ? pack(begin, run.begin) : pack(run.end, end);
      if (range.compare_exchange_weak(seen, left, std::memory_order_relaxed)) return run;
    }
  }

  std::vector<Part> parts_;
};

}  // namespace herd
