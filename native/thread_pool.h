// A fork-join pool: run(task) calls task(thread) once for every number in [0, size()) and returns when all have returned.
// That return is the barrier between two operations of a forward pass.
//
// Each number has a thread of its own, the caller being thread 0. A thread that has not begun its share when the caller
// is done loses it to the caller: on a machine whose cores are taken by others nobody waits for a worker that the system
// does not run (default model, two threads on two cores beside two busy processes: 140 tok/s instead of 20 to 60).
//
// Workers spin briefly for the next task and then park in the kernel, so an idle engine costs nothing and a busy one
// does not pay for a wake-up between operations. Measured on two Zen 4 cores of a virtual machine, from run() to
// its return with an empty task: 0.1 us while the other thread spins, 40 to 65 us when it was parked.
//
// What a share consists of is the task's affair. No result may depend on who computes what. A share that depends on its
// number alone is repeatable in time and keeps caches warm; tasks beside which something else runs take turns instead
// (tile_shares.h, quantizers/quantize_rows.cc). Scratch memory goes by that number too.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <type_traits>

namespace herd {

constexpr int kMostThreads = 1024;

class ThreadPool {
 public:
  // `threads` counts the caller. Workers start at the first run() and again after a fork, whose child has none.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return threads_; }

  // Calls task(share) for share in [0, size()). The task must not throw and must not call run().
  template <class Task>
  void run(Task&& task) {
    using Plain = std::remove_reference_t<Task>;
    dispatch([](void* context, int thread) { (*static_cast<Plain*>(context))(thread); },
             const_cast<std::remove_const_t<Plain>*>(&task));
  }

  // Models that share a pool take turns: hold this for the length of a forward pass.
  std::mutex& turn() { return turn_; }

 private:
  using Entry = void (*)(void* context, int thread);
  struct Workers;

  void dispatch(Entry entry, void* context);

  const int threads_;
  std::mutex turn_;
  std::unique_ptr<Workers> workers_;
};

// Waits until `value` is no longer `old`: spins, then parks until notified. Returns the new value.
int await_change(const std::atomic<int>& value, int old);

// The part of [0, count) that `thread` of `threads` does: contiguous, in multiples of `grain`, sizes within one grain.
struct Range {
  std::int64_t begin, end;
};

inline Range partition(std::int64_t count, std::int64_t grain, int thread, int threads) {
  const std::int64_t grains = (count + grain - 1) / grain;
  const std::int64_t begin = grains * thread / threads * grain;
  const std::int64_t end = grains * (thread + 1) / threads * grain;
  return {begin < count ? begin : count, end < count ? end : count};
}

}  // namespace herd
