// Many draws at once: the struct of arrays that Python hands over, its checks, and the loop over its entries.
#pragma once

#include <cstdint>
#include <span>

#include "model.h"
#include "sampler.h"

namespace herd {

// Mirrors engine/protocols.py: SamplePlan.
struct SamplePlan {
  std::span<const int32_t> rows;
  std::span<const float> temperature;
  std::span<const int32_t> top_k;
  std::span<const float> top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty;
  std::span<const uint64_t> keys;  // [N, 2]
  std::span<const int32_t> count_starts, count_ids, counts;
  std::span<const int32_t> bias_starts, bias_ids;
  std::span<const float> bias_values;
  std::span<const int32_t> mask_rows;
  std::span<const uint32_t> masks;  // [M, ceil(V / 32)]
  std::span<const int32_t> dense_rows;
  std::span<const float> dense;  // [M', V]
  std::span<const int32_t> num_top;

  DrawRules rules(size_t entry, int64_t vocab_size) const;
};

// Throws std::invalid_argument, naming the array, unless lengths agree and every index and number is in range.
void check_plan(const SamplePlan& plan, int64_t num_logit_rows, int64_t vocab_size);

// Where results go: [N], [N], [N, columns] twice.
struct Sampled {
  int32_t* token_ids;
  float* logprobs;
  int64_t columns;
  int32_t* top_ids;
  float* top_logprobs;
};

// Draws every entry of a checked plan from the model's last step.
void sample(Model& model, const SamplePlan& plan, const Sampled& out);

}  // namespace herd
