// Functions of f32x16 that are written once for every instruction set.
#pragma once

namespace herd::HERD_ISA_NS {

// bfloat16 is the upper half of a float32.
HERD_INLINE f32x16 load_bf16(const uint16_t* from) {
  int32_t lanes[kLanes];
  _Pragma("GCC unroll 16") for (int i = 0; i < kLanes; ++i) lanes[i] = static_cast<int32_t>(uint32_t{from[i]} << 16);
  return bit_cast<f32x16>(load(lanes));
}

// Reductions in one fixed tree on every instruction set: lane i with i + 8, then + 4, + 2, + 1.
HERD_INLINE float reduce_sum(const f32x16& v) {
  float lanes[kLanes];
  store(lanes, v);
  _Pragma("GCC unroll 4") for (int half = kLanes / 2; half > 0; half /= 2)
    _Pragma("GCC unroll 8") for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}

HERD_INLINE float reduce_max(const f32x16& v) {
  float lanes[kLanes];
  store(lanes, v);
  _Pragma("GCC unroll 4") for (int half = kLanes / 2; half > 0; half /= 2)
    _Pragma("GCC unroll 8") for (int i = 0; i < half; ++i) lanes[i] = lanes[i] > lanes[i + half] ? lanes[i] : lanes[i + half];
  return lanes[0];
}

HERD_INLINE int32_t reduce_sum(const i32x16& v) {
  int32_t lanes[kLanes];
  store(lanes, v);
  int32_t sum = 0;
  _Pragma("GCC unroll 16") for (int i = 0; i < kLanes; ++i) sum += lanes[i];
  return sum;
}

// e^x to 2 units in the last place. exp(0) is exactly 1; below -87.3 (and for -inf) exactly 0, so that masked scores
// vanish; above 88.7 (and for +inf) +inf; NaN stays NaN.
// x = n ln2 + r with |r| <= ln2 / 2 (Cody and Waite 1980); e^r by its Taylor polynomial of degree 7, whose remainder
// is below 2^-27 on that interval.
HERD_INLINE f32x16 exp(const f32x16& x) {
  constexpr float kLowest = -87.3365478515625f;   // ln of the least normal float
  constexpr float kHighest = 88.72283935546875f;  // ln of the greatest float, rounded down
  const f32x16 bounded = min(max(x, splat(kLowest)), splat(kHighest));
  const i32x16 n = to_i32(bounded * splat(1.44269504088896341f));
  const f32x16 nf = to_f32(n);
  f32x16 r = fma(nf, splat(-0.693359375f), bounded);  // ln2's upper 10 bits: the product is exact
  r = fma(nf, splat(2.12194440054690583e-4f), r);
  f32x16 p = splat(1.0f / 5040);
  p = fma(p, r, splat(1.0f / 720));
  p = fma(p, r, splat(1.0f / 120));
  p = fma(p, r, splat(1.0f / 24));
  p = fma(p, r, splat(1.0f / 6));
  p = fma(p, r, splat(0.5f));
  p = fma(p, r, splat(1.0f));
  p = fma(p, r, splat(1.0f));
  // 2^n in two factors, because 2^128 is not a float.
  const i32x16 half = shift_right(n, 1);
  const f32x16 low = bit_cast<f32x16>(shift_left(half + splat(int32_t{127}), 23));
  const f32x16 high = bit_cast<f32x16>(shift_left(n - half + splat(int32_t{127}), 23));
  f32x16 y = p * low * high;
  y = select(x < splat(kLowest), splat(0.0f), y);
  y = select(x > splat(kHighest), splat(__builtin_inff()), y);
  return select(x != x, x, y);
}

}  // namespace herd::HERD_ISA_NS
