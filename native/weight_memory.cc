#include "weight_memory.h"

#include <cstdlib>
#include <new>

#include "arena.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace herd {
namespace {

constexpr size_t kHugePage = size_t{1} << 21;
// What a chunk does not use is never touched and takes no memory, but for the rest of one huge page.
constexpr size_t kChunkBytes = size_t{1} << 26;

// Weights share a chunk without gaps, where an access past the end of one would meet the next unseen. Under the address
// sanitizer each has a gap behind it.
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kGap = kAlignment;
void forbid(const uint8_t* data, size_t bytes) { __asan_poison_memory_region(data, bytes); }
void allow(const uint8_t* data, size_t bytes) { __asan_unpoison_memory_region(data, bytes); }
#else
constexpr size_t kGap = 0;
void forbid(const uint8_t*, size_t) {}
void allow(const uint8_t*, size_t) {}
#endif

std::shared_ptr<uint8_t> huge_chunk(size_t bytes) {
  auto* data = static_cast<uint8_t*>(std::aligned_alloc(kHugePage, bytes));
  if (data == nullptr) throw std::bad_alloc();
  std::shared_ptr<uint8_t> chunk(data, std::free);
#if defined(__linux__)
  (void)madvise(data, bytes, MADV_HUGEPAGE);  // a system without huge pages gives small ones
#endif
  return chunk;
}

}  // namespace

std::shared_ptr<uint8_t> WeightMemory::take(size_t bytes) {
  const size_t asked = bytes;
  bytes = aligned_size(bytes) + kGap;
  if (bytes > chunk_bytes_ - used_) {
    const size_t size = bytes > kChunkBytes ? (bytes + kHugePage - 1) / kHugePage * kHugePage : kChunkBytes;
    chunk_ = huge_chunk(size);
    chunk_bytes_ = size;
    used_ = 0;
    forbid(chunk_.get(), size);
  }
  uint8_t* const data = chunk_.get() + used_;
  used_ += bytes;
  allow(data, asked);
  return {chunk_, data};  // shares the chunk
}

}  // namespace herd
