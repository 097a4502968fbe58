// Included by simd.h: operations for AArch64 with the dot-product extension (Armv8.2-A DotProd).
#pragma once

#include <arm_neon.h>

#include "simd/chosen_extremes.h"
#include "simd/wide_sums.h"

namespace herd::HERD_ISA_NS {

constexpr bool kHasByteProducts = true;

HERD_INLINE f32x16 fma(const f32x16& a, const f32x16& b, const f32x16& c) {
  f32x16 r;
  HERD_FOR_PARTS(i)
  r.part[i] = (f32_part)vfmaq_f32((float32x4_t)c.part[i], (float32x4_t)a.part[i], (float32x4_t)b.part[i]);
  return r;
}

HERD_INLINE i32x16 to_i32(const f32x16& a) {
  i32x16 r;
  HERD_FOR_PARTS(i) r.part[i] = (i32_part)vcvtnq_s32_f32((float32x4_t)a.part[i]);
  return r;
}

HERD_INLINE f32x16 load_f16(const uint16_t* from) {
  f32x16 r;
  HERD_FOR_PARTS(i) r.part[i] = (f32_part)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from + 4 * i)));
  return r;
}

HERD_INLINE void store_f16(uint16_t* to, const f32x16& v) {
  HERD_FOR_PARTS(i) vst1_u16(to + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)v.part[i])));
}

HERD_INLINE i32x16 load_u8(const uint8_t* from) {
  const uint8x16_t bytes = vld1q_u8(from);
  const uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_u8(vget_high_u8(bytes));
  return {{(i32_part)vmovl_u16(vget_low_u16(low)), (i32_part)vmovl_u16(vget_high_u16(low)),
           (i32_part)vmovl_u16(vget_low_u16(high)), (i32_part)vmovl_u16(vget_high_u16(high))}};
}

HERD_INLINE i32x16 load_s8(const int8_t* from) {
  const int8x16_t bytes = vld1q_s8(from);
  const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_s8(vget_high_s8(bytes));
  return {{(i32_part)vmovl_s16(vget_low_s16(low)), (i32_part)vmovl_s16(vget_high_s16(low)),
           (i32_part)vmovl_s16(vget_low_s16(high)), (i32_part)vmovl_s16(vget_high_s16(high))}};
}

HERD_INLINE void store_s8(int8_t* to, const i32x16& v) {
  const int16x8_t low = vcombine_s16(vmovn_s32((int32x4_t)v.part[0]), vmovn_s32((int32x4_t)v.part[1]));
  const int16x8_t high = vcombine_s16(vmovn_s32((int32x4_t)v.part[2]), vmovn_s32((int32x4_t)v.part[3]));
  vst1q_s8(to, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
}

// SDOT multiplies signed by signed bytes; codes up to 127 are the same in both readings.
constexpr int kSignedBias = 0;

HERD_INLINE DotSums dot4_signed(const DotSums& acc, const s8x64& w, const s8x64& x) {
  i32x16 r;
  HERD_FOR_PARTS(i)
  r.part[i] = (i32_part)vdotq_s32((int32x4_t)acc.part[i], (int8x16_t)w.part[i], (int8x16_t)x.part[i]);
  return r;
}

HERD_INLINE DotSums dot4(const DotSums& acc, const u8x64& w, const s8x64& x) {
  return dot4_signed(acc, bit_cast<s8x64>(w), x);
}

HERD_INLINE s8x64 lookup16(const int8_t* table, const u8x64& codes) {
  const int8x16_t lut = vld1q_s8(table);
  s8x64 r;
  HERD_FOR_PARTS(i) r.part[i] = (s8_part)vqtbl1q_s8(lut, (uint8x16_t)codes.part[i]);
  return r;
}

}  // namespace herd::HERD_ISA_NS
