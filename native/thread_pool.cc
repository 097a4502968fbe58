#include "thread_pool.h"

#include <pthread.h>

#include <stdexcept>
#include <thread>
#include <vector>

#include "float_environment.h"

namespace herd {
namespace {

// Some 100 us of pauses: longer than Python's part of a step, so that decoding never pays for a wake-up, and far
// shorter than a scheduler's slice.
constexpr int kSpins = 5000;

// Counts the forks this process descends from; workers of an older generation do not exist here.
std::atomic<std::uint32_t> fork_generation{0};

void watch_forks() {
  static const int registered = pthread_atfork(nullptr, nullptr, [] { fork_generation.fetch_add(1); });
  (void)registered;
}

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

int await_change(const std::atomic<int>& value, int old) {
  for (int i = 0; i < kSpins; ++i) {
    const int now = value.load(std::memory_order_acquire);
    if (now != old) return now;
    pause();
  }
  value.wait(old, std::memory_order_acquire);
  return value.load(std::memory_order_acquire);
}

struct ThreadPool::Workers {
  static constexpr int kTaken = -1;
  static constexpr int kLastEpoch = 0x7fffffff;  // epochs wrap before they could look like kTaken
  // A worker's share of the task: holds the epoch while it is free to be taken, kTaken from then on.
  struct alignas(64) Share {
    std::atomic<int> epoch{kTaken};

    bool take(int now) { return epoch.compare_exchange_strong(now, kTaken, std::memory_order_acq_rel); }
  };

  alignas(64) std::atomic<int> epoch{0};      // rises with every task; what workers wait for
  alignas(64) std::atomic<int> unfinished{0};  // shares of workers not done yet; what the caller waits for
  std::atomic<bool> stopping{false};
  Entry entry = nullptr;  // valid for whoever has taken a share
  void* context = nullptr;
  std::vector<Share> shares;
  std::uint32_t generation = fork_generation.load();
  std::vector<std::thread> threads;

  explicit Workers(int count) : shares(static_cast<size_t>(count)) {
    try {
      for (int i = 1; i <= count; ++i) threads.emplace_back([this, i] { work(i); });
    } catch (...) {
      stop();
      throw std::runtime_error("the system gives no more threads: use fewer");
    }
  }

  void work(int thread) {
    const DefaultFloatEnvironment floats;
    for (int seen = 0;;) {
      const int now = await_change(epoch, seen);
      if (stopping.load(std::memory_order_acquire)) return;
      if (now == seen) continue;
      seen = now;
      if (shares[static_cast<size_t>(thread - 1)].take(now)) do_share(thread);
    }
  }

  // Runs the whole task but thread 0's part, which the caller has done: waits for the shares that workers have taken and
  // does the others itself.
  void finish() {
    const int now = epoch.load(std::memory_order_relaxed);
    for (size_t i = 0; i < shares.size(); ++i)
      if (shares[i].take(now)) do_share(static_cast<int>(i) + 1);
    for (int left = unfinished.load(std::memory_order_acquire); left != 0;) left = await_change(unfinished, left);
  }

  void do_share(int thread) {
    entry(context, thread);
    if (unfinished.fetch_sub(1, std::memory_order_acq_rel) == 1) unfinished.notify_one();
  }

  void start(Entry task, void* task_context) {
    entry = task;
    context = task_context;
    unfinished.store(static_cast<int>(threads.size()), std::memory_order_relaxed);
    const int next = (epoch.load(std::memory_order_relaxed) + 1) & kLastEpoch;
    for (Share& share : shares) share.epoch.store(next, std::memory_order_release);
    wake(next);
  }

  void stop() {
    stopping.store(true, std::memory_order_release);
    wake((epoch.load(std::memory_order_relaxed) + 1) & kLastEpoch);
    for (auto& thread : threads) thread.join();
    threads.clear();
  }

  // Sequentially consistent, so that whoever parks is woken: libstdc++'s notify looks for waiters with a load of its own, which
  // on x86 may otherwise come before the store is seen, and a waiter that comes between the two sleeps on the old value.
  void wake(int next) {
    epoch.store(next, std::memory_order_seq_cst);
    epoch.notify_all();
  }

  bool alive() const { return generation == fork_generation.load(std::memory_order_relaxed); }
};

ThreadPool::ThreadPool(int threads) : threads_(threads) {
  if (threads < 1 || threads > kMostThreads) throw std::invalid_argument("threads must be from 1 to 1024");
  watch_forks();
}

ThreadPool::~ThreadPool() {
  if (!workers_) return;
  if (workers_->alive()) {
    workers_->stop();
  } else {
    (void)workers_.release();  // the parent's threads: joining them here would wait for ever
  }
}

void ThreadPool::dispatch(Entry entry, void* context) {
  if (threads_ > 1) {
    if (workers_ && !workers_->alive()) (void)workers_.release();
    if (!workers_) workers_ = std::make_unique<Workers>(threads_ - 1);
    workers_->start(entry, context);
    entry(context, 0);
    workers_->finish();
  } else {
    entry(context, 0);
  }
}

}  // namespace herd
