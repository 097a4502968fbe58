// One step (32 k) of a tile against blocks of activations, and what every path around it shares.
//
// A value of x is scale * (128 * coarse + fine), so y[n] is the sum over steps of
//   w_scale * 128 scale * (codes . coarse) + w_offset * scale * sum(x codes)    in the coarse accumulator, and of
//   w_scale * scale * (codes . fine)                                            in the fine one,
// added together at the end. Most blocks have no fine codes: in an accumulator of their own they may be left out, or
// done later and for some columns only, and no bit changes. (Where they are computed all the same, a mask makes their scale
// 0: a weight's scale may be infinite, and 0 times that is NaN.)
//
// Where all blocks are fine (kAllFine) the integers are added first, and there is one accumulator, of
//   w_scale * scale * (16 * (codes . coarse) + codes . fine) + w_offset * scale * sum(x codes).
#pragma once

#include "kernels/activation_codes.h"
#include "kernels/step_weights.h"
#include "linear.h"
#include "simd.h"

namespace herd::HERD_ISA_NS {

#define HERD_FOR_COLUMNS(c) _Pragma("GCC unroll 8") for (int c = 0; c < kCols; ++c)

// Weights are asked for at least this far ahead of their use, in whole tiles so that codes and scales are both covered.
// They go to the second-level cache: the first level has too few miss buffers, and loads in flight would wait for them
// (66 MB of Q4_1 on one Zen 4 core: 13 GB/s without, 14 GB/s into the first level, 23 GB/s into the second).
constexpr size_t kPrefetchBytes = 4096;
constexpr int kSecondLevel = 2;

// The weights fetched while a tile is computed: a later tile of the job, or what is read after the job.
HERD_INLINE const uint8_t* fetched_during(const LinearJob& job, int64_t tile) {
  const size_t bytes = job.weight.tile_bytes;
  const int64_t ahead = tile + static_cast<int64_t>(kPrefetchBytes / bytes) + 1;
  if (ahead < job.tile_end || job.next == nullptr) return job.weight.data + static_cast<size_t>(ahead) * bytes;
  return job.next + static_cast<size_t>(ahead - job.tile_end) * bytes;
}

HERD_INLINE s8x64 splat_group(const int8_t* q) {
  int32_t four;
  std::memcpy(&four, q, 4);
  return bit_cast<s8x64>(splat(four));
}

template <BlockType kType>
HERD_INLINE DotSums dot_codes(const DotSums& sums, const u8x64& codes, const s8x64& x) {
  if constexpr (StepWeights<kType>::kSigned)
    return dot4_signed(sums, bit_cast<s8x64>(codes), x);
  else
    return dot4(sums, codes, x);
}

// Groups of a sub-block, and how many of them a DotSums takes at once: all, or a part that divides them.
template <BlockType kType>
constexpr int kRunOf = kGroups / StepWeights<kType>::kSubBlocks;

template <BlockType kType>
constexpr int fitting_groups() {
  int groups = kRunOf<kType>;
  while (groups > groups_that_fit(StepWeights<kType>::kLayout.largest())) groups /= 2;
  return groups;
}

// Dot products begin with what a bias of signed weights adds too much.
template <BlockType kType>
HERD_INLINE i32x16 first_dots(const ActivationBlock& x, int32_t ActivationBlock::*bias) {
  static_assert(kSignedBias == 0 || kSignedBias == 128);
  if constexpr (StepWeights<kType>::kSigned && kSignedBias != 0) return splat(x.*bias);
  return splat(int32_t{0});
}

// 16 rows of y for kCols columns.
template <int kCols>
struct Sums {
  f32x16 coarse[kCols];
  f32x16 fine[kCols];
  HERD_INLINE Sums() {
    HERD_FOR_COLUMNS(c) coarse[c] = fine[c] = splat(0.0f);
  }
  HERD_INLINE f32x16 of(int c) const { return kAllFine ? coarse[c] : coarse[c] + fine[c]; }
};

// The two kinds of codes in a block of activations.
struct Coarse {
  static constexpr auto codes = &ActivationBlock::coarse;
  static constexpr auto bias = &ActivationBlock::coarse_bias;
};
struct Fine {
  static constexpr auto codes = &ActivationBlock::fine;
  static constexpr auto bias = &ActivationBlock::fine_bias;
};

// Sub-block h of the step times the codes of block x[c * x_stride], for kCols columns interleaved.
template <BlockType kType, int kCols, class Kind>
HERD_INLINE void dot_columns(const StepWeights<kType>& w, int h, const ActivationBlock* x, int64_t x_stride, i32x16* dots) {
  constexpr int kRun = kRunOf<kType>, kFit = fitting_groups<kType>();
  HERD_FOR_COLUMNS(c) dots[c] = first_dots<kType>(x[c * x_stride], Kind::bias);
  _Pragma("GCC unroll 8") for (int first = h * kRun; first < (h + 1) * kRun; first += kFit) {
    DotSums sums[kCols];
    HERD_FOR_COLUMNS(c) sums[c] = begin_sums(dots[c]);
    _Pragma("GCC unroll 8") for (int g = first; g < first + kFit; ++g)
      HERD_FOR_COLUMNS(c) sums[c] = dot_codes<kType>(sums[c], w.codes[g], splat_group(x[c * x_stride].*Kind::codes + 4 * g));
    HERD_FOR_COLUMNS(c) dots[c] = end_sums(dots[c], sums[c]);
  }
}

// Both kinds of codes at once: a dot product is a chain of 4 or 5 cycles for each of its terms, and what a core looks ahead
// does not reach from the coarse chains to the fine ones.
template <BlockType kType, int kCols>
HERD_INLINE void dot_columns_twice(const StepWeights<kType>& w, int h, const ActivationBlock* x, int64_t x_stride,
                                   i32x16* coarse, i32x16* fine) {
  constexpr int kRun = kRunOf<kType>, kFit = fitting_groups<kType>();
  HERD_FOR_COLUMNS(c) {
    coarse[c] = first_dots<kType>(x[c * x_stride], Coarse::bias);
    fine[c] = first_dots<kType>(x[c * x_stride], Fine::bias);
  }
  _Pragma("GCC unroll 8") for (int first = h * kRun; first < (h + 1) * kRun; first += kFit) {
    DotSums coarse_sums[kCols], fine_sums[kCols];
    HERD_FOR_COLUMNS(c) coarse_sums[c] = begin_sums(coarse[c]), fine_sums[c] = begin_sums(fine[c]);
    _Pragma("GCC unroll 8") for (int g = first; g < first + kFit; ++g) {
      HERD_FOR_COLUMNS(c) {
        const ActivationBlock& block = x[c * x_stride];
        coarse_sums[c] = dot_codes<kType>(coarse_sums[c], w.codes[g], splat_group(block.coarse + 4 * g));
        fine_sums[c] = dot_codes<kType>(fine_sums[c], w.codes[g], splat_group(block.fine + 4 * g));
      }
    }
    HERD_FOR_COLUMNS(c) coarse[c] = end_sums(coarse[c], coarse_sums[c]), fine[c] = end_sums(fine[c], fine_sums[c]);
  }
}

// y + what the dot products of a sub-block give: the same operations by registers and by a matrix unit.
HERD_INLINE f32x16 scaled(const i32x16& dots, const f32x16& w_scale, float scale, const f32x16& y) {
  return fma(to_f32(dots), w_scale * splat(scale), y);
}

// add_step where all blocks are fine.
template <BlockType kType, int kCols>
HERD_INLINE void add_fine_step(const StepWeights<kType>& w, const ActivationBlock* x, int64_t x_stride, Sums<kCols>& sums) {
  using W = StepWeights<kType>;
  _Pragma("GCC unroll 2") for (int h = 0; h < W::kSubBlocks; ++h) {
    i32x16 coarse[kCols], fine[kCols];
    if constexpr (kCols > 2) {
      dot_columns<kType, kCols, Coarse>(w, h, x, x_stride, coarse);
      dot_columns<kType, kCols, Fine>(w, h, x, x_stride, fine);
    } else {
      dot_columns_twice<kType, kCols>(w, h, x, x_stride, coarse, fine);
    }
    HERD_FOR_COLUMNS(c) {
      const ActivationBlock& block = x[c * x_stride];
      f32x16& y = sums.coarse[c];
      y = scaled(shift_left(coarse[c], kFineBits) + fine[c], w.scale[h], block.scale, y);
      if constexpr (W::kHasOffset)
        y = fma(w.offset[h], splat(W::kSubBlocks == 1 ? block.scaled_sum : block.scaled_half_sum[h]), y);
    }
  }
}

// The step of the tile times block x[c * x_stride] into sums[c].
template <BlockType kType, int kCols>
HERD_INLINE void add_step(const StepWeights<kType>& w, const ActivationBlock* x, int64_t x_stride, Sums<kCols>& sums) {
  if constexpr (kAllFine) return add_fine_step(w, x, x_stride, sums);
  using W = StepWeights<kType>;
  // One or two columns do without asking: a wrong guess of the branch costs more than their 8 products each, all 0. More
  // ask for all together, since it is mostly the same blocks that are fine in all rows.
  constexpr bool kAsks = kCols > 2, kTwice = HERD_VECTOR_BYTES == 64 && !kAsks;
  int32_t any_fine = !kAsks;
  if constexpr (kAsks) HERD_FOR_COLUMNS(c) any_fine |= x[c * x_stride].fine_mask;
  _Pragma("GCC unroll 2") for (int h = 0; h < W::kSubBlocks; ++h) {
    i32x16 dots[kCols], fine[kCols];
    if constexpr (kTwice)
      dot_columns_twice<kType, kCols>(w, h, x, x_stride, dots, fine);
    else
      dot_columns<kType, kCols, Coarse>(w, h, x, x_stride, dots);
    HERD_FOR_COLUMNS(c) {
      const ActivationBlock& block = x[c * x_stride];
      sums.coarse[c] = scaled(dots[c], w.scale[h], block.coarse_scale, sums.coarse[c]);
      if constexpr (W::kHasOffset) {
        const float sum = W::kSubBlocks == 1 ? block.scaled_sum : block.scaled_half_sum[h];
        sums.coarse[c] = fma(w.offset[h], splat(sum), sums.coarse[c]);
      }
    }
    if (!any_fine) continue;
    if constexpr (!kTwice) dot_columns<kType, kCols, Fine>(w, h, x, x_stride, fine);
    HERD_FOR_COLUMNS(c) {
      const ActivationBlock& block = x[c * x_stride];
      const i32x16 scale = bit_cast<i32x16>(w.scale[h] * splat(block.scale)) & splat(block.fine_mask);
      sums.fine[c] = fma(to_f32(fine[c]), bit_cast<f32x16>(scale), sums.fine[c]);
    }
  }
}

// Asks for the lines that store_tile will write: stores that wait for theirs would hold those behind them up.
HERD_INLINE void ask_for_results(const LinearJob& job, int64_t tile, int64_t t, int64_t end) {
  for (; t < end; ++t) __builtin_prefetch(job.y + t * job.y_stride + tile * kTileRows, 1);
}

// The epilogue in its fixed order: + bias, then + residual.
HERD_INLINE void store_tile(const LinearJob& job, int64_t tile, int64_t t, f32x16 y) {
  const int64_t first = tile * kTileRows;
  const int64_t left = job.weight.rows - first;
  const int n = left < kTileRows ? static_cast<int>(left) : static_cast<int>(kTileRows);
  float* to = job.y + t * job.y_stride + first;
  if (n == kTileRows) {
    if (job.bias != nullptr) y = y + load(job.bias + first);
    if (job.accumulate) y = load(to) + y;
    store(to, y);
  } else {
    if (job.bias != nullptr) y = y + load_first(job.bias + first, n);
    if (job.accumulate) y = load_first(to, n) + y;
    store_first(to, y, n);
  }
}

}  // namespace herd::HERD_ISA_NS
