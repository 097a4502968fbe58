#include "sampler.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>

#include "philox.h"

namespace herd {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// How far below the best logit, in units of temperature, candidates are looked for, one after the other until enough
// are found. Most draws at ordinary settings end with the second.
constexpr float kDepths[] = {4.0f, 8.0f, 16.0f, 32.0f, kInfinity};

double gumbel(const DrawKey& key, int32_t id) {
  uint32_t word;
  philox_words<1>(static_cast<uint32_t>(id), key.seed, key.place, &word);
  return -std::log(-std::log((static_cast<double>(word) + 0.5) * 0x1p-32));
}

bool usable(const LogitExtent& extent) { return !extent.nan && extent.max > -kInfinity && extent.max < kInfinity; }

// The best of some ids by logit / T + noise; the lowest id where two are equal.
class Contest {
 public:
  Contest(const float* x, const DrawRules& rules) : x_(x), rules_(rules) {}
  void enter(int32_t id) {
    const double score = static_cast<double>(x_[id]) / static_cast<double>(rules_.temperature) + gumbel(rules_.key, id);
    if (winner_ < 0 || score > score_ || (score == score_ && id < winner_)) winner_ = id, score_ = score;
  }
  int32_t winner() const { return winner_; }
  double score() const { return score_; }

 private:
  const float* x_;
  const DrawRules& rules_;
  int32_t winner_ = -1;
  double score_ = 0;
};

// Best first, ties to the lowest id.
auto by_rank(const float* x) {
  return [x](int32_t a, int32_t b) { return x[a] != x[b] ? x[a] > x[b] : a < b; };
}

}  // namespace

RowSampler::RowSampler(const SamplingKernels& kernels, int64_t vocab_size)
    : kernels_(kernels),
      vocab_size_(vocab_size),
      shaped_(static_cast<size_t>(vocab_size)),
      ids_(static_cast<size_t>(vocab_size)) {}

int32_t RowSampler::draw(const float* logits, const DrawRules& rules) {
  LogitExtent extent = kernels_.extent(logits, vocab_size_);
  if (!usable(extent)) return -1;
  Row row{logits, extent.max};
  if (shaped(rules)) {
    shape(logits, rules);
    extent = kernels_.extent(shaped_.data(), vocab_size_);
    if (!usable(extent)) return -1;
    row = {shaped_.data(), extent.max};
  }
  if (rules.temperature == 0) return best(row);
  const bool cut = rules.top_k > 0 || rules.top_p < 1 || rules.min_p > 0;
  return cut ? draw_from_cut(row, rules) : draw_from_all(row, rules);
}

bool RowSampler::shaped(const DrawRules& rules) const {
  return rules.mask != nullptr || rules.dense != nullptr || !rules.bias_ids.empty() || !rules.count_ids.empty();
}

void RowSampler::shape(const float* logits, const DrawRules& rules) {
  std::copy(logits, logits + vocab_size_, shaped_.begin());
  if (rules.mask != nullptr)
    for (int64_t id = 0; id < vocab_size_; ++id)
      if (((rules.mask[id / 32] >> (id % 32)) & 1u) == 0) shaped_[static_cast<size_t>(id)] = -kInfinity;
  for (size_t i = 0; i < rules.bias_ids.size(); ++i)
    shaped_[static_cast<size_t>(rules.bias_ids[i])] += rules.bias_values[i];
  if (rules.dense != nullptr)
    for (int64_t id = 0; id < vocab_size_; ++id) shaped_[static_cast<size_t>(id)] += rules.dense[id];
  for (size_t i = 0; i < rules.count_ids.size(); ++i) {
    float& x = shaped_[static_cast<size_t>(rules.count_ids[i])];
    x = x > 0 ? x / rules.repetition_penalty : x * rules.repetition_penalty;
    const auto count = static_cast<float>(rules.counts[i]);
    x -= (count > 0 ? rules.presence_penalty : 0.0f) + rules.frequency_penalty * count;
  }
}

int32_t RowSampler::best(const Row& row) {
  kernels_.collect(row.x, vocab_size_, row.max, ids_.data());
  return ids_.front();
}

int32_t RowSampler::draw_from_all(const Row& row, const DrawRules& rules) {
  Contest contest(row.x, rules);
  contest.enter(best(row));
  const double lead = contest.score() - static_cast<double>(row.max) / static_cast<double>(rules.temperature);
  const int64_t count = kernels_.contenders(row.x, vocab_size_, row.max, rules.temperature, rules.key,
                                            static_cast<float>(lead), ids_.data());
  for (int64_t i = 0; i < count; ++i) contest.enter(ids_[static_cast<size_t>(i)]);
  return contest.winner();
}

double RowSampler::weight_of(const Row& row, double temperature, int32_t id) const {
  return std::exp((static_cast<double>(row.x[id]) - static_cast<double>(row.max)) / temperature);
}

int32_t RowSampler::draw_from_cut(const Row& row, const DrawRules& rules) {
  const bool nucleus_of_all = rules.top_p < 1 && rules.top_k == 0;
  const double total =
      nucleus_of_all ? kernels_.sum_exp(row.x, vocab_size_, row.max, 1.0f / rules.temperature) : 0.0;
  int64_t count = select(row, rules, total);
  const auto end = ids_.begin() + count;
  if (rules.top_k > 0 && rules.top_k < count) {
    std::nth_element(ids_.begin(), ids_.begin() + rules.top_k, end, by_rank(row.x));
    count = rules.top_k;
  }
  if (rules.top_p < 1) {
    std::sort(ids_.begin(), ids_.begin() + count, by_rank(row.x));
    count = cut_top_p(row, rules, count, total);
  }
  Contest contest(row.x, rules);
  for (int64_t i = 0; i < count; ++i) {
    const int32_t id = ids_[static_cast<size_t>(i)];
    if (rules.min_p <= 0 || weight_of(row, rules.temperature, id) >= rules.min_p) contest.enter(id);
  }
  return contest.winner();
}

// Fills ids_ with candidates among which all that pass the cuts are, and returns how many. Tokens at -inf never are.
int64_t RowSampler::select(const Row& row, const DrawRules& rules, double total) {
  const bool only_min_p = rules.top_k == 0 && rules.top_p >= 1;
  int64_t count = 0;
  for (const float depth : kDepths) {
    const float threshold = std::max(row.max - depth * rules.temperature, -FLT_MAX);
    count = kernels_.collect(row.x, vocab_size_, threshold, ids_.data());
    if (rules.top_k > 0 && count >= rules.top_k) break;
    if (only_min_p && std::exp(-depth) < rules.min_p / 2) break;
    if (rules.top_k > 0 || only_min_p) continue;
    double found = 0;
    for (int64_t i = 0; i < count; ++i) found += weight_of(row, rules.temperature, ids_[static_cast<size_t>(i)]);
    if (found >= rules.top_p * total * (1 + 1e-5)) break;
  }
  return count;
}

// Length of the shortest best-first run whose probabilities reach top_p (Holtzman et al. 2020, eq. 2). After top-k, the
// probabilities are those among the k.
int64_t RowSampler::cut_top_p(const Row& row, const DrawRules& rules, int64_t count, double total) const {
  if (rules.top_k > 0) {
    total = 0;
    for (int64_t i = 0; i < count; ++i) total += weight_of(row, rules.temperature, ids_[static_cast<size_t>(i)]);
  }
  double reached = 0;
  for (int64_t i = 0; i < count; ++i) {
    reached += weight_of(row, rules.temperature, ids_[static_cast<size_t>(i)]);
    if (reached >= rules.top_p * total) return i + 1;
  }
  return count;
}

std::span<const int32_t> RowSampler::top(const float* logits, int64_t count) {
  count = std::min(count, vocab_size_);
  const float max = kernels_.extent(logits, vocab_size_).max;
  int64_t found = 0;
  for (const float depth : kDepths) {
    found = kernels_.collect(logits, vocab_size_, max - depth, ids_.data());
    if (found >= count) break;
  }
  count = std::min(count, found);
  std::partial_sort(ids_.begin(), ids_.begin() + count, ids_.begin() + found, by_rank(logits));
  return {ids_.data(), static_cast<size_t>(count)};
}

double log_sum_exp(const SamplingKernels& kernels, const float* logits, int64_t vocab_size) {
  const LogitExtent extent = kernels.extent(logits, vocab_size);
  if (extent.nan) return std::numeric_limits<double>::quiet_NaN();
  return static_cast<double>(extent.max) + std::log(kernels.sum_exp(logits, vocab_size, extent.max, 1.0f));
}

}  // namespace herd
