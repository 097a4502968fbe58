// The kernels behind linear.h, whose invariant decides their form: whatever the number of columns (rows of x) computed
// at once, each accumulator sees `add_step` (or one fma per k for float weights) step by step with k ascending.
#include "linear.h"
#include "kernels/step_weights.h"
#include "simd.h"

namespace herd::HERD_ISA_NS {
namespace {

// Columns computed at once: enough to share the work of unpacking, few enough for the accumulators to stay in
// registers beside 8 vectors of codes.
constexpr int kColumns = HERD_VECTOR_BYTES == 64 ? 8 : HERD_VECTOR_BYTES == 32 ? 4 : 2;
// Columns whose dot products are interleaved: each takes 4 cycles and the 8 of a column form a chain, behind which a scheduler
// of 64 entries finds too few others (512 rows of Q4_1 on one Zen 4 core: 0.127 TMAC/s with 1, 0.134 with 4, of a peak
// of 0.222). The narrower sets keep 1: their registers are full already (not measured).
constexpr int kChains = HERD_VECTOR_BYTES == 64 ? 4 : 1;
#define HERD_FOR_COLUMNS(c) _Pragma("GCC unroll 8") for (int c = 0; c < kCols; ++c)
// Columns that pass over a tile while it stays in the nearest cache; their activations (64 x 3 K bytes) stay in the second.
constexpr int64_t kPanel = 64;
// Tiles of float weights in flight for one column: an fma takes 4 cycles, and each accumulator is one chain.
constexpr int kFloatTiles = 4;
// Weights are asked for at least this far ahead of their use, in whole tiles so that codes and scales are both covered.
// They go to the second-level cache: the first level has too few miss buffers, and loads in flight would wait for them
// (66 MB of Q4_1 on one Zen 4 core: 13 GB/s without, 14 GB/s into the first level, 23 GB/s into the second).
constexpr size_t kPrefetchBytes = 4096;
constexpr int kSecondLevel = 2;

HERD_INLINE s8x64 splat_group(const int8_t* q) {
  int32_t four;
  std::memcpy(&four, q, 4);
  return bit_cast<s8x64>(splat(four));
}

// dots[c] += sub-block h of the step times the codes of block x[c * x_stride], for kCols columns interleaved.
template <BlockType kType, int kCols>
HERD_INLINE void add_products(const StepWeights<kType>& w, int h, const ActivationBlock* x, int64_t x_stride,
                              int8_t (ActivationBlock::*codes)[32], i32x16* dots) {
  constexpr int kRun = kGroups / StepWeights<kType>::kSubBlocks;
  _Pragma("GCC unroll 8") for (int i = 0; i < kRun; ++i) {
    const int g = h * kRun + i;
    HERD_FOR_COLUMNS(c) {
      const s8x64 four = splat_group(x[c * x_stride].*codes + 4 * g);
      if constexpr (StepWeights<kType>::kSigned)
        dots[c] = dot4_signed(dots[c], bit_cast<s8x64>(w.codes[g]), four);
      else
        dots[c] = dot4(dots[c], w.codes[g], four);
    }
  }
}

// y[c] += step of the tile times block x[c * x_stride]. Fine codes are skipped where no column has any: those of a
// coarse block are 0, so a column's bits do not depend on its neighbours.
template <BlockType kType, int kCols>
HERD_INLINE void add_step(const StepWeights<kType>& w, const ActivationBlock* x, int64_t x_stride, f32x16* y) {
  using W = StepWeights<kType>;
  int32_t is_fine = 0;
  HERD_FOR_COLUMNS(c) is_fine |= x[c * x_stride].is_fine;
  _Pragma("GCC unroll 2") for (int h = 0; h < W::kSubBlocks; ++h) {
    i32x16 dots[kCols];
    HERD_FOR_COLUMNS(c) dots[c] = splat(int32_t{0});
    add_products<kType, kCols>(w, h, x, x_stride, &ActivationBlock::coarse, dots);
    HERD_FOR_COLUMNS(c) dots[c] = shift_left(dots[c], kFineBits);
    if (is_fine) add_products<kType, kCols>(w, h, x, x_stride, &ActivationBlock::fine, dots);
    HERD_FOR_COLUMNS(c) {
      const ActivationBlock& block = x[c * x_stride];
      if constexpr (W::kZero != 0)
        dots[c] = dots[c] - splat(W::kSubBlocks == 1 ? block.sum : block.half_sum[h]) * splat(int32_t{W::kZero});
      y[c] = fma(to_f32(dots[c]), w.scale[h] * splat(block.scale), y[c]);
      if constexpr (W::kLayout.has_offset)
        y[c] = fma(w.offset[h], splat(W::kSubBlocks == 1 ? block.scaled_sum : block.scaled_half_sum[h]), y[c]);
    }
  }
}

// y[t][16 rows of the tile] for kCols rows of x.
template <BlockType kType, int kCols>
HERD_INLINE void multiply_tile(const PackedView& weight, int64_t tile, const ActivationBlock* x, f32x16* y) {
  constexpr TileLayout kLayout = tile_layout(kType);
  constexpr int kStepBytes = kLayout.step_bytes();
  constexpr int kRecordSteps = kLayout.record_steps();
  constexpr int kRecordBytes = kLayout.record_bytes();
  const int64_t steps = weight.cols / kStep;
  const uint8_t* codes = weight.data + static_cast<size_t>(tile) * weight.tile_bytes;
  const uint8_t* record = codes + weight.scales_offset;
  const size_t ahead = (kPrefetchBytes / weight.tile_bytes + 1) * weight.tile_bytes;
  f32x16 acc[kCols];
  _Pragma("GCC unroll 8") for (int c = 0; c < kCols; ++c) acc[c] = splat(0.0f);
  for (int64_t block = 0; block < steps; block += kRecordSteps, record += kRecordBytes) {
    _Pragma("GCC unroll 8") for (int line = 0; line < kRecordBytes; line += 64)
      __builtin_prefetch(record + ahead + line, 0, kSecondLevel);
    for (int s = 0; s < kRecordSteps; ++s, codes += kStepBytes) {
      _Pragma("GCC unroll 8") for (int line = 0; line < kStepBytes; line += 64)
        __builtin_prefetch(codes + ahead + line, 0, kSecondLevel);
      StepWeights<kType> w;
      unpack_codes<kType>(codes, w);
      unpack_scales<kType>(record, s, w);
      constexpr int kTogether = kCols < kChains ? kCols : kChains;
      _Pragma("GCC unroll 8") for (int c = 0; c < kCols; c += kTogether)
        add_step<kType, kTogether>(w, x + c * steps + block + s, steps, acc + c);
    }
  }
  _Pragma("GCC unroll 8") for (int c = 0; c < kCols; ++c) y[c] = acc[c];
}

template <BlockType kType>
HERD_INLINE f32x16 load_values(const uint8_t* from) {
  if constexpr (kType == BlockType::f32)
    return load_bytes<f32x16>(from);
  else if constexpr (kType == BlockType::f16)
    return load_f16(reinterpret_cast<const uint16_t*>(from));
  else
    return load_bf16(reinterpret_cast<const uint16_t*>(from));
}

// y[tile][t] for kTiles tiles and kCols rows of x.
template <BlockType kType, int kTiles, int kCols>
HERD_INLINE void multiply_float_tiles(const uint8_t* tile, size_t tile_bytes, int64_t cols, const float* x,
                                      int64_t x_stride, f32x16 (*y)[kCols]) {
  constexpr int kBytes = kTileRows * (kType == BlockType::f32 ? 4 : 2);
  f32x16 acc[kTiles][kCols];
  _Pragma("GCC unroll 4") for (int r = 0; r < kTiles; ++r)
    _Pragma("GCC unroll 8") for (int c = 0; c < kCols; ++c) acc[r][c] = splat(0.0f);
  for (int64_t k = 0; k < cols; ++k) {
    f32x16 w[kTiles];
    _Pragma("GCC unroll 4") for (int r = 0; r < kTiles; ++r) w[r] = load_values<kType>(tile + r * tile_bytes + k * kBytes);
    _Pragma("GCC unroll 8") for (int c = 0; c < kCols; ++c) {
      const f32x16 xk = splat(x[c * x_stride + k]);
      _Pragma("GCC unroll 4") for (int r = 0; r < kTiles; ++r) acc[r][c] = fma(w[r], xk, acc[r][c]);
    }
  }
  _Pragma("GCC unroll 4") for (int r = 0; r < kTiles; ++r)
    _Pragma("GCC unroll 8") for (int c = 0; c < kCols; ++c) y[r][c] = acc[r][c];
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

template <BlockType kType, int kCols>
void run_tile(const LinearJob& job, int64_t tile, int64_t t) {
  f32x16 y[kCols];
  multiply_tile<kType, kCols>(job.weight, tile, job.xq + t * (job.weight.cols / kStep), y);
  for (int c = 0; c < kCols; ++c) store_tile(job, tile, t + c, y[c]);
}

template <BlockType kType, int kTiles, int kCols>
void run_float_tiles(const LinearJob& job, int64_t tile, int64_t t) {
  f32x16 y[kTiles][kCols];
  multiply_float_tiles<kType, kTiles, kCols>(job.weight.data + static_cast<size_t>(tile) * job.weight.tile_bytes,
                                             job.weight.tile_bytes, job.weight.cols, job.x + t * job.x_stride,
                                             job.x_stride, y);
  for (int r = 0; r < kTiles; ++r)
    for (int c = 0; c < kCols; ++c) store_tile(job, tile + r, t + c, y[r][c]);
}

// Rows [t, end) of x over one tile: as many columns at once as there are, by halves.
template <BlockType kType>
void run_rows(const LinearJob& job, int64_t tile, int64_t t, int64_t end) {
  for (; t + kColumns <= end; t += kColumns) run_tile<kType, kColumns>(job, tile, t);
  if constexpr (kColumns > 4)
    if (t + 4 <= end) run_tile<kType, 4>(job, tile, t), t += 4;
  if (t + 2 <= end) run_tile<kType, 2>(job, tile, t), t += 2;
  if (t < end) run_tile<kType, 1>(job, tile, t);
}

template <BlockType kType>
void run_float_rows(const LinearJob& job, int64_t tile, int64_t t, int64_t end) {
  for (; t + kColumns <= end; t += kColumns) run_float_tiles<kType, 1, kColumns>(job, tile, t);
  for (; t < end; ++t) run_float_tiles<kType, 1, 1>(job, tile, t);
}

template <BlockType kType>
void linear_blocks(const LinearJob& job) {
  for (int64_t t = 0; t < job.rows; t += kPanel) {
    const int64_t end = t + kPanel < job.rows ? t + kPanel : job.rows;
    for (int64_t tile = job.tile_begin; tile < job.tile_end; ++tile) run_rows<kType>(job, tile, t, end);
  }
}

template <BlockType kType>
void linear_floats(const LinearJob& job) {
  int64_t tile = job.tile_begin;
  if (job.rows == 1)
    for (; tile + kFloatTiles <= job.tile_end; tile += kFloatTiles) run_float_tiles<kType, kFloatTiles, 1>(job, tile, 0);
  for (; tile < job.tile_end; ++tile) run_float_rows<kType>(job, tile, 0, job.rows);
}

void linear(const LinearJob& job) {
  switch (job.weight.type) {
    case BlockType::f32: return linear_floats<BlockType::f32>(job);
    case BlockType::f16: return linear_floats<BlockType::f16>(job);
    case BlockType::bf16: return linear_floats<BlockType::bf16>(job);
    case BlockType::q4_0: return linear_blocks<BlockType::q4_0>(job);
    case BlockType::q4_1: return linear_blocks<BlockType::q4_1>(job);
    case BlockType::q5_0: return linear_blocks<BlockType::q5_0>(job);
    case BlockType::q5_1: return linear_blocks<BlockType::q5_1>(job);
    case BlockType::q8_0: return linear_blocks<BlockType::q8_0>(job);
    case BlockType::q2_k: return linear_blocks<BlockType::q2_k>(job);
    case BlockType::q3_k: return linear_blocks<BlockType::q3_k>(job);
    case BlockType::q4_k: return linear_blocks<BlockType::q4_k>(job);
    case BlockType::q5_k: return linear_blocks<BlockType::q5_k>(job);
    case BlockType::q6_k: return linear_blocks<BlockType::q6_k>(job);
    case BlockType::iq4_nl: return linear_blocks<BlockType::iq4_nl>(job);
    case BlockType::mxfp4: return linear_blocks<BlockType::mxfp4>(job);
  }
}

}  // namespace

void quantize_row(const float* x, int64_t n, ActivationBlock* out);  // quantize_kernel.cc

extern const LinearKernels linear_kernels;
const LinearKernels linear_kernels{linear, quantize_row};

}  // namespace herd::HERD_ISA_NS
