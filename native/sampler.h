// Draws tokens from rows of logits; mirrors engine/protocols.py: SamplePlan, Sampled.
//
// Order: mask, biases, penalties, temperature, top-k, top-p, min-p, then argmax(logit / T + Gumbel(key, id)), ties to the
// lowest id. Candidates are selected first and only they are sorted and given noise in float64. A row is drawn by one
// thread and depends on itself alone.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sampling_kernels.h"

namespace herd {

// How one token is drawn: one entry of a SamplePlan.
struct DrawRules {
  float temperature;
  int32_t top_k;  // 0: all
  float top_p;    // 1: all
  float min_p;    // 0: all
  float repetition_penalty, presence_penalty, frequency_penalty;
  DrawKey key;
  std::span<const int32_t> count_ids, counts;
  std::span<const int32_t> bias_ids;
  std::span<const float> bias_values;
  const uint32_t* mask;  // [ceil(V / 32)] or null
  const float* dense;    // [V] or null
};

// One thread's room for rows of V logits.
class RowSampler {
 public:
  RowSampler(const SamplingKernels& kernels, int64_t vocab_size);

  // The token drawn; -1 if the rules leave none, or if a logit is NaN or +inf or all are -inf.
  int32_t draw(const float* logits, const DrawRules& rules);

  // The ids of the `count` highest logits, best first, ties to the lowest id; valid until the next call.
  std::span<const int32_t> top(const float* logits, int64_t count);

 private:
  struct Row {
    const float* x;
    float max;
  };

  bool shaped(const DrawRules& rules) const;
  void shape(const float* logits, const DrawRules& rules);
  int32_t best(const Row& row);
  int32_t draw_from_all(const Row& row, const DrawRules& rules);
  int32_t draw_from_cut(const Row& row, const DrawRules& rules);
  int64_t select(const Row& row, const DrawRules& rules, double total);
  int64_t cut_top_p(const Row& row, const DrawRules& rules, int64_t count, double total) const;
  double weight_of(const Row& row, double temperature, int32_t id) const;

  const SamplingKernels& kernels_;
  int64_t vocab_size_;
  std::vector<float> shaped_;
  std::vector<int32_t> ids_;
};

// log(sum of e^x): what a raw log-probability is measured from.
double log_sum_exp(const SamplingKernels& kernels, const float* logits, int64_t vocab_size);

}  // namespace herd
