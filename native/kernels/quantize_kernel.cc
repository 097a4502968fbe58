// float32 activations to blocks of integers (linear.h says what and why).
#include "kernels/activation_codes.h"
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

// Blocks quantised together: what is one value for a block is one lane of a vector, and a reduction over lanes gives 16.
constexpr int kBlocksAtOnce = kLanes;

// The bits of |x|, which as integers are ordered like the values, with infinity and NaN on top.
HERD_INLINE i32x16 magnitude(const f32x16& x) { return bit_cast<i32x16>(x) & splat(int32_t{0x7fffffff}); }

HERD_INLINE f32x16 load_at_most(const float* from, int64_t n) {
  return n >= kLanes ? load(from) : load_first(from, n > 0 ? static_cast<int>(n) : 0);
}

// Up to kBlocksAtOnce blocks of a row; the values after x[n - 1] count as 0.
struct Blocks {
  const float* x;
  int64_t n;
  int count;

  HERD_INLINE f32x16 half(int block, int h) const {
    const int64_t at = block * kActivationBlock + h * kLanes;
    return load_at_most(x + at, n - at);
  }
};

// body(blocks, out) for all blocks of the row, in parts as even as may be.
template <class Body>
HERD_INLINE void for_blocks(const float* x, int64_t n, ActivationBlock* out, Body body) {
  const int64_t blocks = activation_blocks(n), parts = (blocks + kBlocksAtOnce - 1) / kBlocksAtOnce;
  for (int64_t i = 0; i < parts; ++i) {
    const int64_t begin = blocks * i / parts, end = blocks * (i + 1) / parts;
    body(Blocks{x + begin * kActivationBlock, n - begin * kActivationBlock, static_cast<int>(end - begin)}, out + begin);
  }
}

// Lane b is the largest magnitude of block b; NaN if any x of it is NaN or infinite.
HERD_INLINE f32x16 absmax_of(const Blocks& blocks) {
  i32x16 largest[kBlocksAtOnce];
  for (int b = 0; b < blocks.count; ++b) largest[b] = max(magnitude(blocks.half(b, 0)), magnitude(blocks.half(b, 1)));
  for (int b = blocks.count; b < kBlocksAtOnce; ++b) largest[b] = splat(int32_t{0});
  const auto absmax = bit_cast<f32x16>(reduce_each(
      largest, [](const i32_part& a, const i32_part& b) __attribute__((always_inline)) { return a > b ? a : b; }));
  return absmax + (absmax - absmax);
}

// What quantising needs of each block, a lane each.
struct Scales {
  float inverse[kBlocksAtOnce];
  int32_t finite[kBlocksAtOnce];  // a mask
  int32_t is_fine[kBlocksAtOnce];
};

// Splits 16 codes into coarse and fine bytes, and gives the sums of both at once: those of `fine` fit 16 bits.
HERD_INLINE i32x16 store_codes(const i32x16& codes, int8_t* coarse, int8_t* fine) {
  const i32x16 upper = shift_right(codes + splat(int32_t{1 << (kFineBits - 1)}), kFineBits);
  const i32x16 lower = codes - shift_left(upper, kFineBits);
  store_s8(coarse, upper);
  store_s8(fine, lower);
  return shift_left(upper, 16) + lower;
}

// The sums of codes of one half of each block.
struct HalfSums {
  i32x16 coarse, fine;
  HERD_INLINE explicit HalfSums(const i32x16* both) {
    const i32x16 sums =
        reduce_each(both, [](const i32_part& a, const i32_part& b) __attribute__((always_inline)) { return a + b; });
    fine = shift_right(shift_left(sums, 16), 16);
    coarse = shift_right(sums - fine, 16);
  }
  HERD_INLINE i32x16 all() const { return shift_left(coarse, kFineBits) + fine; }
};

HERD_INLINE void quantize_blocks(const Blocks& blocks, const f32x16& absmax, float fine_above, ActivationBlock* out) {
  const i32x16 finite = absmax == absmax, empty = (absmax < splat(kSmallestAbsMax)) | (absmax != absmax);
  const i32x16 is_fine = (absmax > splat(fine_above)) & (empty == splat(int32_t{0}));
  const f32x16 zero = splat(0.0f);
  const f32x16 scale = select(empty, absmax * zero, absmax / splat(kFineSteps));  // NaN times 0 is NaN
  Scales scales;
  store(scales.inverse, select(empty, zero, select(is_fine, splat(kFineSteps), splat(kCoarseSteps)) / absmax));
  store(scales.finite, finite);
  store(scales.is_fine, is_fine);
  i32x16 both[2][kBlocksAtOnce];
  for (int b = 0; b < blocks.count; ++b) {
    _Pragma("GCC unroll 2") for (int h = 0; h < 2; ++h) {
      const f32x16 codes = blocks.half(b, h) * splat(scales.inverse[b]);
      const i32x16 integers = to_i32(bit_cast<f32x16>(bit_cast<i32x16>(codes) & splat(scales.finite[b])));
      const int bits = kAllFine || scales.is_fine[b] != 0 ? 0 : kFineBits;
      both[h][b] = store_codes(shift_left(integers, bits), out[b].coarse + h * kLanes, out[b].fine + h * kLanes);
    }
  }
  for (int b = blocks.count; b < kBlocksAtOnce; ++b) both[0][b] = both[1][b] = splat(int32_t{0});
  const HalfSums first(both[0]), last(both[1]);
  float numbers[5][kBlocksAtOnce];
  int32_t biases[2][kBlocksAtOnce];
  store(numbers[0], scale);
  store(numbers[1], scale * splat(static_cast<float>(1 << kFineBits)));
  store(numbers[2], scale * to_f32(first.all()));
  store(numbers[3], scale * to_f32(last.all()));
  store(numbers[4], scale * to_f32(first.all() + last.all()));
  store(biases[0], splat(int32_t{-128}) * (first.coarse + last.coarse));
  store(biases[1], splat(int32_t{-128}) * (first.fine + last.fine));
  for (int b = 0; b < blocks.count; ++b) {
    ActivationBlock& block = out[b];
    block.scale = numbers[0][b];
    block.coarse_scale = numbers[1][b];
    block.scaled_half_sum[0] = numbers[2][b];
    block.scaled_half_sum[1] = numbers[3][b];
    block.scaled_sum = numbers[4][b];
    block.fine_mask = scales.is_fine[b];
    block.coarse_bias = biases[0][b];
    block.fine_bias = biases[1][b];
  }
}

}  // namespace

void quantize_row(const float* x, int64_t n, ActivationBlock* out) {
  if constexpr (kAllFine) {
    for_blocks(x, n, out, [](const Blocks& blocks, ActivationBlock* to) { quantize_blocks(blocks, absmax_of(blocks), -1.0f, to); });
    return;
  }
  float total = 0;
  for_blocks(x, n, out, [&](const Blocks& blocks, ActivationBlock* to) {
    float absmax[kBlocksAtOnce];
    store(absmax, absmax_of(blocks));
    for (int b = 0; b < blocks.count; ++b) total += to[b].scale = absmax[b];  // until the row's mean is known
  });
  const float fine_above = kFineAbove / static_cast<float>(activation_blocks(n)) * total;
  for_blocks(x, n, out, [&](const Blocks& blocks, ActivationBlock* to) {
    float absmax[kBlocksAtOnce] = {};
    for (int b = 0; b < blocks.count; ++b) absmax[b] = to[b].scale;
    quantize_blocks(blocks, load(absmax), fine_above, to);
  });
}

}  // namespace herd::HERD_ISA_NS
