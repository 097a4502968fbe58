// Included by simd.h: operations for AVX-512 F, BW, VL and VNNI (Ice Lake, Zen 4 and later).
#pragma once

#include <immintrin.h>

#include "simd/wide_sums.h"

namespace herd::HERD_ISA_NS {

constexpr bool kHasByteProducts = true;

HERD_INLINE f32x16 fma(const f32x16& a, const f32x16& b, const f32x16& c) {
  return {{(f32_part)_mm512_fmadd_ps((__m512)a.part[0], (__m512)b.part[0], (__m512)c.part[0])}};
}

// The compiler makes two instructions of the comparison where it knows one side.
HERD_INLINE f32x16 max(const f32x16& a, const f32x16& b) {
  return {{(f32_part)_mm512_max_ps((__m512)a.part[0], (__m512)b.part[0])}};
}
HERD_INLINE f32x16 min(const f32x16& a, const f32x16& b) {
  return {{(f32_part)_mm512_min_ps((__m512)a.part[0], (__m512)b.part[0])}};
}

HERD_INLINE i32x16 to_i32(const f32x16& a) { return {{(i32_part)_mm512_cvtps_epi32((__m512)a.part[0])}}; }

HERD_INLINE f32x16 load_f16(const uint16_t* from) {
  return {{(f32_part)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)))}};
}

HERD_INLINE void store_f16(uint16_t* to, const f32x16& v) {
  const __m256i halves = _mm512_cvtps_ph((__m512)v.part[0], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), halves);
}

HERD_INLINE i32x16 load_u8(const uint8_t* from) {
  return {{(i32_part)_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)))}};
}

HERD_INLINE i32x16 load_s8(const int8_t* from) {
  return {{(i32_part)_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)))}};
}

HERD_INLINE void store_s8(int8_t* to, const i32x16& v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8((__m512i)v.part[0]));
}

// VNNI multiplies unsigned by signed bytes only, so signed weights are stored in registers as w + 128.
constexpr int kSignedBias = 128;

HERD_INLINE DotSums dot4(const DotSums& acc, const u8x64& w, const s8x64& x) {
  return {{(i32_part)_mm512_dpbusd_epi32((__m512i)acc.part[0], (__m512i)w.part[0], (__m512i)x.part[0])}};
}

HERD_INLINE DotSums dot4_signed(const DotSums& acc, const s8x64& w, const s8x64& x) {
  return dot4(acc, bit_cast<u8x64>(w), x);
}

HERD_INLINE s8x64 lookup16(const int8_t* table, const u8x64& codes) {
  const __m512i lut = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
  return {{(s8_part)_mm512_shuffle_epi8(lut, (__m512i)codes.part[0])}};
}

}  // namespace herd::HERD_ISA_NS
