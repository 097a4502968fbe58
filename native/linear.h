// y = x W^T for packed weights: the one door to matrix-vector and matrix-matrix kernels.
//
// Invariant: each y[t][n] has two float32 accumulators (one for float weights, or where a matrix unit multiplies), filled
// block by block with k ascending, by the same sequence of float operations whatever the number of rows, the range of tiles
// or the thread. Two are added together; then + bias, then + residual. (kernels/linear_step.h says what is in each.)
// Hence y[t][n] depends on row t of x, row n of W and the instruction set alone, bit for bit.
#pragma once

#include <cstdint>

#include "isa.h"
#include "packed_weight.h"

namespace herd {

constexpr int64_t kActivationBlock = 32;

// 32 activations as integers: x is about scale * (2^f * coarse + fine), with the sums that offsets and zero points of
// weights need. f is the instruction set's `fine_bits`.
//
// Without a matrix unit f is 7, and most blocks are coarse: 8 bits, and `fine` is 0. A block that stands out of its row, whose
// rounding would make most of the row's noise, has 15 bits: see kFineAbove in kernels/quantize_kernel.cc. With one f is 4,
// and all blocks have 12 bits (kernels/activation_codes.h).
struct alignas(32) ActivationBlock {
  int8_t coarse[32];  // -127..127
  // absmax / (127 * 2^f); 0 if absmax < 2^-112, so that its inverse is finite; NaN if any x is NaN or infinite.
  float scale;
  float coarse_scale;        // 2^f * scale
  float scaled_half_sum[2];  // scale times the sum of 2^f * coarse + fine over the first and the last 16
  float scaled_sum;          // over all 32
  int32_t fine_mask;         // all bits of a fine block, none of a coarse one
  int32_t coarse_bias;       // -128 times the sum of `coarse`, for sets whose signed weights are 128 too large
  int32_t fine_bias;         // the same of `fine`
  int8_t fine[32];  // -2^(f - 1)..2^(f - 1) - 1
};
static_assert(sizeof(ActivationBlock) == 96);

// Blocks of one row of K activations.
constexpr int64_t activation_blocks(int64_t cols) { return (cols + kActivationBlock - 1) / kActivationBlock; }

// Rows of x that pass over the weights together where there are many; their activations (64 x 3 K bytes, 64 x 5.4 K
// with what a matrix unit wants of them) stay in the second-level cache.
constexpr int64_t kPanelRows = 64;

// Where a matrix unit multiplies, a thread's copy of its rows' activations in the unit's order. It serves all jobs with the same
// rows of xq as long as nobody writes there: a new one is made for each operation.
struct LinearScratch {
  void* memory = nullptr;  // LinearKernels::scratch_bytes, 64-byte aligned
  const ActivationBlock* of = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int sub_blocks = 0;
};

// y[t][n] for t in 0..rows-1 and all n of tiles [tile_begin, tile_end).
struct LinearJob {
  PackedView weight;
  int64_t tile_begin;
  int64_t tile_end;
  const uint8_t* next;  // weights that this thread reads after these, fetched while the last tiles are computed; or null
  int64_t rows;         // T
  // Exactly one is used: `x` for float weights (is_float), `xq` for all others.
  const float* x;             // [T, K]
  int64_t x_stride;           // floats between rows of x
  const ActivationBlock* xq;  // [T, activation_blocks(K)], contiguous
  float* y;                   // [T, N]
  int64_t y_stride;           // floats between rows of y
  const float* bias;          // [N] or null
  bool accumulate;            // add to what y holds (the residual) instead of overwriting
  LinearScratch* scratch;     // or null: the same bits, more slowly
};

struct LinearKernels {
  void (*linear)(const LinearJob& job);

  // out[activation_blocks(n)] = x[n]; missing values of the last block count as 0. Codes are x / absmax * 127, or
  // * 127 * 2^f in a fine block, to nearest, ties to even. A block with a NaN or an infinity gets codes 0 and scale NaN, so that every
  // output that reads it is NaN.
  void (*quantize_row)(const float* x, int64_t n, ActivationBlock* out);

  int fine_bits;

  // Of a LinearScratch for jobs of up to `cols` columns of weights.
  size_t (*scratch_bytes)(int64_t cols);
};

// Throws std::runtime_error where the system does not grant what the set needs.
const LinearKernels& linear_kernels(Isa isa);

}  // namespace herd
