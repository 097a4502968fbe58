// One vector width for every instruction set: 16 float lanes (64 bytes), held in 1, 2 or 4 machine registers.
//
// A fixed logical width makes packed weights and the order of every float operation independent of the instruction
// set. Arithmetic comes from GCC's vector extensions; simd/<set>.h adds the few operations that need intrinsics.
// Only for kernel sources (see isa.h): HERD_ISA_NS names the namespace.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#ifndef HERD_ISA_NS
#error "simd.h is for kernel sources, which CMake compiles with HERD_ISA_NS set"
#endif

#define HERD_INLINE __attribute__((always_inline)) inline

// A unit that multiplies matrices of bytes beside the vector registers: simd/amx.h. CMake says so of the one set that uses it;
// the compiler's own flags may let all of them.
#if defined(HERD_USE_MATRIX_UNIT)
#define HERD_HAS_MATRIX_UNIT 1
#else
#define HERD_HAS_MATRIX_UNIT 0
#endif

// Bytes of one machine register.
#if defined(__AVX512F__)
#define HERD_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define HERD_VECTOR_BYTES 32
#else
#define HERD_VECTOR_BYTES 16
#endif

namespace herd::HERD_ISA_NS {

constexpr int kLanes = 16;
constexpr bool kHasMatrixUnit = HERD_HAS_MATRIX_UNIT != 0;
constexpr int kParts = 64 / HERD_VECTOR_BYTES;

typedef float f32_part __attribute__((vector_size(HERD_VECTOR_BYTES)));
typedef int32_t i32_part __attribute__((vector_size(HERD_VECTOR_BYTES)));
typedef uint8_t u8_part __attribute__((vector_size(HERD_VECTOR_BYTES)));
typedef int8_t s8_part __attribute__((vector_size(HERD_VECTOR_BYTES)));

// 64 bytes as an array of machine registers; every loop over parts is unrolled.
template <class Part>
struct Vector {
  Part part[kParts];
};
using f32x16 = Vector<f32_part>;
using i32x16 = Vector<i32_part>;  // also the lane masks: -1 is true, 0 is false
using u8x64 = Vector<u8_part>;
using s8x64 = Vector<s8_part>;

#define HERD_FOR_PARTS(i) _Pragma("GCC unroll 4") for (int i = 0; i < kParts; ++i)

#define HERD_BINARY(op)                                                            \
  template <class Part>                                                            \
  HERD_INLINE Vector<Part> operator op(const Vector<Part>& a, const Vector<Part>& b) { \
    Vector<Part> r;                                                                \
    HERD_FOR_PARTS(i) r.part[i] = a.part[i] op b.part[i];                          \
    return r;                                                                      \
  }
HERD_BINARY(+)
HERD_BINARY(-)
HERD_BINARY(*)
HERD_BINARY(/)
HERD_BINARY(&)
HERD_BINARY(|)
HERD_BINARY(^)
#undef HERD_BINARY

#define HERD_COMPARE(op)                                                           \
  HERD_INLINE i32x16 operator op(const f32x16& a, const f32x16& b) {               \
    i32x16 r;                                                                      \
    HERD_FOR_PARTS(i) r.part[i] = (i32_part)(a.part[i] op b.part[i]);              \
    return r;                                                                      \
  }                                                                                \
  HERD_INLINE i32x16 operator op(const i32x16& a, const i32x16& b) {               \
    i32x16 r;                                                                      \
    HERD_FOR_PARTS(i) r.part[i] = (i32_part)(a.part[i] op b.part[i]);              \
    return r;                                                                      \
  }
HERD_COMPARE(<)
HERD_COMPARE(>)
HERD_COMPARE(==)
HERD_COMPARE(!=)
#undef HERD_COMPARE

template <class Part>
HERD_INLINE Vector<Part> shift_left(const Vector<Part>& a, int bits) {
  Vector<Part> r;
  HERD_FOR_PARTS(i) r.part[i] = a.part[i] << bits;
  return r;
}

// Arithmetic for signed lanes, logical for unsigned ones.
template <class Part>
HERD_INLINE Vector<Part> shift_right(const Vector<Part>& a, int bits) {
  Vector<Part> r;
  HERD_FOR_PARTS(i) r.part[i] = a.part[i] >> bits;
  return r;
}

// The same 64 bytes under another lane type.
template <class To, class Part>
HERD_INLINE To bit_cast(const Vector<Part>& a) {
  To r;
  static_assert(sizeof(r) == sizeof(a));
  HERD_FOR_PARTS(i) r.part[i] = (decltype(r.part[0] + r.part[0]))a.part[i];
  return r;
}

HERD_INLINE f32x16 splat(float x) {
  f32x16 r;
  HERD_FOR_PARTS(i) r.part[i] = x - (f32_part){};
  return r;
}
HERD_INLINE i32x16 splat(int32_t x) {
  i32x16 r;
  HERD_FOR_PARTS(i) r.part[i] = x - (i32_part){};
  return r;
}
HERD_INLINE u8x64 splat(uint8_t x) {
  u8x64 r;
  HERD_FOR_PARTS(i) r.part[i] = x - (u8_part){};
  return r;
}

// v is computed here, in a register, and the compiler may assume nothing of it afterwards: it neither moves work on v out of
// a loop nor reads v from memory again.
template <class Part>
HERD_INLINE void settle(Vector<Part>& v) {
#if defined(__x86_64__)
  HERD_FOR_PARTS(i) asm("" : "+v"(v.part[i]));
#elif defined(__aarch64__)
  HERD_FOR_PARTS(i) asm("" : "+w"(v.part[i]));
#else
  HERD_FOR_PARTS(i) asm("" : "+m"(v.part[i]));
#endif
}

// Loads and stores accept any alignment.
template <class V>
HERD_INLINE V load_bytes(const void* from) {
  V r;
  HERD_FOR_PARTS(i) std::memcpy(&r.part[i], static_cast<const char*>(from) + i * HERD_VECTOR_BYTES, HERD_VECTOR_BYTES);
  return r;
}
template <class V>
HERD_INLINE void store_bytes(void* to, const V& v) {
  HERD_FOR_PARTS(i) std::memcpy(static_cast<char*>(to) + i * HERD_VECTOR_BYTES, &v.part[i], HERD_VECTOR_BYTES);
}
HERD_INLINE f32x16 load(const float* from) { return load_bytes<f32x16>(from); }
HERD_INLINE i32x16 load(const int32_t* from) { return load_bytes<i32x16>(from); }
HERD_INLINE void store(float* to, const f32x16& v) { store_bytes(to, v); }
HERD_INLINE void store(int32_t* to, const i32x16& v) { store_bytes(to, v); }

// The first n lanes (0..16) of memory; the others are 0 and are not touched.
HERD_INLINE f32x16 load_first(const float* from, int n) {
  float lanes[kLanes] = {};
  std::memcpy(lanes, from, sizeof(float) * static_cast<size_t>(n));
  return load(lanes);
}
HERD_INLINE void store_first(float* to, const f32x16& v, int n) {
  float lanes[kLanes];
  store(lanes, v);
  std::memcpy(to, lanes, sizeof(float) * static_cast<size_t>(n));
}

// True in lanes 0..n-1.
HERD_INLINE i32x16 first_lanes(int n) {
  alignas(64) static constexpr int32_t kIndex[kLanes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return load(kIndex) < splat(static_cast<int32_t>(n));
}

// Per lane: mask ? a : b.
HERD_INLINE f32x16 select(const i32x16& mask, const f32x16& a, const f32x16& b) {
  f32x16 r;
  HERD_FOR_PARTS(i) r.part[i] = mask.part[i] ? a.part[i] : b.part[i];
  return r;
}

// Whether any lane is true.
HERD_INLINE bool any(const i32x16& mask) {
  uint64_t words[8], all = 0;
  store_bytes(words, mask);
  for (const uint64_t word : words) all |= word;
  return all != 0;
}

HERD_INLINE i32x16 max(const i32x16& a, const i32x16& b) {
  i32x16 r;
  HERD_FOR_PARTS(i) r.part[i] = a.part[i] > b.part[i] ? a.part[i] : b.part[i];
  return r;
}

HERD_INLINE f32x16 to_f32(const i32x16& a) {
  f32x16 r;
  HERD_FOR_PARTS(i) r.part[i] = __builtin_convertvector(a.part[i], f32_part);
  return r;
}

}  // namespace herd::HERD_ISA_NS

// Each supplies, for its registers:
//   f32x16 fma(a, b, c)                a * b + c; rounded once where the machine can, twice on `portable`
//   f32x16 max(a, b), min(a, b)        a > b ? a : b, hence b where either is NaN; likewise a < b ? a : b
//   i32x16 to_i32(f32x16)              nearest, ties to even; |x| < 2^22
//   f32x16 load_f16(const uint16_t*)   16 IEEE halves; store_f16(uint16_t*, f32x16) rounds to nearest, ties to even
//   i32x16 load_u8(const uint8_t*), load_s8(const int8_t*)   16 bytes widened
//   store_s8(int8_t*, i32x16)          16 lanes of -128..127 narrowed
//   DotSums dot4(sums, u8x64 w, s8x64 x)       sums + the four products of each lane's bytes, exact for w <= 127
//   DotSums dot4_signed(sums, s8x64 w, s8x64 x)  the same for w biased by kSignedBias (see there), x in -127..127
//   DotSums begin_sums(i32x16 dots), i32x16 end_sums(dots, sums)   around at most groups_that_fit(largest) of them, where
//                                           |w| <= largest; begin_sums may begin at 0, end_sums adds what dots were
//   s8x64  lookup16(table, u8x64 codes)     table[code] for codes 0..15
//   kHasByteProducts                        whether dot4 is a few instructions
#if defined(__AVX512F__)
#include "simd/avx512.h"
#elif defined(__AVX2__)
#include "simd/avx2.h"
#elif defined(__ARM_NEON) && defined(__ARM_FEATURE_DOTPROD)
#include "simd/neon.h"
#else
#include "simd/portable.h"
#endif

#include "simd/math.h"
