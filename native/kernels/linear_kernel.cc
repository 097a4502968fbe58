// The kernels behind linear.h, whose invariant decides their form: whatever the number of columns (rows of x) computed
// at once, the accumulators see `add_step` (or one fma per k for float weights) step by step with k ascending.
//
// Few columns keep a step's weights in registers (here); many meet weights that are unpacked once (linear_panel.h, or
// linear_unit.h where there is a matrix unit).
#include "linear.h"
#include "kernels/linear_step.h"
#if HERD_HAS_MATRIX_UNIT
#include "kernels/linear_unit.h"
#else
#include "kernels/linear_panel.h"
#endif
#include "kernels/step_weights.h"
#include "simd.h"

namespace herd::HERD_ISA_NS {
namespace {

// Columns of float weights computed at once: as many accumulators as registers hold.
constexpr int kFloatColumns = HERD_VECTOR_BYTES == 64 ? 8 : HERD_VECTOR_BYTES == 32 ? 4 : 2;
// Tiles of float weights in flight for one column: an fma takes 4 cycles, and each accumulator is one chain.
constexpr int kFloatTiles = 4;

// y[t][16 rows of the tile] for kCols rows of x.
template <BlockType kType, int kCols>
HERD_INLINE void multiply_tile(const LinearJob& job, int64_t tile, const ActivationBlock* x, f32x16* y) {
  constexpr TileLayout kLayout = tile_layout(kType);
  constexpr int kStepBytes = kLayout.step_bytes();
  constexpr int kRecordSteps = kLayout.record_steps();
  constexpr int kRecordBytes = kLayout.record_bytes();
  const PackedView& weight = job.weight;
  const int64_t steps = weight.cols / kStep;
  const uint8_t* codes = weight.data + static_cast<size_t>(tile) * weight.tile_bytes;
  const uint8_t* record = codes + weight.scales_offset;
  const uint8_t* fetched_codes = fetched_during(job, tile);
  const uint8_t* fetched_record = fetched_codes + weight.scales_offset;
  Sums<kCols> sums;
  for (int64_t block = 0; block < steps; block += kRecordSteps, record += kRecordBytes, fetched_record += kRecordBytes) {
    _Pragma("GCC unroll 8") for (int line = 0; line < kRecordBytes; line += 64)
      __builtin_prefetch(fetched_record + line, 0, kSecondLevel);
    for (int s = 0; s < kRecordSteps; ++s, codes += kStepBytes, fetched_codes += kStepBytes) {
      _Pragma("GCC unroll 8") for (int line = 0; line < kStepBytes; line += 64)
        __builtin_prefetch(fetched_codes + line, 0, kSecondLevel);
      StepWeights<kType> w;
      unpack_codes<kType>(codes, w);
      unpack_scales<kType>(record, s, w);
      add_step<kType, kCols>(w, x + block + s, steps, sums);
    }
  }
  HERD_FOR_COLUMNS(c) y[c] = sums.of(c);
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

template <BlockType kType, int kCols>
void run_tile(const LinearJob& job, int64_t tile, int64_t t) {
  f32x16 y[kCols];
  multiply_tile<kType, kCols>(job, tile, job.xq + t * (job.weight.cols / kStep), y);
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

template <BlockType kType>
void run_float_rows(const LinearJob& job, int64_t tile, int64_t t, int64_t end) {
  for (; t + kFloatColumns <= end; t += kFloatColumns) run_float_tiles<kType, 1, kFloatColumns>(job, tile, t);
  for (; t < end; ++t) run_float_tiles<kType, 1, 1>(job, tile, t);
}

// Rows [t, end) of x, too few for a panel: up to 4 at once, in passes of about as many each.
template <BlockType kType>
void run_few_rows(const LinearJob& job, int64_t tile, int64_t t, int64_t end) {
  if constexpr (kHasByteProducts)
    while (t < end) {
      switch (const int64_t left = end - t; left) {
        case 1: run_tile<kType, 1>(job, tile, t), t += 1; break;
        case 2: run_tile<kType, 2>(job, tile, t), t += 2; break;
        case 3:
        case 5:
        case 6: run_tile<kType, 3>(job, tile, t), t += 3; break;
        default: run_tile<kType, 4>(job, tile, t), t += 4;
      }
    }
  else
    for (; t < end; ++t) run_tile<kType, 1>(job, tile, t);
}

template <BlockType kType>
void linear_blocks(const LinearJob& job) {
  int64_t t = 0;
#if HERD_HAS_MATRIX_UNIT
  if (job.scratch != nullptr)
    for (; job.rows - t >= kUnitWorthwhile; t += kPanelRows)
      run_unit_panel<kType>(job, t, t + kPanelRows < job.rows ? t + kPanelRows : job.rows);
#else
  for (; job.rows - t >= kPanelWorthwhile; t += kPanel) run_panel<kType>(job, t, t + kPanel < job.rows ? t + kPanel : job.rows);
#endif
  if (t >= job.rows) return;
  for (int64_t tile = job.tile_begin; tile < job.tile_end; ++tile) run_few_rows<kType>(job, tile, t, job.rows);
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

size_t scratch_bytes([[maybe_unused]] int64_t cols) {
#if HERD_HAS_MATRIX_UNIT
  return static_cast<size_t>(kPanelRows / kUnitColumns * (cols / kStep)) * sizeof(UnitStep);
#else
  return 0;
#endif
}

}  // namespace

void quantize_row(const float* x, int64_t n, ActivationBlock* out);  // quantize_kernel.cc

extern const LinearKernels linear_kernels;
const LinearKernels linear_kernels{linear, quantize_row, kFineBits, scratch_bytes};

}  // namespace herd::HERD_ISA_NS
