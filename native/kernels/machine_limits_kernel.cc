// The loops behind machine_limits.h.
#include "machine_limits.h"
#include "simd.h"

namespace herd::HERD_ISA_NS {
namespace {

// Far enough for memory to answer, and into the second-level cache, as the weights of linear_kernel.cc are asked for.
constexpr size_t kAhead = 4096;
constexpr int kSecondLevel = 2;
constexpr size_t kBlockBytes = 256;

// Dot products in flight: 4 or 5 cycles of latency, two a cycle on the widest cores; more would not fit 16 registers.
constexpr int kChains = HERD_VECTOR_BYTES == 64 ? 12 : 4;

// The compiler may assume nothing of v afterwards, so that it cannot move work on it out of the loop.
HERD_INLINE void forget(u8x64& v) {
#if defined(__x86_64__)
  HERD_FOR_PARTS(i) asm volatile("" : "+v"(v.part[i]));
#elif defined(__aarch64__)
  HERD_FOR_PARTS(i) asm volatile("" : "+w"(v.part[i]));
#else
  HERD_FOR_PARTS(i) asm volatile("" : "+m"(v.part[i]));
#endif
}

// Exclusive or, where a sum of so many values would overflow.
HERD_INLINE uint32_t combined(const i32x16& v) {
  return static_cast<uint32_t>(reduce(v, [](const i32_part& a, const i32_part& b) __attribute__((always_inline)) { return a ^ b; }));
}

HERD_INLINE void read_block(const uint8_t* from, i32x16* sums) {
  _Pragma("GCC unroll 4") for (size_t line = 0; line < 4; ++line) {
    __builtin_prefetch(from + kAhead + 64 * line, 0, kSecondLevel);
    sums[line] = sums[line] ^ load_bytes<i32x16>(from + 64 * line);
  }
}

template <int kStreams>
uint32_t read_streams(const uint8_t* from, size_t bytes) {
  i32x16 sums[4];
  for (i32x16& sum : sums) sum = splat(int32_t{0});
  const size_t part = bytes / kStreams;
  for (size_t at = 0; at < part; at += kBlockBytes)
    _Pragma("GCC unroll 4") for (int s = 0; s < kStreams; ++s) read_block(from + s * part + at, sums);
  return combined(sums[0] ^ sums[1] ^ sums[2] ^ sums[3]);
}

uint32_t read(const uint8_t* from, size_t bytes, int streams) {
  return streams == 1 ? read_streams<1>(from, bytes) : read_streams<4>(from, bytes);
}

uint32_t multiply(int64_t rounds) {
  i32x16 sums[kChains];
  for (i32x16& sum : sums) sum = splat(int32_t{0});
  u8x64 codes = splat(uint8_t{3});
  const s8x64 x = bit_cast<s8x64>(splat(uint8_t{5}));
  for (int64_t round = 0; round < rounds; ++round) {
    _Pragma("GCC unroll 12") for (int c = 0; c < kChains; ++c) {
      forget(codes);
      sums[c] = dot4(sums[c], codes, x);
    }
  }
  i32x16 total = sums[0];
  for (int c = 1; c < kChains; ++c) total = total ^ sums[c];
  return combined(total);
}

}  // namespace

extern const LimitKernels limit_kernels;
const LimitKernels limit_kernels{read, multiply, int64_t{64} * kChains};

}  // namespace herd::HERD_ISA_NS
