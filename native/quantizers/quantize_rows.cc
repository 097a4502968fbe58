#include "quantizers/quantize_rows.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace herd {

HERD_DECLARE(const QuantizeKernels quantize_kernels_of_isa)

const QuantizeKernels& quantize_kernels(Isa isa) { HERD_SELECT(isa, quantize_kernels_of_isa) }

int64_t scale_len(BlockType type) {
  switch (type) {
    case BlockType::q2_k:
    case BlockType::q3_k:
    case BlockType::q6_k: return 16;
    case BlockType::q4_0:
    case BlockType::q4_1:
    case BlockType::q5_0:
    case BlockType::q5_1:
    case BlockType::q8_0:
    case BlockType::q4_k:
    case BlockType::q5_k: return 32;
    default: return 0;
  }
}

bool is_searched(BlockType type) { return scale_len(type) != 0; }

TotalError quantize_rows(ThreadPool& pool, Isa isa, BlockType type, const float* x, const float* importance,
                         int64_t rows, int64_t cols, uint8_t* out) {
  constexpr int64_t kGroup = 16;  // scales, one in each lane
  const BlockShape shape = block_shape(type);
  if (!is_searched(type)) throw std::invalid_argument(std::string(shape.name) + " has no codes to search for");
  if (cols % shape.values != 0)
    throw std::invalid_argument(std::string(shape.name) + " rows hold a multiple of " + std::to_string(shape.values) +
                                " values, not " + std::to_string(cols));
  const int64_t scales = rows * cols / scale_len(type), groups = (scales + kGroup - 1) / kGroup;
  const auto errors = std::make_unique_for_overwrite<BlockError[]>(static_cast<size_t>(scales));
  const QuantizeJob job{type, x, importance, cols, out, errors.get()};
  const QuantizeKernels& kernels = quantize_kernels(isa);
  // Threads take turns of some 20 us: something else may be running beside one of them. Each turn has a sum of its own, so
  // that who takes it changes no bit.
  constexpr int64_t kTurn = 16;
  std::vector<TotalError> totals(static_cast<size_t>((groups + kTurn - 1) / kTurn));
  std::atomic<int64_t> taken{0};
  pool.run([&](int) {
    for (int64_t begin; (begin = kTurn * taken.fetch_add(1, std::memory_order_relaxed)) < groups;) {
      const int64_t end = std::min(begin + kTurn, groups);
      kernels.quantize(job, scales, begin, end);
      TotalError total;
      for (const BlockError* e = errors.get() + begin * kGroup; e < errors.get() + std::min(end * kGroup, scales); ++e)
        total.add(static_cast<double>(e->squared), static_cast<double>(e->power));
      totals[static_cast<size_t>(begin / kTurn)] = total;
    }
  });
  TotalError sum;
  for (const TotalError& total : totals) sum.add(total.squared, total.power);
  return sum;
}

}  // namespace herd
