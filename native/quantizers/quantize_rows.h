// Float rows to blocks whose codes are searched for least weighted error; quantizers/*.h say how.
#pragma once

#include <cstdint>

#include "block_type.h"
#include "isa.h"
#include "thread_pool.h"

namespace herd {

// What one block (32-value types) or sub-block (k-quants) costs.
struct BlockError {
  float squared;  // sum of importance * (x - x')^2
  float power;    // sum of importance * x^2
};

// Without importance an error counts by the value's square and this many of its block's mean square. Measured by what the
// next-token distributions lose (docs/dev-log.md): the largest values matter most to 4 bits without an offset alone.
constexpr float mean_share(BlockType type) { return type == BlockType::q4_0 ? 0.25f : 4.0f; }

struct QuantizeJob {
  BlockType type;
  const float* x;           // [rows, cols]
  const float* importance;  // [cols]: what a squared error in that column counts; null: 1
  int64_t cols;
  uint8_t* out;
  BlockError* errors;  // one for each scale of the type: see scale_len
};

struct QuantizeKernels {
  // Groups [begin, end) of the job: 16 scales each, counted over all rows. Every float of x and importance is finite.
  void (*quantize)(const QuantizeJob& job, int64_t scales, int64_t begin, int64_t end);
};

const QuantizeKernels& quantize_kernels(Isa isa);

// Whether quantize_rows makes this type.
bool is_searched(BlockType type);

// Values that share a scale.
int64_t scale_len(BlockType type);

struct TotalError {
  double squared = 0, power = 0;

  void add(double more_squared, double more_power) { squared += more_squared, power += more_power; }
};

// Rows [rows, cols], cols a multiple of the type's block, to `out` [rows, row bytes]. The same bytes and sums whatever
// the number of threads and the instruction set. Throws std::invalid_argument for a type that is not searched.
TotalError quantize_rows(ThreadPool& pool, Isa isa, BlockType type, const float* x, const float* importance,
                         int64_t rows, int64_t cols, uint8_t* out);

}  // namespace herd
