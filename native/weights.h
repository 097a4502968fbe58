// A model's weights: matrices packed in their block type, and float32 vectors (norms, biases).
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "packed_weight.h"

namespace herd {

struct Weights {
  std::vector<PackedWeight> matrices;
  std::vector<std::vector<float>> vectors;
};

// y += scale * B (A x) for one matrix (Hu et al. 2021, eq. 3).
struct LowRankPair {
  PackedWeight a;  // [r, K]
  PackedWeight b;  // [N, r]
};

struct LowRankAdapter {
  float scale;
  std::map<int32_t, LowRankPair> pairs;  // by the matrix they add to
};

}  // namespace herd
