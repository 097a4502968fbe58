// Sixteen blocks side by side, one in each lane of a vector: what every quantiser here computes on.
//
// A lane's sums go over its block's values in order, one rounding for each product and one for each sum (no fused
// operations), so the bytes depend neither on the instruction set nor on the number of threads, and
// openherd/quant/quantize_search.py, the specification, gives the same ones.
// Only for kernel sources (see isa.h). What loops over a block is a function of its own, which costs nothing beside the
// loop: inlined into every caller, the sanitizers' checks would compile for many minutes.
#pragma once

#include "simd.h"

namespace herd::HERD_ISA_NS {

template <int kLen>
struct Lanes {
  f32x16 x[kLen];
  // What a squared error counts: the column's importance or, where none is known, the value's own square and a share of
  // the block's mean square (mean_share). Least squared error of all alike makes a worse model of 4 bits: SmolLM2-135M as
  // Q4_0, mean KL 0.517 against 0.462.
  f32x16 w[kLen];
};

// Nearest, ties to even; |x| < 2^22. Exact integers in float32.
HERD_INLINE f32x16 nearest(const f32x16& x) {
  const f32x16 magic = splat(12582912.0f);
  return (x + magic) - magic;
}

// The nearest of the codes lo..hi; a NaN becomes lo.
HERD_INLINE f32x16 nearest_code(const f32x16& x, float lo, float hi) {
  return nearest(min(max(x, splat(lo)), splat(hi)));
}

// a / b where b is not 0, else 0.
HERD_INLINE f32x16 quotient(const f32x16& a, const f32x16& b) {
  const i32x16 zero = b == splat(0.0f);
  return select(zero, splat(0.0f), a / select(zero, splat(1.0f), b));
}

HERD_INLINE f32x16 inverse(const f32x16& d) { return quotient(splat(1.0f), d); }

HERD_INLINE f32x16 magnitude(const f32x16& x) { return max(x, splat(0.0f) - x); }

// To the precision in which files keep scales.
HERD_INLINE f32x16 round_f16(const f32x16& x) {
  uint16_t halves[kLanes];
  store_f16(halves, x);
  return load_f16(halves);
}

struct KeepF32 {
  HERD_INLINE f32x16 operator()(const f32x16& x) const { return x; }
};
struct RoundF16 {
  HERD_INLINE f32x16 operator()(const f32x16& x) const { return round_f16(x); }
};

}  // namespace herd::HERD_ISA_NS
