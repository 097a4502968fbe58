#include "sample_plan.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

namespace herd {
namespace {

void require(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(std::string("sample plan: ") + what);
}

template <class T>
void require_range(std::span<const T> values, double low, double high, const char* what) {
  for (const T value : values) require(static_cast<double>(value) >= low && static_cast<double>(value) <= high, what);
}

void require_ragged(std::span<const int32_t> starts, size_t entries, size_t values, const char* what) {
  require(starts.size() == entries + 1 && starts.front() == 0 && std::is_sorted(starts.begin(), starts.end()) &&
              static_cast<size_t>(starts.back()) == values,
          what);
}

void sample_entry(Model& model, RowSampler& sampler, const SamplePlan& plan, size_t entry, const Sampled& out) {
  const int64_t vocab = model.shape().vocab_size;
  const float* logits = model.logits(plan.rows[entry]);
  const int32_t token = sampler.draw(logits, plan.rules(entry, vocab));
  out.token_ids[entry] = token;
  out.logprobs[entry] = 0;
  int32_t* top_ids = out.top_ids + static_cast<int64_t>(entry) * out.columns;
  float* top_logprobs = out.top_logprobs + static_cast<int64_t>(entry) * out.columns;
  std::fill(top_ids, top_ids + out.columns, -1);
  std::fill(top_logprobs, top_logprobs + out.columns, 0.0f);
  if (plan.num_top[entry] < 0 || token < 0) return;
  const double total = log_sum_exp(sampling_kernels(model.isa()), logits, vocab);
  out.logprobs[entry] = static_cast<float>(logits[token] - total);
  for (const int32_t id : sampler.top(logits, plan.num_top[entry])) {
    *top_ids++ = id;
    *top_logprobs++ = static_cast<float>(logits[id] - total);
  }
}

}  // namespace

DrawRules SamplePlan::rules(size_t entry, int64_t vocab_size) const {
  const auto slice = [entry](auto values, std::span<const int32_t> starts) {
    return values.subspan(static_cast<size_t>(starts[entry]), static_cast<size_t>(starts[entry + 1] - starts[entry]));
  };
  const int64_t words = (vocab_size + 31) / 32;
  return {temperature[entry],
          top_k[entry],
          top_p[entry],
          min_p[entry],
          repetition_penalty[entry],
          presence_penalty[entry],
          frequency_penalty[entry],
          {keys[2 * entry], keys[2 * entry + 1]},
          slice(count_ids, count_starts),
          slice(counts, count_starts),
          slice(bias_ids, bias_starts),
          slice(bias_values, bias_starts),
          mask_rows[entry] < 0 ? nullptr : masks.data() + mask_rows[entry] * words,
          dense_rows[entry] < 0 ? nullptr : dense.data() + dense_rows[entry] * vocab_size};
}

void check_plan(const SamplePlan& plan, int64_t num_logit_rows, int64_t vocab_size) {
  const size_t n = plan.rows.size(), words = static_cast<size_t>((vocab_size + 31) / 32);
  for (const size_t size : {plan.temperature.size(), plan.top_k.size(), plan.top_p.size(), plan.min_p.size(),
                            plan.repetition_penalty.size(), plan.presence_penalty.size(), plan.frequency_penalty.size(),
                            plan.keys.size() / 2, plan.mask_rows.size(), plan.dense_rows.size(), plan.num_top.size()})
    require(size == n, "every array must have an entry for each row");
  require_ragged(plan.count_starts, n, plan.count_ids.size(), "count_starts must rise from 0 to the number of count_ids");
  require_ragged(plan.bias_starts, n, plan.bias_ids.size(), "bias_starts must rise from 0 to the number of bias_ids");
  require(plan.counts.size() == plan.count_ids.size(), "counts must be as long as count_ids");
  require(plan.bias_values.size() == plan.bias_ids.size(), "bias_values must be as long as bias_ids");
  constexpr double kLargest = 1e30;
  const double last_token = static_cast<double>(vocab_size - 1);
  require_range(plan.rows, 0, static_cast<double>(num_logit_rows - 1), "rows out of range");
  require_range(plan.temperature, 0, kLargest, "temperature out of range");
  require_range(plan.top_k, 0, 0x1p31, "top_k out of range");
  require_range(plan.top_p, 0, 1, "top_p out of range");
  require_range(plan.min_p, 0, 1, "min_p out of range");
  require_range(plan.repetition_penalty, 1e-6, kLargest, "repetition_penalty out of range");
  require_range(plan.presence_penalty, -kLargest, kLargest, "presence_penalty out of range");
  require_range(plan.frequency_penalty, -kLargest, kLargest, "frequency_penalty out of range");
  require_range(plan.count_ids, 0, last_token, "count_ids out of range");
  require_range(plan.counts, 0, 0x1p31, "counts out of range");
  require_range(plan.bias_ids, 0, last_token, "bias_ids out of range");
  require_range(plan.mask_rows, -1, static_cast<double>(plan.masks.size() / words) - 1, "mask_rows out of range");
  require_range(plan.dense_rows, -1, static_cast<double>(plan.dense.size() / static_cast<size_t>(vocab_size)) - 1, "dense_rows out of range");
  require_range(plan.num_top, -1, 0x1p31, "num_top out of range");
}

void sample(Model& model, const SamplePlan& plan, const Sampled& out) {
  const auto n = static_cast<int64_t>(plan.rows.size());
  const auto draw = [&](int thread, int threads) {
    const Range mine = partition(n, 1, thread, threads);
    for (int64_t entry = mine.begin; entry < mine.end; ++entry)
      sample_entry(model, model.row_sampler(thread), plan, static_cast<size_t>(entry), out);
  };
  if (n > 1) {
    model.pool().run([&](int thread) { draw(thread, model.pool().size()); });
  } else {
    draw(0, 1);
  }
}

}  // namespace herd
