// float32 activations to int8 blocks (linear.h says what and why).
#include "linear.h"
#include "simd.h"

namespace herd::HERD_ISA_NS {
namespace {

// Below this 127 / absmax would overflow; such a block is 0.
constexpr float kSmallestAbsMax = 0x1p-119f;

HERD_INLINE f32x16 magnitude(const f32x16& x) { return bit_cast<f32x16>(bit_cast<i32x16>(x) & splat(int32_t{0x7fffffff})); }

// Nearest integers of x * inverse, as 16 bytes; returns their sum.
HERD_INLINE int32_t store_codes(const f32x16& x, float inverse, int8_t* q) {
  const i32x16 codes = to_i32(x * splat(inverse));
  int32_t lanes[kLanes];
  store(lanes, codes);
  int32_t sum = 0;
  for (int i = 0; i < kLanes; ++i) {
    q[i] = static_cast<int8_t>(lanes[i]);
    sum += lanes[i];
  }
  return sum;
}

HERD_INLINE void quantize_block(const f32x16& low, const f32x16& high, ActivationBlock& out) {
  const f32x16 zero = splat(0.0f);
  // x - x is NaN exactly for NaN and infinities.
  const f32x16 finite_low = low - low, finite_high = high - high;
  const bool finite = reduce_sum(finite_low + finite_high) == 0.0f;
  const float absmax = reduce_max(max(magnitude(low), magnitude(high)));
  const bool tiny = absmax < kSmallestAbsMax;
  const float inverse = tiny || !finite ? 0.0f : 127.0f / absmax;
  out.scale = !finite ? __builtin_nanf("") : tiny ? 0.0f : absmax / 127.0f;
  out.half_sum[0] = store_codes(finite ? low : zero, inverse, out.q);
  out.half_sum[1] = store_codes(finite ? high : zero, inverse, out.q + kLanes);
  out.sum = out.half_sum[0] + out.half_sum[1];
  for (int h = 0; h < 2; ++h) out.scaled_half_sum[h] = out.scale * static_cast<float>(out.half_sum[h]);
  out.scaled_sum = out.scale * static_cast<float>(out.sum);
  out.unused = 0;
}

HERD_INLINE f32x16 load_at_most(const float* from, int64_t n) {
  return n >= kLanes ? load(from) : load_first(from, n > 0 ? static_cast<int>(n) : 0);
}

}  // namespace

void quantize_row(const float* x, int64_t n, ActivationBlock* out) {
  int64_t k = 0;
  for (; k + kActivationBlock <= n; k += kActivationBlock, ++out) quantize_block(load(x + k), load(x + k + kLanes), *out);
  if (k < n) quantize_block(load_at_most(x + k, n - k), load_at_most(x + k + kLanes, n - k - kLanes), *out);
}

}  // namespace herd::HERD_ISA_NS
