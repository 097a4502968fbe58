// Functions of f32x16 that are written once for every instruction set.
#pragma once

#include <utility>

namespace herd::HERD_ISA_NS {

// bfloat16 is the upper half of a float32.
HERD_INLINE f32x16 load_bf16(const uint16_t* from) {
  int32_t lanes[kLanes];
  _Pragma("GCC unroll 16") for (int i = 0; i < kLanes; ++i) lanes[i] = static_cast<int32_t>(uint32_t{from[i]} << 16);
  return bit_cast<f32x16>(load(lanes));
}

template <int kShift, class Part, int... kLane>
HERD_INLINE Part rotate_lanes(const Part& v, std::integer_sequence<int, kLane...>) {
  return __builtin_shufflevector(v, v, ((kLane + kShift) % static_cast<int>(sizeof...(kLane)))...);
}

// Lane i with i + kHalf, then with i + kHalf / 2, and so on to lane 0.
template <int kHalf, class Part, class Combine>
HERD_INLINE auto reduce_part(const Part& v, Combine combine) {
  if constexpr (kHalf == 0)
    return v[0];
  else
    return reduce_part<kHalf / 2>(
        combine(v, rotate_lanes<kHalf>(v, std::make_integer_sequence<int, kLanes / kParts>{})), combine);
}

// All lanes combined in one fixed tree on every instruction set: lane i with i + 8, then + 4, + 2, + 1.
template <class Part, class Combine>
HERD_INLINE auto reduce(Vector<Part> v, Combine combine) {
  _Pragma("GCC unroll 2") for (int half = kParts / 2; half > 0; half /= 2)
    _Pragma("GCC unroll 2") for (int i = 0; i < half; ++i) v.part[i] = combine(v.part[i], v.part[i + half]);
  return reduce_part<kLanes / kParts / 2>(v.part[0], combine);
}

template <class Part>
HERD_INLINE auto reduce_sum(const Vector<Part>& v) {
  return reduce(v, [](const Part& a, const Part& b) __attribute__((always_inline)) { return a + b; });
}

template <class Part>
HERD_INLINE auto reduce_max(const Vector<Part>& v) {
  return reduce(v, [](const Part& a, const Part& b) __attribute__((always_inline)) { return a > b ? a : b; });
}

// The first (kFrom = 0) or last (kFrom = kWidth) lanes of each group of 2 kWidth, a's groups and then b's.
template <int kWidth, int kFrom, class Part, int... kLane>
HERD_INLINE Part halves_of_groups(const Part& a, const Part& b, std::integer_sequence<int, kLane...>) {
  return __builtin_shufflevector(a, b, (kLane / kWidth * 2 * kWidth + kLane % kWidth + kFrom)...);
}

// 2 kWidth parts, each in as many groups of lanes as have been merged so far: at last one, whose lane i comes from all of
// parts[i].
template <int kWidth, class Part, class Combine>
HERD_INLINE Part reduce_parts(const Part* parts, Combine combine) {
  constexpr auto kAll = std::make_integer_sequence<int, kLanes / kParts>{};
  if constexpr (kWidth == 0) {
    return parts[0];
  } else {
    Part merged[kWidth];
    _Pragma("GCC unroll 8") for (int i = 0; i < kWidth; ++i)
      merged[i] = combine(halves_of_groups<kWidth, 0>(parts[2 * i], parts[2 * i + 1], kAll),
                          halves_of_groups<kWidth, kWidth>(parts[2 * i], parts[2 * i + 1], kAll));
    return reduce_parts<kWidth / 2>(merged, combine);
  }
}

// Lane i of the result is reduce(v[i]), for 16 vectors of integers: three operations a vector instead of eight.
template <class Part, class Combine>
HERD_INLINE Vector<Part> reduce_each(const Vector<Part>* v, Combine combine) {
  constexpr int kPartLanes = kLanes / kParts;
  Vector<Part> r;
  HERD_FOR_PARTS(p) {
    Part folded[kPartLanes];
    _Pragma("GCC unroll 16") for (int i = 0; i < kPartLanes; ++i) {
      folded[i] = v[p * kPartLanes + i].part[0];
      _Pragma("GCC unroll 4") for (int j = 1; j < kParts; ++j) folded[i] = combine(folded[i], v[p * kPartLanes + i].part[j]);
    }
    r.part[p] = reduce_parts<kPartLanes / 2>(folded, combine);
  }
  return r;
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

// To 2e-7; NaN stays NaN, +-inf become +-1. With e = e^(-2|x|): (1 - e) / (1 + e).
HERD_INLINE f32x16 tanh(const f32x16& x) {
  const f32x16 zero = splat(0.0f), one = splat(1.0f);
  const i32x16 negative = x < zero;
  const f32x16 e = exp(splat(-2.0f) * select(negative, zero - x, x));
  const f32x16 magnitude = (one - e) / (one + e);
  return select(negative, zero - magnitude, magnitude);
}

// Phi(x), the normal distribution's, to 1e-7. By the approximation 7.1.26 of Abramowitz and Stegun (1964) for
// erfc(z) with z = |x| / sqrt(2), halved; above 0 it is what is missing to 1, so that both tails are exact in proportion.
HERD_INLINE f32x16 normal_cdf(const f32x16& x) {
  const f32x16 zero = splat(0.0f), one = splat(1.0f);
  const i32x16 negative = x < zero;
  const f32x16 z = select(negative, zero - x, x) * splat(0.70710678118654752f);
  const f32x16 t = one / fma(splat(0.3275911f), z, one);
  f32x16 p = splat(0.5f * 1.061405429f);
  p = fma(p, t, splat(0.5f * -1.453152027f));
  p = fma(p, t, splat(0.5f * 1.421413741f));
  p = fma(p, t, splat(0.5f * -0.284496736f));
  p = fma(p, t, splat(0.5f * 0.254829592f));
  const f32x16 tail = p * t * exp(zero - z * z);
  return select(negative, tail, one - tail);
}

// 2^x for x <= 0, to 2 units in the last place; 2^-126 from there down, and for -inf. exp2(0) is exactly 1; NaN stays NaN.
// x = n + r with |r| <= 1/2; 2^r by the Taylor polynomial of e^(r ln2), as in exp.
HERD_INLINE f32x16 exp2_of_negative(const f32x16& x) {
  const f32x16 bounded = max(splat(-126.0f), x);
  const i32x16 n = to_i32(bounded);
  const f32x16 r = bounded - to_f32(n);
  f32x16 p = splat(1.5252733804059841e-5f);  // ln2^k / k! for k = 7..0
  p = fma(p, r, splat(1.5403530393381608e-4f));
  p = fma(p, r, splat(1.3333558146428443e-3f));
  p = fma(p, r, splat(9.6181291076284772e-3f));
  p = fma(p, r, splat(5.5504108664821580e-2f));
  p = fma(p, r, splat(2.4022650695910072e-1f));
  p = fma(p, r, splat(6.9314718055994531e-1f));
  p = fma(p, r, splat(1.0f));
  return p * bit_cast<f32x16>(shift_left(n + splat(int32_t{127}), 23));
}

}  // namespace herd::HERD_ISA_NS
