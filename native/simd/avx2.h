// Included by simd.h: operations for AVX2 with FMA and F16C (Haswell, Zen and later).
#pragma once

#include <immintrin.h>

namespace herd::HERD_ISA_NS {

constexpr bool kHasByteProducts = true;

HERD_INLINE f32x16 fma(const f32x16& a, const f32x16& b, const f32x16& c) {
  f32x16 r;
  HERD_FOR_PARTS(i) r.part[i] = (f32_part)_mm256_fmadd_ps((__m256)a.part[i], (__m256)b.part[i], (__m256)c.part[i]);
  return r;
}

// The compiler makes two instructions of the comparison where it knows one side.
HERD_INLINE f32x16 max(const f32x16& a, const f32x16& b) {
  f32x16 r;
  HERD_FOR_PARTS(i) r.part[i] = (f32_part)_mm256_max_ps((__m256)a.part[i], (__m256)b.part[i]);
  return r;
}
HERD_INLINE f32x16 min(const f32x16& a, const f32x16& b) {
  f32x16 r;
  HERD_FOR_PARTS(i) r.part[i] = (f32_part)_mm256_min_ps((__m256)a.part[i], (__m256)b.part[i]);
  return r;
}

HERD_INLINE i32x16 to_i32(const f32x16& a) {
  i32x16 r;
  HERD_FOR_PARTS(i) r.part[i] = (i32_part)_mm256_cvtps_epi32((__m256)a.part[i]);
  return r;
}

HERD_INLINE f32x16 load_f16(const uint16_t* from) {
  f32x16 r;
  HERD_FOR_PARTS(i)
  r.part[i] = (f32_part)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 8 * i)));
  return r;
}

HERD_INLINE void store_f16(uint16_t* to, const f32x16& v) {
  HERD_FOR_PARTS(i)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 8 * i),
                   _mm256_cvtps_ph((__m256)v.part[i], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

HERD_INLINE i32x16 load_u8(const uint8_t* from) {
  i32x16 r;
  HERD_FOR_PARTS(i)
  r.part[i] = (i32_part)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from + 8 * i)));
  return r;
}

HERD_INLINE i32x16 load_s8(const int8_t* from) {
  i32x16 r;
  HERD_FOR_PARTS(i)
  r.part[i] = (i32_part)_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from + 8 * i)));
  return r;
}

HERD_INLINE void store_s8(int8_t* to, const i32x16& v) {
  // Packing goes by halves of a register; the last step puts the four quarters in order.
  const __m256i halves = _mm256_packs_epi32((__m256i)v.part[0], (__m256i)v.part[1]);
  const __m256i bytes = _mm256_packs_epi16(halves, halves);
  const __m256i ordered = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 0, 4, 1, 5));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(ordered));
}

// The sign of a weight moves to the activation, so signed weights need no bias.
constexpr int kSignedBias = 0;

// vpmaddubsw leaves sums of two products in 16 bits. The smaller the weights, the more of those sums fit there before they
// are widened, which takes a multiplication as well: with 4-bit codes, one for eight. Sums settle where they are made: GCC 12
// would reorder integer additions to make all products first, and keep them in memory.
typedef int16_t s16_part __attribute__((vector_size(HERD_VECTOR_BYTES)));
using DotSums = Vector<s16_part>;

constexpr int groups_that_fit(int largest) { return 32767 / (2 * 127 * largest); }
static_assert(groups_that_fit(128) == 1, "any byte's two products must fit, else vpmaddubsw saturates");

HERD_INLINE DotSums begin_sums(const i32x16& /*dots*/) { return {}; }

HERD_INLINE i32x16 end_sums(const i32x16& dots, const DotSums& sums) {
  i32x16 r;
  HERD_FOR_PARTS(i) r.part[i] = dots.part[i] + (i32_part)_mm256_madd_epi16((__m256i)sums.part[i], _mm256_set1_epi16(1));
  return r;
}

HERD_INLINE DotSums dot4(const DotSums& acc, const u8x64& w, const s8x64& x) {
  DotSums r;
  HERD_FOR_PARTS(i) r.part[i] = acc.part[i] + (s16_part)_mm256_maddubs_epi16((__m256i)w.part[i], (__m256i)x.part[i]);
  settle(r);
  return r;
}

// |w| <= 128 as an unsigned byte; its sign moves to x.
HERD_INLINE DotSums dot4_signed(const DotSums& acc, const s8x64& w, const s8x64& x) {
  DotSums r;
  HERD_FOR_PARTS(i) {
    const __m256i magnitude = _mm256_abs_epi8((__m256i)w.part[i]);
    const __m256i signed_x = _mm256_sign_epi8((__m256i)x.part[i], (__m256i)w.part[i]);
    r.part[i] = acc.part[i] + (s16_part)_mm256_maddubs_epi16(magnitude, signed_x);
  }
  settle(r);
  return r;
}

HERD_INLINE s8x64 lookup16(const int8_t* table, const u8x64& codes) {
  const __m256i lut = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
  s8x64 r;
  HERD_FOR_PARTS(i) r.part[i] = (s8_part)_mm256_shuffle_epi8(lut, (__m256i)codes.part[i]);
  return r;
}

}  // namespace herd::HERD_ISA_NS
