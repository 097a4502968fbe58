// The pool's promises: every share once, results visible after run(), forks, other threads, the end.
#include "thread_pool.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <numeric>
#include <thread>

#include "check.h"

namespace herd {
namespace {

// Not atomic on purpose: run() must order all of it.
void count_shares(ThreadPool& pool, int rounds) {
  std::vector<int> counts(static_cast<size_t>(pool.size()));
  for (int round = 0; round < rounds; ++round) {
    pool.run([&](int share) { ++counts[static_cast<size_t>(share)]; });
    CHECK(std::all_of(counts.begin(), counts.end(), [&](int count) { return count == round + 1; }));
  }
}

HERD_TEST(every_share_is_done_once_in_each_run) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    count_shares(pool, 2000);
  }
}

// Which thread does a share differs from run to run; what it reads is what the last run wrote.
HERD_TEST(a_run_sees_what_the_last_one_wrote) {
  ThreadPool pool(3);
  std::vector<int64_t> values(3, 1);
  for (int round = 0; round < 500; ++round)
    pool.run([&, before = values](int share) {
      values[static_cast<size_t>(share)] = std::accumulate(before.begin(), before.end(), int64_t{share}) % 1009;
    });
  std::vector<int64_t> alone(3, 1);
  for (int round = 0; round < 500; ++round) {
    const std::vector<int64_t> before = alone;
    for (int share = 0; share < 3; ++share)
      alone[static_cast<size_t>(share)] = std::accumulate(before.begin(), before.end(), int64_t{share}) % 1009;
  }
  CHECK(values == alone);
}

// Slow shares make workers late, so that the caller takes some of theirs, and parks waiting for others.
HERD_TEST(late_workers_and_parked_ones) {
  ThreadPool pool(4);
  std::vector<int> counts(4);
  for (int round = 0; round < 30; ++round) {
    pool.run([&](int share) {
      if (share == round % 4) std::this_thread::sleep_for(std::chrono::milliseconds(2));
      ++counts[static_cast<size_t>(share)];
    });
    if (round % 10 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));  // they park
  }
  CHECK(counts == std::vector<int>(4, 30));
}

HERD_TEST(pools_come_and_go) {
  for (int round = 0; round < 60; ++round) {
    ThreadPool pool(1 + round % 5);
    if (round % 3 != 0) count_shares(pool, 1 + round % 7);
  }
}

// As models that share a pool do: one turn each.
HERD_TEST(threads_take_turns_on_a_shared_pool) {
  ThreadPool pool(2);
  std::vector<int> counts(2);
  const auto work = [&] {
    for (int round = 0; round < 200; ++round) {
      const std::lock_guard turn(pool.turn());
      pool.run([&](int share) { ++counts[static_cast<size_t>(share)]; });
    }
  };
  std::thread first(work), second(work);
  first.join();
  second.join();
  CHECK(counts == std::vector<int>(2, 400));
}

HERD_TEST(pools_run_side_by_side) {
  std::vector<std::thread> callers;
  for (int i = 0; i < 3; ++i)
    callers.emplace_back([] {
      ThreadPool pool(2);
      count_shares(pool, 300);
    });
  for (auto& caller : callers) caller.join();
}

// The parent's workers do not exist in the child.
HERD_TEST(a_fork_computes_on_workers_of_its_own) {
  ThreadPool pool(3);
  count_shares(pool, 10);
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    try {
      count_shares(pool, 10);
      _exit(0);
    } catch (...) {
      _exit(1);
    }
  }
  count_shares(pool, 10);
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

HERD_TEST(sizes_out_of_range_are_refused) {
  for (const int threads : {0, -1, 1025}) CHECK(test::throws<std::invalid_argument>([&] { ThreadPool pool(threads); }));
}

}  // namespace
}  // namespace herd
