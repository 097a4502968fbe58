// float32 activations to blocks of integers (linear.h says what and why).
#include "linear.h"
#include "simd.h"

namespace herd::HERD_ISA_NS {
namespace {

// A block is fine where its absmax is above this many times the mean absmax of its row's blocks. The noise of 8 bits
// goes with absmax^2, so few blocks make most of it, often the same ones (channels with outliers) row after row.
// SmolLM2-135M Q4_1, WikiText-2, 2,863 tokens, mean KL to float32: above 1.5 0.00066, above 1.25 0.00053, above 1
// 0.00037 (none fine, simulated: 0.0031). From 1.1 downwards the first token of a close call (docs/dev-log.md,
// 2026-11-24) has settled to 0.04 nats whatever the instruction set; above, it turns with every order of summation.
constexpr float kFineAbove = 1.0f;
constexpr float kCoarseSteps = 127.0f;
constexpr float kFineSteps = 127.0f * (1 << kFineBits);
// Below this kFineSteps / absmax would overflow; such a block is 0.
constexpr float kSmallestAbsMax = 0x1p-112f;

// The bits of |x|, which as integers are ordered like the values, with infinity and NaN on top.
HERD_INLINE i32x16 magnitude(const f32x16& x) { return bit_cast<i32x16>(x) & splat(int32_t{0x7fffffff}); }

// The largest magnitude; NaN if any x is NaN or infinite.
HERD_INLINE float absmax_of(const f32x16& low, const f32x16& high) {
  const int32_t bits = reduce_max(max(magnitude(low), magnitude(high)));
  float absmax;
  std::memcpy(&absmax, &bits, sizeof absmax);
  return absmax + (absmax - absmax);
}

// Sums over a half block.
struct HalfSums {
  int32_t coarse;
  int32_t fine;
  int32_t all() const { return (coarse << kFineBits) + fine; }
};

// Splits 16 codes into coarse and fine bytes.
HERD_INLINE HalfSums store_codes(const i32x16& codes, int8_t* coarse, int8_t* fine) {
  const i32x16 upper = shift_right(codes + splat(int32_t{1 << (kFineBits - 1)}), kFineBits);
  const i32x16 lower = codes - shift_left(upper, kFineBits);
  store_s8(coarse, upper);
  store_s8(fine, lower);
  // Both sums at once: those of `fine` fit 16 bits.
  const int32_t both = reduce_sum(shift_left(upper, 16) + lower);
  const auto fine_sum = static_cast<int16_t>(both & 0xffff);
  return {(both - fine_sum) >> 16, fine_sum};
}

HERD_INLINE void quantize_block(const f32x16& low, const f32x16& high, float absmax, float fine_above,
                                ActivationBlock& out) {
  const bool finite = absmax == absmax, tiny = absmax < kSmallestAbsMax, empty = !finite || tiny;
  const bool is_fine = !empty && absmax > fine_above;
  out.fine_mask = is_fine ? -1 : 0;
  out.scale = empty ? absmax * 0.0f : absmax / kFineSteps;  // NaN times 0 is NaN
  const f32x16 inverse = splat(empty ? 0.0f : (is_fine ? kFineSteps : kCoarseSteps) / absmax);
  out.coarse_scale = out.scale * (1 << kFineBits);
  HalfSums sums[2];
  for (int h = 0; h < 2; ++h) {
    const f32x16 codes = finite ? (h == 0 ? low : high) * inverse : splat(0.0f);
    const i32x16 integers = shift_left(to_i32(codes), is_fine ? 0 : kFineBits);
    sums[h] = store_codes(integers, out.coarse + h * kLanes, out.fine + h * kLanes);
  }
  for (int h = 0; h < 2; ++h) out.scaled_half_sum[h] = out.scale * static_cast<float>(sums[h].all());
  out.scaled_sum = out.scale * static_cast<float>(sums[0].all() + sums[1].all());
  out.coarse_bias = -128 * (sums[0].coarse + sums[1].coarse);
  out.fine_bias = -128 * (sums[0].fine + sums[1].fine);
}

HERD_INLINE f32x16 load_at_most(const float* from, int64_t n) {
  return n >= kLanes ? load(from) : load_first(from, n > 0 ? static_cast<int>(n) : 0);
}

// body(low, high, block) for each block of the row.
template <class Body>
HERD_INLINE void for_blocks(const float* x, int64_t n, ActivationBlock* out, Body body) {
  int64_t k = 0;
  for (; k + kActivationBlock <= n; k += kActivationBlock, ++out) body(load(x + k), load(x + k + kLanes), *out);
  if (k < n) body(load_at_most(x + k, n - k), load_at_most(x + k + kLanes, n - k - kLanes), *out);
}

}  // namespace

void quantize_row(const float* x, int64_t n, ActivationBlock* out) {
  float total = 0;
  for_blocks(x, n, out, [&](const f32x16& low, const f32x16& high, ActivationBlock& block) {
    block.scale = absmax_of(low, high);  // until the row's mean is known
    total += block.scale;
  });
  const float fine_above = kFineAbove / static_cast<float>(activation_blocks(n)) * total;
  for_blocks(x, n, out, [&](const f32x16& low, const f32x16& high, ActivationBlock& block) {
    quantize_block(low, high, block.scale, fine_above, block);
  });
}

}  // namespace herd::HERD_ISA_NS
