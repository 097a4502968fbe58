// Included by simd.h: the same operations in plain C++, for any processor.
#pragma once

#include "float16.h"
#include "simd/chosen_extremes.h"
#include "simd/wide_sums.h"

namespace herd::HERD_ISA_NS {

// Byte products are put together from many operations: more columns at once would gain nothing and compile for minutes.
constexpr bool kHasByteProducts = false;

// Two roundings: a fused one in software would cost a hundred times as much.
HERD_INLINE f32x16 fma(const f32x16& a, const f32x16& b, const f32x16& c) { return a * b + c; }

// Adding 1.5 * 2^23 leaves the rounded integer in the low bits of the sum.
HERD_INLINE i32x16 to_i32(const f32x16& a) {
  const f32x16 magic = splat(12582912.0f);
  return bit_cast<i32x16>(a + magic) - bit_cast<i32x16>(magic);
}

HERD_INLINE f32x16 load_f16(const uint16_t* from) {
  float lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = f16_to_f32(from[i]);
  return load(lanes);
}

HERD_INLINE void store_f16(uint16_t* to, const f32x16& v) {
  float lanes[kLanes];
  store(lanes, v);
  for (int i = 0; i < kLanes; ++i) to[i] = f32_to_f16(lanes[i]);
}

HERD_INLINE i32x16 load_u8(const uint8_t* from) {
  int32_t lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = from[i];
  return load(lanes);
}

HERD_INLINE i32x16 load_s8(const int8_t* from) {
  int32_t lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = from[i];
  return load(lanes);
}

HERD_INLINE void store_s8(int8_t* to, const i32x16& v) {
  int32_t lanes[kLanes];
  store(lanes, v);
  for (int i = 0; i < kLanes; ++i) to[i] = static_cast<int8_t>(lanes[i]);
}

constexpr int kSignedBias = 0;

// Sign-extended byte j of every 32-bit lane.
HERD_INLINE i32x16 signed_byte(const i32x16& v, int j) { return shift_right(shift_left(v, 24 - 8 * j), 24); }

HERD_INLINE DotSums dot4_signed(const DotSums& acc, const s8x64& w, const s8x64& x) {
  const i32x16 wide_w = bit_cast<i32x16>(w), wide_x = bit_cast<i32x16>(x);
  i32x16 sum = acc;
  _Pragma("GCC unroll 4") for (int j = 0; j < 4; ++j) sum = sum + signed_byte(wide_w, j) * signed_byte(wide_x, j);
  return sum;
}

HERD_INLINE DotSums dot4(const DotSums& acc, const u8x64& w, const s8x64& x) {
  return dot4_signed(acc, bit_cast<s8x64>(w), x);
}

HERD_INLINE s8x64 lookup16(const int8_t* table, const u8x64& codes) {
  uint8_t lanes[64];
  int8_t values[64];
  store_bytes(lanes, codes);
  for (int i = 0; i < 64; ++i) values[i] = table[lanes[i] & 15];
  return load_bytes<s8x64>(values);
}

}  // namespace herd::HERD_ISA_NS
