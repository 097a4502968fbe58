// Many columns where the instruction set has a matrix unit (simd/amx.h): it makes the dot products of 8 or 16 columns with
// 16 rows of weights, and the vector registers scale them.
//
// The unit takes 8 or 16 vectors of codes of weights and as many of activations, and what it made has to go through
// memory, since each 16 or 32 k have a scale of their own. So everything on its way stays in the first-level cache: a slab of one
// tile's weights, 16 columns' activations, copied side by side, and a ring of dot products. Weights are unpacked, multiplied and
// scaled a few steps apart, that the three overlap.
#pragma once

#include "kernels/linear_step.h"
#include "kernels/step_weights.h"
#include "linear.h"
#include "simd.h"
#include "simd/amx.h"

namespace herd::HERD_ISA_NS {

constexpr int kUnitColumns = 16;
// With fewer rows registers are as fast.
constexpr int64_t kUnitWorthwhile = 5;
// Steps of a slab: its weights and 16 columns' activations (14 KB each), the ring of dot products (4 or 8) and a panel's sums
// (4) fit a first-level cache of 48 KB.
constexpr int kUnitSlabSteps = 12;
// Products are asked for so many sub-blocks before they are scaled, weights unpacked so many steps before they are multiplied.
constexpr int kMultipliedAhead = 2, kUnpackedAhead = 1;
constexpr int kRing = 4;  // a power of two above kMultipliedAhead

#define HERD_FOR_UNIT_COLUMNS(c) _Pragma("GCC unroll 16") for (int c = 0; c < kCols; ++c)

// Up to 16 columns' activations at one step, sub-block by sub-block: its coarse codes, then its fine ones.
struct alignas(64) UnitStep {
  int8_t codes[kUnitColumns][2 * kStep];
  float scale[kUnitColumns];
  float scaled_sum[2][kUnitColumns];  // of each sub-block
};

// How a type goes through the unit: where 16 times a code is a byte, coarse and fine codes in one product; else in two.
template <BlockType kType>
struct UnitForm {
  static constexpr bool kSigned = StepWeights<kType>::kSigned;
  static constexpr bool kOneProduct = !kSigned && (StepWeights<kType>::kLayout.largest() << kFineBits) <= 255;
  static constexpr int kRun = kRunOf<kType>;
  static constexpr int kGroupsAtOnce = kOneProduct ? 2 * kRun : kRun;
  static constexpr int kProducts = kOneProduct ? 1 : 2;
  using Unit = MatrixUnit<kGroupsAtOnce>;
};

template <BlockType kType>
struct UnitSlab {
  static constexpr int kSubBlocks = StepWeights<kType>::kSubBlocks;
  u8x64 codes[kUnitSlabSteps][kSubBlocks][UnitForm<kType>::kGroupsAtOnce];  // 16 times the codes first, where in one product
  f32x16 scale[kUnitSlabSteps][kSubBlocks];
  f32x16 offset[kUnitSlabSteps][kSubBlocks];
};

template <BlockType kType>
struct UnitRing {
  i32x16 dots[kRing][UnitForm<kType>::kProducts][kUnitColumns];
};

// A row's activations into column c of its steps.
template <int kSubBlocks>
HERD_INLINE void gather_column(const ActivationBlock* row, int64_t steps, int64_t c, UnitStep* out) {
  constexpr int kRunBytes = kStep / kSubBlocks;
  for (int64_t s = 0; s < steps; ++s) {
    const ActivationBlock& block = row[s];
    _Pragma("GCC unroll 2") for (int h = 0; h < kSubBlocks; ++h) {
      std::memcpy(out[s].codes[c] + 2 * h * kRunBytes, block.coarse + h * kRunBytes, kRunBytes);
      std::memcpy(out[s].codes[c] + (2 * h + 1) * kRunBytes, block.fine + h * kRunBytes, kRunBytes);
      out[s].scaled_sum[h][c] = kSubBlocks == 1 ? block.scaled_sum : block.scaled_half_sum[h];
    }
    out[s].scale[c] = block.scale;
  }
}

// Rows [0, rows) of xq in the order of UnitStep: [columns / 16][steps]. Columns that there are not are 0.
template <int kSubBlocks>
void gather_columns(const ActivationBlock* xq, int64_t rows, int64_t steps, UnitStep* out) {
  for (int64_t first = 0; first < rows; first += kUnitColumns, out += steps) {
    if (rows - first < kUnitColumns) std::memset(static_cast<void*>(out), 0, static_cast<size_t>(steps) * sizeof *out);
    for (int64_t c = 0; c < kUnitColumns && first + c < rows; ++c)
      gather_column<kSubBlocks>(xq + (first + c) * steps, steps, c, out);
  }
}

// The columns of rows [t, end), from the job's scratch where it holds them already.
template <BlockType kType>
const UnitStep* unit_columns(const LinearJob& job, int64_t t, int64_t end) {
  constexpr int kSubBlocks = StepWeights<kType>::kSubBlocks;
  LinearScratch& held = *job.scratch;
  const int64_t steps = job.weight.cols / kStep;
  const ActivationBlock* xq = job.xq + t * steps;
  auto* columns = static_cast<UnitStep*>(held.memory);
  if (held.of != xq || held.rows != end - t || held.cols != job.weight.cols || held.sub_blocks != kSubBlocks) {
    gather_columns<kSubBlocks>(xq, end - t, steps, columns);
    held.of = xq, held.rows = end - t, held.cols = job.weight.cols, held.sub_blocks = kSubBlocks;
  }
  return columns;
}

// One tile's weights as they are read.
template <BlockType kType>
struct TileBytes {
  const uint8_t* data;
  const uint8_t* fetched;  // a later tile's, asked for meanwhile
  size_t scales_offset;
};

// Step `step` of the tile into place s of the slab.
template <BlockType kType>
HERD_INLINE void unpack_for_unit(const TileBytes<kType>& tile, int64_t step, int s, UnitSlab<kType>& slab) {
  using W = StepWeights<kType>;
  using Form = UnitForm<kType>;
  constexpr TileLayout kLayout = W::kLayout;
  const size_t codes = static_cast<size_t>(step) * kLayout.step_bytes();
  const size_t record = tile.scales_offset + static_cast<size_t>(step / kLayout.record_steps()) * kLayout.record_bytes();
  const auto in_record = static_cast<int>(step % kLayout.record_steps());
  _Pragma("GCC unroll 8") for (int line = 0; line < kLayout.step_bytes(); line += 64)
    __builtin_prefetch(tile.fetched + codes + line, 0, kSecondLevel);
  if (in_record == 0)
    for (int line = 0; line < kLayout.record_bytes(); line += 64)
      __builtin_prefetch(tile.fetched + record + line, 0, kSecondLevel);
  W w;
  unpack_codes<kType>(tile.data + codes, w);
  unpack_scales<kType>(tile.data + record, in_record, w);
  _Pragma("GCC unroll 2") for (int h = 0; h < W::kSubBlocks; ++h) {
    for (int g = 0; g < Form::kRun; ++g) {
      u8x64 code = w.codes[h * Form::kRun + g];
      // The unit multiplies signed bytes as they are.
      if constexpr (Form::kSigned && kSignedBias != 0) code = code ^ splat(static_cast<uint8_t>(kSignedBias));
      if constexpr (Form::kOneProduct) {
        slab.codes[s][h][g] = shift_bytes_left(code, kFineBits);
        slab.codes[s][h][Form::kRun + g] = code;
      } else {
        slab.codes[s][h][g] = code;
      }
    }
    slab.scale[s][h] = w.scale[h];
    if constexpr (W::kHasOffset) slab.offset[s][h] = w.offset[h];
  }
}

template <BlockType kType, int kCols>
HERD_INLINE void multiply_by_unit(const UnitSlab<kType>& slab, const UnitStep* x, int sub_block, UnitRing<kType>& ring) {
  using Form = UnitForm<kType>;
  constexpr int kSubBlocks = StepWeights<kType>::kSubBlocks;
  const int s = sub_block / kSubBlocks, h = sub_block % kSubBlocks;
  const int8_t* codes = x[s].codes[0] + h * 8 * Form::kRun;
  Form::Unit::template multiply<kCols, Form::kProducts, Form::kSigned>(codes, sizeof x->codes[0], slab.codes[s][h],
                                                                       ring.dots[sub_block % kRing]);
}

template <BlockType kType, int kCols>
HERD_INLINE void scale_dots(const UnitSlab<kType>& slab, const UnitStep* x, int sub_block, const UnitRing<kType>& ring, f32x16* y) {
  using W = StepWeights<kType>;
  const int s = sub_block / W::kSubBlocks, h = sub_block % W::kSubBlocks;
  const auto& dots = ring.dots[sub_block % kRing];
  const f32x16 w_scale = slab.scale[s][h];
  HERD_FOR_UNIT_COLUMNS(c) {
    i32x16 sum = dots[0][c];
    if constexpr (!UnitForm<kType>::kOneProduct) sum = shift_left(sum, kFineBits) + dots[1][c];
    y[c] = scaled(sum, w_scale, x[s].scale[c], y[c]);
    if constexpr (W::kHasOffset) y[c] = fma(slab.offset[s][h], splat(x[s].scaled_sum[h][c]), y[c]);
  }
}

// Steps [first, first + steps) of the tile for kCols columns whose activations at `first` are x; unpacks them on its way
// for the first columns.
template <BlockType kType, int kCols, bool kUnpacks>
HERD_INLINE void add_slab(const TileBytes<kType>& tile, int64_t first, int steps, const UnitStep* x, UnitSlab<kType>& slab,
                          UnitRing<kType>& ring, f32x16* sums) {
  constexpr int kSubBlocks = StepWeights<kType>::kSubBlocks;
  f32x16 y[kCols];
  HERD_FOR_UNIT_COLUMNS(c) y[c] = first == 0 ? splat(0.0f) : sums[c];
  int unpacked = 0, multiplied = 0;
  const int sub_blocks = steps * kSubBlocks;
  // One step more unpacked and one sub-block more multiplied each time, until there are none.
  const auto unpack_to = [&](int end) {
    for (; unpacked < end && unpacked < steps; ++unpacked) unpack_for_unit<kType>(tile, first + unpacked, unpacked, slab);
  };
  const auto multiply_to = [&](int end) {
    for (; multiplied < end && multiplied < sub_blocks; ++multiplied)
      multiply_by_unit<kType, kCols>(slab, x, multiplied, ring);
  };
  for (int i = 0; i < sub_blocks; ++i) {
    if constexpr (kUnpacks) unpack_to((i + kMultipliedAhead) / kSubBlocks + kUnpackedAhead + 1);
    multiply_to(i + kMultipliedAhead + 1);
    asm volatile("" ::: "memory");
    scale_dots<kType, kCols>(slab, x, i, ring, y);
  }
  HERD_FOR_UNIT_COLUMNS(c) sums[c] = y[c];
}

template <BlockType kType, int kCols>
HERD_INLINE void add_slab_of_columns(const TileBytes<kType>& tile, int64_t first, int steps, const UnitStep* x, bool unpacks,
                                     UnitSlab<kType>& slab, UnitRing<kType>& ring, f32x16* sums) {
  if (unpacks)
    add_slab<kType, kCols, true>(tile, first, steps, x, slab, ring, sums);
  else
    add_slab<kType, kCols, false>(tile, first, steps, x, slab, ring, sums);
}

// Rows [t, end) of x, at most kPanelRows, over all tiles of the job.
template <BlockType kType>
void run_unit_panel(const LinearJob& job, int64_t t, int64_t end) {
  const typename UnitForm<kType>::Unit unit;
  const int64_t steps = job.weight.cols / kStep, slabs = (steps + kUnitSlabSteps - 1) / kUnitSlabSteps;
  const auto columns = static_cast<int>(end - t);
  const UnitStep* x = unit_columns<kType>(job, t, end);
  UnitSlab<kType> slab;
  UnitRing<kType> ring;
  f32x16 sums[kPanelRows];
  for (int64_t tile = job.tile_begin; tile < job.tile_end; ++tile) {
    const TileBytes<kType> bytes{job.weight.data + static_cast<size_t>(tile) * job.weight.tile_bytes, fetched_during(job, tile),
                                 job.weight.scales_offset};
    for (int64_t i = 0; i < slabs; ++i) {
      const int64_t first = steps * i / slabs;
      const auto n = static_cast<int>(steps * (i + 1) / slabs - first);
      for (int c = 0; c < columns; c += kUnitColumns) {
        const UnitStep* of_columns = x + c / kUnitColumns * steps + first;
        if (i == 0) ask_for_results(job, tile, t + c, t + c + kUnitColumns < end ? t + c + kUnitColumns : end);
        if (columns - c > kUnitColumns / 2)
          add_slab_of_columns<kType, kUnitColumns>(bytes, first, n, of_columns, c == 0, slab, ring, sums + c);
        else
          add_slab_of_columns<kType, kUnitColumns / 2>(bytes, first, n, of_columns, c == 0, slab, ring, sums + c);
      }
    }
    for (int c = 0; c < columns; ++c) store_tile(job, tile, t + c, sums[c]);
  }
}

}  // namespace herd::HERD_ISA_NS
