// The scales of k-quants: each lane is a sub-block, whose scale (and minimum) is a small integer times one of the super-block's.
//
// The sub-blocks' own best scales are rounded to integers; then, in turn, each sub-block tries the integers beside its own
// and the super-block's scales are fitted to the codes that result, as long as the error falls.
#pragma once

#include "float16.h"
#include "quantizers/affine.h"

namespace herd::HERD_ISA_NS {

constexpr int kRounds = 2;

struct ScaleRange {
  float lo, hi;  // of the integers; the largest scale of a super-block becomes `lo` if that is negative, else `hi`
};

// kSubs neighbouring lanes are one super-block.
template <int kSubs>
struct SuperLanes {
  float lane[kLanes];

  explicit SuperLanes(const f32x16& v) { store(lane, v); }
  f32x16 vector() const { return load(lane); }

  // Replaces each super-block's lanes by f(first lane, its number).
  template <class F>
  void each(F f) {
    for (int s = 0; s < kLanes / kSubs; ++s) {
      const float value = f(lane + s * kSubs, s);
      for (int i = 0; i < kSubs; ++i) lane[s * kSubs + i] = value;
    }
  }
};

// Infinite beyond float32, where a cast would be undefined.
static inline float narrowed(double x) {
  constexpr double kMost = 3.4028234663852886e38;
  if (x > kMost) return __builtin_inff();
  return x < -kMost ? -__builtin_inff() : static_cast<float>(x);
}

static inline float nearest_f16(double x) { return f16_to_f32(f32_to_f16(narrowed(x))); }

static inline double sum_of(const float* lane, int n) {
  double total = 0;
  for (int i = 0; i < n; ++i) total += static_cast<double>(lane[i]);
  return total;
}

// In every lane the sum over its super-block, rounded to float32.
template <int kSubs>
f32x16 super_sum(const f32x16& v) {
  SuperLanes<kSubs> lanes(v);
  lanes.each([](const float* lane, int) { return narrowed(sum_of(lane, kSubs)); });
  return lanes.vector();
}

// A super-block's scale from its sub-blocks': the one of largest magnitude becomes the end of the integers' range.
template <int kSubs>
f32x16 first_super_scale(const f32x16& d, const ScaleRange& range) {
  SuperLanes<kSubs> lanes(d);
  const float end = range.lo < 0 ? range.lo : range.hi;
  lanes.each([end](const float* lane, int) {
    float peak = lane[0];
    for (int i = 1; i < kSubs; ++i)
      if (__builtin_fabsf(lane[i]) > __builtin_fabsf(peak)) peak = lane[i];
    return nearest_f16(static_cast<double>(peak / end));
  });
  return lanes.vector();
}

struct SymmetricScales {
  f32x16 super, sub;  // d = super * sub
};

template <int kSubs, int kLen>
SymmetricScales search_symmetric_scales(const Lanes<kLen>& b, const SymmetricRange& codes, const ScaleRange& range,
                                        const Grid& grid) {
  const f32x16 d = search_scale(b, codes, grid, 2, KeepF32());
  const auto error_of = [&](const SymmetricScales& s) {
    const f32x16 product = s.super * s.sub;
    f32x16 error;
    symmetric_errors<1>(b, &product, codes.lo, codes.hi, &error);
    return error;
  };
  SymmetricScales best;
  best.super = first_super_scale<kSubs>(d, range);
  best.sub = nearest_code(quotient(d, best.super), range.lo, range.hi);
  f32x16 least = error_of(best);
  for (int round = 0; round < kRounds; ++round) {
    for (const float step : {-1.0f, 1.0f}) {
      const SymmetricScales near{best.super, min(max(best.sub + splat(step), splat(range.lo)), splat(range.hi))};
      const f32x16 error = error_of(near);
      const i32x16 better = error < least;
      best.sub = select(better, near.sub, best.sub);
      least = select(better, error, least);
    }
    const f32x16 inv = inverse(best.super * best.sub);
    f32x16 xq = splat(0.0f), qq = splat(0.0f);
    for (int i = 0; i < kLen; ++i) {
      const f32x16 q = best.sub * nearest_code(b.x[i] * inv, codes.lo, codes.hi), wq = b.w[i] * q;
      xq = xq + wq * b.x[i];
      qq = qq + wq * q;
    }
    const SuperLanes<kSubs> numerator(xq), denominator(qq);
    SuperLanes<kSubs> fitted(best.super);
    fitted.each([&](const float* lane, int s) {
      const double below = sum_of(denominator.lane + s * kSubs, kSubs);
      return below > 0 ? nearest_f16(sum_of(numerator.lane + s * kSubs, kSubs) / below) : lane[0];
    });
    const SymmetricScales candidate{fitted.vector(), best.sub};
    const f32x16 error = error_of(candidate);
    const i32x16 better = super_sum<kSubs>(error) < super_sum<kSubs>(least);
    best.super = select(better, candidate.super, best.super);
    least = select(better, error, least);
  }
  return best;
}

struct AffineScales {
  f32x16 super, sub, super_min, sub_min;  // d = super * sub, m = -(super_min * sub_min)

  HERD_INLINE Line line() const { return {super * sub, splat(0.0f) - super_min * sub_min}; }
};

// The super-block's two scales that suit the codes best: a system of two equations, over all its values.
template <int kSubs, int kLen>
AffineScales refit_affine(const Lanes<kLen>& b, const AffineScales& s, float top) {
  const Line line = s.line();
  const f32x16 inv = inverse(line.d);
  f32x16 qq = splat(0.0f), q1 = splat(0.0f), w1 = splat(0.0f), xq = splat(0.0f), x1 = splat(0.0f);
  for (int i = 0; i < kLen; ++i) {
    const f32x16 q = nearest_code((b.x[i] - line.m) * inv, 0.0f, top), wq = b.w[i] * q;
    qq = qq + wq * q;
    q1 = q1 + wq;
    w1 = w1 + b.w[i];
    xq = xq + wq * b.x[i];
    x1 = x1 + b.w[i] * b.x[i];
  }
  const SuperLanes<kSubs> a(qq * s.sub * s.sub), c(q1 * s.sub * s.sub_min), e(w1 * s.sub_min * s.sub_min),
      p(xq * s.sub), r(x1 * s.sub_min);
  SuperLanes<kSubs> scale(s.super), minimum(s.super_min);
  const auto solve = [&](int super, double* d, double* m) {
    const int at = super * kSubs;
    const double A = sum_of(a.lane + at, kSubs), C = sum_of(c.lane + at, kSubs), E = sum_of(e.lane + at, kSubs);
    const double P = sum_of(p.lane + at, kSubs), R = sum_of(r.lane + at, kSubs);
    const double det = A * E - C * C;
    if (det > 0) {
      *d = (P * E - C * R) / det;
      *m = (C * P - A * R) / det;
    } else if (A > 0) {
      *d = P / A;
    }
  };
  scale.each([&](const float* lane, int super) {
    double d = static_cast<double>(lane[0]), m = 0;
    solve(super, &d, &m);
    return nearest_f16(d > 0 ? d : 0);
  });
  minimum.each([&](const float* lane, int super) {
    double d = 0, m = static_cast<double>(lane[0]);
    solve(super, &d, &m);
    return nearest_f16(m > 0 ? m : 0);
  });
  return {scale.vector(), s.sub, minimum.vector(), s.sub_min};
}

template <int kSubs, int kLen>
AffineScales search_affine_scales(const Lanes<kLen>& b, float top, const ScaleRange& range, const Grid& grid) {
  const Line own = search_line(b, AffineRange{top, false}, grid, 2, KeepF32());
  const f32x16 minimum = splat(0.0f) - own.m;
  AffineScales best;
  best.super = first_super_scale<kSubs>(own.d, range);
  best.super_min = first_super_scale<kSubs>(minimum, range);
  best.sub = nearest_code(quotient(own.d, best.super), range.lo, range.hi);
  best.sub_min = nearest_code(quotient(minimum, best.super_min), range.lo, range.hi);
  f32x16 least = affine_error(b, best.line(), top);
  const auto held = [&](const f32x16& v) { return min(max(v, splat(range.lo)), splat(range.hi)); };
  for (int round = 0; round < kRounds; ++round) {
    const AffineScales middle = best;
    for (const float step : {-1.0f, 0.0f, 1.0f})
      for (const float min_step : {-1.0f, 0.0f, 1.0f}) {
        const AffineScales near{middle.super, held(middle.sub + splat(step)), middle.super_min,
                                held(middle.sub_min + splat(min_step))};
        const f32x16 error = affine_error(b, near.line(), top);
        const i32x16 better = error < least;
        best.sub = select(better, near.sub, best.sub);
        best.sub_min = select(better, near.sub_min, best.sub_min);
        least = select(better, error, least);
      }
    const AffineScales candidate = refit_affine<kSubs>(b, best, top);
    const f32x16 error = affine_error(b, candidate.line(), top);
    const i32x16 better = super_sum<kSubs>(error) < super_sum<kSubs>(least);
    best.super = select(better, candidate.super, best.super);
    best.super_min = select(better, candidate.super_min, best.super_min);
    least = select(better, error, least);
  }
  return best;
}

}  // namespace herd::HERD_ISA_NS
