#include "machine_limits.h"

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace herd {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

template <class Task>
double seconds_of(ThreadPool& pool, Task&& task) {
  const std::lock_guard turn(pool.turn());
  const auto begin = std::chrono::steady_clock::now();
  pool.run(task);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

HERD_DECLARE(const LimitKernels limit_kernels)
const LimitKernels& limit_kernels(Isa isa) { HERD_SELECT(isa, limit_kernels) }

void ReadBuffer::Free::operator()(uint8_t* p) const { std::free(p); }

ReadBuffer::ReadBuffer(size_t bytes, ThreadPool& pool) : size_((bytes + kHugePage - 1) / kHugePage * kHugePage) {
  data_.reset(static_cast<uint8_t*>(size_ < bytes ? nullptr : std::aligned_alloc(kHugePage, size_)));
  if (!data_) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
  (void)madvise(data_.get(), size_, MADV_HUGEPAGE);  // refused: small pages then
#endif
  seconds_of(pool, [&](int thread) {
    const Range part = partition(static_cast<int64_t>(size_), kReadGrain, thread, pool.size());
    std::memset(data_.get() + part.begin, 1, static_cast<size_t>(part.end - part.begin));
  });
}

double ReadBuffer::read_rate(ThreadPool& pool, Isa isa, int passes, int streams) const {
  const LimitKernels& kernels = limit_kernels(isa);
  const double seconds = seconds_of(pool, [&](int thread) {
    const Range part = partition(static_cast<int64_t>(size_), kReadGrain, thread, pool.size());
    for (int pass = 0; pass < passes; ++pass)
      (void)kernels.read(data_.get() + part.begin, static_cast<size_t>(part.end - part.begin), streams);
  });
  return static_cast<double>(size_) * passes / seconds;
}

double multiply_rate(ThreadPool& pool, Isa isa, int64_t rounds) {
  const LimitKernels& kernels = limit_kernels(isa);
  const double seconds = seconds_of(pool, [&](int) { (void)kernels.multiply(rounds); });
  return static_cast<double>(kernels.products_per_round) * static_cast<double>(rounds) * pool.size() / seconds;
}

}  // namespace herd
