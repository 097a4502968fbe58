// The loops behind machine_limits.h.
#include "machine_limits.h"
#include "simd.h"
#if HERD_HAS_MATRIX_UNIT
#include "simd/amx.h"
#endif

namespace herd::HERD_ISA_NS {
namespace {

// Far enough for memory to answer, and into the second-level cache, as the weights of linear_kernel.cc are asked for.
constexpr size_t kAhead = 4096;
constexpr int kSecondLevel = 2;
constexpr size_t kBlockBytes = 256;

// Dot products in flight: 4 or 5 cycles of latency, two a cycle on the widest cores; more would not fit 16 registers.
constexpr int kChains = HERD_VECTOR_BYTES == 64 ? 12 : 4;

// Groups of four products before sums are widened (where they must be), as in a step of 4-bit weights.
constexpr int kGroupsPerRound = 8;
static_assert(kGroupsPerRound <= groups_that_fit(15));

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

#if HERD_HAS_MATRIX_UNIT

// A weight times an activation takes two of the unit's products, of coarse and of fine codes.
constexpr int64_t kProductsPerRound = 2 * 16 * 16 * 64 / 2;

uint32_t multiply(int64_t rounds) {
  constexpr int kAllGroups = 16;
  const MatrixUnit<kAllGroups> unit;
  u8x64 w[kAllGroups], x[kAllGroups];
  for (int i = 0; i < kAllGroups; ++i) w[i] = splat(uint8_t{3}), x[i] = splat(uint8_t{5});
  i32x16 dots[2][kAllGroups];
  unit.multiply_again(rounds, reinterpret_cast<const int8_t*>(x), w, dots[0], dots[1]);
  return combined(dots[0][0] ^ dots[1][kAllGroups - 1]);
}

#else

constexpr int64_t kProductsPerRound = int64_t{64} * kChains * kGroupsPerRound;

uint32_t multiply(int64_t rounds) {
  i32x16 dots[kChains];
  for (i32x16& dot : dots) dot = splat(int32_t{0});
  u8x64 codes = splat(uint8_t{3});
  const s8x64 x = bit_cast<s8x64>(splat(uint8_t{5}));
  for (int64_t round = 0; round < rounds; ++round) {
    DotSums sums[kChains];
    _Pragma("GCC unroll 12") for (int c = 0; c < kChains; ++c) sums[c] = begin_sums(dots[c]);
    _Pragma("GCC unroll 8") for (int g = 0; g < kGroupsPerRound; ++g)
      _Pragma("GCC unroll 12") for (int c = 0; c < kChains; ++c) {
        settle(codes);  // each product anew
        sums[c] = dot4(sums[c], codes, x);
      }
    _Pragma("GCC unroll 12") for (int c = 0; c < kChains; ++c) dots[c] = end_sums(dots[c], sums[c]);
  }
  i32x16 total = dots[0];
  for (int c = 1; c < kChains; ++c) total = total ^ dots[c];
  return combined(total);
}

#endif

}  // namespace

extern const LimitKernels limit_kernels;
const LimitKernels limit_kernels{read, multiply, kProductsPerRound};

}  // namespace herd::HERD_ISA_NS
