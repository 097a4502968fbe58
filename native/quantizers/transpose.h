// Between blocks one after the other, as files and rows have them, and blocks side by side, one in each lane.
//
// Squares of 4 floats or 16 bytes are turned over in registers of 16 bytes, which every instruction set has: a value at a
// time takes as long as searching its codes.
#pragma once

#include "simd.h"

namespace herd::HERD_ISA_NS {

typedef float f32_quad __attribute__((vector_size(16)));
typedef uint8_t u8_square __attribute__((vector_size(16)));

HERD_INLINE f32_quad load_quad(const float* from) {
  f32_quad r;
  std::memcpy(&r, from, sizeof r);
  return r;
}
HERD_INLINE void store_quad(float* to, const f32_quad& v) { std::memcpy(to, &v, sizeof v); }

// to[i][lane] = blocks[lane][i] for i in 0..kLen-1.
template <int kLen>
void put_side_by_side(const float* const (&blocks)[kLanes], float (*to)[kLanes]) {
  static_assert(kLen % 4 == 0);
  for (int lane = 0; lane < kLanes; lane += 4)
    for (int i = 0; i < kLen; i += 4) {
      const f32_quad a = load_quad(blocks[lane] + i), b = load_quad(blocks[lane + 1] + i);
      const f32_quad c = load_quad(blocks[lane + 2] + i), d = load_quad(blocks[lane + 3] + i);
      const f32_quad ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
      const f32_quad cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
      store_quad(to[i] + lane, __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5));
      store_quad(to[i + 1] + lane, __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7));
      store_quad(to[i + 2] + lane, __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5));
      store_quad(to[i + 3] + lane, __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7));
    }
}

// to[lane][i] = from[i][lane] for i in 0..kLen-1.
template <int kLen>
void put_one_after_another(const uint8_t (*from)[kLanes], uint8_t (*to)[kLen]) {
  static_assert(kLen % kLanes == 0);
  for (int first = 0; first < kLen; first += kLanes) {
    u8_square row[kLanes];
    std::memcpy(row, from[first], sizeof row);
    // Interleaving rows i and i + 8 moves the highest bit of a byte's row to the lowest of its column; four times turns
    // rows into columns.
    _Pragma("GCC unroll 4") for (int turn = 0; turn < 4; ++turn) {
      u8_square mixed[kLanes];
      _Pragma("GCC unroll 8") for (int i = 0; i < 8; ++i) {
        mixed[2 * i] = __builtin_shufflevector(row[i], row[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        mixed[2 * i + 1] =
            __builtin_shufflevector(row[i], row[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
      }
      std::memcpy(row, mixed, sizeof row);
    }
    for (int lane = 0; lane < kLanes; ++lane) std::memcpy(to[lane] + first, &row[lane], sizeof row[lane]);
  }
}

}  // namespace herd::HERD_ISA_NS
