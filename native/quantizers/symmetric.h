// The search for w = d * q, q in lo..hi: the scale d that leaves least weighted squared error in each lane.
//
// The error over d has many local minima, one for about every value that changes its code. A grid of scales that send
// the largest value near the end of the range finds the right valley; from there codes and scale are fitted in turn
// (Lloyd 1957): given codes the best scale is a quotient of sums, given a scale the best codes are the nearest.
#pragma once

#include "quantizers/lanes.h"

namespace herd::HERD_ISA_NS {

constexpr int kAtOnce = 4;  // candidates in one pass over the values: enough sums to hide the latency of an addition

// Codes lo..hi.
struct SymmetricRange {
  float lo, hi;
  bool mirrored;  // whether the two ends differ, so that both are tried
};

// The candidates. Where the weights differ, a large value of little weight may be clipped far, so more are worth trying.
struct Grid {
  const float* ratios;  // where the value of largest magnitude is put, in codes: times lo, and times hi
  int num_ratios;       // a multiple of kAtOnce
  const float* margins;  // how far a line's ends lie outside (negative: inside) the extremes, in codes; all pairs
  int num_margins;       // its square is a multiple of kAtOnce
};

// On normal and heavier-tailed blocks the few leave 0 to 1 % more error than 48 candidates at each end.
constexpr float kFewRatios[] = {0.800f, 0.853f, 0.909f, 0.969f, 1.032f, 1.100f, 1.173f, 1.250f};
constexpr float kFewMargins[] = {-0.8f, -0.4f, 0.0f, 0.4f};
constexpr float kManyRatios[] = {
    0.700f, 0.736f, 0.773f, 0.813f, 0.854f, 0.898f, 0.944f, 0.992f, 1.043f, 1.096f, 1.152f, 1.210f,
    1.272f, 1.337f, 1.405f, 1.477f, 1.553f, 1.632f, 1.715f, 1.803f, 1.895f, 1.991f, 2.093f, 2.200f};
constexpr float kManyMargins[] = {-2.5f, -1.7f, -1.1f, -0.6f, -0.2f, 0.2f};
constexpr Grid kFew{kFewRatios, 8, kFewMargins, 4};
constexpr Grid kMany{kManyRatios, 24, kManyMargins, 6};

// The value of largest magnitude, with its sign; the first of equals.
template <int kLen>
f32x16 signed_peak(const Lanes<kLen>& b) {
  f32x16 peak = b.x[0], largest = magnitude(b.x[0]);
  for (int i = 1; i < kLen; ++i) {
    const f32x16 size = magnitude(b.x[i]);
    const i32x16 more = size > largest;
    peak = select(more, b.x[i], peak);
    largest = select(more, size, largest);
  }
  return peak;
}

// Weighted squared errors of kCount scales at once.
template <int kCount, int kLen>
void symmetric_errors(const Lanes<kLen>& b, const f32x16* d, float lo, float hi, f32x16* error) {
  f32x16 inv[kCount], squared[kCount];
  _Pragma("GCC unroll 4") for (int c = 0; c < kCount; ++c) inv[c] = inverse(d[c]), squared[c] = splat(0.0f);
  for (int i = 0; i < kLen; ++i)
    _Pragma("GCC unroll 4") for (int c = 0; c < kCount; ++c) {
      const f32x16 e = b.x[i] - d[c] * nearest_code(b.x[i] * inv[c], lo, hi);
      squared[c] = squared[c] + b.w[i] * e * e;
    }
  _Pragma("GCC unroll 4") for (int c = 0; c < kCount; ++c) error[c] = squared[c];
}

// A scale's weighted squared error, and what the scale that suits its codes best is made of: sums of w x q and w q^2.
struct ScaleSums {
  f32x16 xq, qq, error;

  // `d` where all codes are 0.
  HERD_INLINE f32x16 refitted(const f32x16& d) const { return select(qq > splat(0.0f), quotient(xq, qq), d); }
};

// Inline, so that nobody makes the error who does not read it.
template <int kLen>
HERD_INLINE ScaleSums scale_sums(const Lanes<kLen>& b, const f32x16& d, float lo, float hi) {
  const f32x16 inv = inverse(d);
  ScaleSums s{splat(0.0f), splat(0.0f), splat(0.0f)};
  for (int i = 0; i < kLen; ++i) {
    const f32x16 q = nearest_code(b.x[i] * inv, lo, hi), wq = b.w[i] * q, e = b.x[i] - d * q;
    s.xq = s.xq + wq * b.x[i];
    s.qq = s.qq + wq * q;
    s.error = s.error + b.w[i] * e * e;
  }
  return s;
}

template <int kLen, class Round>
f32x16 search_scale(const Lanes<kLen>& b, const SymmetricRange& range, const Grid& grid, int refits, Round round) {
  const f32x16 peak = signed_peak(b);
  f32x16 best = round(peak / splat(range.lo)), least;
  symmetric_errors<1>(b, &best, range.lo, range.hi, &least);
  for (int end = 0; end < (range.mirrored ? 2 : 1); ++end)
    for (int k = 0; k < grid.num_ratios; k += kAtOnce) {
      f32x16 d[kAtOnce], error[kAtOnce];
      for (int c = 0; c < kAtOnce; ++c)
        d[c] = round(peak / splat((end == 0 ? range.lo : range.hi) * grid.ratios[k + c]));
      symmetric_errors<kAtOnce>(b, d, range.lo, range.hi, error);
      for (int c = 0; c < kAtOnce; ++c) {
        const i32x16 better = error[c] < least;
        best = select(better, d[c], best);
        least = select(better, error[c], least);
      }
    }
  ScaleSums sums = scale_sums(b, best, range.lo, range.hi);
  for (int i = 0; i < refits; ++i) {
    const f32x16 d = round(sums.refitted(best));
    const ScaleSums of_d = scale_sums(b, d, range.lo, range.hi);
    const i32x16 better = of_d.error < least;
    if (!any(better)) break;  // the next would be the same again
    best = select(better, d, best);
    least = select(better, of_d.error, least);
    sums = {select(better, of_d.xq, sums.xq), select(better, of_d.qq, sums.qq), least};
  }
  return best;
}

}  // namespace herd::HERD_ISA_NS
