// Many columns (prefill, batches): weights are unpacked once for all of them.
//
// A panel of columns passes over a pair of tiles, slab by slab of 256 k. A slab's weights are unpacked into the nearest
// cache; every column takes its coarse codes over them and notes which of its blocks are fine; then those alone are taken
// again for their fine codes, step by step so that columns share the weights. (Asking for each block instead costs a wrong
// guess of the branch for every third one, and asking for four columns together makes nearly all of them fine.)
#pragma once

#include "kernels/linear_step.h"
#include "kernels/step_weights.h"
#include "linear.h"
#include "simd.h"

namespace herd::HERD_ISA_NS {

// Columns that pass over a pair of tiles.
constexpr int64_t kPanel = kPanelRows;
// With fewer columns unpacking to memory costs more than it saves (8 of them on two Zen 5 cores: 6.0 ms a step with, 5.3
// without; 16 the same).
constexpr int64_t kPanelWorthwhile = HERD_VECTOR_BYTES == 64 ? 16 : 8;
// A slab of two tiles takes 12 KB and the sums 16: together they stay in a first-level cache of 32 KB.
constexpr int kSlabSteps = kSuperSteps;
// Tiles and columns computed at once: their dot products and sums fill the registers, and there are enough of them to
// hide that a dot product takes 4 or 5 cycles.
constexpr int kPanelTiles = HERD_VECTOR_BYTES == 64 ? 2 : 1;
constexpr int kPanelColumns = !kHasByteProducts ? 1 : HERD_VECTOR_BYTES == 32 ? 2 : 4;

static_assert(kPanel == 64 && kSlabSteps == 8, "which blocks are fine is 64 bytes of 8 bits");

#define HERD_FOR_TILES(r) _Pragma("GCC unroll 2") for (int r = 0; r < kTiles; ++r)

template <BlockType kType, int kTiles>
struct Slab {
  static constexpr int kSubBlocks = StepWeights<kType>::kSubBlocks;
  u8x64 codes[kSlabSteps][kGroups][kTiles];
  f32x16 scale[kSlabSteps][kSubBlocks][kTiles];
  f32x16 offset[kSlabSteps][kSubBlocks][kTiles];
};

// The sums of a panel, and which blocks of each column are fine: bit s for step s of the slab.
template <int kTiles>
struct Panel {
  f32x16 coarse[kPanel][kTiles];
  f32x16 fine[kPanel][kTiles];
  uint8_t fine_steps[kPanel];
};

// The columns that are fine at a step, a bit each.
HERD_INLINE uint64_t columns_fine_at(const uint8_t* fine_steps, int step) {
  uint64_t columns = 0;
  _Pragma("GCC unroll 8") for (int i = 0; i < 8; ++i) {
    uint64_t eight;
    std::memcpy(&eight, fine_steps + 8 * i, 8);
    // The product moves the lowest bit of byte b to bit 56 + b.
    columns |= (((eight >> step) & 0x0101010101010101u) * 0x0102040810204080u >> 56) << (8 * i);
  }
  return columns;
}

template <BlockType kType, int kTiles>
HERD_INLINE void unpack_slab(const LinearJob& job, int64_t tile, int64_t first_step, int steps, Slab<kType, kTiles>& slab) {
  using W = StepWeights<kType>;
  constexpr TileLayout kLayout = tile_layout(kType);
  const auto record = static_cast<size_t>(first_step / kLayout.record_steps()) * kLayout.record_bytes();
  for (int r = 0; r < kTiles; ++r) {
    const size_t at = static_cast<size_t>(first_step) * kLayout.step_bytes();
    const size_t scales = job.weight.scales_offset + record;
    const uint8_t* from = job.weight.data + static_cast<size_t>(tile + r) * job.weight.tile_bytes;
    for (int s = 0; s < steps; ++s) {
      const size_t step = at + static_cast<size_t>(s) * kLayout.step_bytes();
      const size_t scale = scales + static_cast<size_t>(s / kLayout.record_steps()) * kLayout.record_bytes();
      W w;
      unpack_codes<kType>(from + step, w);
      unpack_scales<kType>(from + scale, s % kLayout.record_steps(), w);
      _Pragma("GCC unroll 8") for (int g = 0; g < kGroups; ++g) slab.codes[s][g][r] = w.codes[g];
      _Pragma("GCC unroll 2") for (int h = 0; h < W::kSubBlocks; ++h) {
        slab.scale[s][h][r] = w.scale[h];
        if constexpr (W::kHasOffset) slab.offset[s][h][r] = w.offset[h];
      }
    }
  }
}

// The weights of the same slab of the tiles that come after these, asked for a part at a time while columns are computed:
// all at once they would fill the queue of misses and hold the columns up.
template <BlockType kType, int kTiles>
class SlabFetch {
 public:
  SlabFetch(const LinearJob& job, int64_t tile, int64_t first_step, int steps, int parts) {
    constexpr TileLayout kLayout = tile_layout(kType);
    const int64_t first_record = first_step / kLayout.record_steps();
    const int records = (steps + kLayout.record_steps() - 1) / kLayout.record_steps();
    for (int r = 0; r < kTiles; ++r) {
      const uint8_t* fetched = fetched_during(job, tile + r + kTiles - 1);
      codes_[r] = Lines(fetched + first_step * kLayout.step_bytes(), steps * kLayout.step_bytes(), parts);
      records_[r] = Lines(fetched + job.weight.scales_offset + static_cast<size_t>(first_record) * kLayout.record_bytes(),
                          records * kLayout.record_bytes(), parts);
    }
  }

  HERD_INLINE void ask_for_part() {
    HERD_FOR_TILES(r) codes_[r].ask(), records_[r].ask();
  }

 private:
  struct Lines {
    const uint8_t* from;
    int left, at_once;
    Lines() = default;
    Lines(const uint8_t* begin, int bytes, int parts) : from(begin), left((bytes + 63) / 64), at_once((left + parts - 1) / parts) {}
    HERD_INLINE void ask() {
      const int n = left < at_once ? left : at_once;
      for (int line = 0; line < n; ++line, from += 64) __builtin_prefetch(from, 0, kSecondLevel);
      left -= n;
    }
  };
  Lines codes_[kTiles], records_[kTiles];
};

// dots[c][r] = codes of sub-block h of a step times the codes of block *x[c].
template <BlockType kType, int kTiles, int kCols, class Kind>
HERD_INLINE void dot_panel(const Slab<kType, kTiles>& slab, int step, int h, const ActivationBlock* const* x,
                           i32x16 (*dots)[kTiles]) {
  constexpr int kRun = kRunOf<kType>, kFit = fitting_groups<kType>();
  HERD_FOR_COLUMNS(c) HERD_FOR_TILES(r) dots[c][r] = first_dots<kType>(*x[c], Kind::bias);
  _Pragma("GCC unroll 8") for (int first = h * kRun; first < (h + 1) * kRun; first += kFit) {
    DotSums sums[kCols][kTiles];
    HERD_FOR_COLUMNS(c) HERD_FOR_TILES(r) sums[c][r] = begin_sums(dots[c][r]);
    _Pragma("GCC unroll 8") for (int g = first; g < first + kFit; ++g) {
      u8x64 w[kTiles];
      HERD_FOR_TILES(r) w[r] = slab.codes[step][g][r], settle(w[r]);  // loaded once for all columns
      HERD_FOR_COLUMNS(c) {
        const s8x64 four = splat_group(x[c]->*Kind::codes + 4 * g);
        HERD_FOR_TILES(r) sums[c][r] = dot_codes<kType>(sums[c][r], w[r], four);
      }
    }
    HERD_FOR_COLUMNS(c) HERD_FOR_TILES(r) dots[c][r] = end_sums(dots[c][r], sums[c][r]);
  }
}

// The coarse codes of columns [column, column + kCols) over the slab. `first` is the first column's first block.
template <BlockType kType, int kTiles, int kCols>
HERD_INLINE void add_coarse(const Slab<kType, kTiles>& slab, int steps, const ActivationBlock* first, int64_t x_stride,
                            int column, Panel<kTiles>& panel) {
  using W = StepWeights<kType>;
  f32x16 y[kCols][kTiles];
  HERD_FOR_COLUMNS(c) HERD_FOR_TILES(r) y[c][r] = panel.coarse[column + c][r];
  const ActivationBlock* x[kCols];
  HERD_FOR_COLUMNS(c) x[c] = first + c * x_stride;
  int fine_steps[kCols] = {};
  for (int s = 0; s < steps; ++s) {
    _Pragma("GCC unroll 2") for (int h = 0; h < W::kSubBlocks; ++h) {
      i32x16 dots[kCols][kTiles];
      dot_panel<kType, kTiles, kCols, Coarse>(slab, s, h, x, dots);
      HERD_FOR_COLUMNS(c) {
        const f32x16 scale = splat(x[c]->coarse_scale);
        HERD_FOR_TILES(r) y[c][r] = fma(to_f32(dots[c][r]), slab.scale[s][h][r] * scale, y[c][r]);
        if constexpr (W::kHasOffset) {
          const f32x16 sum = splat(W::kSubBlocks == 1 ? x[c]->scaled_sum : x[c]->scaled_half_sum[h]);
          HERD_FOR_TILES(r) y[c][r] = fma(slab.offset[s][h][r], sum, y[c][r]);
        }
      }
    }
    HERD_FOR_COLUMNS(c) fine_steps[c] |= x[c]->fine_mask & (1 << s), ++x[c];
  }
  HERD_FOR_COLUMNS(c) {
    panel.fine_steps[column + c] = static_cast<uint8_t>(fine_steps[c]);
    HERD_FOR_TILES(r) panel.coarse[column + c][r] = y[c][r];
  }
}

// The fine codes of the kCols lowest of `columns` at one step, which are then taken out. `first` is the block of the panel's
// first column.
template <BlockType kType, int kTiles, int kCols>
HERD_INLINE void add_fine(const Slab<kType, kTiles>& slab, int step, const ActivationBlock* first, int64_t x_stride,
                          uint64_t& columns, Panel<kTiles>& panel) {
  const ActivationBlock* x[kCols];
  f32x16* y[kCols];
  HERD_FOR_COLUMNS(c) {
    const int column = __builtin_ctzll(columns);
    columns &= columns - 1;
    x[c] = first + column * x_stride;
    y[c] = panel.fine[column];
  }
  _Pragma("GCC unroll 2") for (int h = 0; h < StepWeights<kType>::kSubBlocks; ++h) {
    i32x16 dots[kCols][kTiles];
    dot_panel<kType, kTiles, kCols, Fine>(slab, step, h, x, dots);
    HERD_FOR_COLUMNS(c) {
      const f32x16 scale = splat(x[c]->scale);
      HERD_FOR_TILES(r) y[c][r] = fma(to_f32(dots[c][r]), slab.scale[step][h][r] * scale, y[c][r]);
    }
  }
}

// All fine blocks of the slab; those of a column with k ascending.
template <BlockType kType, int kTiles>
HERD_INLINE void add_all_fine(const Slab<kType, kTiles>& slab, int steps, const ActivationBlock* x, int64_t x_stride,
                              Panel<kTiles>& panel) {
  for (int s = 0; s < steps; ++s, ++x) {
    uint64_t columns = columns_fine_at(panel.fine_steps, s);
    int left = __builtin_popcountll(columns);
    for (; left >= kPanelColumns; left -= kPanelColumns)
      add_fine<kType, kTiles, kPanelColumns>(slab, s, x, x_stride, columns, panel);
    if constexpr (kPanelColumns > 2)
      if (left >= 2) add_fine<kType, kTiles, 2>(slab, s, x, x_stride, columns, panel), left -= 2;
    for (; left > 0; --left) add_fine<kType, kTiles, 1>(slab, s, x, x_stride, columns, panel);
  }
}

// Rows [t, end) of x, at most kPanel, over kTiles tiles.
template <BlockType kType, int kTiles>
void run_panel_tiles(const LinearJob& job, int64_t tile, int64_t t, int64_t end) {
  const int64_t steps = job.weight.cols / kStep;
  const auto columns = static_cast<int>(end - t);
  Slab<kType, kTiles> slab;
  Panel<kTiles> panel;
  for (int c = 0; c < columns; ++c) HERD_FOR_TILES(r) panel.coarse[c][r] = panel.fine[c][r] = splat(0.0f);
  for (uint8_t& steps_of_column : panel.fine_steps) steps_of_column = 0;  // also of the columns that there are not
  HERD_FOR_TILES(r) ask_for_results(job, tile + r, t, end);
  for (int64_t first = 0; first < steps; first += kSlabSteps) {
    const int n = steps - first < kSlabSteps ? static_cast<int>(steps - first) : kSlabSteps;
    unpack_slab<kType, kTiles>(job, tile, first, n, slab);
    const ActivationBlock* x = job.xq + t * steps + first;
    SlabFetch<kType, kTiles> next(job, tile, first, n, columns / kPanelColumns);
    int c = 0;
    for (; c + kPanelColumns <= columns; c += kPanelColumns) {
      next.ask_for_part();
      add_coarse<kType, kTiles, kPanelColumns>(slab, n, x + c * steps, steps, c, panel);
    }
    if constexpr (kPanelColumns > 2)
      if (c + 2 <= columns) add_coarse<kType, kTiles, 2>(slab, n, x + c * steps, steps, c, panel), c += 2;
    for (; c < columns; ++c) add_coarse<kType, kTiles, 1>(slab, n, x + c * steps, steps, c, panel);
    add_all_fine<kType, kTiles>(slab, n, x, steps, panel);
  }
  for (int c = 0; c < columns; ++c)
    HERD_FOR_TILES(r) store_tile(job, tile + r, t + c, panel.coarse[c][r] + panel.fine[c][r]);
}

// Rows [t, end) of x over all tiles of the job.
template <BlockType kType>
void run_panel(const LinearJob& job, int64_t t, int64_t end) {
  int64_t tile = job.tile_begin;
  for (; tile + kPanelTiles <= job.tile_end; tile += kPanelTiles) run_panel_tiles<kType, kPanelTiles>(job, tile, t, end);
  if constexpr (kPanelTiles > 1)
    for (; tile < job.tile_end; ++tile) run_panel_tiles<kType, 1>(job, tile, t, end);
}

}  // namespace herd::HERD_ISA_NS
